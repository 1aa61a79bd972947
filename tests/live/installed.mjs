// A producer's program with the installed package: says something, and decides about a version that fails
// its check. Says at its end what it was shown, as JSON. Run by test_module.py in an empty project.
import { openLive } from "baton-live";

const live = openLive({ url: process.env.URL, project: "shop", ticket: process.env.TICKET });
const shown = (check) => new Promise((done) => {
  const look = (view) => check(view) && (stop(), done(view));
  const stop = live.on("view", look);
  look(live.view);
});
await live.ready;
await live.send("write a.txt: a");
await shown(({ messages }) => messages.some(({ role }) => role === "assistant"));
const asks = ({ jobs }) => Object.keys(jobs).find((id) => jobs[id].error_class === "check_undecided");
await live.answer(asks(await shown(asks)), "keep");
const { messages, versions, version } = await shown((view) => view.messages.some(({ code }) => code === "check_failed"));
const [{ command, exit_status }] = messages.find(({ role }) => role === "check").checks;
const { doubles, holes } = live.counts;
console.log(JSON.stringify({ said: messages.map(({ role }) => role), check: { command, exit_status }, version: versions[version], counts: { doubles, holes } }));
await live.close();
