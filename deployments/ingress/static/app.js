/** The page: what its buttons do, and what it says meanwhile. */

import { fitModes, mark, readForm } from "./form.js";
import { Gauges } from "./gauges.js";
import { Player, canStream } from "./player.js";
import { VoicePanel } from "./prompt.js";
import { Service } from "./service.js";
import { Take } from "./take.js";
import { Waveform } from "./waveform.js";

const KEY = "cosyvoice-key";
const RETRY_MS = 2000;
const byId = (id) => document.getElementById(id);

const service = new Service(new URL(".", document.baseURI));
const waveform = new Waveform(byId("waveform"));
const voicePanel = new VoicePanel(complain, () => fitModes(voicePanel.modes));
let sampleRate = 24000;
let player = null;
let current = null;
let finished = null;

function say(words) {
  byId("status").textContent = words;
}

function complain(words, param = null) {
  byId("error").textContent = words;
  byId("error").hidden = !words;
  mark(param);
}

function badge(words, state) {
  byId("service").textContent = words;
  byId("service").dataset.state = state;
}

async function connect() {
  try {
    const health = await service.health();
    sampleRate = health.sample_rate;
    voicePanel.offer(await service.voices());
    fitModes(voicePanel.modes);
    byId("key-panel").hidden = true;
    badge(health.model, "ok");
  } catch (error) {
    if (error.status === 401) askForKey();
    else {
      badge("No connection", "bad");
      setTimeout(connect, RETRY_MS);
    }
  }
}

function askForKey() {
  badge("Needs a key", "bad");
  byId("key-panel").hidden = false;
  if (service.key) complain("The service does not know this key.", "key");
  else byId("key").focus();
}

async function speak() {
  complain("");
  let request;
  try {
    const { fields, promptAudio } = voicePanel.read();
    request = { fields: { ...fields, ...readForm() }, promptAudio };
  } catch (error) {
    complain(error.message, error.param);
    return;
  }
  stop();
  const run = (current = new Run(request));
  try {
    await run.speak();
  } finally {
    if (current === run) current = null;
    busy(current !== null);
  }
}

function stop() {
  current?.stop();
}

function busy(is) {
  byId("stop").disabled = !is;
  document.body.classList.toggle("speaking", is);
}

/** One press of Speak, to its last sample or to Stop. */
class Run {
  #leave = new AbortController();
  #track = null;
  #report = { played: 0, underruns: 0, gap: 0 };

  constructor(request) {
    this.take = new Take(request, sampleRate);
    this.gauges = new Gauges(sampleRate, request.fields.seed);
  }

  async speak() {
    busy(true);
    showResult(null);
    say("Thinking…");
    waveform.show(this.take, 0);
    // While the click is handled, later a phone would not allow it; and beside the request, which takes longer.
    const opening = this.#open();
    opening.catch(() => {});
    try {
      const answer = await service.speak(this.take.request, this.#leave.signal);
      this.#track = await opening;
      this.gauges.answered(answer.timing);
      await this.#receive(answer.chunks);
      showResult(this.take);
      await this.#track?.end();
      this.#ended();
    } catch (error) {
      opening.then((track) => track?.stop(), () => {});
      this.#failed(error);
    }
  }

  /** A track to play on; null where this page cannot play a stream. */
  async #open() {
    if (!canStream()) return null;
    player ??= new Player(sampleRate);
    player.wake();
    try {
      return await player.track(Number(byId("cushion").value), (report) => this.#played(report));
    } catch {
      player = null;
      throw new Error("The part of this page that plays could not be loaded.");
    }
  }

  stop() {
    this.#track?.stop();
    this.#leave.abort();
  }

  async #receive(chunks) {
    for await (const samples of chunks) {
      if (this.take.samples === 0) say(this.#track ? "Speaking." : "Receiving. Over http this page plays it when it is whole.");
      const floats = this.take.add(samples);
      this.#track?.push(floats);
      this.gauges.came(this.take.seconds);
      waveform.show(this.take, this.#report.played);
    }
  }

  #played(report) {
    if (current !== this) return;
    this.#report = report;
    this.gauges.played(report);
    waveform.show(this.take, report.played);
  }

  #ended() {
    if (this.#leave.signal.aborted) {
      this.#stopped();
      return;
    }
    const { underruns } = this.#report;
    const seconds = `${this.take.seconds.toFixed(1)} s`;
    if (!this.#track) {
      say(`${seconds} of speech.`);
      byId("again").play().catch(() => {});
    } else if (underruns) say(`Spoke ${seconds}, with ${underruns} ${underruns === 1 ? "gap" : "gaps"}.`);
    else say(`Spoke ${seconds} without a gap.`);
    waveform.describe(`${seconds} of speech, heard to its end`);
  }

  #failed(error) {
    if (this.#leave.signal.aborted) {
      this.#stopped();
      return;
    }
    say(this.take.samples ? `Broken off after ${this.take.seconds.toFixed(1)} s.` : "Nothing was spoken.");
    if (error.status === 401) askForKey();
    else complain(error.message, error.param);
  }

  #stopped() {
    const heard = (this.#report.played / sampleRate).toFixed(1);
    // Who spoke again at once has the page for what comes now.
    if (current !== this) return;
    say(`Stopped after ${heard} s.`);
    waveform.describe(`${this.take.seconds.toFixed(1)} s of speech, stopped after ${heard} s`);
    if (this.take.samples) showResult(this.take);
  }
}

function showResult(take) {
  const audio = byId("again");
  audio.pause();
  if (audio.src) URL.revokeObjectURL(audio.src);
  if (take) audio.src = URL.createObjectURL(take.wav());
  else audio.removeAttribute("src");
  byId("result").hidden = take === null;
  finished = take;
}

async function download() {
  const take = finished;
  const format = byId("format").value;
  const button = byId("download");
  button.disabled = true;
  try {
    // What was heard is here already; another format is the same speech once more, by its seed.
    const file = format === "wav" ? take.wav() : await service.file(take.request, format);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = `speech-${take.request.fields.seed}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  } catch (error) {
    complain(error.message);
  } finally {
    button.disabled = false;
  }
}

function takeKey() {
  service.key = byId("key").value.trim();
  sessionStorage.setItem(KEY, service.key);
  complain("");
  connect();
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  // Enter in the field of the key means the key.
  if (document.activeElement === byId("key")) takeKey();
  else speak();
});
byId("stop").addEventListener("click", stop);
byId("download").addEventListener("click", download);
byId("use-key").addEventListener("click", takeKey);
byId("mode").addEventListener("change", () => fitModes(voicePanel.modes));
byId("speed").addEventListener("input", ({ target }) => {
  byId("speed-value").textContent = `${Number(target.value).toFixed(1)} ×`;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
});

byId("options").open = matchMedia("(min-width: 860px)").matches;
service.key = sessionStorage.getItem(KEY) ?? "";
waveform.show(null, 0);
connect();
