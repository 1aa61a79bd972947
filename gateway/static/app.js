// The page of a project: what is shown, and what people do. The connection, what is kept and what
// is sent are baton-live.js' business.

import { openLive, openSession, newId, takeTicket } from "./baton-live.js";
import { question } from "./checks.js";
import { earlier as earlierOf } from "./earlier.js";
import { diff } from "./files.js";
import { bring, dollars, make, message, underWay } from "./messages.js";

const $ = (id) => document.getElementById(id);
const project = named(location.pathname.replace(/^\/app\//, "").replace(/\/$/, ""));
const touch = matchMedia("(pointer: coarse)").matches;
const PINNED = 80; // pixels from the end that count as the end

/** What a part of an address stands for; one that is no text for itself. */
function named(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Keeps small things across a reload; a browser that keeps nothing is no trouble. */
const kept = (store, name) => ({
  get: () => {
    try {
      return JSON.parse(store.getItem(`baton:${name}:${project}`) ?? "null");
    } catch {
      return null;
    }
  },
  set: (value) => {
    try {
      store.setItem(`baton:${name}:${project}`, JSON.stringify(value));
    } catch {} // full, or not allowed
  },
});

const who = kept(localStorage, "user");
const place = kept(sessionStorage, "place");
const unfolded = new Set(kept(sessionStorage, "open").get() ?? []);
let ticket = takeTicket();
let openedAs;
await signIn(AbortSignal.timeout(5000)).catch(() => {}); // later then, with the connection
openedAs = who.get()?.user ?? "";
const live = openLive({ project, user: openedAs, ticket: () => signIn().then(() => null), connect: false });
/** What is being written in this tab; and in whichever tab wrote last, for one that is opened anew. */
const draft = kept(sessionStorage, `draft:${openedAs}`);
const lastDraft = kept(localStorage, `draft:${openedAs}`);
const earlier = kept(sessionStorage, "early");
/** Messages that are taken, until the log tells of them: job → text. */
const taken = new Map();
let answered = null;
let note = "";
let pinned = place.get()?.pinned ?? true;
const older = earlierOf($("earlier"), live, () => {
  pinned = false;
  keepPlace(); // what one reads stays where it is, the rest comes above it
  showView(live.view);
  findPlace();
});

/** Changes the ticket of the address, if there is one, for a cookie. */
async function signIn(signal) {
  if (!ticket) return;
  const fetching = (where, how) => fetch(where, { ...how, signal });
  try {
    const { user } = await openSession(ticket, { fetch: fetching });
    if (user !== undefined) who.set({ user });
    ticket = null;
    if (openedAs !== undefined && openedAs !== user) location.reload(); // what is shown is another's
  } catch (error) {
    if (error.name !== "Refused" && error.code === undefined) throw error; // no answer: again later
    ticket = null; // used up; perhaps there is a cookie
  }
}

// ---- the conversation

function showView(view) {
  const box = $("conversation");
  for (const { job, role } of view.messages) if (role === "user") taken.delete(job);
  const all = older.all(view);
  const here = asks(view) ? all.filter(({ seq }) => !seq || seq !== view.lost.seq) : all;
  const said = here.map((one, n) => {
    const last = view.messages.findLast(({ job, role }) => job === one.job && role === "assistant") === one;
    const turn = last ? view.turns[one.job] : undefined;
    return { key: String(one.seq ?? `n${n}`), mark: `${turn?.cost ?? ""}${one.checks ? ` ${one.checks.length}` : ""}`, build: () => message(one, turn, unfolded) };
  });
  const ours = [...taken].map(([job, text]) => ({ key: `t${job}`, mark: "", build: () => message({ role: "user", text }, null, unfolded) }));
  bring($("messages"), [...said, ...ours]);
  const jobs = Object.entries(view.jobs).filter(([, { kind, state }]) => state !== "queued" || !["metadata", "compaction"].includes(kind)).map(([id, job]) => {
    const work = Object.values(view.work).find((one) => one.job === id);
    return { key: id, mark: JSON.stringify([job, work]), build: () => underWay(id, job, work, unfolded, stop) };
  });
  bring($("now"), jobs);
  showEmpty();
  const spent = Object.values(view.turns).reduce((sum, { cost }) => sum + (cost ?? 0), 0);
  $("spent").textContent = spent ? dollars(spent) : "";
  if (pinned) box.scrollTop = box.scrollHeight;
  else $("newest").hidden = box.scrollHeight - box.scrollTop - box.clientHeight < PINNED;
  showTrouble();
  showStanding(view);
  showFilesOf(view.version);
}

/** Whether the newest version passes its check: it is unchecked until one has ended. */
function showStanding({ version, versions }) {
  const status = versions[version] ?? "unchecked";
  $("standing").hidden = !version;
  $("standing").dataset.status = status;
  set("standing", { unchecked: "Unchecked", passing: "Passing", failing: "Failing" }[status]);
}

function showEmpty() {
  $("empty").hidden = $("messages").children.length + $("now").children.length > 0 || live.state !== "live";
}

function stop(id, button) {
  button.disabled = true;
  live.cancel(id);
}

/** What a turn has cost is asked once it is over; no event tells it. */
async function askCost(id) {
  const answer = await fetch(`/v1/jobs/${id}?project=${encodeURIComponent(project)}`).catch(() => null);
  if (!answer?.ok) return;
  const job = await answer.json();
  const cost = Number(job.cost_usd ?? job.cost ?? Number.NaN);
  if (!Number.isNaN(cost)) live.change((view) => view.turns[id] && (view.turns[id].cost = cost));
}

const box = $("conversation");
box.addEventListener("scroll", () => {
  pinned = box.scrollHeight - box.scrollTop - box.clientHeight < PINNED;
  if (pinned) $("newest").hidden = true;
}, { passive: true });
$("newest").addEventListener("click", () => {
  pinned = true;
  box.scrollTop = box.scrollHeight;
});
new ResizeObserver(() => pinned && (box.scrollTop = box.scrollHeight)).observe(box);

/** Scroll is kept as a message and how far it is from the top: the text above may be another. */
function keepPlace() {
  const top = box.getBoundingClientRect().top;
  const first = [...$("messages").children].find((one) => one.getBoundingClientRect().bottom > top);
  place.set({ pinned, key: first?.dataset.key, off: first ? first.getBoundingClientRect().top - top : 0 });
  kept(sessionStorage, "open").set([...unfolded].slice(-200));
}

function findPlace() {
  const { key, off } = place.get() ?? {};
  if (pinned || !key) return;
  const first = [...$("messages").children].find((one) => one.dataset.key === key);
  if (first) box.scrollTop += first.getBoundingClientRect().top - box.getBoundingClientRect().top - off;
}
addEventListener("pagehide", keepPlace);
document.addEventListener("visibilitychange", () => document.hidden && keepPlace());

// ---- the connection, in words

function words(state) {
  if (state === "reconnecting") {
    if (navigator.onLine === false) return "You are offline";
    const left = Math.max(0, Math.ceil(((live.until ?? 0) - Date.now()) / 1000));
    return left > 2 ? `Connection lost; again in ${left} s` : "Connection lost; trying again";
  }
  if (state === "connecting" && live.tries) return "Connection lost; trying again";
  return { idle: "Not connected", connecting: "Connecting…", replaying: "Catching up…", live: "Live", failed: "No connection", closed: "Closed" }[state];
}

function showState() {
  document.body.dataset.state = live.state;
  const said = words(live.state);
  if ($("connection").textContent !== said) $("connection").textContent = said;
  const away = live.state !== "live" && live.state !== "idle";
  set("hint", note || (away ? "What you send is kept until there is a connection." : ""));
  showEmpty();
  showTrouble();
}

/** Says something beside the composer for a while. */
function say(text) {
  note = text;
  showState();
  setTimeout(() => note === text && ((note = ""), showState()), 15_000);
}
setInterval(() => live.state === "reconnecting" && document.visibilityState === "visible" && showState(), 1000);

/** Whether a request waits for people to say how to go on without its session. */
function asks({ lost, jobs }) {
  const job = lost && jobs[lost.job];
  return Boolean(lost?.choices.length && (!job || job.error_class === "ask" || job.state === "parked"));
}

/** Where people must choose: a lost session, no connection any more, a closed door. */
function showTrouble() {
  const { lost, messages } = live.view;
  const { state, code } = live;
  undecided.show(live.view);
  const asking = asks(live.view) && state !== "failed" && state !== "closed";
  const prompt = asking && messages.findLast((one) => one.job === lost.job && one.role === "user")?.text;
  $("trouble").hidden = !(asking || state === "failed" || state === "closed");
  set("trouble-text", asking ? lost.text : live.why);
  $("trouble-prompt").hidden = $("trouble-kept").hidden = !prompt;
  set("trouble-prompt", prompt || "");
  $("retry").hidden = !(asking ? lost.choices.includes("retry") : state === "failed" || [4400, 4401].includes(code));
  $("start-new").hidden = !(asking ? lost.choices.includes("start_new") : state === "failed" || code === 4412);
  $("retry").disabled = $("start-new").disabled = Boolean(asking && answered === lost.seq);
}

function set(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

for (const [id, choice] of [["retry", "retry"], ["start-new", "start_new"]]) {
  $(id).addEventListener("click", () => {
    if (live.state === "failed" || live.state === "closed") {
      if (live.code === 4400) location.reload();
      else if (choice === "retry") live.connect();
      else {
        older.forget();
        live.startOver();
      }
    } else if (live.view.lost) {
      answered = live.view.lost.seq;
      live.answer(live.view.lost.job, choice);
      showTrouble();
    }
  });
}

const undecided = question($("undecided"), (job, choice) => live.answer(job, choice));

// ---- writing

const composer = $("composer");
const kind = () => new FormData($("form")).get("kind");
/** The shell line that a change must pass, where people want one: hidden unless they do. */
const check = () => ($("checking").hidden || kind() !== "update" ? "" : $("check").value.trim());
const checks = kept(localStorage, "check");
/** How many do a change side by side: a race needs a check that says who has passed. */
const race = () => (check() ? Number($("race").value) : 0);
function showCheck(open, line = $("check").value, many = Number($("race").value)) {
  $("check").value = line;
  $("race").value = many || "";
  $("add-check").hidden = kind() !== "update";
  $("checking").hidden = !open || kind() !== "update";
  $("add-check").setAttribute("aria-expanded", String(!$("checking").hidden));
}

function grow() {
  composer.rows = Math.min(10, Math.max(1, composer.value.split("\n").length, Math.ceil(composer.value.length / Math.max(20, composer.clientWidth / 9))));
}

/** Messages on their way into the queue: after a reload they go on, each under its id. */
const leavingKept = kept(sessionStorage, `leaving:${openedAs}`);
let leaving = leavingKept.get() ?? [];
const leave = (all) => leavingKept.set((leaving = all));
const isGone = (id) => [...leaving, ...live.queue].some((one) => one.id === id);

/** The draft has the id that its message will have: a reload in between sends nothing twice. What
 *  is written while one before it is still being put into the queue is another message. So is what
 *  is written in another tab: there it has another id. */
function keepDraft() {
  const before = draft.get()?.id;
  setDraft(composer.value ? { id: before && !isGone(before) ? before : newId(), text: composer.value, kind: kind(), check: check(), race: race() } : null);
  grow();
}

function setDraft(written) {
  const before = draft.get()?.id;
  draft.set(written);
  if (written || lastDraft.get()?.id === before) lastDraft.set(written);
}

/** What was written before a reload, also while the page was not ready (early.js). */
function useDraft() {
  const early = composer.value || earlier.get() || "";
  document.body.dataset.ready = "";
  const written = draft.get() ?? lastDraft.get();
  if (written && isGone(written.id)) (draft.get() ? setDraft : lastDraft.set)(null); // it was sent
  else if (written) {
    composer.value = written.text;
    for (const choice of $("form").elements.kind) choice.checked = choice.value === written.kind;
    showCheck(Boolean(written.check), written.check || checks.get() || "", written.race);
  }
  if (early && early !== composer.value) {
    composer.value = [composer.value, early].filter(Boolean).join("\n");
    keepDraft();
  }
  earlier.set(null);
  grow();
}

async function send() {
  const text = composer.value;
  if (!text.trim()) return composer.focus();
  keepDraft();
  const { id } = draft.get() ?? { id: newId() };
  composer.value = "";
  checks.set(check() || checks.get());
  await queue({ id, text, kind: kind(), check: check(), race: race() });
  showCheck(!$("checking").hidden, undefined, 0); // each race is asked for
  grow();
  return composer.focus();
}

async function queue(message) {
  const { id, text } = message;
  leave([...leaving.filter((one) => one.id !== id), message]);
  try {
    await live.send(text, message);
    if (draft.get()?.id === id) setDraft(null);
    pinned = true;
  } catch (error) {
    composer.value = [text, composer.value].filter(Boolean).join("\n");
    say(error.message);
  } finally {
    leave(leaving.filter((one) => one.id !== id));
  }
}

composer.addEventListener("input", keepDraft);
$("form").addEventListener("change", () => {
  showCheck(!$("checking").hidden);
  if (composer.value) keepDraft();
});
$("add-check").addEventListener("click", () => {
  showCheck($("checking").hidden);
  if (!$("checking").hidden) $("check").focus();
  if (composer.value) keepDraft();
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
composer.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || event.shiftKey) return;
  if (touch && !event.ctrlKey && !event.metaKey) return; // a thumb has a button
  event.preventDefault();
  send();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("files").hidden) showFiles(false);
  if (event.key === "/" && !/^(TEXTAREA|INPUT)$/.test(event.target.tagName)) {
    event.preventDefault();
    composer.focus();
  }
});

function showQueue(items) {
  const unsent = items.filter(({ frame }) => frame.t === "msg");
  $("queue").dataset.count = String(unsent.length);
  $("queue").hidden = !unsent.length;
  bring($("queue"), unsent.map((item) => ({ key: item.id, mark: item.state + (item.why ?? ""), build: () => waiting(item) })));
}

function waiting({ id, state, why, frame }) {
  const button = (text, work, label = `${text}: ${frame.text.slice(0, 60)}`) => {
    const made = make("button", { type: "button", className: "quiet", textContent: text, aria: { label } });
    made.addEventListener("click", work);
    return made;
  };
  const stuck = state !== "pending";
  return make("li", { data: { state } },
    make("p", { className: "text", textContent: frame.text }),
    frame.check ? make("p", { className: "state", textContent: `Must pass: ${frame.check}${frame.race ? `. A race of ${frame.race}` : ""}` }) : null,
    make("p", { className: "state", textContent: stuck ? `Not sent. ${why.replace(/^Not sent: /, "")}` : "Waiting to be sent" }),
    make("div", { className: "row" },
      stuck ? button("Send again", () => live.resend(id)) : null,
      button("Edit", async () => {
        composer.value = [frame.text, composer.value].filter(Boolean).join("\n");
        if (frame.check) showCheck(true, frame.check, frame.race);
        setDraft(null);
        keepDraft();
        await live.discard(id);
        composer.focus();
      }),
      button("Discard", () => live.discard(id))));
}

// ---- the files of the newest version

let shown = null;

async function showFilesOf(version) {
  $("show-files").hidden = !version;
  if ($("files").hidden || !version || version === shown) return;
  shown = version;
  set("files-said", "Loading…");
  const where = `/v1/projects/${encodeURIComponent(project)}/versions/${encodeURIComponent(version)}/diff`;
  const answer = await fetch(where).catch(() => null);
  if (shown !== version) return;
  if (!answer?.ok) {
    shown = null;
    if (answer?.status === 413) return set("files-said", "This version changed too much to be shown here.");
    return set("files-said", answer ? "The changes of this version cannot be shown." : "No connection: open them again later.");
  }
  const { files, elements } = diff(await answer.text());
  $("diff").replaceChildren(...elements);
  set("files-said", files.length ? `${files.length === 1 ? "1 file" : `${files.length} files`} changed since the version before.` : "No file was changed.");
}

function showFiles(open) {
  $("files").hidden = !open;
  $("show-files").setAttribute("aria-expanded", String(open));
  document.body.classList.toggle("with-files", open);
  if (open) {
    shown = null;
    showFilesOf(live.view.version);
    $("files-title").focus();
  } else $("show-files").focus();
}
$("show-files").addEventListener("click", () => showFiles($("files").hidden));
$("hide-files").addEventListener("click", () => showFiles(false));

// ---- begin

$("project").textContent = project;
document.title = `${project} · Baton`;
live.on("state", showState);
live.on("view", showView);
live.on("queue", showQueue);
live.on("event", ({ type, job }) => type === "job.done" && job && askCost(job));
live.on("reset", older.forget);
live.on("reset", ({ why }) => say(why === "epoch" ? "The server was restored: this is what it knows." : "You were away for long: this is the newest part."));
live.on("nack", ({ text, frame }) => {
  if (frame?.t !== "msg") say(text ?? "The server refused that.");
  answered = null;
  undecided.again();
  showTrouble();
});
live.on("sent", ({ frame, job }) => {
  if (frame.t !== "msg" || !job || live.view.messages.some((one) => one.job === job && one.role === "user")) return;
  taken.set(job, frame.text);
  showView(live.view);
});
await live.ready;
showView(live.view);
showQueue(live.queue);
showCheck(false, checks.get() ?? "");
useDraft();
for (const message of leaving.filter(({ id }) => !live.queue.some((one) => one.id === id))) queue(message);
$("send").disabled = false; // before that it would send nothing, and the text be gone
findPlace();
showState();
live.connect();
if (!touch) composer.focus();
navigator.serviceWorker?.register("/static/sw.js", { scope: "/app/" }).catch(() => {}); // a shell is a comfort
