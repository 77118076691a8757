// One conversation: the branch that was chosen, a run that streams, and a replay of one that has ended.
// A player and charts of a run belong here too, each as a module of its own.

import { Problem, get, part } from "./api.js";
import { arrange, block, el, failure, line, notice } from "./dom.js";
import { Stream } from "./follow.js";
import { plural, when } from "./format.js";
import { highlight } from "./highlight.js";
import { messageNode } from "./message.js";
import { TypedAnswer } from "./typed.js";

/** At first so many messages of a branch are shown, the newest ones, and so many more with each step. */
const SHOWN = 200;
/** How near to its end (px) a transcript must be scrolled to follow a text that grows. */
const NEAR = 80;
const SPEEDS = [0.5, 1, 2, 4, 10, 50];
const PAUSES = [
  ["", "as recorded"],
  ["0.2", "0.2 s"],
  ["1", "1 s"],
  ["5", "5 s"],
];
const REPLAY_STATES = { live: "Replaying", cut: "Connecting again", ended: "Replayed to its end" };

export class Transcript {
  constructor(root, { onBack }) {
    this.root = root;
    this.actions = { onBack };
    /** How the next replay is played. */
    this.pace = { speed: "1", max_gap: "1" };
    this.clear();
  }

  /** Show that no conversation is chosen. */
  clear() {
    this.leave();
    this.id = null;
    this.root.replaceChildren(
      notice(
        "No conversation is open",
        el("p", {}, "Choose one from the list, or search for what was said."),
      ),
    );
    document.title = "recorder";
  }

  /** Show a conversation, at one of its messages or runs if one is given, where the words of a search are marked. */
  async open(id, target = null, words = "") {
    this.words = words;
    if (id === this.id && this.stored !== null) {
      if (target !== this.target) this.show(target);
      return;
    }
    this.leave();
    this.id = id;
    this.target = target;
    this.root.replaceChildren(el("p", { class: "faint loading" }, "Loading"));
    await this.load();
  }

  /** Read the conversation again, and show what is new. */
  async reload() {
    if (this.id !== null) await this.load();
  }

  leave() {
    this.closeStream();
    this.loading?.abort();
    this.loading = this.stored = this.target = null;
    this.nodes = new Map();
    this.chosen = new Map();
    this.shown = SHOWN;
    this.top = el("div");
    this.topState = null;
    this.content = el("div", { class: "messages" });
    /** Whether the newest branch is shown, also when there is a newer one later. */
    this.isNewest = true;
  }

  async load() {
    this.loading?.abort();
    const { signal } = (this.loading = new AbortController());
    try {
      const found = await get(`conversations/${part(this.id)}`, { signal });
      if (signal.aborted) return;
      const before = this.stored;
      this.stored = found;
      if (before === null) this.show(this.target);
      else if (JSON.stringify(found) !== JSON.stringify(before)) this.update();
    } catch (problem) {
      if (signal.aborted) return;
      if (this.stored === null || !(problem instanceof Problem)) this.fail(problem);
      if (!(problem instanceof Problem)) throw problem;
    }
  }

  fail(problem) {
    this.closeStream();
    this.stored = null;
    this.root.replaceChildren(
      this.back(),
      failure(problem, () => this.load()),
    );
  }

  /** Draw what has changed, and stay at the branch that was chosen. */
  update() {
    if (this.isNewest) this.chooseNewest();
    this.draw();
  }

  /** Choose the branch of a message or run, the newest one without, and draw it. */
  show(target) {
    this.target = target;
    const { messages } = this.stored;
    const found = messages.find(
      (row) => target !== null && (row.message_id === target || row.run_id === target),
    );
    this.chooseNewest();
    if (found) this.choose(found);
    this.isNewest = !found;
    if (found) this.shown = Math.max(SHOWN, this.stepsFrom(found));
    this.draw();
    if (found) this.reveal(found);
    else this.root.scrollTop = this.live !== null ? this.root.scrollHeight : 0;
  }

  chooseNewest() {
    this.chosen = new Map();
    this.choose(newest(this.stored.messages));
  }

  /** The path to a message becomes the chosen one. */
  choose(row) {
    const byId = messagesById(this.stored.messages);
    for (const seen = new Set(); row && !seen.has(row); row = byId.get(row.parent_id)) {
      seen.add(row);
      this.chosen.set(parentOf(row, byId), row);
    }
  }

  /** How many steps of the chosen branch there are from a row on. */
  stepsFrom(row) {
    const path = this.path();
    return path.length - path.findIndex((step) => keyOf(step.row) === keyOf(row));
  }

  reveal(row) {
    const node = this.nodes.get(keyOf(row))?.node;
    node?.scrollIntoView({ block: "center" });
    node?.classList.add("found");
    if (node) highlight(node, this.words);
  }

  draw() {
    const path = this.path();
    this.runs = new Map(this.stored.runs.map((run) => [run.id, run]));
    this.toolNames = toolNames(this.stored.messages);
    const hidden = Math.max(0, path.length - this.shown);
    const known = this.nodes;
    this.nodes = new Map();
    if (!this.content.isConnected) this.root.replaceChildren(this.top, this.content);
    this.drawTop(hidden);
    const nodes = path.slice(hidden).map((step) => this.node(step, known));
    arrange(
      this.content,
      nodes.length > 0 ? nodes : [el("p", { class: "message faint" }, "No message is stored")],
    );
    document.title = `${titleOf(this.stored)} – recorder`;
    if (this.replayed !== null && !this.content.contains(this.replayed)) this.closeStream();
    this.followLive(path.at(-1)?.row);
  }

  /** What stands above the messages. It stays as it is, with what was unfolded, while nothing of it changes. */
  drawTop(hidden) {
    const { messages, runs, ...about } = this.stored;
    const state = JSON.stringify([about, titleOf(this.stored), runs.length, hidden]);
    if (state === this.topState) return;
    this.topState = state;
    this.top.replaceChildren(
      ...[this.back(), this.header(), hidden > 0 && this.earlier(hidden)].filter(Boolean),
    );
  }

  /** The chosen branch: rows with their siblings. */
  path() {
    const rows = this.stored.messages;
    const byId = messagesById(rows);
    const children = new Map();
    for (const row of rows) {
      const parent = parentOf(row, byId);
      if (!children.has(parent)) children.set(parent, []);
      children.get(parent).push(row);
    }
    const steps = [];
    let siblings = children.get(null) ?? [];
    for (const seen = new Set(); siblings.length > 0;) {
      const chosen = this.chosen.get(parentOf(siblings[0], byId));
      const row = siblings.find((each) => keyOf(each) === keyOf(chosen ?? {})) ?? newest(siblings);
      if (seen.has(keyOf(row))) break;
      seen.add(keyOf(row));
      steps.push({ row, siblings });
      siblings = row.message_id === null ? [] : (children.get(row.message_id) ?? []);
    }
    return steps;
  }

  /** The element of one step. It stays the same element while nothing of it changes, so a replay goes on. */
  node({ row, siblings }, known) {
    const run = this.runs.get(row.run_id) ?? null;
    const isLive = row.status === "streaming";
    const state = JSON.stringify([isLive ? [row.run_id, row.status] : [row, run], siblings.map(keyOf)]);
    const before = known.get(keyOf(row));
    const node =
      before?.state === state
        ? before.node
        : messageNode(row, {
            run: row.role === "assistant" || row.message_id === null ? run : null,
            toolNames: this.toolNames,
            branches: siblings.length > 1 ? this.branches(row, siblings) : null,
            onReplay: (chosen) => this.replay(chosen, node),
          });
    this.nodes.set(keyOf(row), { state, node });
    return node;
  }

  branches(row, siblings) {
    const place = siblings.findIndex((each) => keyOf(each) === keyOf(row));
    const step = (by, text, name) =>
      el(
        "button",
        {
          type: "button",
          "aria-label": name,
          disabled: !siblings[place + by],
          onclick: () => this.turn(siblings[place + by]),
        },
        text,
      );
    return el(
      "span",
      { class: "branches", role: "group", "aria-label": "Branches" },
      step(-1, "‹", "The branch before"),
      `${place + 1} of ${siblings.length}`,
      step(1, "›", "The next branch"),
    );
  }

  turn(row) {
    this.isNewest = false;
    this.choose(row);
    this.draw();
    const node = this.nodes.get(keyOf(row)).node;
    node.querySelector(".branches button:not(:disabled)")?.focus();
  }

  back() {
    const leave = (event) => (event.preventDefault(), this.actions.onBack());
    return el("a", { class: "back", href: "#/", onclick: leave }, "‹ Conversations");
  }

  header() {
    const { id, user_id: user, tags, metadata, instructions, created_at: created, runs } = this.stored;
    const facts = [
      el("span", { class: "id" }, line(id)),
      user && el("span", {}, "user ", line(user)),
      el("span", {}, "began ", when(created)),
      el("span", {}, plural(runs.length, "run")),
      ...(Array.isArray(tags) ? tags : []).map((tag) => el("span", { class: "tag" }, line(tag))),
    ];
    return el(
      "header",
      { class: "about" },
      el("h2", {}, line(titleOf(this.stored))),
      el("p", { class: "facts" }, ...facts.filter(Boolean)),
      metadata && folded("Metadata", block(JSON.stringify(metadata, null, 2), { class: "text code" })),
      instructions.length > 0 &&
        folded("Instructions", ...instructions.map((each) => block(each.content ?? ""))),
    );
  }

  earlier(hidden) {
    const more = () => {
      this.shown += SHOWN;
      this.draw();
    };
    return el(
      "button",
      { type: "button", class: "earlier", onclick: more },
      `Show ${plural(Math.min(hidden, SHOWN), "earlier message")}`,
    );
  }

  // -- streams: one a page ------------------------------------------------------------------------------

  /** Follow the run at the end of the branch while it streams. */
  followLive(row) {
    const run = row?.status === "streaming" ? row.run_id : null;
    if (this.stream !== null && (this.replayed !== null || this.live === run)) return;
    this.closeStream();
    if (run === null) return;
    this.live = run;
    this.type(run, this.nodes.get(keyOf(row)).node, {}, () => {
      this.closeStream();
      this.reload();
    });
  }

  /** Type a run again that has ended. */
  replay(run, article) {
    this.closeStream();
    const controls = this.controls(() => {
      this.closeStream();
      this.draw();
    });
    this.replayed = article;
    article.querySelector("footer.run").before(controls.node);
    this.type(run.id, article, this.pace, () => controls.state("ended"), controls);
    controls.focus();
  }

  /** Let the tokens of a run take the place of an article's text. */
  type(run, article, pace, onEnd, controls = null) {
    const answer = new TypedAnswer();
    const stored = article.querySelector(".body");
    const state = controls?.state ?? ((word) => article.setAttribute("data-connection", word));
    const put = () => {
      if (answer.node.isConnected) return;
      stored.hidden = true;
      stored.after(answer.node);
    };
    if (controls !== null) put();
    this.restore = () => {
      answer.node.remove();
      controls?.node.remove();
      stored.hidden = false;
      article.removeAttribute("data-connection");
    };
    this.stream = new Stream(run, {
      pace,
      onEvents: (events) => this.stickToEnd(() => (put(), answer.add(events))),
      onState: (word) => (word === "ended" ? onEnd() : state(word)),
      onProblem: (problem) => article.append(failure(problem)),
    });
  }

  controls(onStop) {
    const speed = choice(
      "Speed",
      this.pace.speed,
      SPEEDS.map((each) => [String(each), `${each} ×`]),
    );
    const longest = choice("Longest pause", this.pace.max_gap, PAUSES);
    const state = el("span", { role: "status" });
    const stop = el("button", { type: "button", onclick: onStop }, "Stop");
    const node = el(
      "div",
      { class: "replaying" },
      el("label", {}, "Speed ", speed),
      el("label", {}, "Pauses up to ", longest),
      stop,
      state,
    );
    node.addEventListener("change", () => {
      this.pace = { speed: speed.value, max_gap: longest.value };
      this.stream?.setPace(this.pace);
    });
    return {
      node,
      state: (word) => {
        state.textContent = REPLAY_STATES[word];
        stop.textContent = word === "ended" ? "Close" : "Stop";
      },
      focus: () => stop.focus({ preventScroll: true }),
    };
  }

  stickToEnd(change) {
    const { scrollHeight, scrollTop, clientHeight } = this.root;
    const wasAtEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    change();
    if (wasAtEnd) this.root.scrollTop = this.root.scrollHeight;
  }

  closeStream() {
    this.stream?.close();
    this.restore?.();
    this.stream = this.live = this.replayed = this.restore = null;
  }
}

function choice(name, chosen, values) {
  const options = values.map(([value, text]) => el("option", { value, selected: value === chosen }, text));
  return el("select", { "aria-label": name }, ...options);
}

function folded(title, ...children) {
  return el("details", { class: "folded" }, el("summary", {}, title), ...children);
}

function titleOf({ title, messages, id }) {
  const opening = messages.find((row) => row.role === "user")?.content;
  return title || opening?.slice(0, 200) || id;
}

/** Of rows with the same key only one can be shown: a run without a message has its own id. */
function keyOf(row) {
  return row.message_id ?? row.run_id ?? null;
}

/** The rows that can have children; a run without a message has none. */
function messagesById(rows) {
  return new Map(rows.filter((row) => row.message_id !== null).map((row) => [row.message_id, row]));
}

function parentOf(row, byId) {
  return byId.has(row.parent_id) ? row.parent_id : null;
}

function newest(rows) {
  return rows.reduce((best, row) => (best !== null && timeOf(row) < timeOf(best) ? best : row), null);
}

/** The time of a row in milliseconds, with its microseconds. */
function timeOf({ created_at: iso }) {
  const microseconds = /\.\d{3}(\d+)/.exec(iso ?? "")?.[1] ?? "0";
  return (Date.parse(iso ?? "") || 0) + Number(`0.${microseconds}`);
}

function toolNames(rows) {
  return new Map(rows.flatMap((row) => (row.parts?.tool_calls ?? []).map((call) => [call.id, call.name])));
}
