// One series over a range of time, from what the journal and the database have: the mean of each window as a line, and what lies
// between its least and greatest value as a band.

import { askJson } from "/ui/ask.js";
import { at, count, draw, make, row, some, time, value, write } from "/ui/view.js";

const WINDOWS = 180;
const LIMIT = 10000;
const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [260, 58, 10, 10, 26];
const ROWS_SHOWN = 100;
/** A database that is slow gives up after a minute; the answer that says so is waited for. */
const PATIENCE_MS = 65_000;
/** Values that differ by a smaller part of themselves differ by what rounding makes of them. */
const SAME = 1e-9;
/** No scale has more lines, whatever its values are. */
const TICKS_MAX = 8;

let status = () => null;
let asked = 0;
let drawn = null;
let cursor = -1;

export function startChart(of) {
  status = of;
  at("chart-form").addEventListener("submit", (event) => {
    event.preventDefault();
    load();
  });
  at("chart-series").addEventListener("input", load);
  at("chart-range").addEventListener("input", load);
  at("chart").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && drawn) point(Math.min(drawn.windows.length - 1, Math.max(0, cursor < 0 ? drawn.windows.length - 1 : cursor + step)));
  });
  at("chart").addEventListener("pointermove", (event) => drawn && point(nearest(event)));
  at("chart").addEventListener("pointerleave", () => drawn && point(-1));
  window.addEventListener("resize", () => drawn && plot());
}

/** Draws a device's first value. */
export function show(device) {
  at("chart-device").value = device;
  at("chart-series").replaceChildren(make("option", { value: "" }, "the first"));
  at("chart-section").scrollIntoView();
  at("chart-head").focus();
  load();
}

async function load() {
  const device = at("chart-device").value;
  if (!device) return;
  const mine = (asked += 1);
  const seconds = Number(at("chart-range").value);
  const every = Math.max(1, Math.round(seconds / WINDOWS));
  const endMs = status() ? status().now_ns / 1e6 : Date.now();
  const fromMs = Math.floor((endMs - seconds * 1000) / (every * 1000)) * every * 1000;
  const common = { device, from: `${fromMs}000000`, every: `${every}s`, limit: LIMIT };
  write(at("chart-note"), "Asking …");
  try {
    const mean = await query({ ...common, aggregate: "mean" });
    const chosen = choose(mean.points);
    if (mine !== asked) return;
    if (!chosen) return nothing(device, mean);
    const only = { ...common, measurement: chosen.measurement, field: chosen.field };
    const [min, max] = await Promise.all([query({ ...only, aggregate: "min" }), query({ ...only, aggregate: "max" })]);
    if (mine !== asked) return;
    drawn = { device, chosen, every, fromMs, endMs, windows: join(chosen, mean, min, max) };
    plot();
    table();
    tell([mean, min, max]);
  } catch (error) {
    if (mine === asked) write(at("chart-note"), `It cannot be drawn: ${error.message}`);
  }
}

const query = (parameters) => askJson(`/api/v1/query?${new URLSearchParams(parameters)}`, {}, PATIENCE_MS);

function nothing(device, answer) {
  drawn = null;
  at("chart").hidden = true;
  at("chart-data").hidden = true;
  const why = answer.complete ? "" : ` The answer is not complete: ${answer.reasons.join("; ")}.`;
  write(at("chart-note"), `No numbers of ${device} in this range.${why}`);
}

const keyOf = ({ measurement, tags }, field) => JSON.stringify([measurement, field, Object.entries(tags).sort()]);

/** Fills the list of values, and returns the one that is chosen, or the first. */
function choose(points) {
  const found = new Map();
  for (const of of points) {
    for (const [field, number] of Object.entries(of.fields)) {
      const key = keyOf(of, field);
      if (typeof number === "number" && !found.has(key)) found.set(key, { key, field, measurement: of.measurement, tags: of.tags });
    }
  }
  const list = at("chart-series");
  const before = list.value;
  const all = [...found.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
  list.replaceChildren(...all.map((of) => make("option", { value: of.key }, name(of, all))));
  if (found.has(before)) list.value = before;
  return found.get(list.value);
}

/** A value's name, with its tags where others have the same. */
function name({ measurement, field, tags }, all) {
  const isShared = all.filter((of) => of.measurement === measurement && of.field === field).length > 1;
  const others = Object.entries(tags).filter(([tag]) => tag !== "device").map(([tag, text]) => `${tag}=${text}`);
  return isShared ? `${measurement} ${field} (${others.join(", ")})` : `${measurement} ${field}`;
}

function join(chosen, mean, min, max) {
  const of = ({ points }) => {
    const mine = points.filter((of) => keyOf(of, chosen.field) === chosen.key);
    return new Map(mine.map(({ ns, fields }) => [ns, fields[chosen.field]]));
  };
  const [means, mins, maxs] = [of(mean), of(min), of(max)];
  const all = [...means].map(([ns, mean]) => ({ ms: ns / 1e6, mean, min: mins.get(ns) ?? mean, max: maxs.get(ns) ?? mean }));
  return all.filter(({ mean, min, max }) => [mean, min, max].every(Number.isFinite));
}

function plot() {
  const { windows, fromMs, endMs, every } = drawn;
  at("chart").hidden = false;
  const width = Math.max(280, at("chart").clientWidth);
  const ticks = niceTicks(Math.min(...windows.map(({ min }) => min)), Math.max(...windows.map(({ max }) => max)));
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const x = (ms) => LEFT + ((ms - fromMs) / (endMs - fromMs)) * (width - LEFT - RIGHT);
  // By halves: the difference of the greatest numbers that there are is none.
  const y = (of) => TOP + ((high / 2 - of / 2) / (high / 2 - low / 2)) * (HEIGHT - TOP - BOTTOM);
  Object.assign(drawn, { x, y, width });
  const svg = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": caption() });
  for (const tick of ticks) {
    svg.append(draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }));
    svg.append(draw("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, value(tick)));
  }
  const shown = Math.max(2, Math.floor(width / 150));
  for (let index = 0; index <= shown; index += 1) {
    const ms = fromMs + ((endMs - fromMs) * index) / shown;
    const anchor = index === 0 ? "start" : index === shown ? "end" : "middle";
    svg.append(draw("text", { x: x(ms), y: HEIGHT - 6, "text-anchor": anchor }, time(ms)));
  }
  for (const run of runs(windows, every * 1000)) {
    const upper = run.map(({ ms, max }) => `${x(ms).toFixed(1)},${y(max).toFixed(1)}`);
    const lower = run.map(({ ms, min }) => `${x(ms).toFixed(1)},${y(min).toFixed(1)}`).reverse();
    const middle = run.map(({ ms, mean }) => `${x(ms).toFixed(1)},${y(mean).toFixed(1)}`);
    svg.append(draw("polygon", { class: "band", points: [...upper, ...lower].join(" ") }));
    svg.append(draw("polyline", { class: "mean", points: middle.join(" ") }));
    if (run.length === 1) svg.append(draw("circle", { class: "dot", cx: x(run[0].ms), cy: y(run[0].mean), r: 3 }));
  }
  drawn.hair = draw("line", { class: "hair", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  svg.append(drawn.hair);
  at("chart-plot").replaceChildren(svg);
  point(-1);
}

/** Windows without a hole between them: what is three times as long as usual is one. */
function runs(windows, everyMs) {
  const steps = windows.slice(1).map(({ ms }, index) => ms - windows[index].ms).sort((a, b) => a - b);
  const hole = 3 * Math.max(everyMs, steps[Math.floor(steps.length / 2)] ?? 0);
  const all = [];
  for (const of of windows) {
    const last = all[all.length - 1];
    if (last && of.ms - last[last.length - 1].ms <= hole) last.push(of);
    else all.push([of]);
  }
  return all;
}

/** Four or so round numbers from below the least to above the greatest; two at least, and never more than `TICKS_MAX`. */
export function niceTicks(least, most) {
  if (!Number.isFinite(least) || !Number.isFinite(most) || most < least) return [0, 1];
  const size = Math.max(Math.abs(least), Math.abs(most));
  const isFlat = most - least <= Math.max(SAME * size, 1e-300);
  const rough = isFlat ? Math.max(1, size) / 40 : most / 4 - least / 4;
  const ten = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((of) => of * ten).find((of) => of >= rough) ?? rough;
  const first = Math.floor(least / step);
  const ticks = [];
  for (let index = first; index < first + TICKS_MAX; index += 1) {
    ticks.push(Math.max(-Number.MAX_VALUE, Math.min(Number.MAX_VALUE, index * step)));
    if (index * step >= most && ticks.length > 1) break;
  }
  return ticks;
}

function nearest(event) {
  const left = event.clientX - at("chart-plot").getBoundingClientRect().left;
  const distance = ({ ms }) => Math.abs(drawn.x(ms) - left);
  return drawn.windows.reduce((best, of, index) => (best < 0 || distance(of) < distance(drawn.windows[best]) ? index : best), -1);
}

/** Tells of one window, or of all. */
function point(index) {
  cursor = index;
  const of = drawn.windows[index];
  drawn.hair.setAttribute("visibility", of ? "visible" : "hidden");
  if (!of) return write(at("chart-caption"), caption());
  for (const end of ["x1", "x2"]) drawn.hair.setAttribute(end, drawn.x(of.ms));
  write(at("chart-caption"), `${time(of.ms)}: mean ${value(of.mean)}, least ${value(of.min)}, greatest ${value(of.max)}`);
}

function caption() {
  const { device, chosen, windows, every } = drawn;
  const least = Math.min(...windows.map(({ min }) => min));
  const most = Math.max(...windows.map(({ max }) => max));
  return `${chosen.measurement} ${chosen.field} of ${device}: from ${value(least)} to ${value(most)}, in windows of ${every} s. The line is the mean, the band what lies between least and greatest. Arrow keys tell of single windows.`;
}

function table() {
  const made = drawn.windows.slice(-ROWS_SHOWN).reverse().map(({ ms, min, mean, max }) => {
    const { element, cells } = row(["From", "Least", "Mean", "Greatest"], { numeric: [1, 2, 3] });
    [time(ms), value(min), value(mean), value(max)].forEach((text, index) => write(cells[index], text));
    return element;
  });
  at("chart-rows").replaceChildren(...made);
  at("chart-data").hidden = false;
}

function tell(answers) {
  const reasons = new Set(answers.flatMap(({ complete, reasons }) => (complete ? [] : reasons)));
  const isCut = answers.some(({ next }) => next !== null);
  const notes = [`${some(drawn.windows.length, "window")} of ${count(drawn.every)} s.`];
  if (reasons.size > 0) notes.push(`⚠ Not complete: ${[...reasons].join("; ")}.`);
  if (isCut) notes.push("⚠ There is more than is shown: choose a shorter range.");
  write(at("chart-note"), notes.join(" "));
}
