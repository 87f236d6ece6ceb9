/** Plays samples as they come, through an audio worklet. Knows no DOM and no network. */

const MODULE = new URL("playback-processor.js", import.meta.url);

/** Whether the browser lets this page play a stream: worklets need https, or a page from this machine. */
export const canStream = () => "audioWorklet" in (globalThis.BaseAudioContext?.prototype ?? {}) && isSecureContext;

export class Player {
  #context;
  #loaded;

  /** To be made, and `wake` called, while a click or key press is handled: phones allow no sound otherwise. */
  constructor(sampleRate) {
    this.#context = new AudioContext({ sampleRate, latencyHint: "interactive" });
    this.#loaded = this.#context.audioWorklet.addModule(MODULE);
  }

  get sampleRate() {
    return this.#context.sampleRate;
  }

  wake() {
    // iPhones otherwise play nothing while their ring switch is off.
    if (navigator.audioSession) navigator.audioSession.type = "playback";
    return this.#context.resume();
  }

  /** A track that begins once `cushion_s` seconds are in hand; `onReport` gets what the worklet reports. */
  async track(cushion_s, onReport) {
    await this.#loaded;
    return new Track(this.#context, cushion_s, onReport);
  }
}

/** One take being played. */
class Track {
  #node;
  #done;

  constructor(context, cushion_s, onReport) {
    this.#node = new AudioWorkletNode(context, "playback", {
      numberOfInputs: 0,
      outputChannelCount: [1],
      processorOptions: { cushion_s },
    });
    this.#done = new Promise((resolve) => {
      this.#node.port.onmessage = ({ data }) => {
        onReport(data);
        if (data.state !== "done") return;
        this.#node.disconnect();
        resolve();
      };
    });
    this.#node.connect(context.destination);
  }

  /** (N,) samples of full scale 1; the array is given away. */
  push(samples) {
    this.#node.port.postMessage({ push: samples }, [samples.buffer]);
  }

  /** No more will come; resolves when the last sample was played, or the track stopped. */
  end() {
    this.#node.port.postMessage({ end: true });
    return this.#done;
  }

  stop() {
    this.#node.port.postMessage({ stop: true });
  }
}
