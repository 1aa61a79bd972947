/** Messages: stored before they are sent, gone after the acknowledgement, never lost between. */
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { inMemory, openLive } from "../../gateway/static/baton-live.js";
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
  opened.push(live);
  return live;
}

const begin = (talk) => (talk.welcome(), talk.send({ t: "live", head: 0 }));

test("a message is stored before it is sent, and removed after the ack", async () => {
  const storage = inMemory();
  const wire = [];
  const server = await serve(async (talk) => {
    begin(talk);
    const frame = await talk.next();
    wire.push({ frame, kept: (await storage.items("shop\n")).length });
    talk.send({ t: "ack", id: frame.id, job: "j1", dup: false });
  });
  const live = open(server, { storage });
  const acks = [];
  live.on("ack", (ack) => acks.push(ack));
  const id = await live.send("Make it blue", { kind: "ask" });
  await until(() => acks.length, "an ack");
  assert.deepEqual(wire, [{ frame: { t: "msg", id, kind: "ask", text: "Make it blue" }, kept: 1 }]);
  assert.deepEqual([acks[0].id, acks[0].job, acks[0].dup], [id, "j1", false]);
  await until(async () => (await storage.items("shop\n")).length === 0, "an empty outbox");
  assert.deepEqual(live.queue, []);
});

test("killed between commit and ack: the same id again, and it is one message", async () => {
  const server = await serve(async (talk, n) => {
    begin(talk);
    if (n > 1) return talk.take();
    const { id, text } = await talk.next();
    server.stored.set(id, [text]); // committed …
    return talk.close(1006); // … and the ack never leaves
  });
  const live = open(server);
  const acks = [];
  live.on("ack", (ack) => acks.push(ack));
  const id = await live.send("once");
  await until(() => live.queue.length === 0, "an empty queue");
  assert.deepEqual([...server.stored.keys()], [id]);
  assert.deepEqual(acks.map(({ dup }) => dup), [true]);
});

test("a new page with the same store sends what the old one could not", async () => {
  const storage = inMemory();
  const first = openLive({ url: "http://127.0.0.1:1", project: "shop", WebSocket, storage, times: QUICK });
  await first.send("one");
  await first.send("two");
  await first.close();
  const server = await serve((talk) => (begin(talk), talk.take()));
  const second = open(server, { storage });
  await until(() => server.stored.size === 2 && second.queue.length === 0, "both");
  assert.deepEqual([...server.stored.values()].flat(), ["one", "two"], "in the order of writing");
});

test("a message that became a day old while the page was open is not sent by itself", async () => {
  let go = () => {};
  const connected = new Promise((done) => (go = done));
  const server = await serve(async (talk) => {
    talk.welcome();
    await connected;
    talk.send({ t: "live", head: 0 });
    return talk.take();
  });
  const live = open(server, { times: { ...QUICK, kept: 0.2 } });
  const id = await live.send("of yesterday");
  await new Promise((done) => setTimeout(done, 400));
  go();
  await until(() => live.queue[0]?.state === "expired", "the message to be too old");
  assert.equal(server.stored.size, 0);
  await live.resend(id);
  await until(() => server.stored.size === 1, "it to be sent after all");
});

test("200 messages over connections that are cut all the time: each once, in order", async () => {
  const seen = [];
  const server = await serve(async (talk, n) => {
    begin(talk);
    for (let left = 1 + (n % 7); left; left--) {
      const { id, text } = await talk.next();
      if (!server.stored.has(id)) seen.push(text);
      server.stored.set(id, text);
      if (left === 1) return talk.close(1006);
      talk.send({ t: "ack", id, job: "j", dup: false });
    }
    return undefined;
  });
  const live = open(server, { times: { ...QUICK, first: 0.001, longest: 0.002 } });
  const wanted = [...Array(200).keys()].map(String);
  for (const text of wanted) await live.send(text);
  await until(() => live.queue.length === 0, "an empty queue");
  assert.deepEqual(seen, wanted);
});

test("a nack that allows it is tried again after its time", async () => {
  const times = [];
  const server = await serve(async (talk) => {
    begin(talk);
    const first = await talk.next();
    times.push(Date.now());
    talk.send({ t: "nack", id: first.id, code: "busy", text: "Wait.", retry: true, retry_after: 0.2 });
    const again = await talk.next();
    times.push(Date.now());
    assert.deepEqual(again, first);
    talk.send({ t: "ack", id: again.id, job: "j", dup: false });
  });
  const live = open(server);
  await live.send("patient");
  await until(() => times.length === 2 && live.queue.length === 0, "an empty queue");
  assert.ok(times[1] - times[0] >= 190);
});

test("a refused message stays, says why, and does not hold up the next", async () => {
  const server = await serve(async (talk) => {
    begin(talk);
    const { id } = await talk.next();
    talk.send({ t: "nack", id, code: "too_long", text: "This is too long.", retry: false });
    await talk.take();
  });
  const live = open(server);
  const nacks = [];
  live.on("nack", (nack) => nacks.push(nack.code));
  const id = await live.send("refused");
  await live.send("good");
  await until(() => server.stored.size === 1, "the next one");
  await until(() => live.queue.length === 1, "one in the queue");
  assert.deepEqual([live.queue[0].id, live.queue[0].state, live.queue[0].why], [id, "refused", "This is too long."]);
  assert.deepEqual(nacks, ["too_long"]);
  await live.resend(id);
  await until(() => live.queue.length === 0, "sent after all");
});

test("a message too large for the wire (1009) is refused, and the rest goes on", async () => {
  const server = await serve(async (talk, n) => {
    begin(talk);
    if (n === 1) return void (await talk.next(), talk.close(1009));
    return talk.take();
  });
  const live = open(server);
  await live.send("too large");
  await live.send("good");
  await until(() => server.stored.size === 1 && live.queue.length === 1, "the next one");
  assert.equal(live.queue[0].state, "refused");
});

test("what has waited for a day is not sent by itself, and is not dropped", async () => {
  const storage = inMemory();
  const old = { id: "11111111-1111-4111-8111-111111111111", at: Date.now() - 25 * 3600e3, n: 0, state: "pending" };
  await storage.put("shop\n", { ...old, frame: { t: "msg", id: old.id, kind: "update", text: "of yesterday" } });
  const server = await serve((talk) => (begin(talk), talk.take()));
  const live = open(server, { storage });
  await until(() => live.state === "live", "live");
  await live.send("of today");
  await until(() => server.stored.size === 1, "today's");
  await until(() => live.queue.length === 1, "one left");
  assert.equal(live.queue[0].state, "expired");
  assert.match(live.queue[0].why, /^Not sent/);
  await live.resend(old.id);
  await until(() => server.stored.has(old.id), "yesterday's, because a person says so");
});

test("what is said of a message before the queue is loaded counts", async () => {
  const server = await serve((talk) => (begin(talk), talk.take()));
  const storage = inMemory();
  for (const id of ["a", "b"]) await storage.put("shop\n", { id, at: 0, n: 0, frame: { t: "msg", id, kind: "ask", text: id }, state: "expired", why: "Old." });
  const load = () => new Promise((done) => setTimeout(done, 50, null));
  const live = open(server, { storage: { ...storage, load } });
  await Promise.all([live.discard("a"), live.resend("b")]);
  await until(() => server.stored.size === 1, "the other");
  await until(() => live.queue.length === 0, "an empty queue");
  assert.deepEqual([...server.stored.keys()], ["b"]);
});

test("discard() takes a message out, and only that", async () => {
  const live = openLive({ url: "http://127.0.0.1:1", project: "shop", WebSocket, times: QUICK });
  opened.push(live);
  const id = await live.send("away");
  await live.send("stays");
  await live.discard(id);
  assert.deepEqual(live.queue.map(({ frame }) => frame.text), ["stays"]);
});

test("an ack that never comes: another connection, the same id", async () => {
  const server = await serve(async (talk, n) => (begin(talk), n === 1 ? talk.next() : talk.take()));
  const live = open(server, { times: { ...QUICK, ack: 0.1 } });
  const id = await live.send("again");
  await until(() => live.queue.length === 0, "an empty queue");
  assert.deepEqual([...server.stored.keys()], [id]);
});

test("the event tells that it was taken, if the ack was lost", async () => {
  const server = await serve(async (talk) => {
    begin(talk);
    const { id, text } = await talk.next();
    talk.send(said(1, "user", text, { id, job: "j1" }));
  });
  const live = open(server);
  await live.send("told twice");
  await until(() => live.queue.length === 0, "an empty queue");
  assert.equal(live.view.messages.length, 1);
});

test("answer and cancel are acked alike, with an id or without", async () => {
  const frames = [];
  const server = await serve(async (talk) => {
    begin(talk);
    const one = await talk.next();
    talk.send({ t: "ack", job: one.job });
    const two = await talk.next();
    talk.send({ t: "nack", id: two.id, code: "not_waiting", text: "It does not wait.", retry: false });
    frames.push(one, two);
  });
  const live = open(server);
  const nacks = [];
  live.on("nack", (nack) => nacks.push(nack.frame.t));
  await live.answer("j1", "start_new");
  await live.cancel("j1");
  await until(() => nacks.length, "a nack");
  assert.deepEqual(frames.map(({ t, job, choice }) => [t, job, choice]), [["answer", "j1", "start_new"], ["cancel", "j1", undefined]]);
  assert.deepEqual(live.queue, [], "what is no message does not stay in the queue");
});

test("a user's messages are not sent as another's", async () => {
  const storage = inMemory();
  const ann = openLive({ url: "http://127.0.0.1:1", project: "shop", user: "ann", WebSocket, storage, times: QUICK });
  await ann.send("of Ann");
  await ann.close();
  const server = await serve((talk) => (begin(talk), talk.take()));
  const bob = open(server, { storage, user: "bob" });
  await until(() => bob.state === "live", "live");
  await bob.send("of Bob");
  await until(() => bob.queue.length === 0, "an empty queue");
  assert.deepEqual([...server.stored.values()].flat(), ["of Bob"]);
});
