/**
 * What happens in a project, live, and messages to it that are never lost: the client's side of
 * the WebSocket /v1/live. One module without a dependency, for browsers and for Node.
 *
 *     const live = openLive({ project: "shop" });
 *     live.on("view", (view) => show(view.messages));
 *     await live.send("Make the header blue");
 *
 * Three things it holds to:
 * - An event is applied once: number last + 1, or the connection begins again from `last`.
 * - What was applied and how far that is are stored in one step, so a reload misses nothing.
 * - A message is stored before it is sent, and goes when the server has committed it.
 */

/** @typedef {"idle"|"connecting"|"replaying"|"live"|"reconnecting"|"failed"|"closed"} State */
/** @typedef {"update"|"ask"} Kind */
/**
 * One message that is not yet acknowledged. `pending`: will be sent. `refused`: the server does
 * not want it, `why` says so. `expired`: older than a day, sent only when a person says so.
 * @typedef {{id: string, at: number, n: number, frame: Record<string, any>,
 *   state: "pending"|"refused"|"expired", why?: string, code?: string}} Item
 */
/**
 * `check`: a round of a version's check, `checks` are its commands as they end; `text` says it too.
 * @typedef {{seq?: number, role: "user"|"assistant"|"notice"|"check", text: string, session?: string|null,
 *   job?: string|null, at?: string, code?: string, tools?: Tool[], version?: string|null,
 *   round?: number, checks?: Check[]}} Message
 * @typedef {{command: string, passed: boolean, exit_status?: number, signal?: number, reason?: string,
 *   output?: string, duration_ms?: number, changed?: string[]}} Check
 * @typedef {{id?: string, name: string, about: string, done?: boolean, error?: boolean}} Tool
 * @typedef {{kind?: string, chain?: string, state: string, error?: string|null,
 *   error_class?: string|null, attempt?: number, until?: string|null, cost?: number|null, choices?: string[]}} Job
 * @typedef {{job: string, tools: Tool[], texts: string[], writing?: string, retry?: number}} Work
 * @typedef {{messages: Message[], jobs: Record<string, Job>, turns: Record<string, Job>,
 *   work: Record<string, Work>, head: string|null, version: string|null,
 *   versions: Record<string, "unchecked"|"passing"|"failing">,
 *   earlier: number,
 *   lost: {seq?: number, job: string, code?: string, text: string, choices: string[]}|null}} Conversation
 * `earlier`: up to which event messages are not among these any more; 0: all are. See `Live.earlier`.
 */
/** @typedef {{seq: number, type: string, job?: string|null, at?: string, body: any}} Event */
/**
 * Makes what is shown out of what is told. `start` gives the empty view, `event` and `progress`
 * change it, `snapshot` makes it of the server's state. `shape` goes up when the form changes.
 * @typedef {{shape: number, start: () => any, event: (view: any, event: Event) => void,
 *   progress?: (view: any, frame: any) => void, snapshot: (state: any) => any}} Reducer
 */
/** @typedef {{epoch: string|null, last: number, view: any, shape: number}} Stored */
/**
 * Where the view and the outbox are kept. `shared`: other tabs see the same.
 * @typedef {{shared: boolean, load: (key: string) => Promise<Stored|null>,
 *   save: (key: string, what: Stored, anyway?: boolean) => Promise<void>,
 *   forget: (key: string) => Promise<void>, items: (key: string) => Promise<Item[]>,
 *   put: (key: string, item: Item) => Promise<void>,
 *   remove: (key: string, id: string) => Promise<void>}} Storage
 */

/** Seconds, and how often. Tests make them shorter. */
export const TIMES = Object.freeze({
  dial: 10, // from the attempt to the welcome
  silence: 45, // without a frame, and the connection is dead
  tries: 10,
  first: 1, // before the second try; doubled each time …
  longest: 30, // … up to this
  ack: 30, // for an acknowledgement
  patience: 5, // that another tab gets to send our message
  hole: 5, // for events that a heartbeat says are there
  kept: 24 * 3600, // that a message is sent by itself
  save: 0.3, // between two savings
});
const AGAIN = [1001, 1006, 1011, 1012, 1013, 4429];
const LARGEST = 256_000; // bytes of a frame
const SAID = {
  4400: "The server did not understand this client: reload the page.",
  4401: "You are not signed in any more: open the project's link again.",
  4404: "There is no such project, or it is not yours.",
  4410: "This conversation has ended.",
  4412: "This conversation was reset.",
};

/** A random UUID, also where the page is not served over TLS. */
export function newId() {
  if ("randomUUID" in crypto) return crypto.randomUUID();
  const bytes = /** @type {Crypto} */ (crypto).getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 15) | 64;
  bytes[8] = (bytes[8] & 63) | 128;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Seconds to wait before try `n` (0 is the first): doubled up to 30, the second half by chance. */
export function backoff(n, times = TIMES, chance = Math.random) {
  const full = Math.min(times.longest, times.first * 2 ** n);
  return full / 2 + chance() * (full / 2);
}

// ---------------------------------------------------------------- what is shown

const SHOWN = 500; // messages
const PAGE = 500; // events, as the gateway gives them
const ENDED = 100; // jobs that have ended, and versions
const OPEN = { "job.queued": "queued", "job.started": "started", "job.waits": "waits",
  "job.parked": "parked", "job.rescued": "queued" };
const OVER = { "job.done": "done", "job.failed": "failed", "job.cancelled": "cancelled",
  "job.quarantined": "failed" };
const FOLLOWS = ["metadata", "compaction"]; // nobody asked for these by themselves

/** @type {Reducer} The conversation of a project: who said what, which jobs are open. */
export const conversation = {
  shape: 3,
  start: () => ({ messages: [], earlier: 0, jobs: {}, turns: {}, work: {}, head: null, version: null, versions: {}, lost: null }),
  snapshot(state) {
    const view = conversation.start();
    const told = state ?? {};
    view.messages = (told.messages ?? []).slice(-SHOWN);
    view.earlier = Math.max(0, (view.messages[0]?.seq ?? 0) - 1);
    for (const job of told.jobs ?? []) {
      const id = job.job ?? job.id;
      view.jobs[id] = { ...job, state: job.state === "running" ? "started" : job.state };
    }
    view.head = told.head ?? null;
    view.version = told.version ?? null;
    for (const event of told.checks ?? []) addCheck(view, event);
    view.messages.sort((a, b) => (a.seq ?? 0) - (b.seq ?? 0));
    if (view.version) view.versions[view.version] = told.check_status ?? "unchecked";
    view.lost = told.lost ?? null;
    return view;
  },
  event(view, { seq, type, job, at, body }) {
    const said = body ?? {};
    const id = job ?? said.job ?? "";
    if (type === "chat.said") {
      const message = { seq, role: said.role, text: String(said.text ?? ""), session: said.session ?? null, job: id, at };
      const work = said.role === "assistant" && workOf(view, id);
      add(view, work && work.tools.length ? { ...message, tools: work.tools } : message);
      if (work) Object.assign(work, NOTHING());
    } else if (OPEN[type]) {
      if (type !== "job.queued" || !view.jobs[id]) {
        const known = view.jobs[id] ?? {};
        const { error, error_class, until, choices } = said;
        view.jobs[id] = { ...known, ...pick(said, ["kind", "chain", "attempt"]), state: OPEN[type], error, error_class, until, choices };
      }
      if (view.lost?.job === id && type !== "job.parked") view.lost = null;
      if (type === "job.started") inOrderOfWork(view, id);
      const work = type === "job.queued" ? null : workOf(view, id);
      if (work) Object.assign(work, NOTHING());
    } else if (OVER[type]) {
      end(view, id, OVER[type], said);
      const proof = said.result?.check?.status === "passing" && view.messages.findLast((one) => one.role === "check" && one.job === id);
      if (proof) stands(view, proof.version, "passing");
      const unasked = type === "job.cancelled" && FOLLOWS.includes(view.turns[id].kind);
      if (type !== "job.done" && !unasked && !races(id, view.turns[id])) {
        const text = said.error ?? (type === "job.cancelled" ? "Cancelled." : "This request failed.");
        add(view, { seq, role: "notice", text, code: said.error_class ?? OVER[type], job: id, at });
      }
    } else if (type === "session.resume_failed") {
      add(view, { seq, role: "notice", text: said.text, code: "session_lost", job: id, at });
      view.lost = { seq, job: id, code: said.code, text: said.text, choices: said.choices ?? [] };
    } else if (type === "check.passed" || type === "check.failed") {
      addCheck(view, { seq, type, job: id, at, body: said });
    } else if (type === "session.moved") {
      view.head = said.session ?? view.head;
      if (said.version) stands(view, (view.version = said.version), view.versions[said.version] ?? "unchecked");
      if (view.lost?.job === id) view.lost = null;
    }
  },
  progress(view, frame) {
    const job = String(frame.job ?? "");
    if (view.turns[job]) return; // it was slower than the commit
    const chain = String(races(job, view.jobs[job]) ? job : (frame.chain ?? job));
    const work = (view.work[chain] ??= { job, ...NOTHING() });
    if (work.job !== job) Object.assign(work, { job, texts: [], writing: "" });
    if (frame.what === "turn.began") Object.assign(work, { ...NOTHING(), retry: 0 });
    else if (frame.what === "writing") work.writing = written(work.writing ?? "", Number(frame.from ?? 0), String(frame.text ?? ""));
    else if (frame.what === "text") Object.assign(work, { texts: [...work.texts, String(frame.text ?? "")], writing: "" });
    else if (frame.what === "model.retry") work.retry = frame.attempt ?? 1;
    else if (frame.what === "tool" && !work.tools.some((tool) => tool.id && tool.id === frame.id)) {
      work.tools.push({ id: frame.id, name: String(frame.name ?? "Tool"), about: String(frame.about ?? "") });
    } else if (frame.what === "tool.done") {
      const tool = work.tools.find(({ id }) => id === frame.id);
      if (tool) Object.assign(tool, { done: true, error: Boolean(frame.error) });
    }
  },
};

/** What is shown of a turn that has just begun. */
const NOTHING = () => ({ tools: [], texts: [], writing: "" });

/** The text so far with its next piece. Where something is missing between them, only the piece is sure. */
const written = (text, from, piece) => (from === 0 ? "" : from === text.length ? text : "… ") + piece;

/** Whether the job is one of a race: how the request went the race's own job tells. */
const races = (id, job) => job?.kind === "build" && Boolean(job.chain) && job.chain !== id;

function add(view, message) {
  view.messages.push(message);
  if (view.messages.length <= SHOWN) return;
  const gone = view.messages.splice(0, view.messages.length - SHOWN);
  view.earlier = Math.max(view.earlier, ...gone.map(({ seq }) => seq ?? 0));
}

/** A round of a check is one entry of the conversation, with each of its commands. */
function addCheck(view, { seq, type, job, at, body }) {
  const passed = type === "check.passed";
  const command = { passed, ...pick(body, ["command", "exit_status", "signal", "reason", "output", "duration_ms", "changed"]) };
  const text = `Check ${passed ? "passed" : "failed"}: ${body.command}`;
  const known = view.messages.find((one) => one.role === "check" && one.job === job && one.round === body.round);
  if (known) Object.assign(known, { text, checks: [...known.checks, command] });
  else add(view, { seq, role: "check", text, job, at, version: body.version, round: body.round, checks: [command] });
  if (!passed) stands(view, body.version, "failing");
}

/** What is known of a version's check; of many versions, of the newest. */
function stands(view, version, status) {
  if (!version) return;
  delete view.versions[version];
  view.versions[version] = status;
  for (const old of Object.keys(view.versions).slice(0, -ENDED)) delete view.versions[old];
}

/** What was asked while another request was worked on comes below that one's answer. */
function inOrderOfWork(view, id) {
  const at = view.messages.findIndex(({ job, role }) => job === id && role === "user");
  if (at < 0 || view.messages.some(({ job }, n) => n > at && job === id)) return;
  view.messages.push(...view.messages.splice(at, 1));
}

function end(view, id, state, said) {
  const { kind, chain } = view.jobs[id] ?? said;
  delete view.jobs[id];
  view.turns[id] = { kind, chain, state, error: said.error, error_class: said.error_class, cost: said.cost_usd ?? said.cost };
  for (const old of Object.keys(view.turns).slice(0, -ENDED)) delete view.turns[old];
  for (const [key, work] of Object.entries(view.work)) if (work.job === id) delete view.work[key];
  if (view.lost?.job === id) view.lost = null;
}

const workOf = (view, job) => Object.values(view.work).find((work) => work.job === job);
const pick = (from, names) => Object.fromEntries(names.filter((name) => from[name] != null).map((name) => [name, from[name]]));

// ---------------------------------------------------------------- where it is kept

const order = (a, b) => a.at - b.at || a.n - b.n;

/** @returns {Storage} For Node, and for browsers that keep nothing. */
export function inMemory() {
  /** @type {Map<string, string>} */
  const views = new Map();
  /** @type {Map<string, Map<string, Item>>} */
  const boxes = new Map();
  const box = (/** @type {string} */ key) => {
    const there = boxes.get(key) ?? new Map();
    boxes.set(key, there);
    return there;
  };
  return {
    shared: false,
    load: async (key) => (views.has(key) ? JSON.parse(views.get(key) ?? "") : null),
    save: async (key, what) => void views.set(key, JSON.stringify(what)),
    forget: async (key) => void views.delete(key),
    items: async (key) => [...box(key).values()].map((item) => ({ ...item })).sort(order),
    put: async (key, item) => void box(key).set(item.id, { ...item }),
    remove: async (key, id) => void box(key).delete(id),
  };
}

/** @returns {Promise<Storage>} IndexedDB; what is in one record is stored in one transaction. */
export async function inIndexedDB(name = "baton-live", factory = globalThis.indexedDB) {
  const db = await new Promise((done, failed) => {
    const asked = factory.open(name, 1);
    asked.onupgradeneeded = () => {
      asked.result.createObjectStore("views");
      asked.result.createObjectStore("outbox", { keyPath: ["key", "id"] }).createIndex("key", "key");
    };
    asked.onsuccess = () => done(asked.result);
    asked.onerror = () => failed(asked.error);
    asked.onblocked = () => failed(new Error("Another tab holds an older store."));
  });
  db.onversionchange = () => db.close();
  const within = (store, mode, work) =>
    new Promise((done, failed) => {
      const change = db.transaction(store, mode, { durability: store === "outbox" ? "strict" : "relaxed" });
      let result;
      change.oncomplete = () => done(result);
      change.onabort = change.onerror = () => failed(change.error);
      work(change.objectStore(store), (value) => (result = value));
    });
  return {
    shared: true,
    load: (key) =>
      within("views", "readonly", (views, give) => {
        views.get(key).onsuccess = (e) => give(e.target.result ?? null);
      }),
    save: (key, what, anyway = false) =>
      within("views", "readwrite", (views) => {
        if (anyway) return views.put(what, key);
        views.get(key).onsuccess = (e) => {
          const there = e.target.result; // another tab may be further
          const further = there && there.epoch === what.epoch && there.shape === what.shape && there.last > what.last;
          if (!further) views.put(what, key);
        };
        return undefined;
      }),
    forget: (key) => within("views", "readwrite", (views) => views.delete(key)),
    items: (key) =>
      within("outbox", "readonly", (box, give) => {
        box.index("key").getAll(key).onsuccess = (e) =>
          give(e.target.result.map(({ key: _, ...item }) => item).sort(order));
      }),
    put: (key, item) => within("outbox", "readwrite", (box) => box.put({ ...item, key })),
    remove: (key, id) => within("outbox", "readwrite", (box) => box.delete([key, id])),
  };
}

async function bestStorage() {
  if (!globalThis.indexedDB) return inMemory();
  return inIndexedDB().catch(() => inMemory());
}

// ---------------------------------------------------------------- signing in

/** The ticket in the address's fragment (`#ticket=…`), taken out of the address; null: none. */
export function takeTicket(place = globalThis.location, past = globalThis.history) {
  const fields = new URLSearchParams(place.hash.slice(1));
  const ticket = fields.get("ticket");
  if (!ticket) return null;
  fields.delete("ticket");
  const rest = fields.toString();
  past.replaceState(past.state, "", place.pathname + place.search + (rest ? `#${rest}` : ""));
  return ticket;
}

/** A path of the gateway at that address; without one, of where the page comes from. */
const placeOf = (url, path) => `${(url ?? "").replace(/\/+$/, "")}${path}`;
const cookiesOf = (url) => (url ? "include" : "same-origin");

/** Changes a ticket for a cookie. Gives what the server says (project, user); raises `Refused`. */
export async function openSession(ticket, { url = "", fetch = globalThis.fetch } = {}) {
  const answer = await fetch(placeOf(url, "/v1/session"), {
    method: "POST",
    credentials: cookiesOf(url),
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ticket }),
  });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(said.code ?? String(answer.status), said.detail ?? "This link is not valid any more.");
  return said;
}

/** The server said no; `code` is for programs, the message for people. */
export class Refused extends Error {
  constructor(code, text) {
    super(text);
    this.code = code;
  }
}

// ---------------------------------------------------------------- the connection

/**
 * @typedef {object} Options
 * @property {string} project
 * @property {string} [user] whose view and messages are kept; another user of this browser has their own
 * @property {string} [url] the gateway, `https://…`; left out: where the page comes from
 * @property {string|(() => string|null|Promise<string|null>)|null} [ticket] for each connection; null: a cookie does
 * @property {Reducer} [reducer] what is shown; left out: `conversation`
 * @property {Storage} [storage] left out: IndexedDB, or memory where there is none
 * @property {any} [WebSocket] the class
 * @property {Partial<typeof TIMES>} [times]
 * @property {boolean} [connect] false: only what is kept is loaded, until `connect()`
 */

/** Opens the conversation of a project: loads what is kept, and connects. */
export function openLive(/** @type {Options} */ options) {
  return new Live(options);
}

/**
 * Tells by `on(what, function)`: `state` (State, {why, code, until}), `view` (the view), `event`
 * (each one), `progress`, `queue` (Item[]), `ack` ({id, job, dup}), `sent`
 * ({id, job, frame}: a message of the queue was taken), `nack` ({id, code, text}),
 * `reset` ({why}: what was shown is replaced) and `problem` (Error).
 */
export class Live {
  /** @type {State} */ state = "idle";
  /** Why it is `reconnecting`, `failed` or `closed`, for people. */
  why = "";
  /** @type {number|null} */ code = null;
  /** When the next try begins (milliseconds since 1970), while it waits for one. */
  /** @type {number|null} */ until = null;
  /** @type {string|null} */ epoch = null;
  last = 0;
  /** The newest number the server has told of. */ head = 0;
  /** @type {any} */ view;
  /** @type {Item[]} */ queue = [];
  tries = 0;
  /** What it did, for tests and for the curious. */
  counts = { applied: 0, doubles: 0, holes: 0, resets: 0, connections: 0 };
  /** Fulfilled when what is kept has been loaded. @type {Promise<void>} */ ready;

  #o; #key; #times; #url;
  /** @type {Storage} */ #storage = inMemory();
  /** @type {any} */ #socket = null;
  #tab = newId();
  /** @type {Map<string, Set<Function>>} */ #heard = new Map();
  /** @type {Record<string, any>} */ #timers = {};
  #heardAt = 0; #caughtUp = false; #wants = false; #holder = false; #flushing = false; #n = 0;
  /** @type {{id: string, frame: any, settle: (how: any) => void}|null} */ #sent = null;
  /** @type {AbortController|null} */ #lock = null;
  /** @type {BroadcastChannel|null} */ #channel = null;
  #dirty = false; #saving = Promise.resolve();
  /** @type {(() => void)|null} */ #loosen = null;
  /** @type {Promise<void>|null} */ #starting = null;

  constructor(/** @type {Options} */ options) {
    if (!options?.project) throw new TypeError("openLive needs a project.");
    this.#o = options;
    this.#times = { ...TIMES, ...options.times };
    this.#key = `${options.project}\n${options.user ?? ""}`;
    const base = options.url || globalThis.location?.origin;
    if (!base) throw new TypeError("openLive needs the gateway's url where there is no page.");
    const place = new URL(placeOf(base, "/v1/live"));
    place.protocol = place.protocol.replace("http", "ws");
    this.#url = place.href;
    this.view = this.#reducer.start();
    this.ready = this.#load();
    if (options.connect !== false) this.connect();
  }

  /** Hear of something; gives the function that ends it. */
  on(/** @type {string} */ what, /** @type {(...told: any[]) => void} */ hear) {
    const all = this.#heard.get(what) ?? new Set();
    this.#heard.set(what, all.add(hear));
    return () => void all.delete(hear);
  }

  /** Connects, if it is not connected: also the "Retry" after `failed`. */
  async connect() {
    this.#wants = true;
    await this.ready;
    if (!this.#wants || this.#socket || this.state === "connecting") return;
    this.#attend();
    this.tries = 0;
    this.#dial();
  }

  /** "Start new": forgets what is shown (not the messages still to be sent) and connects. */
  startOver() {
    return (this.#starting ??= this.#startOver().finally(() => (this.#starting = null)));
  }

  async #startOver() {
    this.#wants = true;
    await this.ready;
    this.#drop();
    await this.#storage.forget(this.#key);
    if (!this.#wants) return; // it was closed meanwhile
    this.#drop();
    this.#attend();
    this.#begin(null);
    this.tries = 0;
    this.#dial();
  }

  /** Ends for good; messages not yet sent stay kept. */
  async close() {
    this.#wants = false;
    await this.ready;
    this.#drop();
    this.#turn("closed", "Closed.", null);
    await this.#save();
    this.#channel?.close();
    this.#channel = null;
    this.#loosen?.();
    this.#loosen = null;
  }

  /**
   * A message to the project. Fulfilled with its id when it is kept: from then on it is sent,
   * now or whenever there is a connection. Raises `Refused` for what the server would never take.
   * `check`: a shell line that the version of an update must pass. `race`: so many do it side by side.
   */
  async send(/** @type {string} */ text, /** @type {{kind?: Kind, id?: string, check?: string, race?: number}} */ { kind = "update", id = newId(), check = "", race = 0 } = {}) {
    if (!text.trim()) throw new Refused("empty", "Write a message first.");
    return this.#keep({ t: "msg", id, kind, text, ...(kind === "update" && check.trim() ? { check } : {}), ...(kind === "update" && race ? { race } : {}) });
  }

  /** Answers a request whose session is lost (look for it once more, or begin a fresh one), or whose
   *  version fails its check. */
  async answer(/** @type {string} */ job, /** @type {"retry"|"start_new"|"keep"|"rewind"|"repair"} */ choice) {
    return this.#keep({ t: "answer", id: newId(), job, choice });
  }

  async cancel(/** @type {string} */ job) {
    return this.#keep({ t: "cancel", id: newId(), job });
  }

  /** Sends a refused or expired message after all. */
  async resend(/** @type {string} */ id) {
    await this.ready;
    const item = this.queue.find((one) => one.id === id);
    if (!item) return;
    const { why: _, code: __, ...rest } = item;
    await this.#put({ ...rest, at: Date.now(), n: this.#n++, state: "pending" });
  }

  /** Takes a message out of the queue, because a person says so. */
  async discard(/** @type {string} */ id) {
    await this.ready;
    await this.#remove(id, { dropped: id });
  }

  /** Adds to what is shown something that no event tells (a cost that was looked up, say). */
  change(/** @type {(view: any) => void} */ by) {
    by(this.view);
    this.#changed();
  }

  /**
   * What is in the log before what is shown: the view that the events up to number `upTo` make, a
   * page of them, and up to which number there are still earlier ones (0: none). It is not kept,
   * and asked over HTTP, with the page's cookie.
   * @returns {Promise<{view: any, upTo: number}>} Raises `Refused`, or what `fetch` raises.
   */
  async earlier(/** @type {number} */ upTo, { fetch = globalThis.fetch } = {}) {
    const from = Math.max(0, upTo - PAGE);
    const { project, url } = this.#o;
    const place = `/v1/projects/${encodeURIComponent(project)}/events?offset=${String(from).padStart(20, "0")}`;
    const answer = await fetch(placeOf(url, place), { credentials: cookiesOf(url) });
    const said = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Refused(said.code ?? String(answer.status), said.detail ?? "The log cannot be read just now.");
    const view = this.#reducer.start();
    for (const event of said) if (event.seq <= upTo) this.#reducer.event(view, event);
    return { view, upTo: from };
  }

  // ---- what is kept

  get #reducer() {
    return this.#o.reducer ?? conversation;
  }

  async #load() {
    this.#storage = this.#o.storage ?? (await bestStorage());
    const kept = await this.#storage.load(this.#key).catch(() => null);
    if (kept && kept.shape === this.#reducer.shape) {
      this.epoch = kept.epoch;
      this.last = kept.last;
      this.view = kept.view;
      this.#tell("view", this.view);
    }
    await this.#readQueue();
    this.#attend();
  }

  #changed() {
    this.#dirty = true;
    this.#once("view", 0, () => this.#tell("view", this.view));
    this.#once("save", this.#times.save, () => this.#save());
  }

  /** State and cursor in one record: what is applied twice or never is no longer possible. */
  #save(anyway = false) {
    if (!this.#dirty && !anyway) return this.#saving;
    this.#dirty = false;
    const what = structuredClone({ epoch: this.epoch, last: this.last, view: this.view, shape: this.#reducer.shape });
    const save = () => this.#storage.save(this.#key, what, anyway);
    return (this.#saving = this.#saving.then(save).catch((error) => this.#tell("problem", error)));
  }

  async #keep(/** @type {Record<string, any>} */ frame) {
    if (new TextEncoder().encode(JSON.stringify(frame)).length > LARGEST) {
      throw new Refused("too_long", `This message is too long: ${LARGEST / 1000} kB are the most.`);
    }
    await this.ready;
    await this.#put({ id: frame.id, at: Date.now(), n: this.#n++, frame, state: "pending" });
    return /** @type {string} */ (frame.id);
  }

  async #put(/** @type {Item} */ item) {
    await this.#storage.put(this.#key, item);
    await this.#readQueue();
    this.#share({ queued: item.id });
    this.#flush();
  }

  async #remove(/** @type {string} */ id, /** @type {any} */ why) {
    await this.#storage.remove(this.#key, id);
    await this.#readQueue();
    this.#share(why);
  }

  async #readQueue() {
    const items = await this.#storage.items(this.#key);
    const dead = Date.now() - this.#times.kept * 1000;
    for (const item of items.filter((one) => one.state === "pending" && one.at < dead)) {
      Object.assign(item, { state: "expired", why: "Not sent: it waited for more than a day." });
      await this.#storage.put(this.#key, item);
    }
    this.queue = items;
    this.#n = Math.max(this.#n, ...items.map((item) => item.n + 1));
    this.#tell("queue", items);
  }

  // ---- connecting

  async #dial() {
    this.#clear("retry");
    this.until = null;
    this.#turn("connecting");
    this.counts.connections++;
    const Socket = this.#o.WebSocket ?? globalThis.WebSocket;
    const mine = (this.#socket = { opening: true });
    this.#once("dial", this.#times.dial, () => this.#lose("The server did not answer."));
    let ticket = null;
    try {
      ticket = typeof this.#o.ticket === "function" ? await this.#o.ticket() : (this.#o.ticket ?? null);
    } catch (error) {
      if (this.#socket === mine) this.#lose("No ticket could be had.");
      return;
    }
    if (this.#socket !== mine) return; // it was given up in between
    const socket = (this.#socket = new Socket(this.#url));
    const ours = (/** @type {(e: any) => void} */ work) => (/** @type {any} */ e) => this.#socket === socket && work(e);
    socket.onopen = ours(() => {
      const { epoch, last } = this;
      socket.send(JSON.stringify({ t: "hello", v: 1, project: this.#o.project, ticket, tab: this.#tab, epoch, last }));
    });
    socket.onmessage = ours((e) => this.#receive(e.data));
    socket.onclose = ours((e) => this.#closed(e.code, String(e.reason ?? "")));
    socket.onerror = () => {}; // a close follows
  }

  #closed(/** @type {number} */ code, /** @type {string} */ reason) {
    if (code === 1009 && this.#sent) this.#sent.settle({ t: "nack", code: "too_long", text: "This message is too long.", retry: false });
    if (code >= 4000 && !AGAIN.includes(code)) return this.#stop(code, reason);
    const wait = code === 4429 ? Number(/retry_after=(\d+(\.\d+)?)/.exec(reason)?.[1] ?? 0) : 0;
    this.#lose(code === 4429 ? "Too many connections or messages." : "The connection was cut.", code, wait);
  }

  /** The server does not want this client: nothing is tried again by itself. */
  #stop(/** @type {number} */ code, /** @type {string} */ reason) {
    this.#drop();
    this.#wants = false;
    if (code === 4410) this.#begin(null); // it was deleted, and so is what is kept of it here
    this.#turn("closed", SAID[code] ?? (reason || "The server closed the conversation."), code);
  }

  /** The connection is gone or of no use: again, after a pause. */
  #lose(/** @type {string} */ why, /** @type {number|null} */ code = null, wait = 0) {
    this.#drop();
    this.#save();
    if (!this.#wants) return;
    if (this.tries >= this.#times.tries) return this.#turn("failed", `${why} ${this.tries} tries came to nothing.`, code);
    const away = globalThis.navigator?.onLine === false;
    const pause = away ? this.#times.longest : Math.max(wait, backoff(this.tries, this.#times));
    if (!away) this.tries++;
    this.until = Date.now() + pause * 1000;
    this.#turn("reconnecting", away ? "This device is offline." : why, code);
    this.#once("retry", pause, () => this.#dial());
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    for (const name of ["dial", "retry", "watch", "hole", "patience"]) this.#clear(name);
    this.until = null;
    this.#caughtUp = false;
    this.#lock?.abort();
    this.#lock = null;
    this.#sent?.settle(null);
    if (!socket?.close) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.onerror = () => {};
    try {
      socket.close(1000);
    } catch {} // it was not open yet, in some classes
  }

  /** Dead connections are found by the clock on the wall: timers of hidden pages hardly run. */
  #check = () => {
    if (this.#caughtUp || this.state === "replaying") {
      if (Date.now() - this.#heardAt > this.#times.silence * 1000) {
        this.#lose("Nothing was heard from the server.");
        if (this.state === "reconnecting") this.#dial();
      }
    } else if (this.state === "reconnecting") this.#dial();
  };

  #visible = () => (globalThis.document?.visibilityState === "hidden" ? void this.#save() : this.#check());
  #online = () => {
    if (this.state === "failed" && this.#wants) this.tries = 0;
    if (this.state === "failed" || this.state === "reconnecting") this.#wants && this.#dial();
    else this.#check();
  };
  #offline = () => {
    if (this.#socket) this.#lose("This device is offline.");
  };

  /** Hears of other tabs and of the device, until `close()`. */
  #attend() {
    if (this.#loosen) return;
    this.#loosen = () => {};
    if (this.#storage.shared && globalThis.BroadcastChannel) {
      this.#channel = new BroadcastChannel(`baton-live:${this.#key}`);
      this.#channel.onmessage = ({ data }) => this.#shared(data);
    }
    const page = globalThis.document ? globalThis.window : null;
    if (!page) return;
    const heard = /** @type {[EventTarget, string, any][]} */ ([[page, "online", this.#online], [page, "offline", this.#offline],
      [page, "pageshow", this.#check], [document, "visibilitychange", this.#visible],
      [document, "resume", this.#check], [page, "pagehide", () => void (this.#dirty && this.#save(true))]]);
    for (const [where, what, hear] of heard) where.addEventListener(what, hear);
    this.#loosen = () => heard.forEach(([where, what, hear]) => where.removeEventListener(what, hear));
  }

  // ---- what the server says

  #receive(/** @type {string} */ text) {
    this.#heardAt = Date.now();
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return this.#lose("The server sent what is no JSON.");
    }
    switch (frame.t) {
      case "welcome": return this.#welcome(frame);
      case "event": return this.#event(frame);
      case "live": return this.#live(frame.head);
      case "progress": return this.#progress(frame);
      case "hb": return this.#beat(frame.head);
      case "ack": return void this.#acked(frame);
      case "nack": return void this.#nacked(frame);
    }
  }

  #welcome(/** @type {any} */ { epoch, head, mode, at, state }) {
    this.#clear("dial");
    this.head = head ?? 0;
    this.#watch();
    const known = this.epoch;
    if (mode === "snapshot") {
      const why = known && known !== epoch ? "epoch" : this.last ? "behind" : "first";
      this.#begin(epoch || null, at ?? head, this.#reducer.snapshot(state));
      if (why !== "first") this.#tellReset(why);
    } else if (known && known !== epoch) { // another history: ours is of no use for it
      const stale = this.last > 0;
      this.#begin(epoch);
      this.#tellReset("epoch");
      if (stale) return this.#lose("The server has another history.");
    } else this.epoch = epoch || null; // "": the project begins with its first message
    this.#turn("replaying");
  }

  #begin(/** @type {string|null} */ epoch, last = 0, view = this.#reducer.start()) {
    Object.assign(this, { epoch, last, view });
    this.#changed();
    this.#save(true);
  }

  #tellReset(/** @type {string} */ why) {
    this.counts.resets++;
    this.#tell("reset", { why });
  }

  #event(/** @type {any} */ frame) {
    if (frame.seq <= this.last) return void this.counts.doubles++;
    if (frame.seq !== this.last + 1) return this.#hole();
    try {
      this.#reducer.event(this.view, frame);
    } catch (error) {
      this.#tell("problem", error);
    }
    this.last = frame.seq;
    this.head = Math.max(this.head, frame.seq);
    this.counts.applied++;
    this.#tell("event", frame);
    this.#changed();
    if (frame.type === "chat.said" && frame.body?.id && this.queue.some((item) => item.id === frame.body.id)) {
      this.#acked({ id: frame.body.id, job: frame.job, dup: true });
    }
  }

  #hole() {
    this.counts.holes++;
    this.#lose("Something was missing; it is fetched again.");
  }

  #live(/** @type {number} */ head) {
    if (head > this.last) return this.#hole();
    this.#caughtUp = true;
    this.tries = 0;
    this.#turn("live");
    this.#save();
    this.#take();
  }

  #progress(/** @type {any} */ frame) {
    this.#tell("progress", frame);
    if (!this.#reducer.progress) return;
    try {
      this.#reducer.progress(this.view, frame);
    } catch (error) {
      this.#tell("problem", error);
    }
    this.#changed();
  }

  #beat(/** @type {number} */ head) {
    this.head = Math.max(this.head, head ?? 0);
    if (this.#caughtUp && head > this.last) {
      this.#once("hole", this.#times.hole, () => head > this.last && this.#hole());
    }
  }

  #watch() {
    const every = Math.min(5, this.#times.silence / 3);
    this.#once("watch", every, () => {
      if (Date.now() - this.#heardAt > this.#times.silence * 1000) this.#check();
      else this.#watch();
    });
  }

  // ---- what is sent

  /** Only one tab sends what several may have written; who holds the lock. Others after a while. */
  #take() {
    const locks = this.#storage.shared ? globalThis.navigator?.locks : null;
    this.#holder = !locks;
    this.#readQueue().then(() => this.#flush()); // what has become too old meanwhile is not sent
    if (!locks) return;
    const lock = (this.#lock = new AbortController());
    const held = () => {
      if (lock.signal.aborted) return undefined;
      this.#holder = true;
      this.#readQueue().then(() => this.#flush());
      return new Promise((done) => lock.signal.addEventListener("abort", done)).then(() => {
        if (this.#lock === null || this.#lock === lock) this.#holder = false;
      });
    };
    locks.request(`outbox:${this.#o.project}`, { signal: lock.signal }, held).catch(() => {});
  }

  async #flush() {
    if (this.#flushing || this.state !== "live") return;
    this.#flushing = true;
    try {
      for (let item; this.state === "live" && (item = this.#next()); ) await this.#deliver(item, this.#socket);
    } catch (error) {
      this.#tell("problem", error);
    } finally {
      this.#flushing = false;
    }
    if (this.state === "live" && !this.#holder && this.queue.some((item) => item.state === "pending")) {
      this.#once("patience", this.#times.patience, () => this.#readQueue().then(() => this.#flush()));
    }
  }

  #next() {
    const late = Date.now() - this.#times.patience * 1000;
    return this.queue.find((item) => item.state === "pending" && (this.#holder || item.at <= late));
  }

  /** One at a time, so that messages arrive in the order in which they were written. */
  async #deliver(/** @type {Item} */ item, /** @type {any} */ socket) {
    for (let pause = 1; socket === this.#socket && this.queue.some((one) => one.id === item.id); pause = Math.min(30, pause * 2)) {
      const answer = await this.#ask(item, socket);
      if (answer?.t === "ack") return this.#remove(item.id, { acked: item.id, job: answer.job });
      if (answer && !answer.retry) return this.#refuse(item, answer);
      if (!answer) return undefined;
      await this.#sleep(answer.retry_after ?? pause);
    }
    return undefined;
  }

  #ask(/** @type {Item} */ item, /** @type {any} */ socket) {
    return new Promise((done) => {
      const settle = (/** @type {any} */ how) => {
        this.#clear("ack");
        if (this.#sent?.settle === settle) this.#sent = null;
        done(how);
      };
      this.#sent = { id: item.id, frame: item.frame, settle };
      this.#once("ack", this.#times.ack, () => this.#lose("The server did not take a message in time."));
      socket.send(JSON.stringify(item.frame));
    });
  }

  async #refuse(/** @type {Item} */ item, /** @type {any} */ { code, text }) {
    const refused = /** @type {Item} */ ({ ...item, state: "refused", code, why: text ?? "The server refused it." });
    if (item.frame.t === "msg") await this.#storage.put(this.#key, refused);
    else await this.#storage.remove(this.#key, item.id);
    await this.#readQueue();
    this.#share({ refused: item.id });
    this.#tell("nack", { id: item.id, code, text, frame: item.frame });
  }

  async #acked(/** @type {any} */ frame) {
    const sent = this.#answers(frame);
    const id = frame.id ?? sent?.id;
    this.#tell("ack", { ...frame, id });
    const item = this.queue.find((one) => one.id === id);
    if (item) this.#tell("sent", { id, job: frame.job, frame: item.frame });
    if (sent) return sent.settle({ ...frame, t: "ack" });
    if (item) return this.#remove(id, { acked: id, job: frame.job });
    return undefined;
  }

  #nacked(/** @type {any} */ frame) {
    const sent = this.#answers(frame);
    if (sent) sent.settle(frame);
    else this.#tell("nack", frame);
  }

  /** What is under way, if the frame answers it. One thing is under way at a time, so a frame
   * without an id means that one. */
  #answers(/** @type {any} */ { id }) {
    const sent = this.#sent;
    return sent?.id && (!id || sent.id === id) ? sent : null;
  }

  #share(/** @type {any} */ what) {
    this.#channel?.postMessage(what);
  }

  async #shared(/** @type {any} */ what) {
    await this.#readQueue();
    if (what.acked) this.#tell("ack", { id: what.acked, job: what.job, dup: false, elsewhere: true });
    if (what.queued) this.#flush();
  }

  // ---- small things

  #turn(/** @type {State} */ state, why = "", /** @type {number|null} */ code = null) {
    Object.assign(this, { state, why, code });
    this.#tell("state", state, { why, code, until: this.until });
  }

  #tell(/** @type {string} */ what, /** @type {any[]} */ ...told) {
    for (const hear of this.#heard.get(what) ?? []) {
      try {
        hear(...told);
      } catch (error) {
        console.error(error);
      }
    }
  }

  #once(/** @type {string} */ name, /** @type {number} */ seconds, /** @type {() => any} */ work) {
    if (this.#timers[name] !== undefined) {
      if (name === "view" || name === "save" || name === "hole") return; // one is on its way
      this.#clear(name);
    }
    this.#timers[name] = setTimeout(() => {
      delete this.#timers[name];
      work();
    }, seconds * 1000);
  }

  #clear(/** @type {string} */ name) {
    clearTimeout(this.#timers[name]);
    delete this.#timers[name];
  }

  /** Ends early when the connection does. */
  #sleep(/** @type {number} */ seconds) {
    return new Promise((/** @type {(value?: any) => void} */ done) => {
      this.#sent = { id: "", frame: {}, settle: () => done() };
      setTimeout(done, seconds * 1000);
    });
  }
}
