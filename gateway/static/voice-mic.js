// The microphone, in the audio thread: pieces of 40 ms of PCM16 at 24 kHz, whatever the device has.

const RATE = 24000;
const PIECE = 960; // samples

registerProcessor("microphone", class extends AudioWorkletProcessor {
  piece = new Int16Array(PIECE);
  filled = 0;
  sum = 0; // of the samples that go into the next one
  count = 0;
  due = 0; // how much of the next sample is there

  process([input]) {
    for (const sample of input[0] ?? []) this.take(sample);
    return true;
  }

  /** Each sample of ours is the mean of those of the device that fall into it. */
  take(sample) {
    this.sum += sample;
    this.count += 1;
    this.due += RATE / sampleRate;
    if (this.due < 1) return;
    const mean = this.sum / this.count;
    this.sum = this.count = 0;
    for (; this.due >= 1; this.due -= 1) this.put(mean);
  }

  put(sample) {
    this.piece[this.filled++] = Math.round(Math.max(-1, Math.min(1, sample)) * 32767);
    if (this.filled < PIECE) return;
    this.port.postMessage(this.piece.buffer, [this.piece.buffer]);
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
  }
});
