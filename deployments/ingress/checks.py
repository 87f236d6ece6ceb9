"""What of a call can be told to be wrong before any stage works, and the request that is left. Knows no stages."""

from __future__ import annotations

import secrets

import numpy as np

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import Mode, VoicePrompt
from cosyvoice_core.text.lexicon import Lexicon
from cosyvoice_core.utterance import MAX_SEED, SpeechRequest
from deployments.args import Limits
from deployments.ingress.voices import VoiceRegistry
from deployments.mailbox import TextSource
from deployments.messages import FROM_THE_START, Recording, SpeakCall

_NO_VOICE = VoicePrompt(np.zeros(0, np.float32))
"""Stands in a request until its voice is known."""


def checked_request(
    call: SpeakCall, limits: Limits, voices: VoiceRegistry, sampling: SamplingConfig, *, streamed: bool
) -> SpeechRequest:
    """The request but for its voice; sampling: the checkpoint's own. Raises InputError that names the field."""
    check_text(call, limits, streamed=streamed)
    if len(call.instructions) > limits.max_instruction_chars:
        raise InputError(
            "instructions",
            f"{len(call.instructions)} characters",
            f"at most {limits.max_instruction_chars} characters",
        )
    if len(call.lexicon) > limits.max_lexicon_entries:
        raise InputError("lexicon", f"{len(call.lexicon)} entries", f"at most {limits.max_lexicon_entries}")
    _check_voice(call, voices)
    if isinstance(call.text, Recording) and (call.instructions.strip() or call.mode not in (None, Mode.CONVERSION)):
        raise InputError("instructions", "a recording is spoken as it is", "none, and mode vc")
    return SpeechRequest(
        text=call.text if isinstance(call.text, str) else "",
        voice=_NO_VOICE,
        mode=call.mode,
        instruction=call.instructions,
        seed=secrets.randbelow(MAX_SEED) if call.seed is None else call.seed,
        speed=call.speed,
        greedy=call.greedy,
        sampling=call.sampling.over(sampling),
        lexicon=Lexicon.from_mapping(call.lexicon),
        language=call.language,
    )


def check_text(call: SpeakCall, limits: Limits, *, streamed: bool) -> None:
    """Raises InputError for a text that is empty or too long, and for the rest of one that cannot be told again."""
    if call.resume != FROM_THE_START and (call.seed is None or isinstance(call.text, TextSource)):
        raise InputError("resume", "the answer cannot be told again", "the seed of the first call, a complete text")
    if not isinstance(call.text, str):
        return
    if not call.text.strip():
        raise InputError("input", "the text is empty", "some words to speak")
    most = limits.max_text_chars if streamed else limits.max_unstreamed_chars
    if len(call.text) > most:
        kind = "a streamed answer" if streamed else "an answer sent whole; use stream=true for more"
        raise InputError("input", f"the text has {len(call.text)} characters", f"at most {most} for {kind}")


def _check_voice(call: SpeakCall, voices: VoiceRegistry) -> None:
    if call.voice is not None and call.prompt_audio is not None:
        raise InputError("voice", "both a voice name and prompt audio were given", "one of the two")
    if call.voice is None and call.prompt_audio is None:
        raise InputError("voice", "no voice was given", f"prompt audio, or one of: {voices.names(call.caller)}")
    if call.voice is not None:
        voices.check(call.voice, call.caller)
    if call.prompt_audio is None and call.prompt_text.strip():
        raise InputError("prompt_text", "was given without prompt audio", "with prompt_audio only")
    if call.prompt_audio is not None and call.mode is Mode.ZERO_SHOT and not call.prompt_text.strip():
        raise InputError(
            "prompt_text", "zero_shot needs the transcript of the prompt", "a transcript, or mode cross_lingual"
        )
