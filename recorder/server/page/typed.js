// An answer that is typed: the tokens of a run become text, reasoning and calls of tools as they come.

import { block, el, line } from "./dom.js";

/** A text that grows beyond this number of characters goes on in an element of its own at the next line break. */
const LONG = 8_000;

export class TypedAnswer {
  constructor() {
    this.node = el("div", { class: "body typed" });
    this.parts = new Map();
  }

  /** Take the events of a stream. Events of kinds that are not for readers are left out. */
  add(events) {
    for (const { name, data } of joined(events)) {
      if (name === "gap") this.node.append(gap(data));
      else if (name === "message") this.token(data);
    }
  }

  token({ kind, idx, text }) {
    if (kind === "text" || kind === "refusal") this.part(`text ${idx}`, () => this.text()).type(text);
    else if (kind === "reasoning") this.part(`reasoning ${idx}`, () => this.reasoning()).type(text);
    else if (kind === "tool_call") this.part(`tool ${idx}`, () => this.tool(text));
    else if (kind === "tool_args") this.part(`tool ${idx}`, () => this.tool("{}")).type(text);
  }

  part(key, make) {
    if (!this.parts.has(key)) this.parts.set(key, make());
    return this.parts.get(key);
  }

  text() {
    for (const node of this.node.querySelectorAll("details.reasoning")) node.open = false;
    return new GrowingText(this.node);
  }

  reasoning() {
    const folded = el("details", { class: "reasoning", open: true }, el("summary", {}, "Reasoning"));
    this.node.append(folded);
    return new GrowingText(folded);
  }

  tool(about) {
    const call = el("section", { class: "call" }, el("h4", {}, "Call of ", line(nameIn(about))));
    this.node.append(call);
    return new GrowingText(call, "code");
  }
}

/** A text that grows at its end. */
class GrowingText {
  constructor(parent, style = "") {
    this.parent = parent;
    this.style = style;
    this.begin();
  }

  type(text) {
    const end = this.last.length > LONG ? text.indexOf("\n") : -1;
    if (end < 0) return this.last.appendData(text);
    this.last.appendData(text.slice(0, end));
    this.begin();
    return this.last.appendData(text.slice(end + 1));
  }

  begin() {
    this.last = document.createTextNode("");
    const node = block("", { class: `text ${this.style}` });
    node.append(this.last);
    this.parent.append(node);
  }
}

/** The events, with tokens of the same part that follow each other as one. */
function* joined(events) {
  let last = null;
  for (const { name, data } of events) {
    const isSame = last !== null && name === "message" && last.kind === data.kind && last.idx === data.idx;
    if (isSame && data.kind !== "tool_call") {
      last.text += data.text;
      continue;
    }
    if (last !== null) yield { name: "message", data: last };
    last = name === "message" ? { ...data } : null;
    if (last === null) yield { name, data };
  }
  if (last !== null) yield { name: "message", data: last };
}

/** What stands where tokens are missing. */
export function gap({ count, reason }) {
  return el("p", { class: "gap" }, `${count} tokens are missing here: `, line(reason));
}

function nameIn(json) {
  try {
    return JSON.parse(json).name ?? "a tool";
  } catch {
    return "a tool";
  }
}
