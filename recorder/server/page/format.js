// Times, numbers and JSON as people read them.

import { el } from "./dom.js";

const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const DAY_AND_YEAR = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const COUNT = new Intl.NumberFormat();

/** "now", "5 min", "3 h", "2 d", then the date. */
export function age(time, now = Date.now()) {
  const minutes = Math.floor((now - time) / 60_000);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h`;
  if (minutes < 7 * 24 * 60) return `${Math.floor(minutes / 1440)} d`;
  const format = new Date(time).getFullYear() === new Date(now).getFullYear() ? DAY : DAY_AND_YEAR;
  return format.format(time);
}

/** A time as an element that `refreshTimes` brings up to date; null for a text that is no time. */
export function when(iso) {
  const time = Date.parse(iso ?? "");
  if (Number.isNaN(time)) return null;
  const date = new Date(time);
  return el("time", { datetime: date.toISOString(), title: FULL.format(date) }, age(time));
}

/** Bring all times on the page up to date. */
export function refreshTimes() {
  for (const node of document.querySelectorAll("time")) {
    const text = age(Date.parse(node.dateTime));
    if (node.textContent !== text) node.textContent = text;
  }
}

/** A duration: "0.42 s", "12.3 s", "3 min 05 s"; null for one that is unknown. */
export function seconds(from, to) {
  const duration = (Date.parse(to ?? "") - Date.parse(from ?? "")) / 1000;
  if (Number.isNaN(duration)) return null;
  if (duration < 10) return `${duration.toFixed(2)} s`;
  if (duration < 100) return `${duration.toFixed(1)} s`;
  return `${Math.floor(duration / 60)} min ${String(Math.round(duration % 60)).padStart(2, "0")} s`;
}

/** A number with its thousands apart. */
export function count(number) {
  return COUNT.format(number);
}

/** A number and its noun: "1 run", "1,042 runs". */
export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** US dollars, with as many digits as tell small sums apart. */
export function dollars(amount) {
  return `$${amount >= 1 ? amount.toFixed(2) : Number(amount.toPrecision(2))}`;
}

/** JSON with line breaks; a text that is no JSON stays as it is. Numbers keep all of their digits. */
export function pretty(text) {
  try {
    JSON.parse(text);
  } catch {
    return text;
  }
  let depth = 0;
  const lineBreak = () => `\n${"  ".repeat(Math.min(depth, 40))}`;
  return text.replace(/("(?:[^"\\]|\\.)*")|\s+|[[{]\s*[\]}]|[[{]|[\]}]|,|:/g, (found, string) => {
    if (string !== undefined) return found;
    if (found === ",") return `,${lineBreak()}`;
    if (found === ":") return ": ";
    if (found === "{" || found === "[") return (depth++, found + lineBreak());
    if (found === "}" || found === "]") return (depth--, lineBreak() + found);
    return found.trim().replace(/\s/g, "");
  });
}
