/** One answer as far as it has come: its samples for the file, its peaks for the waveform. Knows no DOM. */

import { wavHeader } from "./wav.js";

const BIN_S = 0.01;
const COMPACT_BYTES = 4 << 20;

export class Take {
  samples = 0;
  /** Greatest magnitude of each bin, full scale 1. */
  peaks = [];
  #bin;
  #inBin = 0;
  #peak = 0;
  #parts = [];
  #loose = 0;

  constructor(request, sampleRate) {
    this.request = request;
    this.sampleRate = sampleRate;
    this.#bin = Math.round(BIN_S * sampleRate);
  }

  get seconds() {
    return this.samples / this.sampleRate;
  }

  /** Bins that `samples` samples fill. */
  binsOf(samples) {
    return samples / this.#bin;
  }

  /** Keep (N,) int16 samples; gives them as float32 of full scale 1. */
  add(samples) {
    const floats = new Float32Array(samples.length);
    for (let i = 0; i < samples.length; i++) {
      floats[i] = samples[i] / 32768;
      this.#peak = Math.max(this.#peak, Math.abs(floats[i]));
      if (++this.#inBin < this.#bin) continue;
      this.peaks.push(this.#peak);
      this.#inBin = this.#peak = 0;
    }
    this.samples += samples.length;
    this.#keep(samples);
    return floats;
  }

  wav() {
    return new Blob([wavHeader(this.samples, this.sampleRate), ...this.#parts], { type: "audio/wav" });
  }

  #keep(samples) {
    this.#parts.push(samples);
    this.#loose += samples.byteLength;
    if (this.#loose < COMPACT_BYTES) return;
    // A browser may put a blob on disk, so that an hour of speech needs no memory of this page.
    this.#parts = [new Blob(this.#parts)];
    this.#loose = 0;
  }
}
