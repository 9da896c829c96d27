// Dead letters: what could not be read or stored, and the button that has it sent again.

import { askJson } from "/ui/ask.js";
import { at, count, make, mark, row, rows, shorten, some, write } from "/ui/view.js";

const SHOWN = 20;
/** What has changed is asked for once in so many milliseconds, and so is what could not be had. */
const EVERY_MS = 5000;
/** What has not changed, too: letters may go and come. */
const REFRESH_MS = 60_000;

/** The number of rows that the status tells of, and the one that the list is of. */
let number = null;
let listed = null;
let asked = 0;
let questions = 0;
let isAsking = false;
let isSending = false;

export function startLetters() {
  at("replay").addEventListener("click", () => replay({ all: true }, at("replay")));
}

/** Asks for the list when their number has changed, when it could not be had, and now and then. */
export function showLetters({ dead_lettered_rows: told }) {
  number = told;
  const age = Date.now() - asked;
  if (isAsking || document.hidden || age < EVERY_MS) return;
  if (number !== listed || age >= REFRESH_MS) load();
}

async function load() {
  if (number === null) return;
  const mine = (questions += 1);
  const of = number;
  asked = Date.now();
  isAsking = true;
  try {
    const list = of === 0 ? { letters: [], more: false } : await askJson(`/api/v1/dead-letters?limit=${SHOWN}`);
    if (mine === questions) show(list, of);
  } catch (error) {
    if (mine === questions) showWhy(error, of);
  } finally {
    if (mine === questions) isAsking = false;
  }
}

function show({ letters, more }, of) {
  listed = of;
  at("replay").hidden = of === 0;
  rows(at("letters"), letters, ({ id }) => id, build, () => {});
  at("letters-box").hidden = letters.length === 0;
  if (of === 0) return write(at("letters-count"), "None: everything could be read, and nothing was refused.");
  const oldest = more ? `; the ${count(letters.length)} oldest letters are shown` : "";
  write(at("letters-count"), `${some(of, "row")} went there so far${oldest}.`);
}

function showWhy(error, of) {
  const isElsewhere = error.status === 404;
  if (isElsewhere) listed = of;
  at("replay").hidden = false;
  at("letters-box").hidden = true;
  const why = isElsewhere ? "the gateway lists them on this machine only: `forebay dead-letters list`" : error.message;
  write(at("letters-count"), `${some(of, "row")} went there so far. They cannot be listed here: ${why}`);
}

function build(letter) {
  const made = row(["Letter", "Device", "Why", ""], { loose: [1, 2] });
  const [head, device, why, act] = made.cells;
  head.append(make("b", {}, letter.id), make("small", {}, letter.at.replace("T", " ").slice(0, 19)));
  write(device, `${shorten(letter.device || letter.origin, 60)}, ${some(letter.rows, "row")}`);
  write(why, shorten(letter.reason, 400));
  if (letter.sink) {
    const button = make("button", { type: "button", "aria-label": `Send ${letter.id} again` }, "Send again");
    button.addEventListener("click", () => replay({ ids: [letter.id] }, button));
    act.append(button);
  } else {
    write(act, "Let its sender send it again.");
  }
  return made;
}

/** Sends letters again. The button stays enabled, so that the focus stays on it; it does nothing meanwhile. */
async function replay(selection, button) {
  if (isSending) return;
  isSending = true;
  const result = at("replay-result");
  mark(button, "aria-disabled", "true");
  write(result, "Sending …");
  try {
    const done = await askJson("/api/v1/dead-letters/replay", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(selection),
      // A database may take its time for many; the gateway sees to the end of that.
    }, Infinity);
    const kept = done.kept > 0 ? ` ${some(done.kept, "stays", "stay")}: ${shorten(done.reasons[0]?.reason ?? "", 300)}` : "";
    write(result, `${some(done.gone, "letter is", "letters are")} stored.${kept}`);
  } catch (error) {
    const why = error.status === 404 ? "the gateway takes this on its machine only: `forebay dead-letters replay --all`" : error.message;
    write(result, `Not sent: ${why}`);
  } finally {
    isSending = false;
    button.removeAttribute("aria-disabled");
    load();
  }
}
