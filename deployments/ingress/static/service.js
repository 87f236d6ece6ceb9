/** The service's HTTP API, as far as the page needs it. Knows no DOM. */

const TRIES = 3;

/** What the service said of a request that failed; `param` is the field it is about, if any. */
export class ServiceError extends Error {
  constructor(message, { status = 0, param = null } = {}) {
    super(message);
    this.name = "ServiceError";
    this.status = status;
    this.param = param;
  }
}

export class Service {
  key = "";
  #base;

  /** base: URL under which the doors lie; they may have a prefix. */
  constructor(base) {
    this.#base = base;
  }

  /** {model, sample_rate, ...} */
  async health() {
    return (await this.#fetch("health")).json();
  }

  /** [{name, modes, ...}, ...] */
  async voices() {
    return (await (await this.#fetch("v1/audio/voices")).json()).voices;
  }

  /** Speak `request` and give {timing, chunks}, the last an async generator of (N,) Int16Array. */
  async speak(request, signal) {
    const answer = await this.#speech(request, { response_format: "pcm" }, signal);
    return { timing: partsOf(answer.headers.get("server-timing")), chunks: this.#whole(request, answer, signal) };
  }

  /** The same speech once more as a file; made as fast as the service can. */
  async file(request, format, signal) {
    return (await this.#speech(request, { response_format: format, realtime: false }, signal)).blob();
  }

  /** All samples of an answer, also when the connection breaks: with its seed a request can ask for the rest. */
  async *#whole(request, answer, signal) {
    let heard = 0;
    let tries = 0;
    for (;;) {
      try {
        for await (const samples of samplesOf(answer.body)) {
          heard += samples.length;
          tries = 0;
          yield samples;
        }
        return;
      } catch (error) {
        if (signal.aborted || ++tries > TRIES) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** tries));
      answer = await this.#speech(request, { response_format: "pcm", resume_from_sample: heard }, signal);
    }
  }

  #speech({ fields, promptAudio }, more, signal) {
    const all = { ...fields, ...more };
    if (promptAudio === null) {
      const headers = { "content-type": "application/json" };
      return this.#fetch("v1/audio/speech", { method: "POST", headers, body: JSON.stringify(all), signal });
    }
    const form = new FormData();
    for (const [name, value] of Object.entries(all)) form.append(name, String(value));
    form.append("prompt_audio", promptAudio, "prompt");
    return this.#fetch("v1/audio/speech", { method: "POST", body: form, signal });
  }

  async #fetch(path, { headers = {}, ...options } = {}) {
    const key = this.key ? { authorization: `Bearer ${this.key}` } : {};
    let answer;
    try {
      answer = await fetch(new URL(path, this.#base), { ...options, headers: { ...headers, ...key } });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new ServiceError("The service does not answer. Is it running, and is this device connected to it?");
    }
    if (!answer.ok) throw await errorOf(answer);
    return answer;
  }
}

async function errorOf(answer) {
  const said = await answer.json().catch(() => ({}));
  const { message = `The service answered ${answer.status}`, param = null } = said.error ?? {};
  const wait = answer.headers.get("retry-after");
  const retry = wait ? ` Try again in ${wait} s.` : "";
  return new ServiceError(`${sentence(message)}${retry}`, { status: answer.status, param });
}

const sentence = (words) => `${words.charAt(0).toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;

/** Bytes that may be cut anywhere to whole samples. */
async function* samplesOf(body) {
  const reader = body.getReader();
  let rest = new Uint8Array(0);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const bytes = new Uint8Array(rest.length + value.length);
      bytes.set(rest);
      bytes.set(value, rest.length);
      const even = bytes.length - (bytes.length % 2);
      rest = bytes.slice(even);
      if (even) yield new Int16Array(bytes.buffer, 0, even / 2);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** A Server-Timing header as [[name, milliseconds], ...]. */
function partsOf(header) {
  return [...(header ?? "").matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, name, ms]) => [name, Number(ms)]);
}
