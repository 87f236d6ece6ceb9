/**
 * Audio worklet that plays what it is sent, in order and without gaps as long as there is something.
 *
 * Runs on the audio thread; knows neither the page nor the network. One processor plays one take and is then done.
 * Messages in: {push: Float32Array}, {end: true} (no more will come), {stop: true} (silence at once).
 * Messages out: reports {played, ahead, underruns, gap, state}, all but `state` in samples or counts; `state` is
 * "waiting", "playing" or, in the last report, "done".
 */

const REPORT_S = 0.1;
const LONGEST_CUSHION_S = 2;

/** First in, first out; grows when it is full, so that a sender who runs ahead loses nothing. */
class Ring {
  #samples = new Float32Array(1 << 16);
  #start = 0;
  length = 0;

  push(samples) {
    while (this.length + samples.length > this.#samples.length) this.#grow();
    const capacity = this.#samples.length;
    const at = (this.#start + this.length) % capacity;
    const head = Math.min(samples.length, capacity - at);
    this.#samples.set(samples.subarray(0, head), at);
    this.#samples.set(samples.subarray(head), 0);
    this.length += samples.length;
  }

  /** Fill `out` as far as there is something; returns how far. */
  pull(out) {
    const count = Math.min(out.length, this.length);
    const head = Math.min(count, this.#samples.length - this.#start);
    out.set(this.#samples.subarray(this.#start, this.#start + head));
    out.set(this.#samples.subarray(0, count - head), head);
    this.#start = (this.#start + count) % this.#samples.length;
    this.length -= count;
    return count;
  }

  #grow() {
    const larger = new Float32Array(this.#samples.length * 2);
    const held = this.pull(larger.subarray(0, this.length));
    this.#samples = larger;
    this.#start = 0;
    this.length = held;
  }
}

class PlaybackProcessor extends AudioWorkletProcessor {
  #ring = new Ring();
  #ended = false;
  #stopped = false;
  #state = "waiting";
  #played = 0;
  #underruns = 0;
  #gap = 0;
  #cushion;
  #nextReport = 0;

  constructor({ processorOptions }) {
    super();
    this.#cushion = processorOptions.cushion_s * sampleRate;
    this.port.onmessage = ({ data }) => {
      if (data.push) this.#ring.push(data.push);
      else if (data.end) this.#ended = true;
      else if (data.stop) this.#stopped = true;
    };
  }

  process(_inputs, [[out]]) {
    if (this.#stopped) return this.#finish();
    if (this.#state === "waiting" && (this.#ended || this.#ring.length >= Math.max(this.#cushion, 1))) {
      this.#state = "playing";
    }
    const count = this.#state === "playing" ? this.#ring.pull(out) : 0;
    this.#played += count;
    if (count < out.length) {
      if (this.#ended && this.#ring.length === 0) return this.#finish();
      if (this.#played > 0) this.#gap += out.length - count;
      if (this.#state === "playing") {
        // Twice as much in hand before going on: one longer gap is better than many short ones.
        this.#underruns += 1;
        this.#cushion = Math.min(Math.max(this.#cushion * 2, 0.2 * sampleRate), LONGEST_CUSHION_S * sampleRate);
        this.#state = "waiting";
      }
    }
    if (currentTime >= this.#nextReport) {
      this.#report();
      this.#nextReport = currentTime + REPORT_S;
    }
    return true;
  }

  #finish() {
    this.#state = "done";
    this.#report();
    return false;
  }

  #report() {
    this.port.postMessage({
      played: this.#played,
      ahead: this.#stopped ? 0 : this.#ring.length,
      underruns: this.#underruns,
      gap: this.#gap,
      state: this.#state,
    });
  }
}

registerProcessor("playback", PlaybackProcessor);
