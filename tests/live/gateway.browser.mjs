/** The page against real gateways. Started by test_gateway.py, which does the jobs. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { PATIENCE, until } from "./scripted.mjs";

const { chromium } = createRequire(`${process.env.BATON_NODE_MODULES}/x.js`)("playwright-core");
const [program, ...words] = JSON.parse(process.env.GATEWAY);
const port = Number(process.env.BATON_WEB_PORT);
const direct = `http://127.0.0.1:${port}`;
const key = { authorization: `Bearer ${process.env.KEY}`, "content-type": "application/json" };

let browser, context, gateway, way, faults;
let number = 0;

async function start() {
  gateway = spawn(program, words, { stdio: ["ignore", "ignore", "inherit"] });
  await until(() => fetch(`${direct}/readyz`).then((answer) => answer.ok, () => false), "the gateway is ready");
}

async function kill(how = "SIGKILL") {
  const gone = new Promise((done) => gateway.once("exit", done));
  gateway.kill(how);
  await gone;
}

/** What lies between the browser and the gateway: it can swallow what comes back, or everything, or
 *  take its time: `slow` is how many bytes a second come back, each piece 0.3 s late. */
async function between() {
  const all = new Set();
  const state = { answers: true, open: true, slow: 0 };
  const server = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    for (const socket of [near, far]) {
      all.add(socket);
      socket.on("error", () => {}).on("close", () => {
        all.delete(socket);
        if (state.open) near.destroy(), far.destroy();
      });
    }
    near.on("data", (data) => state.open && far.write(data));
    let before = Promise.resolve();
    far.on("data", (data) => {
      if (!state.open || !state.answers) return;
      if (!state.slow) return void near.write(data);
      far.pause();
      before = before.then(() => new Promise((done) => setTimeout(done, 300 + (1000 * data.length) / state.slow)))
        .then(() => (near.write(data), far.resume()));
    });
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { state, url: `http://127.0.0.1:${server.address().port}`, cut: () => all.forEach((socket) => socket.destroy()),
    stop: () => (all.forEach((socket) => socket.destroy()), server.close()) };
}

before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
  await start();
});
after(async () => {
  await browser.close();
  await kill("SIGTERM");
});
beforeEach(async () => {
  way = await between();
  context = await browser.newContext();
  context.setDefaultTimeout(PATIENCE);
  faults = [];
});
afterEach(async () => {
  await context.close();
  way.stop();
  assert.deepEqual(faults, []);
});

async function open(project = `p${++number}`, from = context) {
  const asked = await fetch(`${direct}/v1/tickets`, { method: "POST", headers: key, body: JSON.stringify({ project, user: "ann" }) });
  assert.equal(asked.status, 200, await asked.clone().text());
  const { ticket } = await asked.json();
  const page = await from.newPage();
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (line) => /Content Security Policy/.test(line.text()) && faults.push(line.text()));
  await page.goto(`${way.url}/app/${project}#ticket=${ticket}`);
  page.project = project;
  return page;
}

const is = (page, state) => page.waitForSelector(`body[data-state="${state}"]`);
const write = async (page, text) => {
  await page.fill("#composer", text);
  await page.click("#send");
};
const texts = (page, role) => page.$$eval(`#messages .message[data-role="${role}"] .text`, (all) => all.map((one) => one.textContent));
const users = (page, wanted) => until(async () => JSON.stringify(await texts(page, "user")) === JSON.stringify(wanted), `user: ${wanted}`);
const answers = (page, count) => until(async () => (await texts(page, "assistant")).length === count, `${count} answers`);
const unsent = (page, count) => page.waitForSelector(`#queue[data-count="${count}"]`, { state: "attached" });
const jobs = async ({ project }) => {
  const answer = await fetch(`${direct}/v1/projects/${project}/jobs`, { headers: key });
  return answer.ok ? (await answer.json()).items.filter(({ kind }) => ["build", "chat_plan"].includes(kind)) : [];
};

async function begun() {
  const page = await open();
  await is(page, "live");
  await write(page, "begin");
  await answers(page, 1);
  return page;
}

test("a first message is answered, a reload needs no ticket, and the version's files are shown", async () => {
  const page = await begun();
  await users(page, ["begin"]);
  await page.waitForSelector(".cost");
  await page.reload();
  await is(page, "live");
  await users(page, ["begin"]);
  await answers(page, 1);
  await page.click("#show-files");
  await page.waitForSelector("#diff .file .plus");
});

test("killed between commit and ack: one job, and the queue is empty again", async () => {
  const page = await begun();
  way.state.answers = false;
  await write(page, "once and for all");
  await until(async () => (await jobs(page)).length === 2, "it is committed");
  await unsent(page, 1);
  await kill();
  way.cut();
  way.state.answers = true;
  await page.reload().catch(() => {}); // no gateway: the shell is there if the worker had time
  await start();
  if (page.url().startsWith("chrome-error")) await page.goto(`${way.url}/app/${page.project}`);
  await is(page, "live");
  await unsent(page, 0);
  await users(page, ["begin", "once and for all"]);
  assert.equal((await jobs(page)).length, 2);
});

test("server restart: it says 1012, and the page goes on", async () => {
  const page = await begun();
  await kill("SIGTERM");
  await page.waitForSelector('body:not([data-state="live"])', { timeout: 60_000 });
  await write(page, "meanwhile");
  await unsent(page, 1);
  await start();
  await users(page, ["begin", "meanwhile"]);
  await answers(page, 2);
});

test("twenty messages while connections are cut and gateways killed: each once, in order", async () => {
  const page = await begun();
  const wanted = ["begin"];
  for (let n = 1; n <= 20; n++) {
    wanted.push(`message ${n}`);
    await write(page, `message ${n}`);
    if (n % 4 === 0) way.cut();
    if (n % 7 === 0) await kill().then(start);
    if (n % 9 === 0) await page.reload().then(() => is(page, "live"));
  }
  await users(page, wanted);
  await unsent(page, 0);
  assert.equal((await jobs(page)).length, 21);
  const seqs = await page.evaluate(() => [...document.querySelectorAll("#messages .message")].map(({ dataset }) => dataset.key));
  assert.equal(new Set(seqs).size, seqs.length);
});

test("network interruption of 30 s: what was written meanwhile is sent once, in order", async () => {
  const page = await begun();
  way.state.open = false;
  for (const text of ["one", "two"]) await write(page, text);
  await new Promise((done) => setTimeout(done, 30_000));
  await unsent(page, 2);
  way.state.open = true;
  await users(page, ["begin", "one", "two"]);
  await answers(page, 3);
  await unsent(page, 0);
  assert.equal((await jobs(page)).length, 3);
});

test("mobile simulation: a phone on 20 kB a second, off and on again; nothing is lost or doubled", async () => {
  await context.close();
  context = await browser.newContext({ viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 3 });
  context.setDefaultTimeout(PATIENCE);
  const page = await begun();
  way.state.slow = 20_000;
  const wanted = ["begin", "one", "two", "three"];
  for (const text of wanted.slice(1)) await write(page, text);
  await answers(page, 4);
  await context.setOffline(true);
  await write(page, "four");
  await unsent(page, 1);
  await context.setOffline(false);
  way.cut();
  await page.reload();
  await is(page, "live");
  await users(page, [...wanted, "four"]);
  await answers(page, 5);
  await unsent(page, 0);
  assert.equal((await jobs(page)).length, 5);
});

test("two tabs and two projects in one browser", async () => {
  const one = await begun();
  const two = await open(one.project);
  await is(two, "live");
  await users(two, ["begin"]);
  const other = await begun();
  await write(one, "of one");
  await users(two, ["begin", "of one"]);
  await write(two, "of two");
  await users(one, ["begin", "of one", "of two"]);
  await one.reload();
  await is(one, "live");
  await other.reload();
  await is(other, "live");
  assert.equal((await jobs(one)).length, 3);
});

for (const [button, kept] of [["#start-new", "start_new"], ["#retry", "retry"]]) {
  test(`session not found, ${kept}: the message is still there, and is answered`, async () => {
    const page = await begun();
    await write(page, "forget everything, then add a title");
    await page.waitForSelector("#start-new:not([hidden])");
    assert.equal(await page.textContent("#trouble-text"), "Previous session not found. Starting fresh session...");
    await page.reload();
    await page.click(button);
    if (kept === "retry") { // it is still not there: asked again
      await until(() => page.isDisabled("#start-new").catch(() => false), "the answer is on its way");
      await page.waitForSelector("#start-new:enabled");
      await page.click("#start-new");
    }
    await answers(page, 2);
    await page.waitForSelector("#trouble", { state: "hidden" });
    await users(page, ["begin", "forget everything, then add a title"]);
  });
}

test("a tunnel without a sound: found out within 45 s, and left", async () => {
  const page = await begun();
  way.state.open = false;
  await write(page, "in the tunnel");
  await page.waitForSelector('body:not([data-state="live"])');
  way.cut();
  way.state.open = true;
  await users(page, ["begin", "in the tunnel"]);
  await unsent(page, 0);
  assert.equal((await jobs(page)).length, 2);
});

test("an expired ticket, and another project's: closed, with a sentence", async () => {
  const page = await context.newPage();
  await page.goto(`${way.url}/app/nobody#ticket=nonsense`);
  await is(page, "closed");
  assert.match(await page.textContent("#trouble-text"), /not signed in/);
});
