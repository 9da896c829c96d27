// Dead letters: what could not be read or stored, and the button that has it sent again.

import { askJson } from "/ui/ask.js";
import { at, count, make, row, rows, shorten, some, write } from "/ui/view.js";

const SHOWN = 20;
const EVERY_MS = 5000;

let known = null;
let asked = 0;

export function startLetters() {
  at("replay").addEventListener("click", () => replay({ all: true }, at("replay")));
}

/** Asks for the list when their number has changed. */
export function showLetters({ dead_lettered_rows: number }) {
  if (number === known || Date.now() - asked < EVERY_MS) return;
  known = number;
  load();
}

async function load() {
  asked = Date.now();
  at("replay").hidden = known === 0;
  if (known === 0) return write(at("letters-count"), "None: everything could be read, and nothing was refused.");
  write(at("letters-count"), `${some(known, "row")} went there so far.`);
  try {
    const { letters, more } = await askJson(`/api/v1/dead-letters?limit=${SHOWN}`);
    rows(at("letters"), letters, ({ id }) => id, build, () => {});
    at("letters-box").hidden = letters.length === 0;
    if (more) write(at("letters-count"), `${some(known, "row")} went there so far; the ${count(letters.length)} oldest letters are shown.`);
  } catch (error) {
    at("letters-box").hidden = true;
    const why = error.status === 404 ? "the gateway lists them on this machine only: `forebay dead-letters list`" : error.message;
    write(at("letters-count"), `${some(known, "row")} went there so far. They cannot be listed here: ${why}`);
  }
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

async function replay(selection, button) {
  const result = at("replay-result");
  button.disabled = true;
  write(result, "Sending …");
  try {
    const done = await askJson("/api/v1/dead-letters/replay", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(selection),
    });
    const kept = done.kept > 0 ? ` ${some(done.kept, "stays", "stay")}: ${shorten(done.reasons[0]?.reason ?? "", 300)}` : "";
    write(result, `${some(done.gone, "letter is", "letters are")} stored.${kept}`);
  } catch (error) {
    const why = error.status === 404 ? "the gateway takes this on its machine only: `forebay dead-letters replay --all`" : error.message;
    write(result, `Not sent: ${why}`);
  } finally {
    button.disabled = false;
    load();
  }
}
