// A stream of a run: server-sent events over fetch, since an EventSource cannot send a token.
// A connection that is cut is made again with the cursor, so nothing is lost and nothing comes twice.

import { Problem, part, problemOf, query, send } from "./api.js";

/** The server sends something every 15 seconds; after this time (ms) without anything the connection is dead. */
const SILENCE = 45_000;
const FIRST_PAUSE = 300;
const LONGEST_PAUSE = 5_000;

/** One stream. While the page is hidden it is closed; it goes on from its cursor when the page is seen again. */
export class Stream {
  /**
   * `onEvents` gets a list of events, each `{name, data}`; `onState` gets "live", "cut" or "ended"; `onProblem` gets
   * an error after which the stream does not go on. `pace` is `{speed, max_gap}`, or {} for everything at once.
   */
  constructor(run, { onEvents, onState = () => {}, onProblem = () => {}, pace = {} }) {
    this.run = run;
    this.pace = pace;
    this.cursor = null;
    this.listeners = { onEvents, onState, onProblem };
    this.over = false;
    this.attempt = null;
    this.onVisibility = () => (document.hidden ? this.pause() : this.resume());
    document.addEventListener("visibilitychange", this.onVisibility);
    if (!document.hidden) this.resume();
  }

  /** Read with another pace from here on. */
  setPace(pace) {
    this.pace = pace;
    this.pause();
    this.resume();
  }

  /** End it for good. */
  close() {
    this.over = true;
    this.pause();
    document.removeEventListener("visibilitychange", this.onVisibility);
  }

  pause() {
    this.attempt?.abort();
    this.attempt = null;
  }

  resume() {
    if (this.over || this.attempt !== null) return;
    this.attempt = new AbortController();
    this.read(this.attempt.signal).catch((error) => {
      if (this.over || !(error instanceof Problem)) return;
      this.close();
      this.listeners.onProblem(error);
    });
  }

  async read(signal) {
    for (let pause = FIRST_PAUSE; !signal.aborted; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      const before = this.cursor;
      try {
        if (await this.connect(signal)) return this.end();
      } catch (error) {
        if (signal.aborted || (error instanceof Problem && error.status >= 400 && error.status < 500))
          throw error;
      }
      if (signal.aborted) return;
      this.listeners.onState("cut");
      if (this.cursor !== before) pause = FIRST_PAUSE;
      await sleep(pause, signal);
    }
  }

  /** Read one response; returns whether the run has ended. */
  async connect(signal) {
    const cut = new AbortController();
    const stop = AbortSignal.any([signal, cut.signal]);
    const headers = this.cursor === null ? {} : { "last-event-id": this.cursor };
    const response = await send(`streams/${part(this.run)}?${query(this.pace)}`, { headers, signal: stop });
    if (response.status === 204) return true;
    if (!response.ok) throw await problemOf(response);
    this.listeners.onState("live");
    return this.events(response.body, stop, () => cut.abort());
  }

  async events(body, signal, onSilence) {
    const reader = body.pipeThrough(new TextDecoderStream(), { signal }).getReader();
    let rest = "";
    for (;;) {
      const timer = setTimeout(onSilence, SILENCE);
      const { done, value } = await reader.read().finally(() => clearTimeout(timer));
      if (done) return false;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      const found = blocks.map(parse).filter((event) => event !== null);
      if (signal.aborted || found.length === 0) continue;
      this.cursor = found.at(-1).id ?? this.cursor;
      this.listeners.onEvents(found);
      if (found.at(-1).name === "end") return reader.cancel().then(() => true);
    }
  }

  end() {
    this.close();
    this.listeners.onState("ended");
  }
}

/** One event of the stream; null for a comment and for `retry:`. */
function parse(text) {
  const event = { name: "message", id: null, data: null };
  for (const part of text.split("\n")) {
    const colon = part.indexOf(": ");
    const value = part.slice(colon + 2);
    if (part.startsWith("event: ")) event.name = value;
    else if (part.startsWith("id: ")) event.id = value;
    else if (part.startsWith("data: ")) event.data = JSON.parse(value);
  }
  return event.data === null ? null : event;
}

function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
