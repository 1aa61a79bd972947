// The conversation as elements. What people or the agent wrote is only ever set as text.

import { round } from "./checks.js";

/** An element with properties and children. */
export function make(tag, more = {}, ...children) {
  const { data = {}, aria = {}, ...rest } = more;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, data);
  for (const [name, value] of Object.entries(aria)) made.setAttribute(name === "role" ? name : `aria-${name}`, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const MARKED = /(\n{0,2}```[^\n`]*\n[\s\S]*?(?:\n```(?:\n{1,2}|$)|$))|(`[^`\n]+`)|(\*\*[^*\n]+\*\*)|(https?:\/\/[^\s<>"'`)\]]+[^\s<>"'`)\].,;:!?])/g;

/** Text with code, stress and links made visible. Their marks are hidden, and stay in the text. */
export function prose(text) {
  const all = document.createDocumentFragment();
  let from = 0;
  for (const found of text.matchAll(MARKED)) {
    all.append(text.slice(from, found.index));
    const [whole, block, code, stressed] = found;
    if (block) all.append(...fenced(block));
    else if (code) all.append(make("code", {}, mark("`"), code.slice(1, -1), mark("`")));
    else if (stressed) all.append(make("strong", {}, mark("**"), stressed.slice(2, -2), mark("**")));
    else all.append(make("a", { href: whole, rel: "noopener noreferrer nofollow", target: "_blank", textContent: whole }));
    from = found.index + whole.length;
  }
  all.append(text.slice(from));
  return all;
}

const mark = (text) => make("span", { hidden: true, textContent: text });

function fenced(block) {
  const [, open, inside, close] = /^(\n*```[^\n]*\n)([\s\S]*?)(\n```\n*|)$/.exec(block) ?? ["", "", block, ""];
  return [mark(open), make("code", { className: "block", tabIndex: 0, textContent: inside }), mark(close)];
}

const WHO = { user: "You", assistant: "Agent", notice: "Note", check: "Check" };

/** One message; `turn` is what is known of the job that it belongs to. */
export function message(one, turn, open) {
  const { role, text, at, tools, code, checks } = one;
  if (checks) return make("li", { className: "message", data: { role, how: checks.at(-1).passed ? "done" : "failed" } }, round(one, open));
  return make("li", { className: "message", data: { role, ...(code ? { code } : {}) } },
    make("p", { className: "who" }, WHO[role] ?? role, at ? time(at) : null),
    tools?.length ? steps(tools, open) : null,
    make("div", { className: "text" }, prose(text)),
    cost(turn));
}

function time(at) {
  const when = new Date(at);
  if (Number.isNaN(when.getTime())) return null;
  const today = when.toDateString() === new Date().toDateString();
  const shown = when.toLocaleString([], today ? { hour: "2-digit", minute: "2-digit" } : { dateStyle: "medium", timeStyle: "short" });
  return make("time", { dateTime: when.toISOString(), textContent: shown });
}

function cost(turn) {
  if (typeof turn?.cost !== "number") return null;
  return make("p", { className: "cost", textContent: dollars(turn.cost) });
}

export const dollars = (cost) => `${cost < 0.1 ? cost.toFixed(3) : cost.toFixed(2)} USD`;

/** Tool calls, folded: one line says how many and which was the last. */
export function steps(tools, open) {
  const last = tools.at(-1);
  const failed = tools.filter(({ error }) => error).length;
  const many = tools.length === 1 ? "1 step" : `${tools.length} steps`;
  const list = make("ol", {}, ...tools.map(step));
  const summary = make("summary", {}, make("span", { textContent: failed ? `${many}, ${failed} failed` : many }),
    make("span", { className: "about", textContent: label(last) }));
  const details = make("details", { className: "steps" }, summary, list);
  const key = String(tools[0]?.id ?? "");
  details.open = open.has(key);
  details.addEventListener("toggle", () => (details.open ? open.add(key) : open.delete(key)));
  return details;
}

const label = ({ name, about }) => `${name} ${short(about)}`.trim();
const short = (about) => (about.startsWith("/") && !about.includes(" ") ? about.split("/").slice(-2).join("/") : about);

function step(tool) {
  const how = tool.error ? "failed" : tool.done ? "done" : "under way";
  return make("li", { data: { how }, title: tool.about },
    make("b", { textContent: tool.name }), " ", make("span", { textContent: short(tool.about) }),
    make("span", { className: "unseen", textContent: ` (${how})` }));
}

const STATES = { queued: "Waiting for its turn", started: "Working", waits: "Will be tried again", parked: "Set aside for now" };

const AFTERWARDS = { metadata: "Writing down what was done", compaction: "Putting its memory in order" };
const ASKS = ["ask", "check_undecided"];

/** What is being done for a job that has not ended: its state, steps and words so far. */
export function underWay(id, job, work, open, cancel) {
  const stop = make("button", { type: "button", className: "quiet cancel", textContent: "Stop" });
  stop.addEventListener("click", () => cancel(id, stop));
  const retry = work?.retry ? ` (the model is tried again, ${work.retry})` : "";
  const later = AFTERWARDS[job.kind]; // nobody asked for it, so its words are not shown
  const asks = ASKS.includes(job.error_class);
  const how = asks ? "Waits for your answer" : (job.state === "started" && later) || (STATES[job.state] ?? job.state);
  const state = make("p", { className: "state", data: { state: job.state } },
    make("span", { className: "pulse", aria: { hidden: "true" } }),
    make("span", { textContent: how + retry }), later ? null : stop);
  const why = job.error && !asks && job.state !== "started" ? make("p", { className: "why", textContent: job.error }) : null;
  const text = later || !work ? "" : [...work.texts, work.writing ?? ""].filter(Boolean).join("\n\n");
  const done = !later && work?.tools.length ? steps(work.tools, open) : null;
  const said = text && make("div", { className: "message streaming", data: { role: "assistant", streaming: "" } },
    make("p", { className: "who", textContent: WHO.assistant }), done, make("div", { className: "text" }, prose(text)));
  return make("section", { className: "job", data: { job: id }, aria: { label: "Under way" } }, said || done || null, state, why);
}

/** Brings a list's children to what is wanted, and touches only those that differ. */
export function bring(list, wanted) {
  const there = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let place = list.firstChild;
  for (const { key, mark, build } of wanted) {
    const old = there.get(key);
    there.delete(key);
    if (old && old.dataset.mark === mark) {
      if (old === place) place = place.nextSibling;
      else list.insertBefore(old, place);
      continue;
    }
    const built = build();
    Object.assign(built.dataset, { key, mark });
    if (old === place && old) place = old.nextSibling;
    old?.remove();
    list.insertBefore(built, place);
  }
  for (const child of there.values()) child.remove();
}
