/** A conversation for pictures and for looking at the page: what a gateway would tell of it. */
import { said } from "./scripted.mjs";

const at = (minute) => `2026-03-02T09:${String(minute).padStart(2, "0")}:00Z`;
const event = (seq, type, job, body = {}, minute = seq) => ({ t: "event", seq, type, job, at: at(minute), body: { kind: "update", chain: `c-${job}`, ...body } });
const spoken = (seq, role, text, job) => ({ ...said(seq, role, text, { job, chain: `c-${job}` }), at: at(seq) });
const tool = (job, id, name, about) => ({ t: "progress", chain: `c-${job}`, job, what: "tool", id, name, about });
const toolDone = (job, id, error = false) => ({ t: "progress", chain: `c-${job}`, job, what: "tool.done", id, error });
const text = (job, words) => ({ t: "progress", chain: `c-${job}`, job, what: "text", text: words });

export const PATCH = `diff --git a/index.html b/index.html
index 1c2..2d3 100644
--- a/index.html
+++ b/index.html
@@ -1,9 +1,14 @@
 <!doctype html>
 <html lang="en">
   <head>
     <title>Ann's Flowers</title>
-    <link rel="stylesheet" href="style.css">
+    <meta name="viewport" content="width=device-width">
+    <link rel="stylesheet" href="style.css?2">
   </head>
   <body>
-    <header>Ann's Flowers</header>
+    <header class="blue">
+      <h1>Ann's Flowers</h1>
+      <p>Open from nine to six, on Sundays until noon</p>
+    </header>
diff --git a/opening-hours.html b/opening-hours.html
new file mode 100644
--- /dev/null
+++ b/opening-hours.html
@@ -0,0 +1,6 @@
+<!doctype html>
+<title>Opening hours</title>
+<table>
+  <tr><th>Monday to Saturday</th><td>9 – 18</td></tr>
+  <tr><th>Sunday</th><td>9 – 12</td></tr>
+</table>
diff --git a/style.css b/style.css
--- a/style.css
+++ b/style.css
@@ -3,3 +3,4 @@
 body { margin: 0 auto; max-width: 60rem; }
-header { background: #eee; }
+header { background: #2457a6; color: #fff; }
+header p { margin: 0; }
`;

/** What came before: two turns. */
export const EARLIER = [
  spoken(1, "user", "A page for a flower shop", "j1"),
  event(2, "job.queued", "j1"),
  event(3, "job.started", "j1", { attempt: 1 }),
  tool("j1", "t1", "Write", "/srv/shop/index.html"), toolDone("j1", "t1"),
  tool("j1", "t2", "Write", "/srv/shop/style.css"), toolDone("j1", "t2"),
  spoken(4, "assistant", "There is a page now: **Ann's Flowers**, with a header, the week's bouquets and a way to write to you. The colours are in `style.css`.", "j1"),
  event(5, "session.moved", "j1", { session: "s1", version: "v1" }),
  event(6, "job.done", "j1", { cost_usd: 0.213 }),
  spoken(7, "user", "Make the header blue, and say when we are open", "j2"),
  event(8, "job.started", "j2", { attempt: 1 }),
  tool("j2", "t3", "Read", "/srv/shop/index.html"), toolDone("j2", "t3"),
  tool("j2", "t4", "Edit", "/srv/shop/index.html"), toolDone("j2", "t4", true),
  tool("j2", "t5", "Edit", "/srv/shop/style.css"), toolDone("j2", "t5"),
  tool("j2", "t6", "Write", "/srv/shop/opening-hours.html"), toolDone("j2", "t6"),
  spoken(9, "assistant", "The header is blue, and the opening hours have a page of their own:\n\n```html\n<header class=\"blue\">\n  <h1>Ann's Flowers</h1>\n```\n\nOn Sundays I wrote “until noon”. Tell me if that is wrong.", "j2"),
  event(10, "session.moved", "j2", { session: "s2", version: "v2" }),
  event(11, "job.done", "j2", { cost_usd: 0.087 }),
];

/** What is going on. */
export const NOW = [
  spoken(12, "user", "Could people order online? What would that take?", "j3"),
  event(13, "job.started", "j3", { attempt: 1 }),
  tool("j3", "t7", "Grep", "form"), toolDone("j3", "t7"),
  tool("j3", "t8", "Read", "/srv/shop/index.html"),
  text("j3", "Today the page only shows things. For orders it needs three parts: a form, something that keeps what was ordered, and a message to you."),
];

export const LOST = [
  spoken(12, "user", "Add a photo of the shop front to the top of the page", "j3"),
  event(13, "job.started", "j3", { attempt: 1 }),
  event(14, "session.resume_failed", "j3", { code: "not_found", text: "Previous session not found. Starting fresh session...", choices: ["retry", "start_new"] }),
  event(15, "job.parked", "j3", { error_class: "ask", error: "The session is lost: answer retry or start_new." }),
];
