// What was said before the messages that are kept: said to be there, and read from the log when asked for.

/** Lists what is shown: `all(view)` has the view's messages, and those before that were asked for.
 *  `changed` shows them. */
export function earlier(box, live, changed) {
  const [told, button] = box.children;
  let messages = []; // older than the view's, the oldest first
  let shown = null; // the view's, as they were shown last; null: nothing older was asked for
  let upTo = 0;

  const key = ({ seq }) => seq;

  /** What the view has dropped since is among the older ones. */
  function all(view) {
    if (!shown) upTo = view.earlier;
    else {
      const there = new Set([...messages, ...view.messages].map(key));
      messages.push(...shown.filter((one) => one.seq && one.seq <= view.earlier && !there.has(one.seq)));
      shown = [...view.messages];
    }
    box.hidden = !upTo;
    return [...messages, ...view.messages];
  }

  async function more() {
    button.disabled = true;
    const list = document.getElementById("messages");
    list.setAttribute("aria-busy", "true"); // a screen reader need not read out all of them
    try {
      for (let found = []; !found.length && upTo; ) {
        const page = await live.earlier(upTo);
        const there = new Set([...messages, ...live.view.messages].map(key));
        found = page.view.messages.filter((one) => !there.has(one.seq));
        shown ??= [...live.view.messages];
        messages.unshift(...found);
        upTo = page.upTo;
      }
      told.textContent = "There are earlier messages.";
    } catch {
      told.textContent = "The earlier messages cannot be read just now.";
    }
    changed();
    button.disabled = false;
    setTimeout(() => list.removeAttribute("aria-busy"), 500);
  }
  button.addEventListener("click", more);

  /** Another history is shown. */
  function forget() {
    [messages, shown, upTo] = [[], null, 0];
  }
  return { all, forget };
}
