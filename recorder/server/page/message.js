// One message of a transcript, with its reasoning, its calls of tools, and the run that made it.

import { get, part } from "./api.js";
import { block, el, failure, line } from "./dom.js";
import { count, dollars, plural, pretty, seconds, when } from "./format.js";

/** A result or arguments of a tool with more characters than this are folded. */
const LONG = 800;
const ROLES = {
  user: "User",
  assistant: "Assistant",
  tool: "Tool",
  system: "System",
  developer: "Developer",
};

/**
 * One message, or a run without a message. `about` has `run`, the names of tools by the ids of their calls, and
 * `branches`: an element that chooses between the messages with the same parent, or null.
 */
export function messageNode(row, { run, toolNames, branches, onReplay }) {
  const role = ROLES[row.role] ? row.role : "other";
  return el(
    "article",
    { class: `message ${role}`, "data-status": row.status, tabindex: "-1" },
    el(
      "header",
      {},
      el("h3", {}, roleOf(row, toolNames)),
      row.status !== "complete" && badge(row.status),
      branches,
      when(row.created_at),
    ),
    bodyOf(row),
    row.error && el("p", { class: "error" }, line(row.error)),
    evaluations(row.evaluations ?? []),
    run && runLine(run, onReplay),
  );
}

/** A status as a word with a mark. */
export function badge(status) {
  return el("span", { class: "badge", "data-status": status }, line(status));
}

function roleOf(row, toolNames) {
  if (row.role !== "tool") return line(ROLES[row.role] ?? row.role);
  const name = row.parts?.name ?? toolNames.get(row.parts?.tool_call_id);
  return el("span", {}, "Result of ", line(name ?? "a tool"));
}

/** Reasoning, text, attachments and calls of tools, as they are stored. */
export function bodyOf(row) {
  const parts = row.parts ?? {};
  const blocks = Array.isArray(parts.content)
    ? parts.content.filter((each) => each && typeof each === "object")
    : [];
  const isResult = row.role === "tool";
  return el(
    "div",
    { class: "body" },
    reasoning(parts, blocks),
    row.content && (isResult ? code(row.content) : block(row.content)),
    ...blocks.map(attachment),
    ...(parts.tool_calls ?? []).map(toolCall),
    ...(parts.invalid_tool_calls ?? []).map(toolCall),
    isEmpty(row, parts, blocks) && el("p", { class: "faint" }, emptyText(row)),
  );
}

function isEmpty(row, parts, blocks) {
  return (
    !row.content && !blocks.length && !parts.tool_calls?.length && !parts.additional_kwargs?.reasoning_content
  );
}

function emptyText(row) {
  return row.status === "streaming" ? "Waiting for the first token" : "No text";
}

function reasoning(parts, blocks) {
  const texts = blocks.map((each) => each.thinking ?? each.reasoning ?? summary(each)).filter(Boolean);
  const text = parts.additional_kwargs?.reasoning_content ?? texts.join("\n\n");
  if (typeof text !== "string" || text === "") return null;
  return el("details", { class: "reasoning" }, el("summary", {}, "Reasoning"), block(text));
}

/** The summaries of reasoning in a block of Responses; "" for another block. */
function summary({ type, summary: found }) {
  if (type !== "reasoning" || !Array.isArray(found)) return "";
  return found.map((each) => each?.text ?? "").join("\n\n");
}

const SHOWN_ELSEWHERE = new Set([
  "text",
  "thinking",
  "reasoning",
  "redacted_thinking",
  "tool_use",
  "tool_call",
  "refusal",
]);

/** An image, a file or another block, by its type: nothing is loaded from elsewhere. */
function attachment(found) {
  if (found.type === "refusal") return block(found.refusal ?? "");
  if (SHOWN_ELSEWHERE.has(found.type)) return null;
  return el(
    "details",
    { class: "attachment" },
    el("summary", {}, line(found.type ?? "block")),
    block(JSON.stringify(found, null, 2).slice(0, 20_000), { class: "text code" }),
  );
}

function toolCall({ name, args }) {
  const text = typeof args === "string" ? pretty(args) : JSON.stringify(args ?? {}, null, 2);
  return el("section", { class: "call" }, el("h4", {}, "Call of ", line(name ?? "a tool")), code(text));
}

function code(text) {
  const shown = block(pretty(text), { class: "text code" });
  if (text.length <= LONG) return shown;
  return el("details", {}, el("summary", {}, plural(text.length, "character")), shown);
}

function evaluations(found) {
  if (found.length === 0) return null;
  const chips = found.map(({ name, label, score }) =>
    el(
      "li",
      {},
      line(name),
      " ",
      el("b", {}, line(label ?? score ?? "")),
      label && score !== null ? ` ${score}` : null,
    ),
  );
  return el("ul", { class: "chips", "aria-label": "Evaluations" }, ...chips);
}

/** One line about a run; it unfolds to all that is stored of it. */
function runLine(run, onReplay) {
  const details = el("details", {}, el("summary", {}, ...facts(run)));
  details.addEventListener("toggle", () => details.open && unfold(details, run.id), { once: true });
  const replay = el(
    "button",
    { type: "button", class: "replay", title: "Type it again as it came" },
    "Replay",
  );
  replay.addEventListener("click", () => onReplay(run));
  return el("footer", { class: "run" }, details, run.status !== "streaming" && run.token_count > 0 && replay);
}

function facts(run) {
  const approximately = run.usage_source === "estimated" ? "≈" : "";
  const isKnown = run.input_tokens !== null || run.output_tokens !== null;
  const found = [
    line(run.response_model ?? run.request_model ?? "a model"),
    run.first_token_at && `${seconds(run.started_at, run.first_token_at)} to first token`,
    run.ended_at && `${seconds(run.started_at, run.ended_at)} in all`,
    isKnown && `${approximately}${count(run.input_tokens ?? 0)} → ${count(run.output_tokens ?? 0)} tokens`,
    run.cost !== null && `${approximately}${dollars(run.cost)}`,
    run.attempt > 1 && `attempt ${run.attempt}`,
  ];
  return found.filter(Boolean).map((each) => el("span", {}, each));
}

async function unfold(details, id) {
  try {
    details.append(runTable(await get(`runs/${part(id)}`)));
  } catch (problem) {
    details.append(failure(problem));
  }
}

function runTable(run) {
  const stats = run.stats ?? {};
  const rows = [
    ["status", badge(run.status)],
    ["finish reason", run.finish_reason],
    ["provider", run.provider_name],
    ["model", run.request_model],
    ["format", run.wire],
    ["started", run.started_at],
    ["ended", run.ended_at],
    [
      "speed",
      stats.tokens_per_second && `${Number(stats.tokens_per_second.toPrecision(3))} tokens per second`,
    ],
    ["pauses", stats.gap_p95_ms && `95 % under ${Number(stats.gap_p95_ms.toPrecision(3))} ms`],
    ["pieces", count(run.token_count)],
    ["usage", run.usage && `${run.usage_source}: ${JSON.stringify(run.usage)}`],
    ["cost", run.cost !== null && `${dollars(run.cost)}`],
    ["missing", run.gaps?.map((gap) => `${gap.count} from ${gap.seq}: ${gap.reason}`).join("; ")],
    ...(run.annotations ?? []).map((each) => [each.name, valueOf(each)]),
    ["response", run.response_id],
    ["run", run.id],
  ];
  const shown = rows.filter(([, value]) => value);
  return el(
    "dl",
    {},
    ...shown.flatMap(([name, value]) => [
      el("dt", {}, line(name)),
      el("dd", {}, typeof value === "object" ? value : line(value)),
    ]),
  );
}

function valueOf({ label, score, data }) {
  return [label, score, data && JSON.stringify(data)]
    .filter((each) => each !== null && each !== undefined)
    .join(" ");
}
