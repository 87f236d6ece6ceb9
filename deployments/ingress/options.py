"""What the bodies of several doors have in common: how something is spoken, and in which form it is answered."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import Mode
from cosyvoice_core.text.script import Language
from cosyvoice_core.utterance import MAX_SEED, MAX_SPEED, MIN_SPEED
from deployments.ingress.framing import AudioForm, Format
from deployments.mailbox import TextSource
from deployments.messages import SpeakCall
from deployments.sampling import (
    MAX_TEMPERATURE,
    MAX_TOP_K,
    MAX_WINDOW,
    MIN_TEMPERATURE,
    MIN_TOP_P,
    SamplingSettings,
)

MIN_VOLUME, MAX_VOLUME = 0.0, 4.0
_LONGEST_ID = 12
"""Digits of a count of samples: more than a year of sound."""

OUTPUT_RATES = (8000, 16000, 24000, 48000)
"""Hz; those that all formats have."""

PROMPT_AUDIO = "voice to speak in: 0.5 to 30 s of speech as WAV, FLAC, MP3, OGG or M4A"


def either(name: str) -> AliasChoices:
    """Other servers call what belongs to the prompt a reference."""
    return AliasChoices(name, name.replace("prompt", "ref"))


def _from_base64(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise ValueError("not base64") from None


Base64 = Annotated[
    bytes, BeforeValidator(_from_base64), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]


# Nobody here reads Korean numbers: they are left to the model.
_LANGUAGES = {
    "auto": None,
    "zh": Language.CHINESE,
    "en": Language.ENGLISH,
    "ja": Language.JAPANESE,
    "ko": Language.OTHER,
}
_NAMES = {"chinese": "zh", "english": "en", "japanese": "ja", "korean": "ko"}


def _code_of(language: object) -> object:
    """Other servers take names, and regions behind codes ("zh-CN")."""
    if not isinstance(language, str):
        return language
    code = language.lower().partition("-")[0]
    return _NAMES.get(code, code)


def _name_or_id(voice: object) -> object:
    """OpenAI's clients write a voice of one's own as an object."""
    return voice["id"] if isinstance(voice, dict) and set(voice) == {"id"} else voice


_NAME = {"type": "string", "maxLength": 200}
VoiceName = Annotated[
    str,
    Field(max_length=200),
    BeforeValidator(_name_or_id),
    WithJsonSchema(
        {
            "anyOf": [
                _NAME,
                {
                    "type": "object",
                    "properties": {"id": _NAME},
                    "required": ["id"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


class Body(BaseModel):
    """Anything that comes with a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SamplingBody(Body):
    """How speech tokens are drawn; what is left out is as the checkpoint says."""

    ras: bool = Field(default=True, description="false: repetitions are not treated")
    top_p: float | None = Field(default=None, ge=MIN_TOP_P, le=1.0, allow_inf_nan=False)
    top_k: int | None = Field(default=None, ge=1, le=MAX_TOP_K)
    window: int | None = Field(default=None, ge=0, le=MAX_WINDOW, description="tokens among which repetitions count")
    tau: float | None = Field(default=None, ge=0.0, le=1.0, allow_inf_nan=False, description="share that is too much")
    temperature: float | None = Field(default=None, ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE, allow_inf_nan=False)

    def settings(self) -> SamplingSettings:
        return SamplingSettings(**self.model_dump())


class VoiceOptions(Body):
    """In which voice, how fast, by which seed."""

    voice: VoiceName | None = Field(default=None, description='name of a saved voice, or {"id": name}')
    prompt_audio: Base64 | None = Field(
        default=None, validation_alias=either("prompt_audio"), description=f"extension: {PROMPT_AUDIO}, in base64"
    )
    speed: float = Field(default=1.0, ge=MIN_SPEED, le=MAX_SPEED, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="extension: same seed, same audio")


class StyleOptions(VoiceOptions):
    """How a text is spoken."""

    instructions: str = Field(
        default="",
        validation_alias=AliasChoices("instructions", "style"),
        description="how to speak, for example a dialect or an emotion",
    )
    prompt_text: str = Field(
        default="",
        max_length=2000,
        validation_alias=either("prompt_text"),
        description="extension: what is said in the prompt audio",
    )
    mode: Mode | None = Field(
        default=None,
        validation_alias=AliasChoices("mode", "task_type"),
        description="extension: how the voice is used; chosen by what is given",
    )
    greedy: bool = Field(default=False, description="extension: the likeliest token always, no sampling")
    sampling: SamplingBody = Field(default_factory=SamplingBody, description="extension: how tokens are drawn")
    lexicon: dict[str, str] = Field(default_factory=dict, description="extension: word -> replacement")

    language: Annotated[Literal["auto", "zh", "en", "ja", "ko"], BeforeValidator(_code_of)] = Field(
        default="auto",
        description="extension: of the text, where its letters do not tell: how numbers and signs are read; a code or "
        "an English name",
    )

    def call_for(self, text: str | TextSource) -> SpeakCall:
        """Raises InputError for a mode that speaks no text."""
        if self.mode is Mode.CONVERSION:
            raise InputError("mode", "voice conversion speaks no text", "sft, zero_shot, cross_lingual, instruct2")
        return SpeakCall(
            text=text,
            voice=self.voice,
            prompt_audio=self.prompt_audio,
            prompt_text=self.prompt_text,
            mode=self.mode,
            instructions=self.instructions,
            seed=self.seed,
            greedy=self.greedy,
            sampling=self.sampling.settings(),
            speed=self.speed,
            lexicon=self.lexicon,
            language=_LANGUAGES[self.language],
        )


class FormOptions(Body):
    """What an answer's audio is."""

    model: str = Field(default="cosyvoice2", max_length=200)
    response_format: Format = Field(default="mp3", description="pcm: 16-bit little endian, mono, no header")
    sample_rate: int | None = Field(
        default=None, description=f"extension: Hz, one of {OUTPUT_RATES}; the model's own if left out"
    )
    volume: float = Field(
        default=1.0, ge=MIN_VOLUME, le=MAX_VOLUME, allow_inf_nan=False, description="extension: factor of loudness"
    )
    realtime: bool = Field(
        default=True, description="extension: false renders as fast as possible, for files rather than listeners"
    )

    @field_validator("sample_rate")
    @classmethod
    def _a_rate_of_all_formats(cls, rate: int | None) -> int | None:
        if rate is not None and rate not in OUTPUT_RATES:
            raise ValueError(f"{rate} is not offered; allowed are {', '.join(map(str, OUTPUT_RATES))}")
        return rate

    def form(self, model_rate: int) -> AudioForm:
        return AudioForm(self.response_format, self.sample_rate or model_rate, self.volume)


class SpeechOptions(StyleOptions, FormOptions):
    """How something is spoken and answered, at any door; fields beyond OpenAI's are marked as extensions."""

    pause_s: float | None = Field(default=None, ge=0, le=10, description="extension: silence between segments")

    def call_for(self, text: str | TextSource) -> SpeakCall:
        """Raises InputError for a mode that speaks no text."""
        return replace(super().call_for(text), realtime=self.realtime, pause_s=self.pause_s)


Timestamps = Literal["none", "segment", "hop"]


class AnswerOptions(FormOptions):
    """How an answer comes over HTTP."""

    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="extension: same seed, same audio")
    stream: bool = Field(default=True, description="extension: send audio while it is made")
    stream_format: Literal["audio", "sse"] = Field(
        default="audio", description="sse: server-sent events that carry the audio in base64"
    )
    timestamps: Timestamps = Field(
        default="none",
        description="extension, with stream_format sse: events that say when each segment of the text is heard, or "
        "those and each hop of 25 speech tokens within it. Not of words: the model tells nothing of where they are",
    )
    resume_from_sample: int = Field(
        default=0,
        ge=0,
        description="extension: the rest of an answer that was cut, after so many samples; needs the first call's seed "
        "(header x-seed) and all else as it was, format pcm or wav, no sample_rate",
    )

    @property
    def resumable(self) -> bool:
        """Whether the rest of an answer can be told by samples: not where bytes depend on those before."""
        return self.sample_rate is None and self.response_format in ("pcm", "wav")

    def resumed(self, last_event_id: str) -> Self:
        """The body for what follows an event. Raises InputError for an id that no event has, ValidationError where
        nothing can follow."""
        if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= _LONGEST_ID):
            raise InputError("last-event-id", "is no id of an event", "the id of the last event that came")
        given = self.model_dump(exclude_unset=True)
        return self.model_validate(given | {"resume_from_sample": int(last_event_id)})

    @model_validator(mode="after")
    def _a_rest_has_a_beginning(self) -> Self:
        if self.resume_from_sample and (self.seed is None or not self.resumable):
            raise ValueError("resume_from_sample needs a seed, response_format pcm or wav, and no sample_rate")
        return self

    @model_validator(mode="after")
    def _events_are_a_stream(self) -> Self:
        if self.stream_format == "sse" and not self.stream:
            raise ValueError("stream_format sse needs stream=true")
        if self.timestamps != "none" and self.stream_format != "sse":
            raise ValueError("timestamps are events: they need stream_format sse")
        return self
