/** The page through a storm: two tabs and a phone, MESSAGES messages, a fault between each few.
 *  Started by tests/faults/test_live_storm.py, which does the jobs and answers `FAULTS` (cuts the
 *  network, Postgres and Redis). Says at its end, as JSON, what was seen on the wire. */
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
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function until(check, what, within = 240_000) {
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
const outside = (name) => fetch(`${process.env.FAULTS}/${name}`).then((answer) => assert.ok(answer.ok, name));

/** Every connection of a page: numbers come without a hole and without a repetition in it. */
const seen = { connections: 0, events: 0, holes: 0, doubles: 0, snapshots: 0 };
function watch(page) {
  page.on("websocket", (socket) => {
    let last = null;
    seen.connections++;
    socket.on("framereceived", ({ payload }) => {
      const frame = JSON.parse(payload);
      if (frame.t === "welcome") { last = frame.at; seen.snapshots += frame.mode === "snapshot"; }
      if (frame.t !== "event") return;
      seen.events++;
      if (frame.seq <= last) seen.doubles++;
      if (frame.seq > last + 1) seen.holes++;
      last = frame.seq;
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
  page.setDefaultTimeout(240_000);
  watch(page);
  await page.goto(`${way}/app/storm#ticket=${ticket}`);
  await page.waitForSelector('body[data-state="live"]');
  return page;
}
const write = async (page, text) => {
  await page.fill("#composer", text);
  await page.click("#send");
};
const said = (page) => page.$$eval('#messages .message[data-role="user"] .text', (all) => all.map((one) => one.textContent));
const reload = (page) => page.reload().catch(() => page.goto(`${way}/app/storm`));

await start();
const one = await open(desk);
await write(one, "message 0");
await until(async () => (await said(one)).length === 1, "the first message");
const two = await open(desk);
const phone = await open(pocket);

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
  "Redis away for 3 s": async () => { await outside("redis-off"); await sleep(3_000); await outside("redis-on"); },
  "Redis wiped": () => outside("redis-wipe"),
  "Postgres away for 3 s": async () => { await outside("postgres-off"); await sleep(3_000); await outside("postgres-on"); },
  "reload while live": () => reload(one),
  "reload while reconnecting": async () => {
    await outside("cut");
    await one.waitForSelector(away, { timeout: 2_000 }).catch(() => {});
    await reload(one);
  },
  "reload while replaying": async () => { await reload(phone); await reload(phone); },
};
const names = Object.keys(faults);
const wanted = ["message 0"];
const done = {};
for (let n = 1; n <= messages; n++) {
  const page = [one, one, two, phone][n % 4];
  const fault = n % every === 0 ? names[(n / every - 1) % names.length] : null;
  const going = fault && faults[fault]();
  await write(page, `message ${n}`);
  wanted.push(`message ${n}`);
  if (fault) {
    await going;
    done[fault] = (done[fault] ?? 0) + 1;
    process.stderr.write(`${n}: ${fault}\n`);
  }
}
const sorted = (all) => JSON.stringify([...all].sort());
for (const [name, page] of Object.entries({ one, two, phone })) {
  await until(async () => sorted(await said(page)) === sorted(wanted), `each message once on ${name}`).catch(async (error) => {
    const there = await said(page);
    const rest = await page.$eval("#queue", (queue) => queue.textContent);
    const lost = wanted.filter((text) => !there.includes(text));
    const more = there.filter((text, n) => !wanted.includes(text) || there.indexOf(text) !== n);
    throw new Error(JSON.stringify({ lost, more, rest, written: await page.inputValue("#composer") }), { cause: error });
  });
}
const shown = await one.$$eval("#messages .message", (all) => all.map(({ dataset }) => dataset.key));
await until(() => one.$eval("#queue", (queue) => queue.dataset.count === "0"), "nothing is unsent");
process.stdout.write(`${JSON.stringify({ ...seen, faults: done, shown: shown.length, twice: shown.length - new Set(shown).size })}\n`);
await browser.close();
await kill("SIGTERM");
