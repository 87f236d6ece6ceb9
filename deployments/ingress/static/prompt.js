/** The voice panel: a saved voice, or a recording to speak like, made here or uploaded. */

import { Recorder, problemOf } from "./recorder.js";

const byId = (id) => document.getElementById(id);

export class VoicePanel {
  #clips = { record: null, upload: null };
  #voices = [];
  #listening = null;
  #recorder = new Recorder((level, seconds) => {
    byId("level").value = level;
    byId("record-time").textContent = `${seconds.toFixed(1)} s`;
  });

  /** onProblem(words) tells what went wrong with the microphone; onChange() that another voice is chosen. */
  constructor(onProblem, onChange) {
    for (const radio of document.querySelectorAll("[name=source]")) {
      radio.addEventListener("change", () => {
        this.#recorder.stop();
        this.#show();
        onChange();
      });
    }
    byId("voice").addEventListener("change", onChange);
    byId("file").addEventListener("change", ({ target }) => this.#keep("upload", target.files[0] ?? null));
    byId("record").addEventListener("click", () => this.#record(onProblem));
    // A form that a browser fills in again after going back.
    this.#show();
  }

  get source() {
    return document.querySelector("[name=source]:checked").value;
  }

  /** The names to choose from. */
  offer(voices) {
    const select = byId("voice");
    const before = select.value;
    this.#voices = voices;
    select.replaceChildren(...voices.map(({ name }) => new Option(name, name)));
    if (voices.some(({ name }) => name === before)) select.value = before;
  }

  /** Modes that the chosen voice can speak in; null if the service has to tell. */
  get modes() {
    if (this.source !== "saved") return ["zero_shot", "cross_lingual", "instruct2"];
    return this.#voices.find(({ name }) => name === byId("voice").value)?.modes ?? null;
  }

  /** {fields, promptAudio} for a request; throws an Error with `param` that says what is missing. */
  read() {
    if (this.source === "saved") return { fields: { voice: byId("voice").value }, promptAudio: null };
    const clip = this.#clips[this.source];
    if (this.#recorder.recording) throw missing("Stop the recording first.", "record");
    if (clip === null && this.source === "record") throw missing("Record something first.", "record");
    if (clip === null) throw missing("Choose a recording first.", "file");
    const transcript = byId("transcript").value.trim();
    return { fields: transcript ? { prompt_text: transcript } : {}, promptAudio: clip };
  }

  async #record(onProblem) {
    if (this.#recorder.recording) {
      this.#recorder.stop();
      return;
    }
    const button = byId("record");
    // Until the browser has asked for leave.
    button.disabled = true;
    try {
      const { clip } = await this.#recorder.start();
      button.disabled = false;
      button.textContent = "Stop recording";
      button.classList.add("recording");
      if (this.source !== "record") this.#recorder.stop();
      this.#keep("record", await clip);
    } catch (error) {
      onProblem(problemOf(error));
    } finally {
      button.disabled = false;
      button.textContent = this.#clips.record ? "Record again" : "Record";
      button.classList.remove("recording");
      byId("level").value = 0;
    }
  }

  #keep(source, clip) {
    this.#clips[source] = clip;
    this.#show();
  }

  #show() {
    const { source } = this;
    for (const name of ["saved", "record", "upload"]) byId(`${name}-panel`).hidden = name !== source;
    byId("prompt-panel").hidden = source === "saved";
    const clip = this.#clips[source] ?? null;
    const audio = byId("prompt-audio");
    audio.hidden = clip === null;
    if (clip === this.#listening) return;
    if (audio.src) URL.revokeObjectURL(audio.src);
    audio.removeAttribute("src");
    if (clip) audio.src = URL.createObjectURL(clip);
    this.#listening = clip;
  }
}

const missing = (words, param) => Object.assign(new Error(words), { param });
