/** Draws a take: bars for what has come, those that were heard in a stronger colour. */

const BAR = 3;
const SPACE = 2;
const SHORTEST_BINS = 500;

export class Waveform {
  #canvas;
  #take = null;
  #played = 0;
  #planned = false;

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#plan()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#plan());
  }

  show(take, played) {
    this.#take = take;
    this.#played = played;
    this.#plan();
  }

  describe(words) {
    this.#canvas.setAttribute("aria-label", `Waveform: ${words}`);
  }

  #plan() {
    if (this.#planned) return;
    this.#planned = true;
    requestAnimationFrame(() => {
      this.#planned = false;
      this.#draw();
    });
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const ratio = Math.min(devicePixelRatio, 2);
    this.#canvas.width = Math.round(width * ratio);
    this.#canvas.height = Math.round(height * ratio);
    const pen = this.#canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(this.#canvas);
    const [rest, heard, coming] = ["--line", "--accent", "--muted"].map((name) => style.getPropertyValue(name));
    const bars = Math.floor((width + SPACE) / (BAR + SPACE));
    const peaks = this.#take?.peaks ?? [];
    // Five seconds fill the width; what is longer is drawn closer together.
    const bins = Math.max(peaks.length, SHORTEST_BINS);
    const playedBins = this.#take ? this.#take.binsOf(this.#played) : 0;
    for (let bar = 0; bar < bars; bar++) {
      const from = Math.floor((bar * bins) / bars);
      const to = Math.max(Math.floor(((bar + 1) * bins) / bars), from + 1);
      let peak = 0;
      for (let i = from; i < Math.min(to, peaks.length); i++) peak = Math.max(peak, peaks[i]);
      const tall = Math.max(BAR, Math.sqrt(peak) * height);
      pen.fillStyle = from >= peaks.length ? rest : from < playedBins ? heard : coming;
      pen.beginPath();
      pen.roundRect(bar * (BAR + SPACE), (height - tall) / 2, BAR, tall, BAR / 2);
      pen.fill();
    }
  }
}
