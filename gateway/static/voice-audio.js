// The microphone as pieces of base64, and a loudspeaker that knows how much of an answer was heard.

const RATE = 24000; // of what is said, in PCM16
const LEAD = 0.05; // seconds between what came and when it sounds, against gaps

/** Opens the microphone; `piece(base64, loudness)` is called 25 times a second until `stop()`. */
export async function microphone(piece) {
  const wanted = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
  const context = new AudioContext();
  const stop = () => {
    for (const track of stream.getTracks()) track.stop();
    if (context.state !== "closed") context.close();
  };
  try {
    await context.audioWorklet.addModule("/static/voice-mic.js");
    const node = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => piece(base64(new Uint8Array(data)), loudness(new Int16Array(data)));
    context.createMediaStreamSource(stream).connect(node);
    await context.resume();
    return {
      mute: (muted) => stream.getTracks().forEach((track) => (track.enabled = !muted)),
      stop: () => ((node.port.onmessage = null), stop()),
    };
  } catch (error) {
    stop();
    throw error;
  }
}

/** What is heard of the voice; `quiet()` is called when all that came has sounded. */
export function loudspeaker({ quiet }) {
  const context = new AudioContext();
  const playing = new Set();
  let next = 0;
  let item = null; // whose answer it is
  let began = 0;
  let length = 0; // seconds of it that came

  const hush = () => {
    for (const source of playing) (source.onended = null), source.stop();
    playing.clear();
    item = null;
  };
  return {
    get speaks() {
      return playing.size > 0;
    },
    play(text, of) {
      const samples = pcm(text);
      if (!samples.length) return;
      const sound = context.createBuffer(1, samples.length, RATE);
      sound.copyToChannel(Float32Array.from(samples, (one) => one / 32768), 0);
      const source = new AudioBufferSourceNode(context, { buffer: sound });
      source.connect(context.destination);
      const at = Math.max(context.currentTime + LEAD, next);
      if (item !== of) [item, began, length] = [of, at, 0];
      next = at + sound.duration;
      length += sound.duration;
      playing.add(source);
      source.onended = () => (playing.delete(source), playing.size || quiet());
      source.start(at);
    },
    /** Stops at once; which answer that was, and how many milliseconds of it were heard. */
    interrupt() {
      if (!playing.size) return null;
      const heard = Math.max(0, Math.min(context.currentTime - began, length));
      const of = item;
      hush();
      next = 0;
      return { item: of, ms: Math.floor(heard * 1000) };
    },
    stop() {
      hush();
      if (context.state !== "closed") context.close();
    },
  };
}

function base64(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

function pcm(text) {
  const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  return new Int16Array(bytes.buffer, 0, bytes.length >> 1);
}

function loudness(samples) {
  return Math.sqrt(samples.reduce((sum, one) => sum + (one / 32768) ** 2, 0) / samples.length);
}
