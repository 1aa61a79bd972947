// Is there before the page is: what people write while the rest still loads survives a reload too.
// app.js takes it over, and says so by `data-ready`.

addEventListener("input", ({ target }) => {
  if (target.id !== "composer" || "ready" in document.body.dataset) return;
  try {
    const project = decodeURIComponent(location.pathname.replace(/^\/app\//, "").replace(/\/$/, ""));
    sessionStorage.setItem(`baton:early:${project}`, JSON.stringify(target.value));
  } catch {} // full, not allowed, or an address that is no text
});
