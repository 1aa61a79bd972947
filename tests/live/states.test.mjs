/** The module's state machine, against a server that does what each test says. */
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { backoff, conversation, inMemory, openLive, openSession, Refused, TIMES } from "../../gateway/static/baton-live.js";
import { QUICK, said, scripted, until, WebSocket } from "./scripted.mjs";

const opened = [];
const servers = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((live) => live.close()));
  await Promise.all(servers.splice(0).map((server) => server.stop()));
});

async function serve(script) {
  const server = await scripted(script);
  servers.push(server);
  return server;
}

function open(server, more = {}) {
  const live = openLive({ url: server.url, project: "shop", WebSocket, times: QUICK, ...more });
  live.states = [];
  live.told = [];
  live.on("state", (state) => live.states.push(state));
  live.on("event", ({ seq }) => live.told.push(seq));
  live.on("problem", (error) => { throw error; });
  opened.push(live);
  return live;
}

const isLive = (live) => until(() => live.state === "live", "live");

test("from idle to live: hello, welcome, events, live", async () => {
  const server = await serve((talk) => {
    talk.welcome({ head: 3 });
    talk.events(1, 3);
    talk.send({ t: "live", head: 3 });
  });
  const live = open(server, { ticket: async () => "T" });
  assert.equal(live.state, "idle");
  await isLive(live);
  assert.deepEqual(live.states, ["connecting", "replaying", "live"]);
  const { t, v, project, ticket, epoch, last, tab } = server.hellos[0];
  assert.deepEqual({ t, v, project, ticket, epoch, last }, { t: "hello", v: 1, project: "shop", ticket: "T", epoch: null, last: 0 });
  assert.match(tab, /^[0-9a-f-]{36}$/);
  assert.deepEqual(live.told, [1, 2, 3]);
  assert.deepEqual(live.view.messages.map(({ text }) => text), ["answer 1", "answer 2", "answer 3"]);
});

test("doubles are dropped, and a gap is never applied: it is asked for again from the last", async () => {
  const server = await serve((talk, n) => {
    talk.welcome({ head: 6 });
    if (n === 1) {
      talk.events(1, 3);
      talk.events(2, 3);
      talk.events(5, 6); // 4 is missing
    } else {
      talk.events(talk.hello.last + 1, 6);
      talk.send({ t: "live", head: 6 });
    }
  });
  const live = open(server);
  await isLive(live);
  assert.deepEqual(live.told, [1, 2, 3, 4, 5, 6]);
  assert.equal(server.hellos[1].last, 3);
  assert.equal(server.hellos[1].epoch, "e1");
  assert.deepEqual([live.counts.doubles, live.counts.holes], [2, 1]);
});

for (const [how, frame] of [["live", { t: "live", head: 5 }], ["a heartbeat", { t: "hb", head: 5 }]]) {
  test(`a hole at the end is found by the head that ${how} tells`, async () => {
    const server = await serve((talk, n) => {
      talk.welcome({ head: 5 });
      if (n === 1) {
        talk.events(1, 4);
        if (frame.t === "hb") talk.send({ t: "live", head: 4 });
        talk.send(frame);
      } else {
        talk.events(talk.hello.last + 1, 5);
        talk.send({ t: "live", head: 5 });
      }
    });
    const live = open(server);
    await until(() => live.last === 5, "the fifth event");
    assert.deepEqual(live.told, [1, 2, 3, 4, 5]);
    assert.equal(server.hellos[1].last, 4);
  });
}

test("a snapshot replaces what is shown, and a later start goes on behind it", async () => {
  const storage = inMemory();
  const state = { messages: [{ role: "user", text: "from the snapshot" }], jobs: [], head: "s", version: "v" };
  const server = await serve((talk, n) => {
    if (n === 1) talk.welcome({ head: 9000, mode: "snapshot", at: 9000, state });
    else talk.welcome({ head: 9001 });
    if (n === 2) talk.events(9001, 9001);
    talk.send({ t: "live", head: n === 1 ? 9000 : 9001 });
  });
  const first = open(server, { storage });
  await isLive(first);
  assert.deepEqual([first.last, first.view.messages[0].text, first.view.version], [9000, "from the snapshot", "v"]);
  await first.close();
  const second = open(server, { storage });
  await isLive(second);
  assert.equal(server.hellos[1].last, 9000);
  assert.deepEqual(second.view.messages.map(({ text }) => text), ["from the snapshot", "answer 9001"]);
});

test("another epoch is told, and nothing of the old history is left", async () => {
  const storage = inMemory();
  const server = await serve((talk, n) => {
    if (n === 1) {
      talk.welcome({ head: 2 });
      talk.events(1, 2);
      talk.send({ t: "live", head: 2 });
      talk.next().then(() => talk.close(1012));
    } else { // restored from a backup: a server that replays, though it should send a snapshot
      talk.welcome({ epoch: "e2", head: 1 });
      if (talk.hello.epoch !== "e2") return;
      talk.send(said(1, "assistant", "of the new history"));
      talk.send({ t: "live", head: 1 });
    }
  });
  const live = open(server, { storage });
  const resets = [];
  live.on("reset", ({ why }) => resets.push(why));
  await isLive(live);
  await live.cancel("j");
  await until(() => live.epoch === "e2" && live.state === "live", "the other epoch");
  assert.deepEqual(resets, ["epoch"]);
  assert.deepEqual(live.view.messages.map(({ text }) => text), ["of the new history"]);
});

test("state and cursor are kept together: a start from the store asks from there", async () => {
  const storage = inMemory();
  const server = await serve((talk) => {
    talk.welcome({ head: 4 });
    talk.events(talk.hello.last + 1, talk.hello.last + 2);
    talk.send({ t: "live", head: talk.hello.last + 2 });
  });
  const first = open(server, { storage });
  await isLive(first);
  await first.close();
  const second = open(server, { storage });
  await second.ready;
  assert.deepEqual(second.view.messages.map(({ seq }) => seq), [1, 2], "shown before there is a connection");
  await isLive(second);
  assert.deepEqual(second.view.messages.map(({ seq }) => seq), [1, 2, 3, 4]);
});

for (const code of [1001, 1006, 1011, 1012, 1013, 4429, 1000]) {
  test(`close ${code}: again`, async () => {
    const server = await serve((talk, n) => (n === 1 ? talk.close(code) : (talk.welcome(), talk.send({ t: "live", head: 0 }))));
    const live = open(server);
    await isLive(live);
    assert.equal(server.connections(), 2);
    assert.ok(live.states.includes("reconnecting"));
  });
}

test("of a conversation that was deleted nothing stays here but what was not sent", async () => {
  const storage = inMemory();
  const server = await serve((talk, n) => {
    if (n === 2) return talk.close(4410, "This project was deleted.");
    talk.welcome({ head: 1 });
    talk.events(1, 1);
    talk.send({ t: "live", head: 1 });
    setTimeout(() => talk.close(1012, ""), 20);
  });
  const live = open(server, { storage });
  await until(() => live.view.messages.length === 1, "what was said");
  await until(() => live.state === "closed", "closed");
  assert.deepEqual([live.code, live.epoch, live.view.messages], [4410, null, []]);
  await until(async () => (await storage.load("shop\n"))?.view.messages.length !== 1, "forgotten");
});

for (const code of [4400, 4401, 4404, 4410, 4412]) {
  test(`close ${code}: not again, and a sentence says why`, async () => {
    const server = await serve((talk) => talk.close(code));
    const live = open(server);
    await until(() => live.state === "closed", "closed");
    assert.equal(live.code, code);
    assert.match(live.why, /\.$/);
    await new Promise((done) => setTimeout(done, 200));
    assert.equal(server.connections(), 1);
  });
}

for (const why of ["retry_after=0.4", "Too many connections from this address. retry_after=0.4", "10 connections are open already. retry_after=0.4"]) {
  test(`4429 waits as long as it says: ${why}`, async () => {
    const server = await serve((talk, n) => (n === 1 ? talk.close(4429, why) : (talk.welcome(), talk.send({ t: "live", head: 0 }))));
    const live = open(server);
    let pause;
    live.on("state", (state, { until: then }) => state === "reconnecting" && (pause = then - Date.now()));
    await isLive(live);
    assert.ok(pause > 200 && pause < 5000, `waited ${pause} ms`);
  });
}

test("ten tries, then failed; a connection that never got live does not reset the count", async () => {
  const server = await serve((talk) => {
    talk.welcome({ head: 9 }); // a welcome is not yet success
    talk.close(1011);
  });
  const live = open(server, { times: { ...QUICK, first: 0.001, longest: 0.01 } });
  await until(() => live.state === "failed", "failed");
  assert.equal(server.connections(), 11);
  assert.match(live.why, /10 tries/);
});

test("after failed, connect() tries again and goes on where it was", async () => {
  let up = true;
  const server = await serve((talk) => {
    if (!up) return talk.close(1011);
    talk.welcome({ head: 2 });
    if (talk.hello.last === 0) talk.events(1, 2);
    talk.send({ t: "live", head: 2 });
    return talk.next().then(() => talk.close(1006));
  });
  const live = open(server, { times: { ...QUICK, first: 0.001, longest: 0.01 } });
  await isLive(live);
  assert.equal(live.tries, 0);
  up = false;
  await live.cancel("j");
  await until(() => live.state === "failed", "failed");
  up = true;
  await live.connect();
  await isLive(live);
  assert.equal(server.hellos.at(-1).last, 2);
});

test("startOver() forgets what is shown, and not what is to be sent", async () => {
  const server = await serve((talk) => {
    talk.welcome({ head: 2 });
    talk.events(talk.hello.last + 1, 2);
    talk.send({ t: "live", head: 2 });
  });
  const live = open(server, { times: { ...QUICK, ack: 60 } });
  await isLive(live);
  await live.send("stays");
  await live.startOver();
  await isLive(live);
  assert.equal(server.hellos[1].last, 0);
  assert.equal(server.hellos[1].epoch, null);
  assert.deepEqual(live.queue.map(({ frame }) => frame.text), ["stays"]);
});

test("pauses double up to 30 s, half of each by chance: 90 to 181 s for ten", () => {
  const low = [...Array(10).keys()].map((n) => backoff(n, TIMES, () => 0));
  const high = [...Array(10).keys()].map((n) => backoff(n, TIMES, () => 1));
  assert.deepEqual(high, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]);
  assert.deepEqual(low, high.map((seconds) => seconds / 2));
});

test("a server that falls silent is left after a while, and a heartbeat keeps it", async () => {
  const server = await serve((talk, n) => {
    talk.welcome();
    talk.send({ t: "live", head: 0 });
    if (n === 2) setInterval(() => talk.socket.readyState === 1 && talk.send({ t: "hb", head: 0 }), 50).unref();
  });
  const live = open(server, { times: { ...QUICK, silence: 0.3 } });
  await until(() => server.connections() === 2 && live.state === "live", "a second connection");
  await new Promise((done) => setTimeout(done, 900));
  assert.equal(server.connections(), 2);
});

test("a server that takes the connection and says nothing is left after the dial's time", async () => {
  const server = await serve((talk, n) => n > 1 && (talk.welcome(), talk.send({ t: "live", head: 0 })));
  const live = open(server, { times: { ...QUICK, dial: 0.1 } });
  await isLive(live);
  assert.equal(server.connections(), 2);
});

test("what the old connection still says is not heard", async () => {
  let old;
  const server = await serve((talk, n) => {
    talk.welcome({ head: 0 });
    if (n === 1) (old = talk), talk.send({ t: "live", head: 3 }); // a hole
    else talk.send({ t: "live", head: 0 });
  });
  const live = open(server);
  await isLive(live);
  if (old.socket.readyState === 1) old.events(1, 1);
  await new Promise((done) => setTimeout(done, 50));
  assert.deepEqual(live.told, []);
});

test("what is no JSON, and frames of tomorrow", async () => {
  const server = await serve((talk, n) => {
    if (n === 1) return talk.send("{nonsense");
    talk.welcome({ more: 1 });
    talk.send({ t: "weather", sunny: true });
    return talk.send({ t: "live", head: 0 });
  });
  const live = open(server);
  await isLive(live);
  assert.equal(server.connections(), 2);
});

test("close() ends it: no timer, no connection", async () => {
  const server = await serve((talk) => (talk.welcome(), talk.send({ t: "live", head: 0 })));
  const live = open(server);
  await isLive(live);
  await live.close();
  assert.equal(live.state, "closed");
  await new Promise((done) => setTimeout(done, 100));
  assert.equal(server.connections(), 1);
});

test("after close(), connect() begins again, and hears of other tabs", async () => {
  const server = await serve((talk) => (talk.welcome(), talk.send({ t: "live", head: 0 })));
  const storage = { ...inMemory(), shared: true };
  const [live, other] = [open(server, { storage }), open(server, { storage })];
  await isLive(live);
  await isLive(other);
  await live.close();
  await live.connect();
  await isLive(live);
  await other.send("from another tab");
  await until(() => live.queue.length === 1, "its message");
});

test("startOver() twice at once is one connection", async () => {
  const server = await serve((talk) => (talk.welcome(), talk.send({ t: "live", head: 0 })));
  const live = open(server);
  await isLive(live);
  await Promise.all([live.startOver(), live.startOver()]);
  await isLive(live);
  assert.equal(server.connections(), 2);
});

test("startOver() before what is kept is there: it is forgotten", async () => {
  const server = await serve((talk) => (talk.welcome(), talk.send({ t: "live", head: 0 })));
  const kept = { epoch: "e1", last: 7, view: conversation.start(), shape: conversation.shape };
  const load = () => new Promise((done) => setTimeout(done, 50, kept));
  const live = open(server, { storage: { ...inMemory(), load }, connect: false });
  await live.startOver();
  await isLive(live);
  await live.ready;
  assert.deepEqual(server.hellos.map(({ last, epoch }) => [last, epoch]), [[0, null]]);
  assert.equal(live.last, 0);
});

for (const [end, below] of [["", ""], ["/", ""], ["/below/", "/below"]]) {
  test(`an address with "${end}" at its end is the place of all that is asked`, async () => {
    const paths = [];
    const server = await serve((talk) => (paths.push(talk.path), talk.welcome(), talk.send({ t: "live", head: 0 })));
    const url = server.url + end;
    const live = open(server, { url });
    await isLive(live);
    const fetch = async (where, { credentials }) => (paths.push(`${where} ${credentials}`), { ok: true, json: async () => [] });
    await openSession("T", { url, fetch });
    await openSession("T", { fetch });
    await live.earlier(1, { fetch });
    const log = "/v1/projects/shop/events?offset=00000000000000000000";
    assert.deepEqual(paths, [`${below}/v1/live`, `${server.url}${below}/v1/session include`, "/v1/session same-origin", `${server.url}${below}${log} include`]);
  });
}

test("without a page an address is needed, and it says so", () => {
  assert.throws(() => openLive({ project: "shop" }), { name: "TypeError", message: /url/ });
});

test("a ticket that cannot be had is a try in vain; the next may have one", async () => {
  const server = await serve((talk) => (talk.welcome(), talk.send({ t: "live", head: 0 })));
  let asked = 0;
  const live = open(server, { ticket: () => (++asked === 1 ? Promise.reject(new Error("no")) : "T2") });
  await isLive(live);
  assert.equal(server.hellos[0].ticket, "T2");
});

test("what the server would never take is refused at once", async () => {
  const server = await serve(() => {});
  const live = open(server);
  await assert.rejects(live.send("  "), (error) => error instanceof Refused && error.code === "empty");
  await assert.rejects(live.send("x".repeat(300_000)), (error) => error.code === "too_long");
  assert.deepEqual(live.queue, []);
});

test("what was asked meanwhile is shown below the answer to what came before", () => {
  const view = conversation.start();
  let seq = 0;
  const told = (type, job, body = {}) => conversation.event(view, { seq: ++seq, type, job, body });
  told("chat.said", "a", { role: "user", text: "A?" });
  told("job.started", "a", { kind: "build" });
  told("chat.said", "b", { role: "user", text: "B?" });
  told("job.queued", "b", { kind: "build" });
  told("chat.said", "a", { role: "assistant", text: "A." });
  told("job.done", "a");
  told("job.started", "b");
  told("chat.said", "b", { role: "assistant", text: "B." });
  assert.deepEqual(view.messages.map(({ text }) => text), ["A?", "A.", "B?", "B."]);
});

test("steps and words of a turn go into its answer, and late ones are not shown again", () => {
  const view = conversation.start();
  const frame = { chain: "c", job: "a" };
  conversation.event(view, { seq: 1, type: "job.started", job: "a", body: { chain: "c" } });
  conversation.progress(view, { ...frame, what: "tool", id: "t", name: "Write", about: "a.txt" });
  conversation.progress(view, { ...frame, what: "tool", id: "t", name: "Write", about: "a.txt" }); // told again after a reconnect
  conversation.progress(view, { ...frame, what: "tool.done", id: "t", error: true });
  conversation.progress(view, { ...frame, what: "text", text: "I write." });
  assert.deepEqual(view.work.c.texts, ["I write."]);
  conversation.event(view, { seq: 2, type: "chat.said", job: "a", body: { role: "assistant", text: "Written." } });
  conversation.event(view, { seq: 3, type: "job.done", job: "a", body: {} });
  conversation.progress(view, { ...frame, what: "text", text: "late" });
  assert.deepEqual(view.work, {});
  assert.deepEqual(view.messages[0].tools, [{ id: "t", name: "Write", about: "a.txt", done: true, error: true }]);
});

test("a text appears as it is written, and the whole one replaces it", () => {
  const view = conversation.start();
  const does = (what, more = {}) => conversation.progress(view, { chain: "c", job: "a", what, ...more });
  does("turn.began");
  does("writing", { from: 0, text: "I wr" });
  does("writing", { from: 4, text: "ite" });
  assert.equal(view.work.c.writing, "I write");
  does("writing", { from: 12, text: "the rest" }); // Redis was away between the two
  assert.equal(view.work.c.writing, "… the rest");
  does("writing", { from: 0, text: "Once more" }); // the model is asked again
  assert.equal(view.work.c.writing, "Once more");
  does("text", { text: "Once more, and whole." });
  assert.deepEqual([view.work.c.texts, view.work.c.writing], [["Once more, and whole."], ""]);
});

test("that a request was cancelled is told once, not for each job that would have followed", () => {
  const view = conversation.start();
  const told = (seq, job, kind) => conversation.event(view, { seq, type: "job.cancelled", job, body: { kind, error: "Cancelled on request." } });
  conversation.event(view, { seq: 1, type: "job.started", job: "a", body: { kind: "build" } });
  told(2, "a", "build");
  told(3, "b", "metadata");
  told(4, "c", "compaction");
  assert.deepEqual(view.messages.map(({ role, text }) => [role, text]), [["notice", "Cancelled on request."]]);
});

test("a lost session asks, until the request goes on or ends", () => {
  const view = conversation.start();
  const lost = { code: "not_found", text: "Previous session not found. Starting fresh session...", choices: ["retry", "start_new"] };
  conversation.event(view, { seq: 1, type: "session.resume_failed", job: "a", body: lost });
  conversation.event(view, { seq: 2, type: "job.parked", job: "a", body: { error_class: "ask", error: "…" } });
  assert.deepEqual(view.lost, { seq: 1, job: "a", ...lost });
  assert.deepEqual(view.messages.map(({ role, text }) => [role, text]), [["notice", lost.text]]);
  conversation.event(view, { seq: 3, type: "job.started", job: "a", body: {} });
  assert.equal(view.lost, null);
});

test("a snapshot has the checks where they belong, and how its version stands", () => {
  const check = (seq, type, round, number) => ({ seq, type, job: "a", at: "2026-01-01T00:00:00Z", body: { version: "v", round, number, command: `check ${number}` } });
  const view = conversation.snapshot({
    messages: [{ seq: 1, role: "user", text: "go", job: "a" }, { seq: 5, role: "assistant", text: "mended", job: "a" }],
    jobs: [{ job: "b", state: "parked", error_class: "check_undecided", attempt: 1 }],
    version: "v", check_status: "passing",
    checks: [check(2, "check.passed", 0, 1), check(3, "check.failed", 0, 2), check(6, "check.passed", 1, 1)],
  });
  assert.deepEqual(view.messages.map(({ seq, role, text }) => [seq, role, text]), [
    [1, "user", "go"], [2, "check", "Check failed: check 2"], [5, "assistant", "mended"], [6, "check", "Check passed: check 1"]]);
  assert.deepEqual(view.messages[1].checks.map(({ passed }) => passed), [true, false]);
  assert.equal(view.versions.v, "passing");
  assert.equal(view.jobs.b.error_class, "check_undecided");
});
