// Keeps the page's shell, so that it opens without a network. The conversation itself is kept by
// the page (IndexedDB), and what goes to /v1 is never touched here.

const KEPT = "shell-4";
const SHELL = "/app/_shell"; // the page is the same for every project
const FILES = ["app.css", "early.js", "app.js", "messages.js", "checks.js", "earlier.js", "files.js", "baton-live.js", "icon.svg", "icon-maskable.svg", "manifest.webmanifest"];
const PATIENCE = 3000; // milliseconds for a network that may be there

self.addEventListener("install", (event) => {
  event.waitUntil(keepShell().then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(forgetOlder().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin) return;
  if (url.pathname === "/app/voice") return; // a page of its own, of no use without a network
  if (request.mode === "navigate" && url.pathname.startsWith("/app/")) event.respondWith(fresh(request, SHELL));
  else if (url.pathname.startsWith("/static/")) event.respondWith(fresh(request, url.pathname));
});

async function keepShell() {
  const cache = await caches.open(KEPT);
  await cache.addAll(FILES.map((name) => `/static/${name}`));
  const page = await fetch(SHELL);
  if (page.ok) await cache.put(SHELL, page);
}

async function forgetOlder() {
  for (const name of await caches.keys()) if (name !== KEPT) await caches.delete(name);
}

/** From the network, if that answers soon; otherwise what was kept. */
async function fresh(request, key) {
  const cache = await caches.open(KEPT);
  const asked = fetch(request).then((answer) => {
    if (answer.ok && answer.type === "basic" && !answer.redirected) cache.put(key, answer.clone());
    return answer;
  });
  const late = new Promise((done) => setTimeout(done, PATIENCE));
  const answer = await Promise.race([asked, late]).catch(() => undefined);
  if (answer && answer.status < 500) return answer;
  return (await cache.match(key)) ?? answer ?? asked;
}
