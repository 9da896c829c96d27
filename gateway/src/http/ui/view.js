// How things are put on the page and into words. Text of devices, servers and people goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const at = (id) => document.getElementById(id);

/** An element with attributes and children; a child that is no node becomes text. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  return fill(element, attributes, children);
}

/** The same in SVG. */
export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** Changes a text only if it is another, so that screen readers and selections are left alone. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Changes an attribute only if it is another. */
export function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * Brings the rows of a table up to date: one for each item, kept by its key. The focus stays where it is when rows change their
 * order, and goes to the heading of the section when its row goes. `build` makes a row and returns what `update` is given with
 * each later item.
 */
export function rows(body, items, keyOf, build, update) {
  const known = body.known ?? (body.known = new Map());
  const held = body.contains(document.activeElement) ? document.activeElement : null;
  const wanted = new Map(items.map((item) => [keyOf(item), item]));
  for (const [key, row] of known) {
    if (!wanted.has(key)) {
      row.element.remove();
      known.delete(key);
    }
  }
  let next = body.firstElementChild;
  for (const [key, item] of wanted) {
    let row = known.get(key);
    if (!row) {
      row = build(item);
      known.set(key, row);
    }
    update(row, item);
    if (row.element === next) next = next.nextElementSibling;
    else body.insertBefore(row.element, next);
  }
  // What is moved or removed loses the focus.
  if (held && document.activeElement !== held) refocus(held.isConnected ? held : body.closest("section")?.querySelector("h2"));
}

function refocus(element) {
  if (element?.tagName === "H2") element.tabIndex = -1;
  element?.focus({ preventScroll: true });
}

/** Calls `show`; what it cannot make sense of is told to the console, and leaves the rest of the page alone. */
export function attempt(show, of) {
  try {
    show(of);
  } catch (error) {
    console.error(error);
  }
}

/**
 * A row of a table with a heading and cells; on a narrow page each cell shows its label. Some cells have numbers, some hold
 * their words together, and some take any text.
 */
export function row(labels, { numeric = [], tight = [], loose = [] } = {}) {
  const cells = labels.map((label, index) => {
    const kind = numeric.includes(index) ? "n" : tight.includes(index) ? "tight" : loose.includes(index) ? "loose" : undefined;
    return index === 0
      ? make("th", { scope: "row", role: "rowheader" })
      : make("td", { role: "cell", "data-label": label, class: kind });
  });
  return { element: make("tr", { role: "row" }, ...cells), cells };
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** What stands for a number that is not known. */
const NONE = "–";

/** 12,345,678 */
export const count = (number) => (Number.isFinite(number) ? whole.format(number) : NONE);

/** One noun or several. */
export const some = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** A rate with as many digits as it is worth. */
export function rate(number) {
  if (!Number.isFinite(number)) return NONE;
  if (number === 0) return "0";
  if (number < 0.01) return "< 0.01";
  return number < 10 ? String(Number(number.toPrecision(2))) : count(number);
}

/** 4.1 MiB, or with a base of 1000, 4.3 MB. */
export function bytes(number, base = 1024) {
  if (!Number.isFinite(number)) return NONE;
  const units = base === 1024 ? ["bytes", "KiB", "MiB", "GiB", "TiB"] : ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (number >= base && unit < units.length - 1) {
    number /= base;
    unit += 1;
  }
  return `${unit === 0 || number >= 100 ? Math.round(number) : Number(number.toPrecision(2))} ${units[unit]}`;
}

/** A span of time in its two largest units. */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let left = Math.max(0, Math.round(seconds));
  const first = units.findIndex(([, length]) => left >= length);
  if (first < 0) return "0 s";
  const parts = [];
  for (const [name, length] of units.slice(first, first + 2)) {
    const amount = Math.floor(left / length);
    left -= amount * length;
    if (amount > 0) parts.push(`${amount} ${name}`);
  }
  return parts.join(" ");
}

/** A value of a reading, as short as it can be without being another. */
export function value(of) {
  if (typeof of !== "number") return typeof of === "string" ? shorten(of, 60) : String(of);
  return Number.isInteger(of) ? String(of) : String(Number(of.toPrecision(6)));
}

/** A name whose path, if it has one, stands below its last part. */
export function name(element, text) {
  const parts = text.startsWith("/") ? text.split("/") : [text];
  element.append(make("b", {}, parts[parts.length - 1]));
  if (parts.length > 1) element.append(make("small", {}, text));
}

/** Text of a length that a table has room for. */
export function shorten(text, most) {
  const letters = Array.from(text);
  return letters.length <= most ? text : `${letters.slice(0, most - 1).join("")}…`;
}

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const day = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** The time of day of a millisecond since 1970, with the day if that is another. */
export function time(ms) {
  const isToday = new Date(ms).toDateString() === new Date().toDateString();
  return (isToday ? clock : day).format(ms);
}
