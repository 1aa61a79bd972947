// The files of a version: a git patch, shown a file at a time.

import { make } from "./messages.js";

const SHOWN = 400; // lines of a file that are shown at once

/** The files of a git patch: name, lines added and taken away, and the lines themselves. */
export function filesOf(patch) {
  const files = [];
  for (const line of patch.split("\n")) {
    if (line.startsWith("diff --git ")) {
      files.push({ name: unquoted(line.slice(11)), added: 0, removed: 0, what: "changed", lines: [], inside: false });
      continue;
    }
    const file = files.at(-1);
    if (!file) continue;
    if (line.startsWith("@@")) file.inside = true;
    if (!file.inside) heading(file, line);
    else if (line) {
      file.lines.push(line);
      if (line[0] === "+") file.added++;
      if (line[0] === "-") file.removed++;
    }
  }
  return files;
}

function heading(file, line) {
  if (line.startsWith("new file")) file.what = "new";
  else if (line.startsWith("deleted file")) file.what = "deleted";
  else if (line.startsWith("rename from ")) file.what = `was ${line.slice(12)}`;
  else if (line.startsWith("Binary files")) file.lines.push("Not text.");
  else if (line.startsWith("+++ b/")) file.name = line.slice(6).replace(/\t$/, "");
  else if (line.startsWith("--- a/") && file.what === "deleted") file.name = line.slice(6).replace(/\t$/, "");
}

function unquoted(names) {
  const half = (names.length - 1) / 2; // `a/NAME b/NAME`
  return Number.isInteger(half) && names.slice(2, half) === names.slice(half + 3) ? names.slice(2, half) : (names.split(" b/").at(-1) ?? names);
}

export function diff(patch) {
  const files = filesOf(patch);
  return { files, elements: files.map((file) => element(file, files.length <= 3)) };
}

function element(file, open) {
  const summary = make("summary", {}, make("span", { className: "name", textContent: file.name }),
    file.what === "changed" ? null : make("span", { className: "what", textContent: file.what }),
    make("span", { className: "plus", textContent: `+${file.added}`, aria: { label: `${file.added} lines added` } }),
    make("span", { className: "minus", textContent: `−${file.removed}`, aria: { label: `${file.removed} lines removed` } }));
  const details = make("details", { className: "file", data: { name: file.name } }, summary);
  const fill = () => details.open && details.children.length === 1 && details.append(...lines(file));
  details.addEventListener("toggle", fill);
  details.open = open;
  fill();
  return details;
}

function lines(file) {
  const pre = make("pre", { tabIndex: 0, aria: { label: `Changes in ${file.name}` } });
  const show = (some) => pre.append(...some.map((line) => make("span", { className: KIND[line[0]] ?? "same", textContent: `${line}\n` })));
  show(file.lines.slice(0, SHOWN));
  const rest = file.lines.slice(SHOWN);
  if (!rest.length) return [pre];
  const more = make("button", { type: "button", className: "quiet", textContent: `Show ${rest.length} more lines` });
  more.addEventListener("click", () => (show(rest), more.remove()));
  return [pre, more];
}

const KIND = { "+": "plus", "-": "minus", "@": "where", "\\": "where" };
