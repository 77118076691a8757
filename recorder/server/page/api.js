// Requests to the routes beside the page, with the token of this tab.

const KEY = "recorder.token";

/** An answer that is an error: its title and what to do. */
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail);
    this.status = status;
    this.title = title;
  }
}

let ask = async () => {
  throw new Problem(401, "Unauthorized", "The server needs a token.");
};
let asking = null;

/** Set the function that asks the reader for a token. It gets whether there was one, and resolves with a new one. */
export function onMissingToken(function_) {
  ask = function_;
}

/** Send a GET request to a relative address. Asks for a token if the server needs one. Throws `Problem`. */
export async function send(path, { headers = {}, signal } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const response = await reach(path, {
      headers: token === null ? headers : { ...headers, authorization: `Bearer ${token}` },
      signal,
    });
    if (!needsToken(response)) return response;
    if (sessionStorage.getItem(KEY) === token) await newToken(token !== null);
    signal?.throwIfAborted();
  }
}

/** The JSON of an answer. Throws `Problem` for an error. */
export async function get(path, options = {}) {
  const response = await send(path, options);
  if (!response.ok) throw await problemOf(response);
  try {
    return await response.json();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(
      response.status,
      "This is no answer of recorder",
      "Something else answers at this address.",
    );
  }
}

/** The problem in an answer. */
export async function problemOf(response) {
  const found = await response.json().catch(() => ({}));
  return new Problem(
    response.status,
    found.title ?? `Error ${response.status}`,
    found.detail ?? response.statusText,
  );
}

/** A conversation's id, or another text, as a part of an address. A lone surrogate has no form there. */
export function part(text) {
  return encodeURIComponent(
    text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd"),
  );
}

/** Parameters that are not empty, as the query of an address. */
export function query(fields) {
  const found = Object.entries(fields).filter(
    ([, value]) => value !== "" && value !== null && value !== undefined,
  );
  return found.map(([name, value]) => `${name}=${part(String(value))}`).join("&");
}

/** An application that checks its own requests, by a cookie for instance, does not ask for a token. */
function needsToken(response) {
  return response.status === 401 && /^bearer\b/i.test(response.headers.get("www-authenticate") ?? "");
}

async function reach(path, options) {
  try {
    return await fetch(new URL(path, document.baseURI), { ...options, cache: "no-store" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(
      0,
      "The server does not answer",
      "It may be starting again; this page tries again by itself.",
    );
  }
}

function newToken(wasWrong) {
  asking ??= ask(wasWrong)
    .then((token) => sessionStorage.setItem(KEY, token))
    .finally(() => (asking = null));
  return asking;
}
