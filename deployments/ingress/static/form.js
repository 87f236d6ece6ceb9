/** The text and its options: from the form to the fields of a request. */

const byId = (id) => document.getElementById(id);

/** Of these one is drawn if none is given: short enough to be told and typed again. */
const SEEDS = 1e6;

/** Which part of the form a field of the API is. */
const INPUT_OF = {
  input: "text",
  voice: "voice",
  prompt_audio: "file",
  prompt_text: "transcript",
  instructions: "instructions",
  mode: "mode",
  seed: "seed",
  speed: "speed",
};

/** The fields of a request but for its voice; throws an Error with `param` for what is missing. */
export function readForm() {
  const input = byId("text").value;
  if (!input.trim()) throw Object.assign(new Error("Type something to speak first."), { param: "input" });
  const fields = { input, speed: Number(byId("speed").value) };
  const { value: mode } = byId("mode");
  const instructions = byId("instructions").value.trim();
  if (mode) fields.mode = mode;
  if (instructions && !byId("instructions").disabled) fields.instructions = instructions;
  // As text: a seed may have more digits than a number here can hold.
  fields.seed = byId("seed").value.trim() || String(Math.floor(Math.random() * SEEDS));
  if (!/^\d+$/.test(fields.seed)) throw Object.assign(new Error("A seed is a whole number."), { param: "seed" });
  return fields;
}

/** Offer the modes that the voice has, and instructions only where they are followed. */
export function fitModes(modes) {
  const mode = byId("mode");
  for (const option of mode.options) option.disabled = Boolean(option.value && modes && !modes.includes(option.value));
  if (mode.selectedOptions[0]?.disabled) mode.value = "";
  byId("instructions").disabled = !["", "instruct2"].includes(mode.value);
}

/** Mark the part of the form that an error is about and put the focus there; null marks nothing. */
export function mark(param) {
  for (const marked of document.querySelectorAll("[aria-invalid]")) {
    marked.removeAttribute("aria-invalid");
    marked.removeAttribute("aria-errormessage");
  }
  const input = param && byId(INPUT_OF[param] ?? param);
  // A panel that is not shown cannot be pointed at.
  if (!input) return;
  const folded = input.closest("details");
  if (folded) folded.open = true;
  if (input.offsetParent === null) return;
  input.setAttribute("aria-invalid", "true");
  input.setAttribute("aria-errormessage", "error");
  input.focus();
}
