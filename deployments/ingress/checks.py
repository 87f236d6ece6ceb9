"""What of a call can be told to be wrong from its text alone. Knows neither voices nor stages."""

from __future__ import annotations

from cosyvoice_core.errors import InputError
from deployments.args import Limits
from deployments.messages import FROM_THE_START, SpeakCall


def check_text(call: SpeakCall, limits: Limits, *, streamed: bool) -> None:
    """Raises InputError for a text that is empty or too long, and for the rest of one that cannot be told again."""
    if call.resume != FROM_THE_START and (call.seed is None or not isinstance(call.text, str)):
        raise InputError("resume", "the answer cannot be told again", "the seed of the first call, a complete text")
    if not isinstance(call.text, str):
        return
    if not call.text.strip():
        raise InputError("input", "the text is empty", "some words to speak")
    most = limits.max_text_chars if streamed else limits.max_unstreamed_chars
    if len(call.text) > most:
        kind = "a streamed answer" if streamed else "an answer sent whole; use stream=true for more"
        raise InputError("input", f"the text has {len(call.text)} characters", f"at most {most} for {kind}")
