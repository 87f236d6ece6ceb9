"""What travels between the stages. Frozen, numpy only, so that a receiver needs neither torch nor a GPU."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from cosyvoice_core.inputs import FloatArray, IntArray, Mode
from cosyvoice_core.text.script import Language
from cosyvoice_core.utterance import MAX_SEED, Utterance, segment_seed
from deployments.ingress.callers import ANYONE, Caller
from deployments.mailbox import TextSource
from deployments.sampling import SamplingSettings


@dataclass(frozen=True, slots=True)
class UtteranceTask:
    """One utterance on its way down the stages.

    `history` are speech tokens that are known already (a replay of a broken stage from the token log); the stages
    compute from them what the lost ones had, but for the first `sent_samples` of audio, which the ingress has and the
    vocoder leaves out. `request_id` names the request in all logs. `lead_s` is the audio the
    listener still has before this utterance is heard. `text` is where the text ids of the utterance arrive, when it
    is still being written; such an utterance has no history: it is replayed from its start, with the same seed.
    """

    request_id: str
    utterance: Utterance
    lead_s: float = 0.0
    history: tuple[int, ...] = ()
    sent_samples: int = 0
    text: TextSource | None = None


class Finish(StrEnum):
    """Why the language model stopped."""

    END_OF_SPEECH = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class StageTiming:
    """How one stage came to the hop that carries this; seconds since the task reached the stage, by its own clock.

    prepared_s: ready for input; input_s: what this hop needed had come (of the language model: text); began_s: work on
    it had begun (of the language model: its first token was there); left_s: the hop left.
    """

    stage: str
    prepared_s: float
    input_s: float
    began_s: float
    left_s: float


@dataclass(frozen=True, slots=True)
class TokenHop:
    """Speech tokens from the language model. A stream that ends without `last` was cut.

    timings, here and in the other hops: of the stages that the hop came through, the lowest first.
    """

    ids: tuple[int, ...]
    last: bool
    finish: Finish | None = None
    timings: tuple[StageTiming, ...] = ()


@dataclass(frozen=True, slots=True)
class MelHop:
    """Mel frames (bins, T) float32 at 50/s and the tokens that arrived with them."""

    mel: FloatArray
    ids: tuple[int, ...]
    last: bool
    finish: Finish | None = None
    timings: tuple[StageTiming, ...] = ()


@dataclass(frozen=True, slots=True)
class AudioHop:
    """Samples (N,) float32 in -1..1 at the model's rate and the tokens that arrived with them."""

    samples: FloatArray
    ids: tuple[int, ...]
    last: bool
    finish: Finish | None = None
    timings: tuple[StageTiming, ...] = ()


@dataclass(frozen=True, slots=True)
class StageInfo:
    """What a replica says of itself in `/health`; `running` are the calls it has open.

    held: what it keeps for calls (sequences, streams and their pages, windows, texts): 0 soon after the last has ended.
    config_problem: why its latest `user_config` was refused.
    """

    stage: str
    device: str
    dtype: str
    engine: str
    process: int
    running: int
    held: int = 0
    config_problem: str = ""


@dataclass(frozen=True, slots=True)
class SourceTokens:
    """Speech tokens (P,) int32 of one piece of a recording that is to be spoken in another voice."""

    ids: IntArray
    last: bool


class StreamCutError(RuntimeError):
    """A stage's stream ended without its last hop."""


class StreamCancelledError(StreamCutError):
    """A stage's stream was cancelled, by its replica that goes, or by Serve because the whole request was."""


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where an answer was cut: all text segments before `segment` were heard, and so many samples from its start on.

    An answer is a function of its call and seed, so this and the same call are all that any replica needs to give the
    rest. Segments before are not computed. Of an answer whose segments are not known it is (0, all samples heard).
    """

    segment: int = 0
    samples: int = 0


FROM_THE_START = ResumePoint()


@dataclass(frozen=True, slots=True)
class Recording:
    """Audio in any container, whose words are to be spoken in another voice."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class SpeakCall:
    """What a door asks of the service, already in the service's terms; every door builds one of these.

    The text is complete, or where it arrives while it is being written, or a recording that says it. The voice is a
    saved one by name, or prompt audio (any container) with its transcript or without. seed None draws one; greedy
    takes the likeliest token always. realtime bounds how far the service runs ahead of a listener; without it a text is
    rendered as fast as it can be. Under load calls of higher priority are admitted first. The caller says which voices
    there are and which quotas it counts for. resume asks for the rest of an answer that was cut, by the same call with
    the same seed. language: of the text, where its letters do not tell.
    """

    text: str | TextSource | Recording
    voice: str | None = None
    prompt_audio: bytes | None = None
    prompt_text: str = ""
    mode: Mode | None = None
    instructions: str = ""
    seed: int | None = None
    greedy: bool = False
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    speed: float = 1.0
    lexicon: Mapping[str, str] = field(default_factory=dict)
    language: Language | None = None
    realtime: bool = True
    pause_s: float | None = None
    priority: int = 0
    resume: ResumePoint = FROM_THE_START
    caller: Caller = ANYONE

    def by(self, caller: Caller) -> SpeakCall:
        """The same call of this caller."""
        return replace(self, caller=caller, priority=caller.priority)


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """Lines that are spoken one after another; each is a call of which only what says how it is spoken counts.

    pauses_s: silence after each line, which none is after the last. A line without a seed gets one from the script's
    and its number. Its answer's segments are numbered through all lines. All else as in `SpeakCall`.
    """

    lines: tuple[SpeakCall, ...]
    pauses_s: tuple[float, ...] = ()
    seed: int | None = None
    realtime: bool = False
    priority: int = 0
    resume: ResumePoint = FROM_THE_START
    caller: Caller = ANYONE

    def by(self, caller: Caller) -> ScriptCall:
        """The same script of this caller."""
        return replace(self, caller=caller, priority=caller.priority)

    def line(self, number: int) -> SpeakCall:
        """A line as a call of its own, of the same caller and with its seed."""
        line = self.lines[number]
        seed = line.seed if line.seed is not None or self.seed is None else segment_seed(self.seed, number)
        return replace(line.by(self.caller), seed=seed)


AnyCall = TypeVar("AnyCall", bound=SpeakCall | ScriptCall)


def seeded(call: AnyCall) -> AnyCall:
    """The call with a seed, drawn if it had none, so that its answer can be asked for again."""
    return call if call.seed is not None else replace(call, seed=secrets.randbelow(MAX_SEED))


@dataclass(frozen=True, slots=True)
class FirstAudio:
    """Where the time to a request's first audio went: names and seconds of its parts, which add up to the whole.

    ingress: text front end and all else there; queue: until the call was admitted; voice: prompt audio to voice;
    text-wait: until a growing text had its first words; STAGE-prepare: what was left to prepare when its input came;
    STAGE-wait: until work on it began (of the language model: a place, the prompt, the first token); STAGE: the work;
    hops: the ways between the stages.
    """

    request_id: str
    parts: tuple[tuple[str, float], ...]

    @property
    def total_s(self) -> float:
        return sum(seconds for _, seconds in self.parts)


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """A text segment begins: its text as it is spoken (empty where it is not known), the sample of the answer at which
    its speech begins, and its speed."""

    text: str
    sample: int
    speed: float


@dataclass(frozen=True, slots=True)
class SpeechChunk:
    """Samples (N,) float32 of the answer in order, and the text segment they belong to; `last` ends the answer.

    The silence between two segments belongs to the second. A chunk may be empty.
    begins: on the first chunk of a segment's speech. Of an answer that goes on amid a segment, its sample may lie
    before what is sent, and counts from the start of the segment that was resumed. first_audio: on the answer's first
    chunk. line: of the script that the segment belongs to.
    """

    samples: FloatArray
    segment: int
    last: bool = False
    first_audio: FirstAudio | None = None
    begins: SegmentStart | None = None
    line: int = 0
