// Puts the page together: one stream of statuses, and what is asked for beside it.

import { follow } from "/ui/ask.js";
import { startChart } from "/ui/chart.js";
import { startDevices, refreshDevices } from "/ui/devices.js";
import { showLetters, startLetters } from "/ui/letters.js";
import { showStatus, startWear } from "/ui/overview.js";
import { at, attempt, mark, time, write } from "/ui/view.js";

/** Events come once a second; so many milliseconds without one are worth a word. */
const STALE_MS = 4000;

let latest = null;
let latestMs = 0;
let lost = null;

function onEvent(data) {
  latest = JSON.parse(data);
  latestMs = Date.now();
  for (const show of [showStatus, showLetters, refreshDevices, showLink]) attempt(show, latest);
}

function onState(state, why) {
  lost = state === "live" ? null : why;
  if (lost) showLink();
}

/** Says whether what is shown is what is. */
function showLink() {
  const isStale = latest !== null && Date.now() - latestMs > STALE_MS;
  let state = "live";
  let text = "✓ Live";
  if (lost || isStale) {
    state = "lost";
    const shown = latest ? ` What is shown is from ${time(latestMs)}.` : "";
    text = `✕ Not connected: ${lost ?? "no news from the gateway"}.${shown} Trying again.`;
  } else if (latest === null) {
    [state, text] = ["starting", "Connecting …"];
  }
  mark(document.body, "data-link", state);
  write(at("link"), text);
}

startWear();
startDevices();
startLetters();
startChart(() => latest);
setInterval(showLink, 1000);
follow("/api/v1/status/live", onEvent, onState);
