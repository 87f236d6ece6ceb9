/** Records the microphone into a WAV. Knows no DOM but the browser's own question for leave. */

import { toWav } from "./wav.js";

const LONGEST_S = 30;
const WAV_RATE = 24000;

/** Why a microphone cannot be had, in words. */
export function problemOf(error) {
  if (error.name === "NotAllowedError") return "The browser was not allowed to use the microphone.";
  if (error.name === "NotFoundError") return "There is no microphone.";
  return `The microphone cannot be used (${error.message}).`;
}

export class Recorder {
  #recorder = null;
  #onLevel;

  /** onLevel(loudness of 0 to 1, seconds so far) while it records. */
  constructor(onLevel) {
    this.#onLevel = onLevel;
  }

  get recording() {
    return this.#recorder !== null;
  }

  /** Resolves with {clip} when it records; clip is a promise of the WAV, kept when `stop` was called or the time is up.
   * Rejects if the microphone cannot be had. */
  async start() {
    if (!navigator.mediaDevices) throw new Error("browsers give it to pages from https or this machine only");
    // As it sounds: what makes calls clearer makes voices poorer.
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: true };
    const stream = await navigator.mediaDevices.getUserMedia({ audio });
    const recorder = new MediaRecorder(stream, { audioBitsPerSecond: 128000 });
    const parts = [];
    recorder.ondataavailable = ({ data }) => parts.push(data);
    const stopped = new Promise((resolve) => (recorder.onstop = resolve));
    this.#recorder = recorder;
    const unwatch = this.#watch(stream);
    recorder.start();
    const timer = setTimeout(() => this.stop(), LONGEST_S * 1000);
    const clip = stopped.then(() => {
      clearTimeout(timer);
      unwatch();
      this.#recorder = null;
      for (const track of stream.getTracks()) track.stop();
      return toWav(new Blob(parts, { type: recorder.mimeType }), WAV_RATE);
    });
    return { clip };
  }

  stop() {
    if (this.#recorder?.state === "recording") this.#recorder.stop();
  }

  #watch(stream) {
    const context = new AudioContext();
    const analyser = new AnalyserNode(context, { fftSize: 2048 });
    context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const start = performance.now();
    const timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
      this.#onLevel(Math.min(1, Math.sqrt(power) * 4), (performance.now() - start) / 1000);
    }, 100);
    return () => {
      clearInterval(timer);
      context.close();
    };
  }
}
