// Questions to the gateway: with a token where it wants one, and a stream of events that comes back by itself.

import { at, write } from "/ui/view.js";

const TOKEN = "forebay-token";
/** A stream that says nothing for so long is given up; there is an event every second. */
const SILENCE_MS = 8000;
/** An answer that takes longer is given up, unless the one who asks says otherwise. */
const PATIENCE_MS = 8000;
/** The longest pause before it is tried again. */
const PAUSE_MS_MAX = 5000;
/** An event that is longer is none of ours. */
const EVENT_LENGTH_MAX = 16 << 20;
/** What a header can carry, and no token has more. */
const SENDABLE = /^[\x21-\x7e]+$/;

/** An answer that is none of success. */
export class Refusal extends Error {
  constructor(status, text) {
    super(text || `the gateway answered ${status}`);
    this.status = status;
  }
}

/**
 * Asks, and asks for the token if the gateway wants one. Returns the answer, whose content may still be on its way, and what
 * stops that. The time in which the gateway has to answer does not run while the form for the token is open.
 */
async function ask(path, options, patienceMs) {
  for (;;) {
    const token = stored();
    const headers = new Headers(options.headers);
    if (token) headers.set("Authorization", `Bearer ${token}`);
    const stop = new AbortController();
    const asked = fetch(path, { cache: "no-store", ...options, headers, signal: stop.signal });
    const answer = await within(patienceMs, stop, asked);
    if (answer.status !== 401) return { answer, stop };
    stop.abort();
    await another(token);
  }
}

/** Waits for the network so many milliseconds; throws a [`Refusal`] if it is silent for longer, or gone. */
async function within(patienceMs, stop, work) {
  const timer = Number.isFinite(patienceMs) ? setTimeout(() => stop.abort(), patienceMs) : undefined;
  try {
    return await work;
  } catch {
    throw new Refusal(0, "the gateway does not answer");
  } finally {
    clearTimeout(timer);
  }
}

/** The JSON of an answer; throws a [`Refusal`] with the gateway's own words, or one that says that there are none. */
export async function askJson(path, options = {}, patienceMs = PATIENCE_MS) {
  const { answer, stop } = await ask(path, options, patienceMs);
  if (answer.ok) return within(patienceMs, stop, answer.json());
  throw new Refusal(answer.status, words(await within(patienceMs, stop, answer.text())));
}

/** What a refusal says: plain text, or an error with cause and cure. */
function words(text) {
  try {
    const { error } = JSON.parse(text);
    return `${error.key} ${error.cause}; ${error.cure}`;
  } catch {
    return text.trim();
  }
}

/** The token that is kept, if a header can carry it. */
function stored() {
  const token = sessionStorage.getItem(TOKEN);
  if (token === null || SENDABLE.test(token)) return token;
  sessionStorage.removeItem(TOKEN);
  return null;
}

let waiting = null;

/** Resolves once there is another token than this. */
function another(token) {
  if (stored() !== token) return Promise.resolve();
  waiting ??= new Promise((resolve) => {
    const form = at("token");
    write(at("token-why"), token ? "The gateway does not take this token." : "The gateway wants a token.");
    form.hidden = false;
    at("token-text").focus();
    form.onsubmit = (event) => {
      event.preventDefault();
      const text = at("token-text").value.trim();
      if (!SENDABLE.test(text)) {
        write(at("token-why"), "A token has letters, digits and signs of ASCII only, and no space. Copy it again from its file.");
        return;
      }
      sessionStorage.setItem(TOKEN, text);
      at("token-text").value = "";
      form.hidden = true;
      waiting = null;
      resolve();
    };
  });
  return waiting;
}

/** Calls `onEvent` with the data of each event, for ever, and `onState` with "live" or "lost" and why. */
export async function follow(path, onEvent, onState) {
  let pause = 500;
  for (;;) {
    try {
      await listen(path, (data) => {
        pause = 500;
        onState("live");
        onEvent(data);
      });
      onState("lost", "the gateway has ended the connection");
    } catch (error) {
      onState("lost", error instanceof Refusal ? error.message : "the gateway does not answer");
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, PAUSE_MS_MAX);
  }
}

async function listen(path, onData) {
  const { answer, stop } = await ask(path, {}, PATIENCE_MS);
  if (!answer.ok) throw new Refusal(answer.status, (await within(PATIENCE_MS, stop, answer.text())).trim());
  let heard = Date.now();
  const watch = setInterval(() => Date.now() - heard > SILENCE_MS && stop.abort(), 1000);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard = Date.now();
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      if (text.length > EVENT_LENGTH_MAX) throw new Refusal(200, "the gateway says more than can be read");
      for (const event of events) {
        const lines = event.split("\n").filter((line) => line.startsWith("data: "));
        if (lines.length > 0) onData(lines.map((line) => line.slice(6)).join("\n"));
      }
    }
  } finally {
    clearInterval(watch);
    reader.cancel().catch(() => {});
  }
}
