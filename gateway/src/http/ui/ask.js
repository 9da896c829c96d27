// Questions to the gateway: with a token where it wants one, and a stream of events that comes back by itself.

import { at, write } from "/ui/view.js";

const TOKEN = "forebay-token";
/** A stream that says nothing for so long is given up; there is an event every second. */
const SILENCE_MS = 8000;
/** The longest pause before it is tried again. */
const PAUSE_MS_MAX = 5000;
/** An event that is longer is none of ours. */
const EVENT_LENGTH_MAX = 16 << 20;

/** A token may have these characters, and no others fit into a header. */
const TOKEN_FORM = /^[!-~]+$/;

/** An answer that is none of success. */
export class Refusal extends Error {
  constructor(status, text) {
    super(text || `the gateway answered ${status}`);
    this.status = status;
  }
}

/** Asks, and asks for the token if the gateway wants one. */
export async function ask(path, options = {}) {
  for (;;) {
    const token = storedToken();
    const headers = new Headers(options.headers);
    if (token) headers.set("Authorization", `Bearer ${token}`);
    const answer = await fetch(path, { cache: "no-store", ...options, headers });
    if (answer.status !== 401) return answer;
    await another(token);
  }
}

/** The JSON of an answer; throws a [`Refusal`] with the gateway's own words. */
export async function askJson(path, options) {
  const answer = await ask(path, options);
  if (answer.ok) return answer.json();
  throw new Refusal(answer.status, words(await answer.text()));
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

/** The token of this tab, if there is one that can be sent. */
function storedToken() {
  const token = sessionStorage.getItem(TOKEN);
  if (token === null || TOKEN_FORM.test(token)) return token;
  sessionStorage.removeItem(TOKEN);
  return null;
}

let waiting = null;

/** Resolves once there is another token than this. */
function another(token) {
  if (storedToken() !== token) return Promise.resolve();
  waiting ??= new Promise((resolve) => {
    const form = at("token");
    write(at("token-why"), token ? "The gateway does not take this token." : "The gateway wants a token.");
    form.hidden = false;
    at("token-text").focus();
    form.onsubmit = (event) => {
      event.preventDefault();
      const given = at("token-text").value.trim();
      if (!TOKEN_FORM.test(given)) {
        at("token-text").value = "";
        write(at("token-why"), "A token has letters, digits and signs of ASCII, and no spaces; copy it as it is in the file.");
        return;
      }
      sessionStorage.setItem(TOKEN, given);
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
  const stop = new AbortController();
  let heard = Date.now();
  const answer = await ask(path, { signal: stop.signal });
  if (!answer.ok) throw new Refusal(answer.status, (await answer.text()).trim());
  const watch = setInterval(() => Date.now() - heard > SILENCE_MS && stop.abort(), 1000);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  heard = Date.now();
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
