// Devices by the page: thousands of them are the gateway's to sort and filter.

import { askJson } from "/ui/ask.js";
import { show as showChart } from "/ui/chart.js";
import { at, count, draw, make, mark, row, rows, shorten, some, span, value, write } from "/ui/view.js";

const PAGE = 25;
const EVERY_MS = 2000;
/** Devices that said nothing for so long are marked. */
const SILENT_S = 300;

let offset = 0;
let matching = 0;
let asked = 0;
let questions = 0;
let now = 0;
let isAsking = false;

export function startDevices() {
  at("devices-form").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["filter", "sort"]) at(id).addEventListener("input", () => turn(0));
  at("back").addEventListener("click", () => turn(offset - PAGE));
  at("on").addEventListener("click", () => turn(offset + PAGE));
}

/** Asks again now and then; the time is that of the gateway's clock. */
export function refreshDevices(status) {
  now = status.now_ns;
  if (Date.now() - asked >= EVERY_MS && !document.hidden) load();
}

function turn(to) {
  offset = Math.max(0, to);
  load(true);
}

async function load(again = false) {
  if (isAsking && !again) return;
  isAsking = true;
  asked = Date.now();
  const mine = (questions += 1);
  const parameters = new URLSearchParams({ filter: at("filter").value, sort: at("sort").value, offset, limit: PAGE });
  try {
    const table = await askJson(`/api/v1/table?${parameters}`);
    // An answer that another question has overtaken is not shown.
    if (mine === questions) show(table);
  } catch (error) {
    write(at("devices-count"), `Devices cannot be shown: ${error.message}`);
  } finally {
    isAsking = false;
  }
}

function show(table) {
  matching = table.matching;
  if (offset > 0 && offset >= matching) return turn(Math.floor(Math.max(0, matching - 1) / PAGE) * PAGE);
  rows(at("devices"), table.devices, ({ device }) => device, build, update);
  const last = offset + table.devices.length;
  const of = matching === table.total ? some(table.total, "device") : `${count(matching)} that match, of ${some(table.total, "device")}`;
  write(at("devices-count"), last === 0 ? `None of ${of}.` : `${count(offset + 1)} to ${count(last)} of ${of}`);
  at("back").disabled = offset === 0;
  at("on").disabled = last >= matching;
}

function build({ device, name }) {
  const made = row(["Device", "Last row", "Latest values", "Lately", "Lost", "Clock", ""], { numeric: [4], tight: [1, 5], loose: [2] });
  const title = make("b");
  const key = make("small");
  made.cells[0].append(title, key);
  const button = make("button", { type: "button", "aria-label": `Chart of ${name}` }, "Chart");
  made.cells[6].append(button);
  const known = { ...made, title, key, picture: "" };
  button.addEventListener("click", () => showChart(known.name));
  write(key, device === name ? "" : shorten(device, 40));
  return known;
}

function update(known, device) {
  const { cells, element, title } = known;
  known.name = device.name;
  write(title, device.name);
  const silent = device.seen_ns === null ? null : (now - device.seen_ns) / 1e9;
  mark(element, "data-state", silent === null || silent > SILENT_S ? "silent" : "well");
  write(cells[1], lastSeen(silent));
  write(cells[2], values(device));
  picture(known, device.latest.find(({ spark }) => spark.length > 1)?.spark ?? []);
  write(cells[4], lost(device.gaps));
  write(cells[5], clock(device));
}

function lastSeen(silent) {
  if (silent === null) return "○ before the start";
  if (silent < 5) return "● now";
  return `${silent > SILENT_S ? "○" : "●"} ${span(silent)} ago`;
}

function values({ latest, more_series: more }) {
  const series = latest.map(({ measurement, fields, more_fields: others }) => {
    const list = fields.map(({ name, value: of, unit }) => `${name} ${value(of)}${unit ? ` ${unit}` : ""}`);
    if (others > 0) list.push(`${others} more`);
    return latest.length > 1 ? `${measurement}: ${list.join(", ")}` : list.join(", ");
  });
  if (more > 0) series.push(`${more} more series`);
  return series.join("; ") || "none since the start";
}

function lost(gaps) {
  const causes = Object.entries(gaps).filter(([, number]) => number > 0);
  const sum = causes.reduce((sum, [, number]) => sum + number, 0);
  return sum === 0 ? "0" : `${count(sum)} (${causes.map(([cause]) => cause).join(", ")})`;
}

function clock({ native, clock: known }) {
  if (!native) return "the gateway's";
  if (!known) return "not known yet";
  return `± ${Number((known.error_ns / 1e6).toPrecision(2))} ms, ${Math.round(known.rate_ppb / 1000)} ppm`;
}

/** The latest values as a line of a few pixels, and in words for those who do not see it. */
function picture(known, spark) {
  const points = line(spark);
  if (known.picture === points) return;
  known.picture = points;
  const [least, most] = [Math.min(...spark), Math.max(...spark)];
  known.cells[3].replaceChildren(
    draw("svg", { class: "spark", viewBox: "0 0 96 24", "aria-hidden": "true" }, draw("polyline", { points })),
    make("span", { class: "vh" }, spark.length > 1 ? `from ${value(least)} to ${value(most)}` : "too few values"),
  );
}

function line(spark) {
  const [least, most] = [Math.min(...spark), Math.max(...spark)];
  // By halves: the difference of the greatest numbers that there are is none.
  const y = (of) => (most > least ? 22 - (20 * (of / 2 - least / 2)) / (most / 2 - least / 2 || 1) : 12);
  const step = 92 / Math.max(1, spark.length - 1);
  return spark.map((of, index) => `${(2 + index * step).toFixed(1)},${y(of).toFixed(1)}`).join(" ");
}
