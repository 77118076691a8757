// The place in the address: which conversation is open, at which message, and the filters of the list.
//   #/                       the list            #/?q=refund&status=error    the list with filters
//   #/c/<conversation>       a conversation      #/c/<conversation>/m/<id>   one of its messages or runs

import { part, query } from "./api.js";

export const FILTERS = ["q", "status", "user", "model"];

/** The place that the address names: `{conversation, message, filters}`; null for what it does not name. */
export function place() {
  const [path, given = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [kind, conversation, , message] = path.split("/").map(decoded);
  const parameters = new URLSearchParams(given);
  return {
    conversation: kind === "c" && conversation ? conversation : null,
    message: (kind === "c" && message) || null,
    filters: Object.fromEntries(FILTERS.map((name) => [name, parameters.get(name) ?? ""])),
  };
}

/** The address of a place. */
export function address({ conversation = null, message = null, filters = {} }) {
  const path = conversation === null ? "" : `c/${part(conversation)}${message ? `/m/${part(message)}` : ""}`;
  const parameters = query(filters);
  return `#/${path}${parameters && `?${parameters}`}`;
}

/** Change the address without a step for the back button. */
export function replace(target) {
  history.replaceState(null, "", address(target));
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
