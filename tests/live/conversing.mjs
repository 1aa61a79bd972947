/** A small gateway with a log, for the page's tests: it answers what it is asked, and can be
 * killed between commit and ack, and started again on the same port with what it had. */
import { said, scripted } from "./scripted.mjs";

export async function conversing({ port = 0, slow = false } = {}) {
  const log = [];
  const jobs = new Map(); // id → {text, job}
  const talks = new Set();
  const answered = []; // what people chose
  const behaviour = { loseAck: false, loseSession: false, slow, refuse: null, closeWith: null, holds: null, epoch: "e1" };
  const answers = {
    "/v1/session": { body: JSON.stringify({ project: "shop", user: "ann" }) },
    "/v1/projects/shop/events": (query) => ({ body: JSON.stringify(log.slice(Number(query.get("offset"))).slice(0, 500).map(({ t: _, ...event }) => event)) }),
  };
  let server;

  const tell = (frame) => {
    if (frame.t === "event") log.push(frame);
    for (const talk of talks) if (talk.socket.readyState === 1) talk.send(frame);
  };
  const event = (type, job, body = {}) => tell({ t: "event", seq: log.length + 1, type, job, at: new Date().toISOString(), body: { kind: "update", chain: `c-${job}`, ...body } });
  const does = (job, what, more) => tell({ t: "progress", chain: `c-${job}`, job, what, ...more });
  const speak = (role, text, job) => tell({ ...said(log.length + 1, role, text, { job, chain: `c-${job}` }), at: new Date().toISOString() });

  function work(job, text) {
    event("job.started", job, { attempt: 1 });
    if (behaviour.loseSession) {
      behaviour.loseSession = false;
      event("session.resume_failed", job, { code: "not_found", text: "Previous session not found. Starting fresh session...", choices: ["retry", "start_new"] });
      return event("job.parked", job, { error_class: "ask", error: "Answer retry or start_new." });
    }
    does(job, "tool", { id: `t-${job}`, name: "Write", about: "index.html" });
    does(job, "text", { text: `I am working on: ${text}` });
    return behaviour.slow || finish(job, text);
  }
  function finish(job, text) {
    speak("assistant", `Done: ${text}`, job);
    event("session.moved", job, { session: `s-${job}`, version: `v-${job}` });
    event("job.done", job, { cost_usd: 0.01 });
  }

  async function serve(talk) {
    if (behaviour.closeWith) return talk.close(behaviour.closeWith);
    if (behaviour.holds === "connecting") return undefined;
    talks.add(talk);
    talk.socket.on("close", () => talks.delete(talk));
    const { last, epoch } = talk.hello;
    talk.welcome({ head: log.length, epoch: behaviour.epoch });
    for (const frame of log.slice(epoch === behaviour.epoch ? last : 0)) talk.send(frame);
    if (behaviour.holds === "replaying") return undefined;
    talk.send({ t: "live", head: log.length });
    for (;;) {
      const frame = await talk.next();
      if (frame.t === "msg") take(talk, frame);
      else {
        talk.send({ t: "ack", id: frame.id, job: frame.job, dup: false });
        if (frame.t === "answer") {
          answered.push(frame.choice);
          const [, { text }] = [...jobs].find(([, one]) => one.job === frame.job);
          event("job.queued", frame.job);
          work(frame.job, text);
        }
      }
    }
  }

  function take(talk, { id, text, check, race }) {
    if (behaviour.refuse) return talk.send({ t: "nack", id, ...behaviour.refuse });
    const known = jobs.get(id);
    const job = known?.job ?? `job-${jobs.size + 1}`;
    if (!known) {
      jobs.set(id, { text, job, check, race });
      if (behaviour.loseAck) return stop().then(() => log.push({ ...said(log.length + 1, "user", text, { job }), job }));
      speak("user", text, job);
    }
    talk.send({ t: "ack", id, job, dup: Boolean(known) });
    if (!known) work(job, text);
    return undefined;
  }

  async function start() {
    server = await scripted(serve, { answers, port });
    port = Number(new URL(server.url).port);
  }
  const stop = () => {
    talks.clear();
    return server.stop();
  };
  await start();
  return { url: server.url, log, jobs, answered, behaviour, finish, start, stop, event, does, speak, answers, cut: () => talks.forEach(({ socket }) => socket.terminate()), connections: () => server.connections() };
}
