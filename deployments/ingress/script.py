"""The lines of a script: checked before any is spoken, with their voices, as utterances numbered through all of them.

Knows neither doors nor stages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import VoicePrompt
from cosyvoice_core.utterance import SpeechRequest, Utterance, UtterancePlanner
from deployments.args import Limits
from deployments.messages import ScriptCall, SpeakCall

CheckCall = Callable[[SpeakCall], SpeechRequest]
FindVoice = Callable[[SpeakCall, SpeechRequest], Awaitable[VoicePrompt]]


@dataclass(frozen=True, slots=True)
class Line:
    """A line as a call of its own, and what is asked of the model for it."""

    number: int
    call: SpeakCall
    request: SpeechRequest


def script_characters(script: ScriptCall) -> int:
    return sum(len(line.text) for line in script.lines if isinstance(line.text, str))


def checked_lines(script: ScriptCall, limits: Limits, check: CheckCall, *, streamed: bool) -> list[Line]:
    """All lines without their voices; check: of one call. Raises InputError that names the line, counted from 0."""
    if not script.lines:
        raise InputError("lines", "the script is empty", "at least one line")
    if len(script.lines) > limits.max_script_lines:
        raise InputError("lines", f"{len(script.lines)} lines", f"at most {limits.max_script_lines}")
    characters = script_characters(script)
    most = limits.max_script_chars if streamed else limits.max_unstreamed_chars
    if characters > most:
        kind = "a streamed script" if streamed else "one sent whole; use stream=true for more"
        raise InputError("lines", f"{characters} characters in all", f"at most {most} for {kind}")
    lines = []
    for number in range(len(script.lines)):
        call = script.line(number)
        with _named(number):
            if not isinstance(call.text, str):
                raise InputError("text", "is no text", "a text")
            lines.append(Line(number, call, check(call)))
    return lines


async def with_voices(lines: Sequence[Line], find: FindVoice) -> AsyncIterator[Line]:
    """The same with their voices, each of which is asked for once. Raises InputError that names the line."""
    found: dict[tuple[str | None, bytes | None, str], VoicePrompt] = {}
    for line in lines:
        call = line.call
        key = (call.voice, call.prompt_audio, call.prompt_text)
        if key not in found:
            with _named(line.number):
                found[key] = await find(call, line.request)
        yield replace(line, request=replace(line.request, voice=found[key]))


def check_line(line: Line, planner: UtterancePlanner) -> None:
    """Raises InputError that names the line when it says nothing, or its voice lacks what its mode needs."""
    with _named(line.number):
        next(planner.utterances(line.request))


class ScriptPlan:
    """The utterances of all lines, made as they are asked for."""

    def __init__(
        self, script: ScriptCall, lines: Sequence[Line], planner: UtterancePlanner, segment_pause_s: float
    ) -> None:
        """segment_pause_s: silence between the segments of a line that does not say."""
        self._script = script
        self._lines = lines
        self._planner = planner
        self._segment_pause_s = segment_pause_s
        self._line_of: list[int] = []

    def utterances(self) -> Iterator[Utterance]:
        """From where the script is resumed on. Not for two threads at once."""
        for line in self._lines:
            for utterance in self._planner.utterances(line.request):
                index = len(self._line_of)
                self._line_of.append(line.number)
                if index >= self._script.resume.segment:
                    yield replace(utterance, index=index)

    def line_of(self, segment: int) -> int:
        """Line that a segment, which was planned already, belongs to."""
        return self._line_of[segment]

    def pause_s(self, segment: int) -> float:
        """Silence before a segment; none before the first of all."""
        line = self._line_of[segment]
        if segment == 0:
            return 0.0
        before = self._line_of[segment - 1]
        if before != line:
            return self._script.pauses_s[before] if before < len(self._script.pauses_s) else 0.0
        own = self._lines[line].call.pause_s
        return self._segment_pause_s if own is None else own


@contextmanager
def _named(number: int) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        field = "text" if error.field == "input" else error.field
        raise InputError(f"lines.{number}.{field}", error.problem, error.allowed) from None
