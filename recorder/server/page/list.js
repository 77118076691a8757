// The list of conversations with its filters, and the hits of a search.

import { Problem, get, query } from "./api.js";
import { arrange, byId, el, failure, line, notice } from "./dom.js";
import { plural, when } from "./format.js";
import { badge } from "./message.js";
import { FILTERS, address } from "./place.js";

const PAGE = 50;
/** After so many pages without a hit the search goes on when the reader says so. */
const MOST_EMPTY = 5;
/** What records the client of a program. */
const EXAMPLE = `from recorder import (
  ChatHistoryCallback, attach)

history = ChatHistoryCallback(url)
attach(client, callbacks=[history])`;

export class ConversationList {
  /** `onFilters` is called when the reader changes a filter. */
  constructor(root, form, onFilters) {
    this.root = root;
    this.form = form;
    this.filters = Object.fromEntries(FILTERS.map((name) => [name, ""]));
    this.open = { conversation: null, message: null };
    this.rows = el("ol", { class: "rows" });
    this.more = el("button", { type: "button", class: "more", onclick: () => this.next() }, "More");
    this.observer = new IntersectionObserver((seen) => this.onMore(seen));
    this.forget();
    this.watch(onFilters);
  }

  /** Show what matches these filters. */
  async show(filters) {
    if (this.loaded && FILTERS.every((name) => filters[name] === this.filters[name])) return;
    this.filters = filters;
    this.fillForm();
    this.forget();
    await this.load();
  }

  /** Mark what is open: a conversation, and of the hits of a search also the message. */
  mark(conversation, message) {
    this.open = { conversation, message };
    for (const { item, node } of this.nodes.values()) mark(node, this.isOpen(item));
  }

  isOpen(item) {
    if (!this.isSearch) return item.id === this.open.conversation;
    return item.conversation_id === this.open.conversation && messageOf(item) === this.open.message;
  }

  /** The row of a conversation, if it is among those that were read. */
  row(id) {
    return this.items.find((item) => item.id === id) ?? null;
  }

  /** Read the first page again, or for the first time if that failed. A search is not repeated. Throws `Problem`. */
  async refresh() {
    if (this.loading !== null) return;
    if (!this.loaded) await this.load();
    if (!this.loaded || this.isSearch) return;
    const { filters } = this;
    const page = await get(`conversations?${this.parameters(null)}`);
    if (this.loading !== null || this.filters !== filters) return;
    const read = new Set(page.conversations.map((item) => item.id));
    const behind = page.next === null ? [] : this.items.filter((item) => !read.has(item.id));
    if (behind.length === 0) this.cursor = page.next;
    this.items = [...page.conversations, ...behind];
    this.draw();
  }

  /** Move the focus by so many rows. */
  move(by) {
    const links = [...this.rows.querySelectorAll("a")];
    const current = links.findIndex((link) => link === document.activeElement);
    const open = links.findIndex((link) => link.getAttribute("aria-current") === "true");
    const from = current >= 0 ? current : open;
    const place = from >= 0 ? from + by : 0;
    links[Math.min(Math.max(place, 0), links.length - 1)]?.focus();
  }

  get isSearch() {
    return this.filters.q !== "";
  }

  forget() {
    this.loading?.abort();
    this.loading = this.cursor = null;
    /** Whether all messages can be found by a search. */
    this.isComplete = true;
    /** So many pages without a hit were read one after the other. */
    this.emptyPages = 0;
    this.items = [];
    this.nodes = new Map();
    this.loaded = false;
  }

  /** The button for more is seen: press it. Pages without a hit are not read on and on. */
  onMore(seen) {
    if (seen.some((each) => each.isIntersecting) && this.emptyPages < MOST_EMPTY) this.next();
  }

  async next() {
    if (this.cursor !== null && this.loading === null) await this.load();
  }

  async load() {
    const loading = (this.loading = new AbortController());
    this.root.setAttribute("aria-busy", "true");
    try {
      const page = await this.page(loading.signal);
      if (this.loading !== loading) return;
      this.items.push(...page.items);
      this.emptyPages = page.items.length === 0 ? this.emptyPages + 1 : 0;
      this.cursor = page.next;
      this.loaded = true;
      this.draw();
    } catch (problem) {
      if (this.loading === loading) this.fail(problem);
    } finally {
      if (this.loading === loading) {
        this.loading = null;
        this.root.setAttribute("aria-busy", "false");
        this.observer.disconnect(); // it tells again whether the button is seen
        this.observer.observe(this.more);
      }
    }
  }

  async page(signal) {
    if (!this.isSearch) {
      const found = await get(`conversations?${this.parameters(this.cursor)}`, { signal });
      return { items: found.conversations, next: found.next };
    }
    const found = await get(`search?${this.parameters(this.cursor)}`, { signal });
    this.isComplete = found.complete;
    return { items: found.hits, next: found.next };
  }

  parameters(after) {
    return query({ ...this.filters, limit: PAGE, after });
  }

  fail(problem) {
    if (!(problem instanceof Problem)) throw problem;
    this.rows.remove();
    this.root.replaceChildren(failure(problem, () => this.load()));
  }

  draw() {
    if (this.items.length === 0 && this.cursor === null) {
      this.root.replaceChildren(this.empty());
      return;
    }
    const known = this.nodes;
    this.nodes = new Map();
    const nodes = this.items.map((item, place) => this.node(item, place, known));
    arrange(this.rows, nodes);
    const incomplete = el(
      "p",
      { class: "incomplete" },
      "Older messages are not indexed yet: ",
      el("code", {}, "recorder migrate"),
    );
    arrange(
      this.root,
      [!this.isComplete && incomplete, this.rows, this.cursor !== null && this.more].filter(Boolean),
    );
  }

  /** The element of a row, which stays the same element while the row does. */
  node(item, place, known) {
    const key = this.isSearch ? place : item.id;
    const state = JSON.stringify(item);
    const before = known.get(key);
    const node =
      before?.state === state ? before.node : el("li", {}, this.isSearch ? this.hit(item) : this.link(item));
    mark(node, this.isOpen(item));
    this.nodes.set(key, { item, state, node });
    return node;
  }

  link(item) {
    return el(
      "a",
      { href: address({ conversation: item.id, filters: this.filters }) },
      el("span", { class: "title" }, line(item.title || item.opening || item.id)),
      el(
        "span",
        { class: "facts" },
        item.status && item.status !== "complete" && badge(item.status),
        el("span", {}, plural(item.messages, "message")),
        el("span", {}, plural(item.runs, "run")),
        when(item.last_at),
      ),
    );
  }

  hit(item) {
    const target = { conversation: item.conversation_id, message: messageOf(item), filters: this.filters };
    const snippet = item.snippet.map(({ text, match }) => (match ? el("mark", {}, text) : text));
    return el(
      "a",
      { href: address(target) },
      el("span", { class: "snippet", dir: "auto" }, ...snippet),
      el(
        "span",
        { class: "facts" },
        el("span", {}, line(item.role)),
        el("span", { class: "id" }, line(item.conversation_id)),
        when(item.created_at),
      ),
    );
  }

  empty() {
    if (FILTERS.some((name) => this.filters[name] !== "")) {
      const clear = el("button", { type: "button", onclick: () => this.clearFilters() }, "Clear the filters");
      const found = this.isSearch ? "No message matches" : "No conversation matches";
      return notice(
        found,
        el("p", {}, "Try other words, or fewer filters. User and model are compared as a whole."),
        clear,
      );
    }
    return notice(
      "Nothing is recorded yet",
      el("p", {}, "Attach recorder to the client that your program has:"),
      el("pre", {}, EXAMPLE),
      el(
        "p",
        {},
        "Or run ",
        el("code", {}, "recorder demo"),
        ", which needs no key. This list looks for new conversations by itself.",
      ),
    );
  }

  // -- the form -----------------------------------------------------------------------------------------

  watch(onFilters) {
    let timer = null;
    const change = () => {
      clearTimeout(timer);
      onFilters(Object.fromEntries(FILTERS.map((name) => [name, this.form.elements[name].value.trim()])));
    };
    this.form.addEventListener("submit", (event) => (event.preventDefault(), change()));
    this.form.addEventListener("change", change);
    this.form.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(change, 250);
    });
  }

  fillForm() {
    for (const name of FILTERS) {
      const field = this.form.elements[name];
      if (field.value.trim() !== this.filters[name]) field.value = this.filters[name];
    }
    const used = FILTERS.filter((name) => name !== "q" && this.filters[name] !== "").length;
    byId("filter-count").textContent = used ? ` (${used})` : "";
    if (used) byId("more-filters").open = true;
  }

  clearFilters() {
    this.form.reset();
    this.form.requestSubmit();
    this.form.elements.q.focus();
  }
}

/** The message of a hit, or the run of one that has no message. */
function messageOf(hit) {
  return hit.message_id ?? hit.run_id;
}

function mark(node, isOpen) {
  node.firstChild.setAttribute("aria-current", String(isOpen));
}
