/** What the page's tests share: a Chromium, a small gateway for each test, and what people do there. */
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, afterEach, before, beforeEach } from "node:test";

import { conversing } from "./conversing.mjs";
import { PATIENCE, until } from "./scripted.mjs";

const modules = process.env.BATON_NODE_MODULES ?? new URL("../../.baton/node/node_modules", import.meta.url).pathname;
const { chromium } = createRequire(`${modules}/x.js`)("playwright-core");

let faults;
export let browser, context, gate;
before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox"] });
});
after(() => browser.close());
beforeEach(async () => {
  gate = await conversing();
  context = await browser.newContext({ viewport: { width: 1200, height: 800 } });
  context.setDefaultTimeout(PATIENCE);
  faults = [];
});
afterEach(async () => {
  await context.close();
  await gate.stop();
  assert.deepEqual(faults, []);
});

export async function open(where = "/app/shop#ticket=T", from = context) {
  const page = await from.newPage();
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (line) => /Content Security Policy/.test(line.text()) && faults.push(line.text()));
  await page.goto(gate.url + where);
  return page;
}

export const live = (page) => page.waitForSelector('body[data-state="live"]');
export const write = async (page, text) => {
  await page.fill("#composer", text);
  await page.click("#send");
};
export const texts = (page, role) => page.$$eval(`#messages .message[data-role="${role}"] .text`, (all) => all.map((one) => one.textContent));
export const sees = (page, role, wanted) => until(async () => JSON.stringify(await texts(page, role)) === JSON.stringify(wanted), `${role}: ${wanted}`);
export const unsent = (page) => page.getAttribute("#queue", "data-count");
export const empty = (page) => page.waitForSelector('#queue[data-count="0"]', { state: "attached" });
export const stored = () => [...gate.jobs.values()].map(({ text }) => text);
