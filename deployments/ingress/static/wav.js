/** Sound as WAV files: 16-bit, mono. Knows no DOM. */

const HEADER_BYTES = 44;

/** The bytes before `samples` samples at `sampleRate` Hz. */
export function wavHeader(samples, sampleRate) {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, HEADER_BYTES - 8 + samples * 2, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, sampleRate * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, samples * 2, true);
  return view.buffer;
}

/** Any recording that the browser can read, as WAV at `sampleRate` Hz; browsers record in formats of their own. */
export async function toWav(recording, sampleRate) {
  const decoder = new OfflineAudioContext(1, 1, sampleRate);
  const sound = await decoder.decodeAudioData(await recording.arrayBuffer());
  const mono = new Int16Array(sound.length);
  const channels = Array.from({ length: sound.numberOfChannels }, (_, i) => sound.getChannelData(i));
  for (let i = 0; i < mono.length; i++) {
    let sum = 0;
    for (const channel of channels) sum += channel[i];
    mono[i] = Math.max(-1, Math.min(1, sum / channels.length)) * 32767;
  }
  return new Blob([wavHeader(mono.length, sampleRate), mono], { type: "audio/wav" });
}
