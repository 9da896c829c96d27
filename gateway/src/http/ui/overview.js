// What the status says: the verdict, the path, the ledger, backlogs, sources and databases, wear.

import { at, bytes, count, make, mark, name as put, rate, row, rows, some, span, write } from "/ui/view.js";

const LEDGER = [
  ["confirmed", "stored", "A database has confirmed them."],
  ["queued", "queued", "They are safe in the journal and wait for a database."],
  ["unconfirmed", "on their way", "They were sent to a database that has not answered yet."],
  ["dead_lettered", "kept aside", "They could not be read, or a database refused them; see the dead letters."],
  ["lost", "lost", "They are declared lost; the causes stand below."],
  ["not_yet_received", "on devices", "Devices have told of them and still hold them."],
];
const CAUSES = {
  overflow: "a device's memory was full",
  overrun: "a device sampled faster than it could keep",
  sensor: "a sensor failed",
  reset: "a device was reset",
  device_reset: "a device lost its power",
  evicted: "the journal was full",
  damaged: "the disk was damaged",
  unparseable: "a block cannot be read",
  unkept: "a dead letter could not be kept",
};
const MARKS = { none: "✓", trouble: "!", loss: "✕" };
const STATES = {
  connected: "✓ connected",
  running: "✓ running",
  starting: "… starting",
  waiting: "… waits for a device",
  disconnected: "✕ not there",
  retrying: "↻ away, tried again",
  holding: "! waits for you",
  stopped: "■ stopped",
};
/** A backlog that is younger is what a batch waits for. */
const KEEPS_UP_S = 10;

export function showStatus(status) {
  showVerdict(status);
  showPath(status);
  showLedger(status.ledger);
  showBacklog(status);
  showParts(status);
  showWear(status);
  const host = location.host;
  write(at("about"), `${host} · ${status.version} · up ${span((status.now_ns - status.started_ns) / 1e9)}`);
}

function showVerdict(status) {
  const severity = status.findings[0]?.severity ?? "none";
  mark(at("verdict"), "data-severity", severity);
  write(at("verdict-mark"), MARKS[severity] ?? "!");
  write(at("verdict-text"), status.verdict);
  document.title = severity === "none" ? "Forebay" : `${MARKS[severity]} Forebay`;
  rows(at("findings"), status.findings, ({ what }) => what, build, update);

  function build() {
    const [head, text] = [make("b"), make("span")];
    return { element: make("li", {}, head, text), head, text };
  }
  function update({ head, text }, { what, cure }) {
    write(head, what.replace(/^the /, "The "));
    write(text, cure);
  }
}

function showPath(status) {
  const sources = Object.values(status.sources);
  const connected = sources.filter(({ state }) => state === "connected").length;
  const { journal } = status;
  write(at("path-devices"), some(status.device_count, "device"));
  write(at("path-sources"), `${connected} of ${some(sources.length, "source")} connected`);
  const isWell = sources.every(({ state }) => ["connected", "waiting"].includes(state));
  mark(at("node-sensors"), "data-state", isWell ? "well" : "trouble");
  const incoming = sources.reduce((sum, source) => sum + source.rows_per_s, 0);
  pipe(at("pipe-in"), at("rate-in"), incoming, journal.state !== "running");

  const level = journal.max_bytes ? (100 * journal.bytes) / journal.max_bytes : 0;
  at("water").style.height = `${Math.max(4, Math.min(100, level))}%`;
  write(at("path-level"), `${level < 10 ? level.toFixed(1) : Math.round(level)} % full`);
  write(at("path-journal"), `${bytes(journal.bytes)} of ${bytes(journal.max_bytes)}`);
  mark(at("node-journal"), "data-state", journal.state === "running" ? "well" : "trouble");
  rows(at("lanes"), Object.entries(status.sinks), ([name]) => name, buildLane, updateLane);
}

function buildLane([name]) {
  const number = make("b");
  const line = make("div", { class: "pipe" }, make("p", {}, number, " rows/s"), make("i"));
  const text = make("p");
  const node = make("div", { class: "node" }, make("h3", {}, name), text);
  return { element: make("div", { class: "lane" }, line, node), line, number, node, text };
}

function updateLane({ line, number, node, text }, [, sink]) {
  const isWell = !["retrying", "holding"].includes(sink.state);
  pipe(line, number, sink.rows_per_s, !isWell);
  mark(node, "data-state", isWell ? "well" : "trouble");
  write(text, isWell ? lag(sink) : STATES[sink.state]);
}

/** A line that moves as fast as rows do, up to a limit; one that is blocked says so. */
function pipe(element, number, perSecond, isBlocked) {
  mark(element, "data-flow", isBlocked ? "blocked" : perSecond > 0 ? "on" : "idle");
  const seconds = perSecond > 0 ? Math.min(4, Math.max(0.5, 4 / (1 + Math.log10(1 + perSecond)))) : 4;
  element.lastElementChild.style.animationDuration = `${seconds.toFixed(1)}s`;
  write(number, isBlocked && perSecond === 0 ? "✕ 0" : rate(perSecond));
}

function lag({ backlog_rows: backlog, backlog_age_s: age }) {
  return backlog === 0 || (age ?? 0) < KEEPS_UP_S ? "keeps up" : `${span(age)} behind`;
}

function showLedger(ledger) {
  const lost = Object.values(ledger.gaps).reduce((sum, number) => sum + number, 0);
  const numbers = { ...ledger, lost };
  const items = [["learned", "learned, of which", "Devices have told of them."], ...LEDGER];
  rows(at("ledger"), items, ([key]) => key, build, ({ number }, [key]) => write(number, count(numbers[key])));
  const parts = LEDGER.filter(([key]) => numbers[key] > 0);
  rows(at("ledger-bar"), parts, ([key]) => key, segment, grow);
  const causes = Object.entries(ledger.gaps).filter(([, number]) => number > 0);
  const words = causes.map(([cause, number]) => `${count(number)} ${cause} (${CAUSES[cause] ?? "see the documentation"})`);
  write(at("gaps"), words.length > 0 ? `Lost, by cause: ${words.join(" · ")}.` : "No row is lost.");

  function build([key, name, why]) {
    const number = make("dd");
    return { element: make("div", { "data-part": key, title: why }, make("dt", {}, name), number), number };
  }
  function segment([key]) {
    return { element: make("span", { "data-part": key }) };
  }
  function grow({ element }, [key]) {
    element.style.flexGrow = String(numbers[key] / Math.max(1, ledger.learned));
  }
}

function showBacklog(status) {
  const build = ([name]) => {
    const made = row(["Database", "Rows", "Oldest", "Caught up"], { numeric: [1] });
    write(made.cells[0], name);
    return made;
  };
  rows(at("backlog"), Object.entries(status.sinks), ([name]) => name, build, ({ cells }, [, sink]) => {
    write(cells[1], count(sink.backlog_rows));
    write(cells[2], sink.backlog_rows === 0 ? "–" : sink.backlog_age_s === null ? "not known" : `${span(sink.backlog_age_s)} old`);
    write(cells[3], caughtUp(sink));
  });
  const { journal, machine } = status;
  const left = Math.max(0, journal.max_bytes - journal.bytes);
  const lasts = journal.bytes_per_s > 0 ? `, enough for ${span(left / journal.bytes_per_s)} at the present pace` : "";
  const disk = machine.disk_free_bytes === null ? "" : ` The disk has ${bytes(machine.disk_free_bytes)} free.`;
  write(at("room"), `The journal has room for ${bytes(left)} more without any database${lasts}.${disk}`);
}

function caughtUp(sink) {
  if (lag(sink) === "keeps up") return "now";
  return sink.drain_s === null ? "not at the present pace" : `in about ${span(sink.drain_s)}`;
}

function showParts(status) {
  const parts = [...Object.entries(status.sources), ...Object.entries(status.sinks)];
  const build = ([name]) => {
    const made = row(["Name", "State", "Rows/s", "Last trouble"], { numeric: [2], tight: [1], loose: [3] });
    put(made.cells[0], name);
    return made;
  };
  rows(at("parts"), parts, ([name]) => name, build, ({ cells, element }, [, part]) => {
    const isBad = ["disconnected", "retrying", "holding"].includes(part.state);
    mark(element, "data-state", isBad || part.alarm ? "trouble" : "well");
    write(cells[1], STATES[part.state] ?? (part.state || "✕ not configured"));
    write(cells[2], rate(part.rows_per_s));
    write(cells[3], part.alarm ?? part.last_error ?? "none");
  });
}

let perDay = null;

export function startWear() {
  const field = at("tbw");
  field.value = localStorage.getItem("forebay-tbw") ?? field.value;
  field.addEventListener("input", () => {
    localStorage.setItem("forebay-tbw", field.value);
    showLife();
  });
  at("wear-form").addEventListener("submit", (event) => event.preventDefault());
}

function showWear({ machine, written_bytes_per_day: aDay, journal }) {
  perDay = aDay;
  const items = [
    ["Written a day", aDay === null ? "known a minute after the start" : bytes(aDay, 1000)],
    ["Written since the start", machine.written_bytes === null ? "not told by this kernel" : bytes(machine.written_bytes, 1000)],
    ["Of the journal", bytes(journal.bytes_written, 1000)],
    ["Commits", count(journal.commits)],
  ];
  const build = ([name]) => {
    const number = make("dd");
    return { element: make("div", {}, make("dt", {}, name), number), number };
  };
  rows(at("wear"), items, ([name]) => name, build, ({ number }, [, text]) => write(number, text));
  showLife();
}

function showLife() {
  const endurance = Number(at("tbw").value) * 1e12;
  if (!(endurance > 0)) return write(at("life"), "Give the endurance as a number of terabytes.");
  if (!perDay) return write(at("life"), perDay === 0 ? "Nothing is written: it does not wear." : "");
  const years = endurance / perDay / 365.25;
  const text = years > 100 ? "more than 100 years" : years >= 2 ? `about ${Math.round(years)} years` : `about ${span(years * 365.25 * 86400)}`;
  write(at("life"), `At this pace the card lasts ${text}.`);
}
