// Draws the page: desk and phone, dark and light. From the checkout's root:
//
//     make node && node docs/pictures/page.mjs
//
// A scripted server tells the story of tests/live/story.mjs, so that the pictures are the same
// each time.

import { createRequire } from "node:module";

import { scripted } from "../../tests/live/scripted.mjs";
import { EARLIER, LOST, NOW, PATCH } from "../../tests/live/story.mjs";

const modules = process.env.BATON_NODE_MODULES ?? new URL("../../.baton/node/node_modules", import.meta.url).pathname;
const { chromium } = createRequire(`${modules}/x.js`)("playwright-core");
const into = process.argv[2] ?? new URL(".", import.meta.url).pathname;

const PICTURES = [
  { name: "page-desk-light", wide: true, dark: false, more: NOW, files: true },
  { name: "page-desk-dark", wide: true, dark: true, more: NOW, files: true },
  { name: "page-phone-light", wide: false, dark: false, more: NOW },
  { name: "page-phone-dark", wide: false, dark: true, more: LOST },
];

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox"] });
for (const picture of PICTURES) await draw(picture);
await browser.close();

async function draw({ name, wide, dark, more, files }) {
  const told = [...EARLIER, ...more];
  const head = told.findLast(({ t }) => t === "event").seq;
  const server = await scripted((talk) => {
    talk.welcome({ head });
    for (const frame of told) talk.send(frame);
    talk.send({ t: "live", head });
  }, { answers: { "/v1/projects/flower-shop/versions/v2/diff": { type: "text/x-patch", body: PATCH } } });
  const page = await browser.newPage({
    viewport: wide ? { width: 1280, height: 800 } : { width: 390, height: 844 },
    deviceScaleFactor: 1.5, hasTouch: !wide, isMobile: !wide, colorScheme: dark ? "dark" : "light", locale: "en-GB", timezoneId: "UTC",
  });
  page.on("console", (said) => said.type() === "error" && !/404/.test(said.text()) && console.error(name, said.text()));
  page.on("pageerror", (error) => console.error(name, error));
  await page.goto(`${server.url}/app/flower-shop`);
  await page.waitForSelector('body[data-state="live"]');
  if (files) await page.click("#show-files");
  if (files) await page.waitForSelector("#diff .file");
  await page.evaluate(() => document.activeElement.blur());
  await page.waitForTimeout(200);
  await page.screenshot({ path: `${into}/${name}.png` });
  await page.close();
  await server.stop();
}
