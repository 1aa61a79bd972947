// OpenAI's own package for Node speaks through the gateway: text, audio and turns, tools, an interruption.
// It only knows wss, so TLS lies before the gateway. Prints what it has seen, as JSON.
import { createRequire } from "node:module";

const ask = createRequire(`${process.env.BATON_NODE_MODULES}/x.js`);
const { default: OpenAI } = ask("openai");
const { OpenAIRealtimeWS } = ask("openai/realtime/ws");
const { GATE: gate, KEY: key } = process.env;
const RATE = 24_000;

const line = new OpenAIRealtimeWS({ model: "gpt-realtime" }, new OpenAI({ apiKey: key, baseURL: `${gate}/v1` }));
const seen = {};
const errors = [];
line.on("error", (error) => errors.push({ code: error.error?.code ?? error.code, message: error.message }));

/** The next event of that type that fits. */
const next = (type, fits = () => true) =>
  new Promise((done) => {
    const look = (event) => fits(event) && (line.off(type, look), done(event));
    line.on(type, look);
  });
const send = (type, more = {}, answer = null, fits) => {
  const told = answer && next(answer, fits);
  line.send({ type, ...more });
  return told;
};
const write = (text) =>
  send("conversation.item.create", { item: { type: "message", role: "user", content: [{ type: "input_text", text }] } }, "conversation.item.done");

await next("session.created");
const tool = { type: "function", name: "weather", description: "Now.", parameters: { type: "object", properties: {} } };
const audio = { input: { transcription: { model: "whisper-1" }, turn_detection: { type: "server_vad", silence_duration_ms: 300 } } };
const updated = await send("session.update", { session: { type: "realtime", instructions: "Be brief.", tools: [tool], audio } }, "session.updated");
seen.instructions = updated.session.instructions;

// Text.
await write("Hello there");
await send("response.create", { response: { output_modalities: ["text"] } }, "response.done");
const answered = next("response.output_text.done");
await write("And again");
await send("response.create", { response: { output_modalities: ["text"] } }, "response.done");
seen.text = (await answered).text;

// A tool, and its result.
await write("Please call weather now");
const called = next("response.output_item.done", ({ item }) => item.type === "function_call");
await send("response.create", {}, "response.done");
const { call_id, name } = (await called).item;
seen.tool = name;
await send("conversation.item.create", { item: { type: "function_call_output", call_id, output: "sunny" } }, "conversation.item.done");
const told = next("response.output_audio_transcript.done");
await send("response.create", {}, "response.done");
seen.told = (await told).transcript;

// Audio: a turn that ends by silence is answered with audio, and a loud one interrupts that.
const speak = (ms, loudness) => {
  const samples = Int16Array.from({ length: (RATE * ms) / 1000 }, (_, n) => loudness * Math.sin((n * 2 * Math.PI * 300) / RATE));
  line.send({ type: "input_audio_buffer.append", audio: Buffer.from(samples.buffer).toString("base64") });
};
const heard = next("conversation.item.input_audio_transcription.completed");
const spoken = next("response.output_audio.delta");
speak(400, 9000);
speak(600, 0);
seen.heard = (await heard).transcript;
const { item_id, delta } = await spoken;
seen.audio = Buffer.from(delta, "base64").length;
const cut = next("response.done");
speak(400, 9000);
seen.cut = (await cut).response.status;
seen.truncated = (await send("conversation.item.truncate", { item_id, content_index: 0, audio_end_ms: 100 }, "conversation.item.truncated")).audio_end_ms;

// What is wrong reaches the client as the provider words it.
seen.errors = errors.length;
const refused = new Promise((done) => line.on("error", ({ error }) => done(error)));
line.send({ type: "session.update", event_id: "mine", session: { type: "realtime", mood: "gay" } });
const { code, param, event_id } = await refused;
seen.refused = { code, param, event_id };

const gone = new Promise((done) => line.socket.on("close", done));
line.close();
await gone;
console.log(JSON.stringify(seen));
