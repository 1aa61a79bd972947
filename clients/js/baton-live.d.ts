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
export type State = "idle" | "connecting" | "replaying" | "live" | "reconnecting" | "failed" | "closed";
export type Kind = "update" | "ask";
export type Item = {
    id: string;
    at: number;
    n: number;
    frame: Record<string, any>;
    state: "pending" | "refused" | "expired";
    why?: string;
    code?: string;
};
export type Message = {
    seq?: number;
    role: "user" | "assistant" | "notice" | "check";
    text: string;
    session?: string | null;
    job?: string | null;
    at?: string;
    code?: string;
    tools?: Tool[];
    version?: string | null;
    round?: number;
    checks?: Check[];
};
export type Check = {
    command: string;
    passed: boolean;
    exit_status?: number;
    signal?: number;
    reason?: string;
    output?: string;
    duration_ms?: number;
    changed?: string[];
};
export type Tool = {
    id?: string;
    name: string;
    about: string;
    done?: boolean;
    error?: boolean;
};
export type Job = {
    kind?: string;
    chain?: string;
    state: string;
    error?: string | null;
    error_class?: string | null;
    attempt?: number;
    until?: string | null;
    cost?: number | null;
    choices?: string[];
};
export type Work = {
    job: string;
    tools: Tool[];
    texts: string[];
    writing?: string;
    retry?: number;
};
export type Conversation = {
    messages: Message[];
    jobs: Record<string, Job>;
    turns: Record<string, Job>;
    work: Record<string, Work>;
    head: string | null;
    version: string | null;
    versions: Record<string, "unchecked" | "passing" | "failing">;
    earlier: number;
    lost: {
        seq?: number;
        job: string;
        code?: string;
        text: string;
        choices: string[];
    } | null;
};
export type Event = {
    seq: number;
    type: string;
    job?: string | null;
    at?: string;
    body: any;
};
export type Reducer = {
    shape: number;
    start: () => any;
    event: (view: any, event: Event) => void;
    progress?: (view: any, frame: any) => void;
    snapshot: (state: any) => any;
};
export type Stored = {
    epoch: string | null;
    last: number;
    view: any;
    shape: number;
};
export type Storage = {
    shared: boolean;
    load: (key: string) => Promise<Stored | null>;
    save: (key: string, what: Stored, anyway?: boolean) => Promise<void>;
    forget: (key: string) => Promise<void>;
    items: (key: string) => Promise<Item[]>;
    put: (key: string, item: Item) => Promise<void>;
    remove: (key: string, id: string) => Promise<void>;
};
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
export declare const TIMES: Readonly<{
    dial: 10;
    silence: 45;
    tries: 10;
    first: 1;
    longest: 30;
    ack: 30;
    patience: 5;
    hole: 5;
    kept: number;
    save: 0.3;
}>;
/** A random UUID, also where the page is not served over TLS. */
export declare function newId(): string;
/** Seconds to wait before try `n` (0 is the first): doubled up to 30, the second half by chance. */
export declare function backoff(n: any, times?: Readonly<{
    dial: 10;
    silence: 45;
    tries: 10;
    first: 1;
    longest: 30;
    ack: 30;
    patience: 5;
    hole: 5;
    kept: number;
    save: 0.3;
}>, chance?: () => number): number;
/** @type {Reducer} The conversation of a project: who said what, which jobs are open. */
export declare const conversation: Reducer;
/** @returns {Storage} For Node, and for browsers that keep nothing. */
export declare function inMemory(): Storage;
/** @returns {Promise<Storage>} IndexedDB; what is in one record is stored in one transaction. */
export declare function inIndexedDB(name?: string, factory?: IDBFactory): Promise<Storage>;
/** The ticket in the address's fragment (`#ticket=…`), taken out of the address; null: none. */
export declare function takeTicket(place?: Location, past?: History): string | null;
/** Changes a ticket for a cookie. Gives what the server says (project, user); raises `Refused`. */
export declare function openSession(ticket: any, { url, fetch }?: {
    fetch?: typeof globalThis.fetch | undefined;
    url?: string | undefined;
}): Promise<any>;
/** The server said no; `code` is for programs, the message for people. */
export declare class Refused extends Error {
    code: any;
    constructor(code: any, text: any);
}
export type Options = {
    project: string;
    /**
     * whose view and messages are kept; another user of this browser has their own
     */
    user?: string;
    /**
     * the gateway, `https://…`; left out: where the page comes from
     */
    url?: string;
    /**
     * for each connection; null: a cookie does
     */
    ticket?: string | (() => string | null | Promise<string | null>) | null;
    /**
     * what is shown; left out: `conversation`
     */
    reducer?: Reducer;
    /**
     * left out: IndexedDB, or memory where there is none
     */
    storage?: Storage;
    /**
     * the class
     */
    WebSocket?: any;
    times?: Partial<typeof TIMES>;
    /**
     * false: only what is kept is loaded, until `connect()`
     */
    connect?: boolean;
};
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
export declare function openLive(/** @type {Options} */ options: Options): Live;
/**
 * Tells by `on(what, function)`: `state` (State, {why, code, until}), `view` (the view), `event`
 * (each one), `progress`, `queue` (Item[]), `ack` ({id, job, dup}), `sent`
 * ({id, job, frame}: a message of the queue was taken), `nack` ({id, code, text}),
 * `reset` ({why}: what was shown is replaced) and `problem` (Error).
 */
export declare class Live {
    #private;
    /** @type {State} */ state: State;
    /** Why it is `reconnecting`, `failed` or `closed`, for people. */
    why: string;
    /** @type {number|null} */ code: number | null;
    /** When the next try begins (milliseconds since 1970), while it waits for one. */
    /** @type {number|null} */ until: number | null;
    /** @type {string|null} */ epoch: string | null;
    last: number;
    /** The newest number the server has told of. */ head: number;
    /** @type {any} */ view: any;
    /** @type {Item[]} */ queue: Item[];
    tries: number;
    /** What it did, for tests and for the curious. */
    counts: {
        applied: number;
        doubles: number;
        holes: number;
        resets: number;
        connections: number;
    };
    /** Fulfilled when what is kept has been loaded. @type {Promise<void>} */ ready: Promise<void>;
    constructor(/** @type {Options} */ options: Options);
    /** Hear of something; gives the function that ends it. */
    on(/** @type {string} */ what: string, /** @type {(...told: any[]) => void} */ hear: (...told: any[]) => void): () => undefined;
    /** Connects, if it is not connected: also the "Retry" after `failed`. */
    connect(): Promise<void>;
    /** "Start new": forgets what is shown (not the messages still to be sent) and connects. */
    startOver(): Promise<void>;
    /** Ends for good; messages not yet sent stay kept. */
    close(): Promise<void>;
    /**
     * A message to the project. Fulfilled with its id when it is kept: from then on it is sent,
     * now or whenever there is a connection. Raises `Refused` for what the server would never take.
     * `check`: a shell line that the version of an update must pass. `race`: so many do it side by side.
     */
    send(/** @type {string} */ text: string, /** @type {{kind?: Kind, id?: string, check?: string, race?: number}} */ { kind, id, check, race }?: {
        kind?: Kind;
        id?: string;
        check?: string;
        race?: number;
    }): Promise<string>;
    /** Answers a request whose session is lost (look for it once more, or begin a fresh one), or whose
     *  version fails its check. */
    answer(/** @type {string} */ job: string, /** @type {"retry"|"start_new"|"keep"|"rewind"|"repair"} */ choice: "retry" | "start_new" | "keep" | "rewind" | "repair"): Promise<string>;
    cancel(/** @type {string} */ job: string): Promise<string>;
    /** Sends a refused or expired message after all. */
    resend(/** @type {string} */ id: string): Promise<void>;
    /** Takes a message out of the queue, because a person says so. */
    discard(/** @type {string} */ id: string): Promise<void>;
    /** Adds to what is shown something that no event tells (a cost that was looked up, say). */
    change(/** @type {(view: any) => void} */ by: (view: any) => void): void;
    /**
     * What is in the log before what is shown: the view that the events up to number `upTo` make, a
     * page of them, and up to which number there are still earlier ones (0: none). It is not kept,
     * and asked over HTTP, with the page's cookie.
     * @returns {Promise<{view: any, upTo: number}>} Raises `Refused`, or what `fetch` raises.
     */
    earlier(/** @type {number} */ upTo: number, { fetch }?: {
        fetch?: typeof globalThis.fetch | undefined;
    }): Promise<{
        view: any;
        upTo: number;
    }>;
}
