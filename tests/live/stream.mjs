// Reads a project's events with the Durable Streams project's own client: URL, key, mode, offset, until.
// Prints the numbers of the events, one a line, as they come.
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const place = join(process.env.BATON_NODE_MODULES, "@durable-streams/client/dist/index.js");
const { stream } = await import(pathToFileURL(place).href);
const [url, key, mode, offset, until] = process.argv.slice(2);
const live = mode === "catch-up" ? true : mode; // `json` reads until it is up to date
const read = await stream({ url, headers: { Authorization: `Bearer ${key}` }, offset, live });
if (mode === "catch-up") {
  for (const event of await read.json()) console.log(event.seq);
  console.log(read.offset);
  process.exit(0);
}
read.subscribeJson(async (batch) => {
  for (const event of batch.items) {
    console.log(event.seq);
    if (event.seq >= Number(until)) process.exit(0);
  }
});
