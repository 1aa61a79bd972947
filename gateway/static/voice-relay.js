// A voice session of this browser's own microphone: OpenAI's Realtime protocol, spoken to the gateway.

import { loudspeaker, microphone } from "./voice-audio.js";
import { address, line } from "./voice-line.js";

const PCM = { type: "audio/pcm", rate: 24000 };

const configuration = (instructions) => ({
  type: "realtime",
  output_modalities: ["audio"],
  instructions,
  audio: {
    input: {
      format: PCM,
      transcription: { model: "whisper-1" },
      turn_detection: { type: "server_vad", silence_duration_ms: 700 },
    },
    output: { format: PCM },
  },
});

/** Speaks until `signal` says stop. `page` is told what to show. */
export async function speak({ key, model, instructions, page, signal }) {
  let ws = null;
  let configured = false;
  let hears = false;
  let answers = false;
  let asked = null; // what was written last, until it is being answered
  const settle = () => configured && page.state(hears ? "hearing" : answers || voice.speaks ? "answering" : "listening");
  const voice = loudspeaker({ quiet: () => settle() });
  signal.addEventListener("abort", () => (ws?.stop(), voice.stop()));

  page.state("asking");
  const ears = await microphone((audio, loud) => {
    page.level(loud);
    if (configured) ws?.say({ type: "input_audio_buffer.append", audio });
  }).catch((error) => page.trouble(`There is no microphone here (${error.name}): write instead.`));
  if (ears) signal.addEventListener("abort", ears.stop);
  if (signal.aborted) return ears?.stop();

  const session = crypto.randomUUID(); // this one's alone: the next shares nothing with it
  const query = new URLSearchParams({ model, session });
  const configure = () => {
    page.state("configuring");
    page.step("config-sent", "The configuration is sent");
    ws.say({ type: "session.update", event_id: "configuration", session: configuration(instructions) });
  };
  // A new gateway may know less than was seen here: not what its forerunner had no time to keep. So it is
  // told the configuration again, and what was written and nobody has begun to answer.
  const gone = () => {
    configured = hears = answers = false;
    page.settled();
  };
  const ask = () => {
    const content = [{ type: "input_text", text: asked.text }];
    if (!asked.heard) ws.say({ type: "conversation.item.create", item: { id: asked.id, type: "message", role: "user", content } });
    ws.say({ type: "response.create" });
  };
  const accepted = () => {
    if (!configured) page.step("config-accepted", "The provider has accepted the configuration");
    if (!configured && asked) ask();
    configured = true;
    settle();
  };
  const interrupt = () => {
    hears = true;
    const cut = voice.interrupt();
    if (cut) ws.say({ type: "conversation.item.truncate", item_id: cut.item, content_index: 0, audio_end_ms: cut.ms });
    settle();
  };
  const provider = (state) => {
    page.step(`provider-${state}`, state === "connected" ? "The provider is back" : "The provider has closed; a new link is made");
    if (state !== "connected") page.state("reconnecting");
    else settle();
  };
  const refused = ({ event_id, message }) => {
    page.step("error", message);
    if (event_id === "configuration") page.trouble(message);
    else asked = null;
  };
  const placed = (item, previous) => {
    if (asked?.id === item.id) asked.heard = true;
    if (item.type === "message") page.place(item, previous);
  };
  const heard = (event) => {
    switch (event.type) {
      case "session.created": return configured ? settle() : configure();
      case "session.updated": return accepted();
      case "input_audio_buffer.speech_started": return interrupt();
      case "input_audio_buffer.speech_stopped": return (hears = false), settle();
      case "response.created": return (asked = null), (answers = true), settle();
      case "response.done": return (answers = false), page.settled(), settle();
      case "response.output_audio.delta": return voice.play(event.delta, event.item_id);
      case "conversation.item.added": return placed(event.item, event.previous_item_id);
      case "conversation.item.input_audio_transcription.completed": return page.said(event.item_id, "user", event.transcript);
      case "response.output_audio_transcript.delta":
      case "response.output_text.delta": return page.says(event.item_id, event.delta);
      case "response.output_audio_transcript.done": return page.said(event.item_id, "assistant", event.transcript);
      case "response.output_text.done": return page.said(event.item_id, "assistant", event.text);
      case "baton.provider": return provider(event.state);
      case "baton.warning": return page.step("warning", event.message);
      case "error": return refused(event.error);
      default: return undefined;
    }
  };
  page.state("connecting");
  ws = line({
    dial: () => new WebSocket(address(`/v1/realtime?${query}`), ["realtime", `openai-insecure-api-key.${key}`]),
    opened: () => page.step("connect", "Connected to the gateway"),
    heard,
    lost: (code) => {
      gone();
      page.step("lost", `The gateway was lost (${code}); trying again`);
      page.state("reconnecting");
    },
    over: (code, reason) => page.over(reason || `The gateway closed the session (${code}).`),
  });
  return {
    mute: ears?.mute,
    end: () => page.over("You have ended it."),
    write: (text) => {
      if (!configured) return false;
      asked = { id: `w_${crypto.randomUUID().replaceAll("-", "").slice(0, 24)}`, text, heard: false };
      ask();
      return true;
    },
  };
}
