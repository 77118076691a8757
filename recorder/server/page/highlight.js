// Marks the words of a search in a message, without a change to its elements.

/** A phrase in quotes, or a word. */
const PHRASE = /"([^"]+)"|([^\s"]+)/g;

/** Mark each place of these words and phrases in the texts of an element, where the browser can do it. */
export function highlight(node, words) {
  if (!globalThis.CSS?.highlights) return;
  const wanted = [...words.toLowerCase().matchAll(PHRASE)].map(([, quoted, plain]) => quoted ?? plain);
  const ranges = [...textsIn(node)].flatMap((text) => wanted.flatMap((word) => [...places(text, word)]));
  CSS.highlights.set("search", new Highlight(...ranges));
}

function* textsIn(node) {
  for (const body of node.querySelectorAll(".text")) {
    const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) yield walker.currentNode;
  }
}

function* places(text, word) {
  const shown = text.data.toLowerCase();
  if (shown.length !== text.length) return; // a letter whose small form is longer
  for (let start = shown.indexOf(word); start >= 0; start = shown.indexOf(word, start + word.length)) {
    const range = new Range();
    range.setStart(text, start);
    range.setEnd(text, start + word.length);
    yield range;
  }
}
