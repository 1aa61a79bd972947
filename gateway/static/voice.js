// The page to try voice with: what is shown, and what people do. One run is one session or one call;
// whatever belongs to it goes by its AbortSignal, and nothing of it is left for the next.

import { bring, make } from "./messages.js";
import { call } from "./voice-call.js";
import { speak } from "./voice-relay.js";

const $ = (id) => document.getElementById(id);
const setup = $("setup");
const WORDS = {
  idle: "Not started", asking: "Asking for the microphone…", connecting: "Connecting…", configuring: "Sending the configuration…",
  waiting: "Waiting for the telephone", associated: "The telephone is there", active: "The call is under way",
  listening: "Listening", hearing: "You are speaking", answering: "The voice is speaking",
  reconnecting: "Connection lost; connecting again…", ending: "Ending…", ended: "Ended",
};
const RUNNING = (state) => state !== "idle" && state !== "ended";
const WHO = { user: "You", assistant: "Voice", system: "System" };

let run = null; // { stop, side }
let messages = []; // { id, role, text, busy }

// ---- what is shown

function state(name) {
  if (document.body.dataset.state === name) return;
  const before = document.body.dataset.state;
  document.body.dataset.state = name;
  $("connection").textContent = WORDS[name];
  const running = RUNNING(name);
  const here = setup.elements.side.value === "microphone";
  setup.hidden = name !== "idle";
  $("end").hidden = !running;
  $("mute").hidden = $("level").hidden = $("write").hidden = !running || !here;
  $("after").hidden = name !== "ended";
  if (name === "ended") $("again").focus();
  else if (before === "idle") $("end").focus();
}

/** What happened, for whoever looks for what is wrong. */
function step(what, text) {
  console.debug(`voice: ${what}: ${text}`);
  const time = new Date().toLocaleTimeString([], { hour12: false });
  $("log").append(make("li", { data: { step: what } }, make("time", { textContent: time }), text));
}

function show() {
  const shown = messages.filter(({ text }) => text);
  bring($("messages"), shown.map(({ id, role, text, busy }) => ({
    key: id,
    mark: `${text.length}${busy}`,
    build: () => make("li", { className: "message", data: { role }, aria: { busy: String(busy) } },
      make("p", { className: "who", textContent: WHO[role] ?? role }),
      make("div", { className: "text", textContent: text })),
  })));
  $("conversation").scrollTop = $("conversation").scrollHeight;
}

function known(id, role, after) {
  let found = messages.find((one) => one.id === id);
  if (!found) {
    found = { id, role, text: "", busy: false };
    const place = messages.findIndex((one) => one.id === after);
    messages.splice(place < 0 ? messages.length : place + 1, 0, found);
  }
  return found;
}

function trouble(text) {
  $("trouble").hidden = !text;
  $("trouble-text").textContent = text;
}

function media(address) {
  $("address").hidden = !address;
  $("media").textContent = address;
}

function begin() {
  messages = [];
  show();
}

/** What a run may tell the page: nothing any more once it is stopped. */
function pageOf(signal) {
  const told = {
    state, step, trouble, media, begin,
    level: (loud) => ($("level").value = loud),
    place: (item, after) => {
      known(item.id, item.role, after).text ||= (item.content ?? []).map(({ text }) => text ?? "").join("");
      show();
    },
    says: (id, more) => {
      const found = known(id, "assistant");
      found.text += more;
      found.busy = true;
      show();
    },
    said: (id, role, text) => {
      Object.assign(known(id, role), { text, busy: false });
      show();
    },
    settled: () => {
      for (const one of messages) one.busy = false;
      show();
    },
    over: (why) => finish(why),
  };
  return Object.fromEntries(Object.entries(told).map(([name, work]) => [name, (...all) => (signal.aborted ? undefined : work(...all))]));
}

// ---- what people do

function start() {
  stop();
  reset();
  const { side, key, model, instructions } = Object.fromEntries(new FormData(setup));
  keep();
  const stopping = new AbortController();
  const { signal } = stopping;
  const mine = { stop: () => stopping.abort(), side: null };
  run = mine;
  const begun = (side === "microphone" ? speak : call)({ key, model, instructions, page: pageOf(signal), signal });
  begun.then((acts) => (mine.side = acts ?? null), (error) => signal.aborted || finish(`This went wrong: ${error.message}`));
}

/** The old one goes before a new one comes: socket, microphone, timers. */
function stop() {
  run?.stop();
  run = null;
}

function finish(why) {
  stop();
  state("ended");
  $("connection").textContent = why;
  step("cleaned", `${why} Socket, microphone and timers are gone`);
}

function reset() {
  begin();
  trouble("");
  media("");
  $("log").replaceChildren();
  $("level").value = 0;
  $("mute").setAttribute("aria-pressed", "false");
  state("idle");
  step("reset", "Nothing is left of what was before");
}

setup.addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
setup.addEventListener("change", showFields);
$("again").addEventListener("click", start);
$("change").addEventListener("click", () => {
  reset();
  $("start").focus();
});
$("end").addEventListener("click", end);
addEventListener("keydown", (event) => event.key === "Escape" && RUNNING(document.body.dataset.state) && end());
addEventListener("pagehide", () => run && finish("The page was left."));

function end() {
  if (run?.side) run.side.end();
  else finish("You have ended it.");
}

$("mute").addEventListener("click", () => {
  const muted = $("mute").getAttribute("aria-pressed") !== "true";
  run?.side?.mute?.(muted);
  $("mute").setAttribute("aria-pressed", String(muted));
});
$("write").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text && run?.side?.write?.(text)) $("text").value = "";
});

function showFields() {
  for (const field of setup.querySelectorAll("[data-side]")) {
    const here = field.dataset.side === setup.elements.side.value;
    field.hidden = !here;
    field.querySelector("input").disabled = !here;
  }
}

// ---- what this tab remembers

const FIELDS = ["side", "key", "model", "instructions"];

function keep() {
  try {
    sessionStorage.setItem("baton:voice", JSON.stringify(FIELDS.map((name) => setup.elements[name].value)));
  } catch {} // full, or not allowed
}

function remember() {
  const kept = JSON.parse(sessionStorage.getItem("baton:voice") ?? "null");
  if (kept) FIELDS.forEach((name, n) => (setup.elements[name].value = kept[n]));
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given) {
    setup.elements.key.value = given;
    history.replaceState(null, "", location.pathname); // out of the address, as early as can be
  }
}

try {
  remember();
} catch {} // a browser that keeps nothing is no trouble
showFields();
reset();
(setup.elements.key.value ? $("start") : setup.elements.key).focus();
