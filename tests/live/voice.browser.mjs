/** The page of voice in a real Chromium with a microphone that is a file. Started by test_voice_page.py. */
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { PATIENCE, until } from "./scripted.mjs";

const ask = createRequire(`${process.env.BATON_NODE_MODULES}/x.js`);
const { chromium } = ask("playwright-core");
const WebSocket = ask("ws");
const { GATE: gate, KEY: key, SPEECH: speech } = process.env;
const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
const LOUD = Buffer.alloc(800, Buffer.from([0x0f, 0x8f])).toString("base64"); // 100 ms of a telephone's
const QUIET = Buffer.alloc(800, 0xff).toString("base64");

let browser, context, page, faults, phones, sockets;

before(async () => {
  const args = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", `--use-file-for-fake-audio-capture=${speech}`];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
});
after(() => browser.close());
beforeEach(async () => {
  context = await browser.newContext({ viewport: { width: 1000, height: 800 } });
  context.setDefaultTimeout(PATIENCE);
  faults = [];
  phones = [];
  sockets = new Set();
  page = await open();
});
afterEach(async () => {
  await context.close();
  for (const phone of phones) phone.terminate();
  assert.deepEqual(faults, []);
});

async function open() {
  const made = await context.newPage();
  made.on("pageerror", (error) => faults.push(String(error)));
  made.on("console", (line) => /Content Security Policy/.test(line.text()) && faults.push(line.text()));
  made.on("websocket", (ws) => (sockets.add(ws), ws.on("close", () => sockets.delete(ws))));
  await made.addInitScript(() => {
    window.states = [];
    addEventListener("DOMContentLoaded", () => {
      states.push(document.body.dataset.state);
      new MutationObserver(() => states.push(document.body.dataset.state)).observe(document.body, { attributeFilter: ["data-state"] });
    });
  });
  await made.goto(`${gate}/app/voice#key=${key}`);
  return made;
}

const state = (wanted) => page.waitForSelector(`body[data-state="${wanted}"]`);
const step = (wanted) => page.waitForSelector(`#log [data-step="${wanted}"]`, { state: "attached" });
const steps = () => page.$$eval("#log li", (all) => all.map((one) => one.dataset.step));
const said = (role) => page.$$eval(`#messages [data-role="${role}"] .text`, (all) => all.map((one) => one.textContent));
const spoken = (role, wanted) => until(async () => (await said(role)).some((text) => wanted.test(text)), `${role}: ${wanted}`);
const status = async (call) => (await (await fetch(`${gate}/v1/calls/${call}`, { headers })).json()).status;
const media = async () => (await page.waitForSelector("#media:not(:empty)")).textContent();
const named = (address) => address.split("/").at(-2);

/** The nine states of a practice call, in the order in which each was first seen. */
const seen = async () => [...new Set(await page.evaluate(() => states))];

async function practise(instructions = "You are a customer.") {
  await page.check('input[value="telephone"]', { force: true });
  await page.fill("textarea", instructions);
  await page.click("#start");
  return media();
}

/** A telephone at that address, as Twilio is one. */
async function phone(address, stream = "MZ1") {
  const ws = new WebSocket(address);
  phones.push(ws);
  await new Promise((done, not) => ws.once("open", done).once("error", not));
  ws.say = (event) => ws.send(JSON.stringify(event));
  ws.got = [];
  ws.on("message", (data) => ws.got.push(JSON.parse(data).event));
  ws.gone = new Promise((done) => ws.once("close", done));
  ws.say({ event: "connected", protocol: "Call", version: "1.0.0" });
  ws.say({ event: "start", streamSid: stream, start: { streamSid: stream, tracks: ["inbound"] } });
  return ws;
}

function talk(ws) {
  [...Array(4).fill(LOUD), ...Array(9).fill(QUIET)].forEach((payload, n) =>
    ws.say({ event: "media", streamSid: "MZ1", media: { track: "inbound", timestamp: String(n * 100), payload } }));
}

test("the microphone is heard, the voice answers, and a provider that closes is a matter of words", async () => {
  assert.equal(await page.evaluate(() => location.hash), "", "the key is out of the address");
  await page.keyboard.press("Enter"); // the button has the focus
  await step("config-accepted");
  await state("hearing");
  await state("answering");
  await spoken("assistant", /heard you|You said/);
  assert.ok(Number(await page.$eval("#level", (level) => level.max)) > 0);
  await page.click("#mute"); // so that nothing comes between
  await state("listening");
  await page.fill("#text", "Is it raining?");
  await page.press("#text", "Enter");
  await step("provider-reconnecting");
  await step("provider-connected");
  await spoken("user", /^Is it raining\?$/);
  await spoken("assistant", /You said: Is it raining\?/);
  await page.keyboard.press("Escape");
  await state("ended");
  assert.equal(await page.textContent("#connection"), "You have ended it.");
  await until(() => sockets.size === 0, "its socket is closed");
});

test("a practice call goes through the nine states, and again begins with nothing of before", async () => {
  const address = await practise();
  const one = await phone(address);
  await state("active");
  talk(one);
  await spoken("assistant", /\w/);
  await until(() => one.got.includes("media"), "the telephone hears the voice");
  one.say({ event: "stop", streamSid: "MZ1", stop: { callSid: "CA1" } });
  await state("ended");
  assert.match(await page.textContent("#connection"), /the telephone has hung up/);
  assert.equal(await page.evaluate(() => document.activeElement.id), "again");
  const order = ["idle", "connecting", "configuring", "waiting", "associated", "active", "ending", "ended"];
  assert.deepEqual((await seen()).filter((name) => order.includes(name)), order);
  const [received, cleaned] = ["end-received", "cleaned"].map((name) => steps().then((all) => all.indexOf(name)));
  assert.ok((await received) < (await cleaned), "it is told of the end before anything is cleaned up");
  await until(() => sockets.size === 0, "its socket is closed");
  await page.click("#again");
  const next = await media();
  assert.notEqual(next, address);
  assert.equal((await steps())[0], "reset");
  assert.deepEqual(await said("assistant"), [], "nothing of the last call is shown");
  assert.equal(await page.inputValue("textarea"), "You are a customer.", "what is practised stays");
  const two = await phone(next);
  await state("active");
  assert.equal(sockets.size, 1);
  await page.click("#end");
  await two.gone;
  await state("ended");
  assert.equal(await status(named(next)), "ended");
});

test("the gateway is killed in the middle of an answer: the page comes back by itself, to its session", async () => {
  const opened = [];
  page.on("websocket", (ws) => opened.push(new URL(ws.url()).searchParams.get("session")));
  await page.keyboard.press("Enter");
  await step("config-accepted");
  await page.click("#mute"); // so that nothing comes between
  await state("listening");
  const say = async (text) => {
    await until(async () => (await page.fill("#text", text), await page.press("#text", "Enter"), !(await page.inputValue("#text"))), "it has left");
  };
  await say("Remember the sea.");
  await spoken("assistant", /^You said: Remember the sea\.$/);
  await state("listening");
  await say("one two three four five ".repeat(12));
  await state("answering");
  process.kill(Number(process.env.PID), "SIGKILL");
  await step("lost");
  await state("reconnecting");
  await page.waitForSelector('body[data-state="listening"]');
  assert.equal(await page.$$eval("#messages [aria-busy=true]", (all) => all.length), 0, "nothing waits for the rest of what was cut off");
  await say("Are you there?");
  await spoken("assistant", /You said: Are you there\?/);
  await state("listening");
  assert.equal(new Set(opened).size, 1, "one session");
  assert.ok(opened.length > 1);
  await page.click("#mute");
  await state("hearing");
  await page.keyboard.press("Escape");
  await state("ended");
  await until(() => sockets.size === 0, "its socket is closed");
});

// The seed's manual tests, one to five, and its `test:session-cleanup`.

test("manual 1 and 2: start with a configuration, end on the page", async () => {
  const address = await practise("First of all.");
  const one = await phone(address);
  await state("active");
  const all = await steps();
  for (const name of ["connect", "config-sent", "config-received", "config-applied"]) assert.ok(all.includes(name), name);
  await page.click("#end");
  await one.gone;
  await state("ended");
  assert.match(await page.textContent("#connection"), /ended here/);
});

test("manual 3 and 4: again in the middle of a call, and the new configuration reaches the new one", async () => {
  const one = await phone(await practise("The first one."));
  await state("active");
  await page.click("#end");
  await one.gone;
  await state("ended");
  await page.click("#change");
  await page.fill("textarea", "The second one.");
  await page.click("#start");
  const two = await phone(await media(), "MZ2");
  await state("active");
  assert.equal((await steps()).filter((name) => name === "config-applied").length, 1);
  two.say({ event: "stop", streamSid: "MZ2" });
  await state("ended");
});

test("manual 5: ten calls one after the other, a page that is left and one that is reloaded leave no socket", async () => {
  const names = [];
  names.push(named(await practise()));
  for (let n = 0; n < 10; n++) {
    await page.evaluate(() => document.getElementById("again").click()); // in whatever state it is
    await until(async () => !names.includes(named(await media())), "a new call");
    names.push(named(await media()));
    await until(() => sockets.size === 1, "one socket, the new one's");
  }
  sockets.clear(); // of a page that is left Playwright tells no close: the gateway does
  await page.reload();
  assert.equal(sockets.size, 0);
  for (const name of names) await until(async () => (await status(name)) === "ended", `${name} has ended`);
});

test("fast: connect and disconnect at once, twenty times, then a call that works", async () => {
  await page.check('input[value="telephone"]', { force: true });
  await page.evaluate(() => {
    for (let n = 0; n < 20; n++) document.getElementById(n % 2 ? "end" : "again").click();
  });
  await until(async () => (await page.getAttribute("body", "data-state")) === "ended" && sockets.size === 0, "all are gone");
  await page.click("#again");
  const one = await phone(await media());
  await state("active");
  one.close();
  await state("ended");
  assert.match(await page.textContent("#connection"), /connection has gone|hung up/);
});

test("a key that does not count is said in words, and so is a browser without a microphone", async () => {
  await page.evaluate(() => (navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("", "NotFoundError"))));
  await page.click("#start");
  await state("listening");
  assert.match(await page.textContent("#trouble-text"), /no microphone here/);
  await page.fill("#text", "I write");
  await page.press("#text", "Enter");
  await spoken("assistant", /I write/);
  await page.click("#end");
  await page.click("#change");
  for (const side of ["microphone", "telephone"]) {
    await page.check(`input[value="${side}"]`, { force: true });
    await page.fill('input[type="password"]', "bk_wrong");
    await page.click("#start");
    await state("ended");
    assert.match(await page.textContent("#connection"), /key/i);
    await page.click("#change");
  }
});

test("a project's page and this one share a service worker, and neither is shown for the other", async () => {
  await page.goto(`${gate}/app/shop`);
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.goto(`${gate}/app/voice`);
  assert.equal(await page.title(), "Voice · Baton");
  await page.goto(`${gate}/app/shop`);
  assert.equal(await page.title(), "shop · Baton");
});

for (const scheme of ["light", "dark"]) {
  test(`${scheme}, on a phone: readable, nothing wider than the screen, each field has its name`, async () => {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width: 360, height: 640 });
    const [ink, ground] = await page.evaluate(() => ["color", "backgroundColor"].map((name) => getComputedStyle(document.body)[name].match(/\d+/g).map(Number)));
    const light = ([r, g, b]) => r + g + b;
    assert.ok(scheme === "dark" ? light(ink) > light(ground) + 400 : light(ground) > light(ink) + 400);
    const [wide, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(wide <= screen, `${wide} > ${screen}`);
    const nameless = await page.$$eval("input, textarea, button, meter", (all) => all.filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim())).map((one) => one.outerHTML));
    assert.deepEqual(nameless, []);
    assert.equal(await page.getAttribute("#messages", "role"), "log");
    const reached = new Set();
    for (let n = 0; n < 12; n++) {
      await page.keyboard.press("Tab");
      reached.add(await page.evaluate(() => document.activeElement.id || document.activeElement.name));
    }
    for (const name of ["start", "key", "model", "instructions", "side"]) assert.ok(reached.has(name), `${name} by keyboard`);
  });
}
