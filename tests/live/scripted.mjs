/** A server that does what a test tells it: for what a real gateway cannot be made to do. */
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";

const at = process.env.BATON_NODE_MODULES ?? new URL("../../.baton/node/node_modules", import.meta.url).pathname;
const { WebSocketServer, WebSocket } = createRequire(`${at}/x.js`)("ws");
export { WebSocket };

export const QUICK = { first: 0.02, longest: 0.1, dial: 1, ack: 2, patience: 0.1, hole: 0.1, save: 0.01, silence: 45 };

const STATIC = new URL("../../gateway/static/", import.meta.url);
const TYPES = { css: "text/css", js: "text/javascript", svg: "image/svg+xml", webmanifest: "application/manifest+json", html: "text/html" };
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** The page's files as the gateway gives them, and what `answers` has for other paths. */
function pages(answers) {
  return createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://x");
    const name = pathname.startsWith("/app/") ? "app.html" : pathname.startsWith("/static/") ? pathname.slice(8) : null;
    const told = answers[pathname];
    const answer = (typeof told === "function" ? told(searchParams) : told) ?? (name && { type: TYPES[name.split(".").at(-1)], body: readFileSync(new URL(name, STATIC)) });
    if (!answer) return response.writeHead(404).end("{}");
    response.writeHead(answer.status ?? 200, { "content-type": answer.type ?? "application/json", "content-security-policy": POLICY, "service-worker-allowed": "/app/", "cache-control": "no-cache" });
    return response.end(answer.body);
  });
}

/** `script(talk, n)` is called for connection number n (from 1) once its hello has come. */
export async function scripted(script, { answers = {}, port = 0 } = {}) {
  const http = pages(answers).listen(port, "127.0.0.1");
  const server = new WebSocketServer({ server: http });
  await new Promise((done) => http.once("listening", done));
  const hellos = [];
  const stored = new Map(); // id -> text
  let n = 0;
  server.on("connection", (socket, request) => {
    const number = ++n;
    const frames = [];
    const waiting = [];
    const talk = {
      socket,
      path: request.url,
      send: (frame) => socket.send(typeof frame === "string" ? frame : JSON.stringify(frame)),
      next: () => (frames.length ? Promise.resolve(frames.shift()) : new Promise((done) => waiting.push(done))),
      close: (code, reason = "") => (code === 1006 ? socket.terminate() : socket.close(code, reason)),
      welcome: (more = {}) => talk.send({ t: "welcome", conn: "c", epoch: "e1", head: 0, mode: "replay", ...more }),
      events: (from, to, body = {}) => {
        for (let seq = from; seq <= to; seq++) talk.send(said(seq, "assistant", `answer ${seq}`, body));
      },
      /** Takes every message, each id once. */
      async take() {
        for (;;) {
          const { id, text } = await talk.next();
          talk.send({ t: "ack", id, job: `job-${id}`, dup: stored.has(id) });
          stored.set(id, [...(stored.get(id) ?? []), text]);
        }
      },
    };
    socket.once("message", (data) => {
      hellos.push(talk.hello = JSON.parse(data));
      socket.on("message", (more) => (waiting.length ? waiting.shift()(JSON.parse(more)) : frames.push(JSON.parse(more))));
      script(talk, number);
    });
    socket.on("error", () => {});
  });
  const url = `http://127.0.0.1:${http.address().port}`;
  return {
    url, hellos, stored,
    connections: () => n,
    async stop() {
      for (const socket of server.clients) socket.terminate();
      server.close();
      http.closeAllConnections();
      await new Promise((done) => http.close(done));
    },
  };
}

export const said = (seq, role, text, body = {}) => ({
  t: "event", seq, type: "chat.said", job: body.job ?? `j${seq}`, at: "2026-01-01T00:00:00Z", body: { role, text, session: "s", ...body },
});

export const PATIENCE = 120_000; // ms: a busy machine fails no test; a quiet one needs seconds

/** Waits until `check()` gives something, or fails saying what was awaited. */
export async function until(check, what = String(check)) {
  for (const end = Date.now() + PATIENCE; Date.now() < end; ) {
    const found = await check();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 5));
  }
  throw new Error(`Never came true: ${what}`);
}
