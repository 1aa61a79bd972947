/** The page through a storm: two tabs and a phone, MESSAGES messages, a fault between each few.
 *  Started by tests/faults/test_live_storm.py, which does the jobs and answers `FAULTS` (strikes the
 *  network, Postgres and Redis). Says at its end, as JSON, what went over the wire, and what each
 *  page shows and keeps. SEED draws the order of faults, and who writes. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";

const { chromium, devices } = createRequire(`${process.env.BATON_NODE_MODULES}/x.js`)("playwright-core");
const [program, ...words] = JSON.parse(process.env.GATEWAY);
const port = Number(process.env.BATON_WEB_PORT);
const messages = Number(process.env.MESSAGES);
const every = Number(process.env.EVERY); // messages between two faults
const direct = `http://127.0.0.1:${port}`;
const way = process.env.WAY; // what the browser goes to: through whatever lies between
const key = { authorization: `Bearer ${process.env.KEY}`, "content-type": "application/json" };
const PATIENCE = 1_200_000; // ms: the machine may be busy; a quiet one needs seconds
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

let drawn = Number(process.env.SEED) >>> 0;
/** The next number below `most`, the same ones for a seed (mulberry32). */
function draw(most) {
  let t = (drawn = (drawn + 0x6d2b79f5) >>> 0);
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) % most;
}
function shuffled(all) {
  const rest = [...all];
  return all.map(() => rest.splice(draw(rest.length), 1)[0]);
}

async function until(check, what, within = PATIENCE) {
  const end = Date.now() + within;
  for (;;) {
    if (await Promise.resolve(check()).catch(() => false)) return;
    assert.ok(Date.now() < end, `in vain: ${what}`);
    await sleep(200);
  }
}

let gateway;
process.on("exit", () => gateway?.kill("SIGKILL")); // also when it has failed: nobody waits for it
async function start() {
  gateway = spawn(program, words, { stdio: ["ignore", "ignore", "inherit"] });
  await until(() => fetch(`${direct}/healthz`).then((answer) => answer.ok), "the gateway answers");
}
async function kill(how = "SIGKILL") {
  const gone = new Promise((done) => gateway.once("exit", done));
  gateway.kill(how);
  await gone;
}
async function outside(name) {
  const answer = await fetch(`${process.env.FAULTS}/${name}`);
  assert.ok(answer.ok, name);
  return answer.json();
}

/** Every connection of a page: numbers come without a hole and without a repetition in it, behind
 *  the one that its hello told, or its snapshot. */
const seen = { connections: 0, events: 0, holes: 0, doubles: 0, snapshots: 0, retries: 0 };
function watch(page, told) {
  page.on("websocket", (socket) => {
    const here = { from: null, last: null, live: false };
    told.push(here);
    seen.connections++;
    socket.on("framesent", ({ payload }) => {
      const frame = JSON.parse(payload);
      if (frame.t === "hello") here.from = here.last = frame.last;
    });
    socket.on("framereceived", ({ payload }) => {
      const frame = JSON.parse(payload);
      if (frame.t === "live") here.live = true;
      if (frame.t === "welcome" && frame.mode === "snapshot") {
        seen.snapshots += frame.at > 0;
        here.last = frame.at;
      }
      if (frame.t !== "event") return;
      seen.events++;
      if (frame.seq <= here.last) seen.doubles++;
      if (frame.seq > here.last + 1) seen.holes++;
      here.last = frame.seq;
    });
  });
}

const browser = await chromium.launch({ executablePath: process.env.BROWSER, args: ["--no-sandbox"] });
const desk = await browser.newContext();
const pocket = await browser.newContext({ ...devices["Pixel 7"] });
async function open(context) {
  const asked = await fetch(`${direct}/v1/tickets`, { method: "POST", headers: key, body: JSON.stringify({ project: "storm", user: "ann" }) });
  const { ticket } = await asked.json();
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.told = [];
  page.failed = [];
  page.on("pageerror", (error) => page.failed.push(String(error)));
  watch(page, page.told);
  await page.goto(`${way}/app/storm#ticket=${ticket}`);
  await page.waitForSelector('body[data-state="live"]');
  return page;
}
/** As a person: who is told that there is no connection presses Retry. */
async function heed(page) {
  if ((await page.getAttribute("body", "data-state")) !== "failed") return;
  seen.retries++;
  await page.click("#retry", { timeout: 5_000 }).catch(() => {}); // it has come back meanwhile
}
const write = async (page, text) => {
  await heed(page);
  await page.fill("#composer", text);
  await page.click("#send");
};
const said = (page) => page.$$eval('#messages .message[data-role="user"]', (all) => all.map((one) => [one.dataset.key, one.querySelector(".text").textContent]));
/** How far the page's stored view is: what it would go on from. */
const kept = (page) => page.evaluate(() => new Promise((done, failed) => {
  const asked = indexedDB.open("baton-live");
  asked.onerror = () => failed(asked.error);
  asked.onsuccess = () => {
    const views = asked.result.transaction("views").objectStore("views").getAll();
    views.onsuccess = () => (asked.result.close(), done(Math.max(...views.result.map(({ last }) => last))));
  };
}));
const reload = (page) => page.reload().catch(() => page.goto(`${way}/app/storm`));

await start();
const one = await open(desk);
await write(one, "message 0");
await until(async () => (await said(one)).length === 1, "the first message");
const two = await open(desk);
const phone = await open(pocket);
const pages = { one, two, phone };

const away = 'body:not([data-state="live"])';
const faults = {
  cut: () => outside("cut"),
  "black hole of 30 s": async () => { await outside("hole"); await sleep(30_000); await outside("heal"); },
  "30 % loss for 10 s": async () => { await outside("loss"); await sleep(10_000); await outside("heal"); },
  "offline, online": async () => { await desk.setOffline(true); await sleep(2_000); await desk.setOffline(false); },
  "frozen page": async () => {
    const session = await desk.newCDPSession(two);
    await session.send("Page.setWebLifecycleState", { state: "frozen" });
    await sleep(5_000);
    await session.send("Page.setWebLifecycleState", { state: "active" });
  },
  "gateway SIGKILL": async () => { await kill(); await start(); },
  "gateway SIGTERM": async () => { await kill("SIGTERM"); await start(); },
  "gateway SIGSTOP of 8 s": async () => { gateway.kill("SIGSTOP"); await sleep(8_000); gateway.kill("SIGCONT"); },
  "Redis restarted": () => outside("redis-restarted"),
  "Redis killed": () => outside("redis-killed"),
  "Redis wiped": () => outside("redis-wiped"),
  "Postgres restarted": () => outside("postgres-restarted"),
  "Postgres killed": () => outside("postgres-killed"),
  "reload while live": () => reload(one),
  "reload while reconnecting": async () => {
    await outside("cut");
    await one.waitForSelector(away, { timeout: 2_000 }).catch(() => {});
    await reload(one);
  },
  "reload while replaying": async () => { await reload(phone); await reload(phone); },
};
const names = shuffled(Object.keys(faults));
const wanted = ["message 0"];
const done = [];
for (let n = 1; n <= messages; n++) {
  const page = [one, one, two, phone][draw(4)];
  const fault = n % every === 0 ? names[(n / every - 1) % names.length] : null;
  const going = fault && faults[fault]();
  await write(page, `message ${n}`);
  wanted.push(`message ${n}`);
  if (fault) {
    await going;
    done.push(fault);
    process.stderr.write(`${n}: ${fault}\n`);
  }
}
const sorted = (all) => JSON.stringify([...all].sort());
const told = {};
for (const [name, page] of Object.entries(pages)) {
  const all = async () => (await heed(page), sorted((await said(page)).map(([, text]) => text)) === sorted(wanted));
  const quiet = async () => (await page.getAttribute("body", "data-state")) === "live" && (await page.getAttribute("#queue", "data-count")) === "0";
  try {
    await until(async () => (await all()) && (await quiet()), `each message once on ${name}`);
  } catch (error) {
    const there = (await said(page)).map(([, text]) => text);
    const state = await page.getAttribute("body", "data-state");
    const lost = wanted.filter((text) => !there.includes(text));
    const more = there.filter((text, n) => !wanted.includes(text) || there.indexOf(text) !== n);
    const rest = { queue: await page.textContent("#queue"), written: await page.inputValue("#composer"), failed: page.failed };
    throw new Error(JSON.stringify({ name, state, lost, more, rest, kept: await kept(page), told: page.told }), { cause: error });
  }
}
const head = await outside("worked");
for (const [name, page] of Object.entries(pages)) {
  await until(async () => (await kept(page)) === head, `all is kept on ${name}`);
  told[name] = { shown: await said(page), kept: await kept(page), failed: page.failed };
}
process.stdout.write(`${JSON.stringify({ ...seen, faults: done, pages: told })}\n`);
await browser.close();
await kill("SIGTERM");
