// Checks of a version: what they came to, and what people decide about one that fails for good.

import { make } from "./messages.js";

const CHOICES = [
  ["keep", "Keep", "The version stays as it is, and is known as failing."],
  ["rewind", "Rewind", "Session and files go back to before the request."],
  ["repair", "Repair", "The agent is shown what failed, and mends it once more."],
];

/** How a command ended, in words. */
function ending({ passed, exit_status, signal, reason, duration_ms }) {
  const after = typeof duration_ms === "number" ? ` after ${(duration_ms / 1000).toFixed(1)} s` : "";
  if (passed) return `passed${after}`;
  if (reason) return `${{ timeout: "took too long", limit: "went over its limits" }[reason] ?? reason}${after}`;
  return `${signal ? `ended by signal ${signal}` : `exit status ${exit_status}`}${after}`;
}

/** A round of a check, folded: one line says how it went. */
export function round({ seq, checks }, open) {
  const last = checks.at(-1);
  const summary = make("summary", {}, make("span", { textContent: last.passed ? "Check passed" : "Check failed" }),
    make("span", { className: "about", textContent: last.passed ? last.command : `${last.command}: ${ending(last)}` }));
  const details = make("details", { className: "steps" }, summary, make("ol", {}, ...checks.map(command)));
  const key = `check-${seq}`;
  details.open = open.has(key);
  details.addEventListener("toggle", () => (details.open ? open.add(key) : open.delete(key)));
  return details;
}

function command(one) {
  const changed = one.changed?.length ? make("p", { textContent: `It changed ${one.changed.join(", ")}.` }) : null;
  const output = one.output?.trim() ? make("code", { className: "block", tabIndex: 0, textContent: one.output.trim() }) : null;
  return make("li", { data: { how: one.passed ? "done" : "failed" } },
    make("b", { textContent: one.command }), ` ${ending(one)}`, changed, output);
}

/** Asks what is to become of a version, where a request waits for that: in `box`, by `answer(job, choice)`. */
export function question(box, answer) {
  let job = null;
  let asked = null; // which request, and of which attempt
  let given = null; // what was answered
  const buttons = CHOICES.map(([choice, textContent, title]) => {
    const button = make("button", { type: "button", textContent, title, data: { choice } });
    button.addEventListener("click", () => {
      given = asked;
      answer(job, choice);
      buttons.forEach((one) => (one.disabled = true));
    });
    return button;
  });
  const text = make("p");
  box.append(text, make("div", { className: "row" }, ...buttons));
  return {
    show({ jobs }) {
      [job] = Object.entries(jobs).find(([, one]) => one.error_class === "check_undecided") ?? [null];
      asked = job && `${job} ${jobs[job].attempt}`;
      box.hidden = !job;
      const said = job ? (jobs[job].error ?? "The version fails its check.") : "";
      if (text.textContent !== said) text.textContent = said;
      buttons.forEach((one) => {
        one.hidden = Boolean(job && jobs[job].choices && !jobs[job].choices.includes(one.dataset.choice));
        one.disabled = given === asked;
      });
    },
    again() {
      given = null; // the answer was refused
    },
  };
}
