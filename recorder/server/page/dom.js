// Elements are made here. Whatever was recorded becomes text, never markup, an address or a style.

/**
 * Make an element. Attributes that are null or false are left out; one that begins with "on" is a listener.
 * Children are elements and texts; those that are null or false are left out.
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A recorded text of one line. Its direction is its own, and does not change the text around it. */
export function line(text, attributes = {}) {
  return el("bdi", { dir: "auto", ...attributes }, String(text));
}

/** A recorded text of many lines. */
export function block(text, attributes = {}) {
  return el("div", { dir: "auto", class: "text", ...attributes }, String(text));
}

/** Find an element of the page by its id. */
export function byId(id) {
  return document.getElementById(id);
}

/** A notice in place of content: what the state is, and the next step. */
export function notice(title, ...children) {
  return el("section", { class: "notice" }, el("h2", {}, title), ...children);
}

/** What went wrong, and a button that tries again. */
export function failure(problem, retry) {
  return el(
    "section",
    { class: "notice failure", role: "alert" },
    el("h2", {}, line(problem.title ?? "This cannot be shown")),
    el("p", {}, line(problem.message)),
    retry && el("button", { type: "button", onclick: retry }, "Try again"),
  );
}

/** Put these nodes into an element in this order. Nodes that are in their place already are not touched. */
export function arrange(parent, nodes) {
  nodes.forEach((node, place) => {
    if (parent.childNodes[place] !== node) parent.insertBefore(node, parent.childNodes[place] ?? null);
  });
  while (parent.childNodes.length > nodes.length) parent.lastChild.remove();
}
