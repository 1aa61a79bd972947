/** The page in a real Chromium: what people do, and what happens to their messages meanwhile. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { browser, context, empty, gate, live, open, sees, stored, texts, unsent, write } from "./browsing.mjs";
import "./checks.browser.mjs";
import { until } from "./scripted.mjs";

/** What is kept of conversations, as text. */
const views = (page) => page.evaluate(() => new Promise((done) => {
  indexedDB.open("baton-live").onsuccess = ({ target: { result: db } }) => {
    db.transaction("views").objectStore("views").getAll().onsuccess = ({ target }) => {
      db.close();
      done(JSON.stringify(target.result));
    };
  };
}));

/** A page with a conversation of one message, which this browser keeps. */
async function kept() {
  const page = await open();
  await live(page);
  await write(page, "before");
  await sees(page, "assistant", ["Done: before"]);
  await page.evaluate(() => navigator.serviceWorker.ready);
  await until(() => page.evaluate(async () => Boolean(await caches.match("/app/_shell"))), "the shell is kept");
  await until(async () => (await views(page)).includes("Done: before"), "the conversation is kept");
  return page;
}

test("a message is sent and answered", async () => {
  gate.behaviour.slow = true;
  const page = await open();
  await live(page);
  assert.equal(await page.evaluate(() => location.hash), "", "the ticket is out of the address");
  assert.equal(await page.textContent("#connection"), "Live");
  await page.fill("#composer", "Make it <b>blue</b>");
  await page.press("#composer", "Enter");
  await sees(page, "user", ["Make it <b>blue</b>"]);
  assert.equal(await page.inputValue("#composer"), "");
  await page.waitForSelector('.streaming[data-role="assistant"]');
  assert.match(await page.textContent(".streaming"), /I am working on: Make it <b>blue<\/b>/);
  gate.finish("job-1", "blue");
  await sees(page, "assistant", ["Done: blue"]);
  assert.equal(await page.$(".streaming"), null, "replaced by what was committed");
  assert.equal(await page.$eval(".message .steps", (steps) => steps.open), false, "steps are folded");
  assert.equal(await page.textContent(".message .cost"), "0.010 USD");
  assert.equal(await unsent(page), "0");
});

test("a text appears while it is written, and the whole one takes its place", async () => {
  gate.behaviour.slow = true;
  const page = await open();
  await live(page);
  await page.fill("#composer", "A shop");
  await page.press("#composer", "Enter");
  const shows = (words) => page.waitForFunction((all) => document.querySelector(".streaming .text")?.textContent === all, words);
  const before = "I am working on: A shop\n\n";
  await shows(before.trim());
  gate.does("job-1", "writing", { from: 0, text: "It has **one" });
  await shows(`${before}It has **one`);
  gate.does("job-1", "writing", { from: 12, text: " page** n" });
  await shows(`${before}It has **one page** n`);
  assert.equal(await page.textContent(".streaming strong"), "**one page**");
  gate.does("job-1", "text", { text: "It has **one page** now." });
  await shows(`${before}It has **one page** now.`);
  gate.finish("job-1", "a shop");
  await sees(page, "assistant", ["Done: a shop"]);
});

test("a reload between typing and sending, and at once after sending", async () => {
  const page = await open();
  await live(page);
  await page.fill("#composer", "half a thou");
  await page.reload();
  await live(page);
  assert.equal(await page.inputValue("#composer"), "half a thou");
  await page.fill("#composer", "half a thought");
  await page.evaluate(() => {
    document.getElementById("send").click();
    location.reload();
  });
  await live(page);
  await sees(page, "user", ["half a thought"]); // which was first, the reload or the sending, is no matter
  await empty(page);
  assert.equal(await page.inputValue("#composer"), "");
  assert.deepEqual(stored(), ["half a thought"]);
});

test("what is written while the message before it is being queued: another message, and both are sent", async () => {
  const page = await open();
  await live(page);
  await page.evaluate(() => {
    const composer = document.getElementById("composer");
    const type = (text) => {
      composer.value = text;
      composer.dispatchEvent(new Event("input", { bubbles: true }));
    };
    type("first");
    document.getElementById("send").click();
    type("second"); // the queue is a transaction: it has not ended yet
    document.getElementById("send").click();
  });
  await sees(page, "user", ["first", "second"]);
  await empty(page);
  assert.deepEqual(stored(), ["first", "second"]);
});

test("two tabs: what is written in each while the other writes is a message of its own, also after a reload", async () => {
  const one = await open();
  await live(one);
  const two = await open("/app/shop");
  await live(two);
  await one.fill("#composer", "of one");
  await two.fill("#composer", "of two");
  await one.reload();
  await live(one); // the draft is back by then
  assert.equal(await one.inputValue("#composer"), "of one");
  await gate.stop(); // both wait in the queue, which is one
  await one.click("#send");
  await two.click("#send");
  await two.waitForSelector('#queue[data-count="2"]');
  await gate.start();
  await sees(one, "user", ["of one", "of two"]);
  assert.deepEqual(stored(), ["of one", "of two"]);
});

test("what is written before the page is ready is sent once it is, also after a reload", async () => {
  const page = await context.newPage();
  let ready;
  const wait = new Promise((done) => (ready = done));
  await page.route("**/static/app.js", (route) => wait.then(() => route.continue()).catch(() => {}));
  await page.goto(`${gate.url}/app/shop#ticket=T`, { waitUntil: "commit" });
  await page.fill("#composer", "too early");
  await assert.rejects(page.click("#send", { timeout: 300 }));
  await page.reload({ waitUntil: "commit" });
  ready();
  await page.click("#send");
  await sees(page, "user", ["too early"]);
  assert.equal(await page.inputValue("#composer"), "");
  await page.reload();
  await live(page);
  assert.equal(await page.inputValue("#composer"), "");
});

test("what is being put into the queue when the page is reloaded is sent, and what was written after it kept", async () => {
  const page = await open();
  await live(page);
  await page.evaluate(() => { // a disk that takes its time
    IDBDatabase.prototype.transaction = () => ({ objectStore: () => ({ put() {} }) });
  });
  await page.fill("#composer", "said");
  await page.click("#send");
  await page.fill("#composer", "not yet said");
  await page.reload();
  await sees(page, "user", ["said"]);
  await empty(page);
  assert.equal(await page.inputValue("#composer"), "not yet said");
  assert.deepEqual(stored(), ["said"]);
});

test("the gateway is killed between commit and ack, and comes back", async () => {
  const page = await open();
  await live(page);
  gate.behaviour.loseAck = true;
  await write(page, "once and for all");
  await page.waitForSelector('body[data-state="reconnecting"], body[data-state="connecting"]');
  assert.equal(await unsent(page), "1");
  gate.behaviour.loseAck = false;
  await gate.start();
  await live(page);
  await empty(page);
  await sees(page, "user", ["once and for all"]);
  assert.deepEqual(stored(), ["once and for all"]);
});

test("offline and online: said in words, written meanwhile, sent afterwards in order", async () => {
  const page = await open();
  await live(page);
  await context.setOffline(true);
  await page.waitForSelector('body[data-state="reconnecting"]');
  assert.equal(await page.textContent("#connection"), "You are offline");
  await write(page, "first");
  await write(page, "second");
  await page.waitForSelector('#queue[data-count="2"]');
  await context.setOffline(false);
  await live(page);
  await sees(page, "user", ["first", "second"]);
  assert.equal(await unsent(page), "0");
});

test("a reload without a network shows the conversation, and takes a message for later", async () => {
  const page = await kept();
  await gate.stop();
  await page.reload();
  await sees(page, "assistant", ["Done: before"]);
  await write(page, "for later");
  await page.waitForSelector('#queue[data-count="1"]');
  await page.reload();
  await page.waitForSelector('#queue[data-count="1"]');
  await gate.start();
  await live(page);
  await sees(page, "user", ["before", "for later"]);
  assert.deepEqual(stored(), ["before", "for later"]);
});

test("two tabs: both see everything, each message is sent once", async () => {
  const one = await open();
  await live(one);
  const two = await open("/app/shop");
  await live(two);
  await write(one, "of one");
  await sees(two, "assistant", ["Done: of one"]);
  await write(two, "of two");
  await sees(one, "assistant", ["Done: of one", "Done: of two"]);
  await empty(two);
  await one.close();
  await write(two, "alone");
  await sees(two, "assistant", ["Done: of one", "Done: of two", "Done: alone"]);
  assert.deepEqual(stored(), ["of one", "of two", "alone"]);
});

test("a phone: nothing wider than the screen, targets for a thumb", async () => {
  const phone = await browser.newContext({ viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true });
  try {
    const page = await open("/app/shop#ticket=T", phone);
    await live(page);
    await page.fill("#composer", `wide: ${"x".repeat(300)}`);
    await page.tap("#send");
    await page.waitForSelector('.message[data-role="assistant"]');
    const [wide, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(wide <= screen, `${wide} > ${screen}`);
    const small = await page.$$eval("button", (all) => all.map((one) => one.getBoundingClientRect()).filter(({ height }) => height && height < 44).length);
    assert.equal(small, 0);
    await page.tap("#show-files");
    assert.equal(await page.isVisible("#hide-files"), true);
  } finally {
    await phone.close();
  }
});

for (const [button, choice] of [["#retry", "retry"], ["#start-new", "start_new"]]) {
  test(`a lost session: ${choice}, and the message is still there`, async () => {
    const page = await open();
    await live(page);
    gate.behaviour.loseSession = true;
    await write(page, "precious");
    await page.waitForSelector(button);
    assert.equal(await page.textContent("#trouble-text"), "Previous session not found. Starting fresh session...");
    assert.equal(await page.textContent("#trouble-prompt"), "precious");
    await page.reload();
    await page.click(button);
    await sees(page, "assistant", ["Done: precious"]);
    assert.equal(await page.isVisible("#trouble"), false);
  });
}

test("a refused message stays with its reason, can be edited and sent", async () => {
  const page = await open();
  await live(page);
  gate.behaviour.refuse = { code: "busy", text: "Another request is under way.", retry: false };
  await write(page, "refused");
  await page.waitForSelector('#queue li[data-state="refused"]');
  assert.match(await page.textContent("#queue li"), /Another request is under way/);
  gate.behaviour.refuse = null;
  await page.click("#queue >> text=Edit");
  assert.equal(await page.inputValue("#composer"), "refused");
  await empty(page);
  await write(page, "taken");
  await sees(page, "user", ["taken"]);
});

test("unsent for a day: shown as not sent, and sent when one says so", async () => {
  const page = await open();
  await live(page);
  await gate.stop();
  await write(page, "of yesterday");
  await page.waitForSelector('#queue[data-count="1"]');
  await page.evaluate(() => new Promise((done) => {
    const asked = indexedDB.open("baton-live");
    asked.onsuccess = () => {
      const box = asked.result.transaction("outbox", "readwrite").objectStore("outbox");
      box.getAll().onsuccess = (e) => (box.put({ ...e.target.result[0], at: Date.now() - 25 * 3600e3 }).onsuccess = done);
    };
  }));
  await gate.start();
  await page.reload();
  await live(page);
  assert.match(await page.textContent("#queue li"), /Not sent/);
  assert.deepEqual(stored(), []);
  await page.click("#queue >> text=Send again");
  await sees(page, "user", ["of yesterday"]);
});

test("scroll and what was unfolded survive a reload", async () => {
  for (let n = 1; n <= 60; n++) gate.speak("assistant", `answer ${n}\n${"words ".repeat(80)}`, `j${n}`);
  const page = await open();
  await live(page);
  const top = () => page.$eval("#conversation", (box) => Math.round(box.scrollTop));
  await until(async () => (await top()) > 1000, "it begins at the end");
  await page.$eval("#conversation", (box) => (box.scrollTop = 900));
  await page.waitForTimeout(50);
  await page.reload();
  await live(page);
  assert.ok(Math.abs((await top()) - 900) < 4, String(await top()));
  gate.speak("assistant", "one more", "j99");
  await page.waitForSelector("#newest:not([hidden])");
  assert.ok(Math.abs((await top()) - 900) < 4, "reading is not disturbed");
});

test("more than is kept: it is said, and earlier messages are shown when asked for, also while new ones come", async () => {
  for (let n = 1; n <= 1234; n++) gate.speak(n % 2 ? "user" : "assistant", `said ${n}`, `j${n}`);
  const page = await open();
  await live(page);
  const shown = () => page.$$eval("#messages .message .text", (all) => all.map((one) => Number(one.textContent.split(" ")[1])));
  const from = (first, last) => Array.from({ length: last - first + 1 }, (_, n) => first + n);
  await until(async () => (await shown()).length === 500, "the newest");
  assert.deepEqual(await shown(), from(735, 1234));
  assert.equal(await page.isVisible("#show-earlier"), true);
  assert.match(await page.textContent("#earlier"), /earlier messages/);
  await page.$eval("#conversation", (box) => (box.scrollTop = 0));
  const place = () => page.$eval('#messages [data-key="735"]', (one) => Math.round(one.getBoundingClientRect().top));
  const before = await place();
  await page.click("#show-earlier");
  await until(async () => (await shown()).length === 1000, "500 more");
  assert.ok(Math.abs((await place()) - before) < 4, "what one reads stays where it is");
  for (let n = 1235; n <= 1240; n++) gate.speak("assistant", `said ${n}`, `j${n}`);
  await until(async () => (await shown()).at(-1) === 1240, "the new ones");
  assert.deepEqual(await shown(), from(235, 1240), "none is missing between the older and the newest");
  gate.answers["/v1/projects/shop/events"] = { status: 503, body: "{}" };
  await page.click("#show-earlier");
  await until(async () => /cannot be read/.test(await page.textContent("#earlier")), "a sentence");
  delete gate.answers["/v1/projects/shop/events"];
  gate.answers["/v1/projects/shop/events"] = (query) => ({ body: JSON.stringify(gate.log.slice(Number(query.get("offset")))) });
  await page.click("#show-earlier");
  await until(async () => (await shown()).length === 1240, "all");
  assert.equal(await page.isVisible("#earlier"), false, "there is nothing before");
});

test("no connection after all tries: failed, with Retry and Start new", async () => {
  const page = await open();
  await live(page);
  await write(page, "before");
  await sees(page, "assistant", ["Done: before"]);
  await page.clock.install();
  await gate.stop();
  for (const end = Date.now() + 60_000; (await page.getAttribute("body", "data-state")) !== "failed"; ) {
    assert.ok(Date.now() < end, "it never gave up");
    await page.clock.runFor(2000);
    await page.waitForTimeout(20); // for the network, which has the real clock
  }
  assert.match(await page.textContent("#trouble-text"), /10 tries/);
  assert.equal(await page.isVisible("#start-new"), true);
  await gate.start();
  await page.click("#retry");
  await live(page);
  assert.deepEqual(await texts(page, "assistant"), ["Done: before"]);
});

const BRING = {
  connecting: () => (gate.behaviour.holds = "connecting", gate.cut()),
  replaying: () => (gate.behaviour.holds = "replaying", gate.cut()),
  live: () => {},
  reconnecting: () => gate.stop(),
  failed: async (page) => {
    await page.clock.install();
    await gate.stop();
    await until(async () => (await page.clock.runFor(2000), (await page.getAttribute("body", "data-state")) === "failed"), "failed");
    await page.clock.resume();
  },
  closed: () => (gate.behaviour.closeWith = 4401, gate.cut()),
};
const AFTERWARDS = {
  reconnecting: () => gate.start(),
  failed: () => gate.start(),
  closed: async (page) => {
    await page.waitForSelector('body[data-state="closed"]');
    gate.behaviour.closeWith = null;
    await page.click("#retry");
  },
};
for (const [state, bring] of Object.entries(BRING)) {
  test(`browser reload while ${state}: the conversation is there, a message is sent once, a draft is kept`, async () => {
    const page = await kept();
    await bring(page);
    await page.waitForSelector(`body[data-state="${state}"]`);
    await write(page, "meanwhile");
    await page.fill("#composer", "half a thou");
    await page.reload();
    await until(async () => (await texts(page, "assistant"))[0] === "Done: before", "the conversation");
    assert.equal(await page.inputValue("#composer"), "half a thou");
    gate.behaviour.holds = null;
    gate.cut();
    await AFTERWARDS[state]?.(page);
    await live(page);
    await sees(page, "user", ["before", "meanwhile"]);
    await empty(page);
    assert.deepEqual(stored(), ["before", "meanwhile"]);
    assert.equal(await page.inputValue("#composer"), "half a thou");
  });
}

test("the database was restored: the new history is shown, and it is said", async () => {
  const page = await open();
  await live(page);
  await write(page, "of the old history");
  await sees(page, "assistant", ["Done: of the old history"]);
  gate.log.length = 0;
  gate.behaviour.epoch = "e2";
  gate.speak("user", "of the new history", "j1");
  gate.cut();
  await sees(page, "user", ["of the new history"]);
  assert.match(await page.textContent("#hint"), /was restored/);
});

test("another user of the same browser: neither the conversation nor the messages of the first", async () => {
  const page = await open();
  await live(page);
  await gate.stop();
  await write(page, "of Ann");
  await page.waitForSelector('#queue[data-count="1"]');
  gate.answers["/v1/session"].body = JSON.stringify({ project: "shop", user: "bob" });
  await gate.start();
  await page.close();
  const bobs = await open();
  await live(bobs);
  await write(bobs, "of Bob");
  await sees(bobs, "user", ["of Bob"]);
  assert.deepEqual(stored(), ["of Bob"]);
});

test("an address that is no text is shown as it stands", async () => {
  const page = await open("/app/%ff#ticket=T");
  await until(async () => (await page.textContent("#project")) === "%ff", "its name");
});

test("signed out: closed, with a sentence, and nothing is tried again", async () => {
  gate.behaviour.closeWith = 4401;
  const page = await open();
  await page.waitForSelector('body[data-state="closed"]');
  assert.match(await page.textContent("#trouble-text"), /not signed in/);
  const before = gate.connections();
  await page.waitForTimeout(1500);
  assert.equal(gate.connections(), before);
  gate.behaviour.closeWith = null;
  await page.click("#retry");
  await live(page);
});

test("with a screen reader and without a mouse", async () => {
  const page = await open();
  await live(page);
  assert.equal(await page.isVisible("#empty"), true);
  await page.evaluate(() => document.activeElement.blur());
  assert.equal(await page.getAttribute("#messages", "role"), "log");
  assert.equal(await page.$eval(".connection", (one) => one.getAttribute("role")), "status");
  const unnamed = await page.$$eval("button, textarea, input, summary, aside, main", (all) =>
    all.filter((one) => !(one.textContent.trim() || one.getAttribute("aria-label") || one.labels?.length || one.getAttribute("aria-labelledby"))).length);
  assert.equal(unnamed, 0);
  await page.keyboard.press("/");
  await page.keyboard.type("by keyboard");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two lines");
  await page.keyboard.press("Enter");
  await sees(page, "user", ["by keyboard\ntwo lines"]);
  await page.click("#show-files");
  await page.keyboard.press("Escape");
  assert.equal(await page.isVisible("#files"), false);
  assert.equal(await page.evaluate(() => document.activeElement.id), "show-files");
});
