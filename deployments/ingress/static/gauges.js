/** The figures beside the sound, as a listener meets them. */

const byId = (id) => document.getElementById(id);

/** `value` is what is exact, for whoever reads the page by program. */
function tell(id, words, value) {
  const data = byId(id);
  data.textContent = words;
  data.value = String(value);
}

export class Gauges {
  #rate;
  #start;
  #firstMs = null;

  /** sampleRate: Hz. The clock starts now. */
  constructor(sampleRate, seed) {
    this.#rate = sampleRate;
    this.#start = performance.now();
    for (const id of ["first-audio", "factor", "ahead", "gaps", "heard"]) tell(id, "–", "");
    tell("seed-taken", seed, seed);
    byId("timing").hidden = true;
  }

  /** What the service says of its part in the time to the first audio. */
  answered(timing) {
    const [total, ...parts] = timing;
    if (!total) return;
    const shares = parts.filter(([, ms]) => ms >= 1).map(([name, ms]) => `${name.replaceAll("_", " ")} ${Math.round(ms)}`);
    byId("timing").textContent = `In the service ${Math.round(total[1])} ms: ${shares.join(", ")}.`;
    byId("timing").hidden = false;
  }

  /** seconds: of speech that has come. */
  came(seconds) {
    const elapsed = performance.now() - this.#start;
    if (this.#firstMs === null) {
      this.#firstMs = elapsed;
      tell("first-audio", `${Math.round(elapsed)} ms`, elapsed);
    }
    const factor = elapsed / 1000 / seconds;
    tell("factor", factor.toFixed(2), factor);
  }

  /** A report of the worklet. */
  played({ played, ahead, underruns, gap }) {
    tell("ahead", `${(ahead / this.#rate).toFixed(1)} s`, ahead);
    tell("gaps", underruns ? `${underruns} (${(gap / this.#rate).toFixed(1)} s)` : "none", gap);
    byId("gaps").classList.toggle("bad", underruns > 0);
    tell("heard", `${(played / this.#rate).toFixed(1)} s`, played);
  }
}
