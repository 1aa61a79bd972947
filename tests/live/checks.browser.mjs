/** Checks in the page: what they came to, and what people decide. Part of page.browser.mjs. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { gate, live, open, sees, stored, write } from "./browsing.mjs";
import { until } from "./scripted.mjs";

const FAILED = { version: "v-job-1", round: 0, number: 2, command: "npm test", duration_ms: 1234, changed: [], exit_status: 3, output: "1 failed: <b>cart</b>\n" };

/** A turn's commit, as far as it is told before its check has ended. */
function commits(job) {
  gate.speak("assistant", "It is written.", job);
  gate.event("session.moved", job, { session: `s-${job}`, version: `v-${job}` });
}

const standing = (page, status) => page.waitForSelector(`#standing[data-status="${status}"]:not([hidden])`);

test("checks of a turn: a folded line with each command, and how the version stands", async () => {
  gate.behaviour.slow = true;
  const page = await open();
  await live(page);
  await write(page, "add a cart");
  await page.waitForSelector(".streaming");
  commits("job-1");
  await standing(page, "unchecked");
  gate.event("check.passed", "job-1", { ...FAILED, number: 1, command: "npm run lint" });
  await page.waitForSelector('.message[data-role="check"][data-how="done"]');
  gate.event("check.failed", "job-1", FAILED);
  const round = await page.waitForSelector('.message[data-role="check"][data-how="failed"]');
  await standing(page, "failing");
  assert.equal(await round.$eval("details", (details) => details.open), false);
  assert.equal(await round.$eval("summary", (one) => one.innerText.replace(/\s+/g, " ")), "Check failed npm test: exit status 3 after 1.2 s");
  await (await round.$("summary")).click();
  assert.deepEqual(await round.$$eval("li", (all) => all.map((one) => one.dataset.how)), ["done", "failed"]);
  assert.equal(await round.$eval("code", (one) => one.textContent), "1 failed: <b>cart</b>");

  gate.speak("assistant", "It is mended.", "job-1");
  for (const [number, command] of [[1, "npm run lint"], [2, "npm test"]]) gate.event("check.passed", "job-1", { ...FAILED, round: 1, number, command });
  gate.event("job.done", "job-1", { result: { check: { status: "passing", repairs: 1 } } });
  await standing(page, "passing");
  const order = () => page.$$eval("#messages .message", (all) => all.map(({ dataset }) => dataset.role));
  assert.deepEqual(await order(), ["user", "assistant", "check", "assistant", "check"]);
  await page.reload();
  await standing(page, "passing");
  assert.deepEqual(await order(), ["user", "assistant", "check", "assistant", "check"]);
});

for (const choice of ["keep", "rewind", "repair"]) {
  test(`a version that fails for good: ${choice}`, async () => {
    gate.behaviour.slow = true;
    const page = await open();
    await live(page);
    await write(page, "add a cart");
    await page.waitForSelector(".streaming");
    commits("job-1");
    gate.event("check.failed", "job-1", FAILED);
    const asks = () => gate.event("job.parked", "job-1", { error_class: "check_undecided", error: "The check fails: npm test. Answer keep, rewind or repair." });
    asks();
    await page.waitForSelector("#undecided:not([hidden])");
    await page.reload();
    await page.click(`#undecided [data-choice="${choice}"]`);
    await until(() => gate.answered.length, "the answer is sent");
    assert.deepEqual(gate.answered, [choice]);
    await page.waitForSelector("#undecided", { state: "hidden" }); // it goes on
    gate.event("job.started", "job-1", { attempt: 2 });
    asks(); // once more: it can be answered again
    await page.waitForSelector("#undecided button:enabled");
    gate.event("job.failed", "job-1", { error_class: "check_failed", error: "Its version stands as failing." });
    await page.waitForSelector("#undecided", { state: "hidden" });
    await sees(page, "notice", ["Its version stands as failing."]);
    await standing(page, "failing");
  });
}

test("a change with a check of its own: the field is there when one wants it, and goes with the message", async () => {
  const page = await open();
  await live(page);
  await write(page, "without one");
  assert.equal(await page.isVisible("#check"), false);
  await page.click("#add-check");
  assert.equal(await page.getAttribute("#add-check", "aria-expanded"), "true");
  assert.equal(await page.evaluate(() => document.activeElement.id), "check");
  await page.keyboard.type("npm test && npm run lint");
  await page.fill("#composer", "with one");
  await page.reload(); // a draft has its check too
  await live(page);
  assert.equal(await page.inputValue("#check"), "npm test && npm run lint");
  await page.click("#send");
  await page.check('input[name="kind"][value="ask"]', { force: true });
  assert.equal(await page.isVisible("#check"), false, "a question has none");
  assert.equal(await page.isVisible("#add-check"), false);
  await write(page, "a question");
  await sees(page, "user", ["without one", "with one", "a question"]);
  assert.deepEqual(stored(), ["without one", "with one", "a question"]);
  assert.deepEqual([...gate.jobs.values()].map(({ check }) => check), [undefined, "npm test && npm run lint", undefined]);
});

test("a race: asked for beside the check, for one message; who races tells nothing, and there is nothing to repair", async () => {
  gate.behaviour.slow = true;
  const page = await open();
  await live(page);
  await page.click("#add-check");
  await page.fill("#check", "npm test");
  await page.selectOption("#race", "3");
  await page.fill("#composer", "add a cart");
  await page.reload(); // a draft has its race too
  await live(page);
  assert.equal(await page.inputValue("#race"), "3");
  await page.click("#send");
  await sees(page, "user", ["add a cart"]);
  await until(async () => (await page.inputValue("#race")) === "", "the next message is no race by itself");
  await write(page, "and a till");
  await sees(page, "user", ["add a cart", "and a till"]);
  assert.deepEqual([...gate.jobs.values()].map(({ check, race }) => [check, race]), [["npm test", 3], ["npm test", undefined]]);

  const racer = { kind: "build", chain: "job-1" };
  for (const one of ["r-1", "r-2"]) gate.event("job.started", one, { ...racer, attempt: 1 });
  gate.event("check.failed", "r-1", { ...FAILED, ...racer, version: null });
  gate.event("job.failed", "r-1", { ...racer, error_class: "check_failed", error: "Its version stands as failing." });
  gate.event("job.cancelled", "r-2", { ...racer, error_class: "cancelled" });
  gate.event("job.parked", "job-1", { error_class: "check_undecided", error: "None of the 2 passed its check.", choices: ["keep", "rewind"] });
  await page.waitForSelector("#undecided:not([hidden])");
  assert.deepEqual(await page.$$eval("#undecided button", (all) => all.filter((one) => !one.hidden).map(({ dataset }) => dataset.choice)), ["keep", "rewind"]);
  assert.deepEqual(await page.$$eval('.message[data-role="notice"]', (all) => all.length), 0);
});
