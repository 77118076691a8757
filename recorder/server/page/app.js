// The page: it connects the address, the list, the transcript, the keyboard and the token.

import { Problem, onMissingToken } from "./api.js";
import { byId } from "./dom.js";
import { refreshTimes } from "./format.js";
import { ConversationList } from "./list.js";
import { address, place, replace } from "./place.js";
import { Transcript } from "./transcript.js";

/** Milliseconds from one look for what is new to the next one, while the page is seen. */
const LOOK = 4_000;
/** A conversation that the list does not have is read again each time after so many looks. */
const RARELY = 5;

const list = new ConversationList(byId("list"), byId("filters"), (filters) => {
  replace({ ...place(), filters });
  follow();
});
const transcript = new Transcript(byId("transcript"), {
  onBack: () => toList(),
});

/** Go to the list with its filters. */
function toList() {
  location.hash = address({ filters: place().filters });
}

/** Show what the address names. */
function follow() {
  const { conversation, message, filters } = place();
  const isNew = conversation !== null && conversation !== transcript.id;
  document.body.dataset.view = conversation === null ? "list" : "transcript";
  list.show(filters);
  list.mark(conversation, message);
  if (conversation === null) transcript.clear();
  else transcript.open(conversation, message, filters.q);
  if (isNew && document.activeElement?.closest("#list")) byId("transcript").focus({ preventScroll: true });
}

// -- what is new --------------------------------------------------------------------------------------------

let seen = null;
let looking = false;
let looks = 0;

/** Look for new conversations, and for what is new in the open one. */
async function look() {
  if (document.hidden || looking || byId("token").open) return;
  looking = true;
  try {
    await list.refresh();
    const row = list.row(transcript.id);
    const state = JSON.stringify(row);
    looks += 1;
    if (row === null ? looks % RARELY === 0 : state !== seen) await transcript.reload();
    seen = state;
    tell("");
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    tell(problem.title);
  } finally {
    looking = false;
    refreshTimes();
  }
}

function tell(text) {
  if (byId("connection").textContent !== text) byId("connection").textContent = text;
}

// -- the keyboard ---------------------------------------------------------------------------------------------

const KEYS = {
  "/": () => byId("search").focus(),
  j: () => list.move(1),
  k: () => list.move(-1),
  Escape: () => {
    if (place().conversation !== null) toList();
  },
};

function onKey(event) {
  const isField = event.target.closest("input, select, textarea, dialog") !== null;
  if (event.key === "Escape" && event.target.closest("#filters")) event.target.blur();
  if (isField || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
}

// -- the token ------------------------------------------------------------------------------------------------

/** Ask the reader for a token. */
function askForToken(wasWrong) {
  const dialog = byId("token");
  byId("token-error").textContent = wasWrong ? "The server does not accept this token." : "";
  byId("token-value").value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const onSubmit = (event) => {
      event.preventDefault();
      dialog.removeEventListener("submit", onSubmit);
      dialog.close();
      resolve(byId("token-value").value.trim());
    };
    dialog.addEventListener("submit", onSubmit);
  });
}

onMissingToken(askForToken);
byId("token").addEventListener("cancel", (event) => event.preventDefault());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("transcript").focus();
});
document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", look);
window.addEventListener("hashchange", follow);
setInterval(look, LOOK);
follow();
