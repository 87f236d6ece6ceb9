"""Bodies of the speech route: JSON in OpenAI's shape, or a multipart form with prompt audio."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import Request
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
from starlette.datastructures import UploadFile

from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import Mode
from cosyvoice_core.utterance import MAX_SEED, MAX_SPEED, MIN_SPEED
from deployments.ingress.framing import AudioForm, Format
from deployments.mailbox import TextSource
from deployments.messages import ResumePoint, SpeakCall
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

_UPLOADS = ("prompt_audio", "ref_audio")
OUTPUT_RATES = (8000, 16000, 24000, 48000)
"""Hz; those that all formats have."""


PROMPT_AUDIO = "voice to speak in: 0.5 to 30 s of speech as WAV, FLAC, MP3, OGG or M4A"


def _either(name: str) -> AliasChoices:
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


class SamplingBody(BaseModel):
    """How speech tokens are drawn; what is left out is as the checkpoint says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ras: bool = Field(default=True, description="false: repetitions are not treated")
    top_p: float | None = Field(default=None, ge=MIN_TOP_P, le=1.0, allow_inf_nan=False)
    top_k: int | None = Field(default=None, ge=1, le=MAX_TOP_K)
    window: int | None = Field(default=None, ge=0, le=MAX_WINDOW, description="tokens among which repetitions count")
    tau: float | None = Field(default=None, ge=0.0, le=1.0, allow_inf_nan=False, description="share that is too much")
    temperature: float | None = Field(default=None, ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE, allow_inf_nan=False)

    def settings(self) -> SamplingSettings:
        return SamplingSettings(**self.model_dump())


class SpeechOptions(BaseModel):
    """How something is spoken, at any door; fields beyond OpenAI's are marked as extensions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(default="cosyvoice2", max_length=200)
    voice: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description='name of a saved voice, or {"id": name}'
    )
    response_format: Format = Field(default="mp3", description="pcm: 16-bit little endian, mono, no header")
    speed: float = Field(default=1.0, ge=MIN_SPEED, le=MAX_SPEED, allow_inf_nan=False)
    instructions: str = Field(default="", description="how to speak, for example a dialect or an emotion")
    sample_rate: int | None = Field(
        default=None, description=f"extension: Hz, one of {OUTPUT_RATES}; the model's own if left out"
    )
    volume: float = Field(
        default=1.0, ge=MIN_VOLUME, le=MAX_VOLUME, allow_inf_nan=False, description="extension: factor of loudness"
    )
    prompt_audio: Base64 | None = Field(
        default=None, validation_alias=_either("prompt_audio"), description=f"extension: {PROMPT_AUDIO}, in base64"
    )
    prompt_text: str = Field(
        default="",
        max_length=2000,
        validation_alias=_either("prompt_text"),
        description="extension: what is said in the prompt audio",
    )
    mode: Mode | None = Field(default=None, description="extension: how the voice is used; chosen by what is given")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="extension: same seed, same audio")
    greedy: bool = Field(default=False, description="extension: the likeliest token always, no sampling")
    sampling: SamplingBody = Field(default_factory=SamplingBody, description="extension: how tokens are drawn")
    lexicon: dict[str, str] = Field(default_factory=dict, description="extension: word -> replacement")
    realtime: bool = Field(
        default=True, description="extension: false renders as fast as possible, for files rather than listeners"
    )
    pause_s: float | None = Field(default=None, ge=0, le=10, description="extension: silence between segments")

    @field_validator("voice", mode="before")
    @classmethod
    def _name_or_id(cls, voice: object) -> object:
        """OpenAI's clients write a voice of one's own as an object."""
        return voice["id"] if isinstance(voice, dict) and set(voice) == {"id"} else voice

    @field_validator("sample_rate")
    @classmethod
    def _a_rate_of_all_formats(cls, rate: int | None) -> int | None:
        if rate is not None and rate not in OUTPUT_RATES:
            raise ValueError(f"{rate} is not offered; allowed are {', '.join(map(str, OUTPUT_RATES))}")
        return rate

    def form(self, model_rate: int) -> AudioForm:
        return AudioForm(self.response_format, self.sample_rate or model_rate, self.volume)

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
            realtime=self.realtime,
            pause_s=self.pause_s,
        )


class SpeechBody(SpeechOptions):
    """A speech request."""

    input: str = Field(description="the text to speak")
    stream: bool = Field(default=True, description="extension: send audio while it is made")
    stream_format: Literal["audio", "sse"] = Field(
        default="audio", description="sse: server-sent events that carry the audio in base64"
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

    def resumed(self, last_event_id: str) -> SpeechBody:
        """The body for what follows an event. Raises InputError for an id that no event has, ValidationError where
        nothing can follow."""
        if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= _LONGEST_ID):
            raise InputError("last-event-id", "is no id of an event", "the id of the last event that came")
        given = self.model_dump(exclude_unset=True)
        return SpeechBody.model_validate(given | {"resume_from_sample": int(last_event_id)})

    @model_validator(mode="after")
    def _a_rest_has_a_beginning(self) -> SpeechBody:
        if self.resume_from_sample and (self.seed is None or not self.resumable):
            raise ValueError("resume_from_sample needs a seed, response_format pcm or wav, and no sample_rate")
        return self

    @model_validator(mode="after")
    def _events_are_a_stream(self) -> SpeechBody:
        if self.stream_format == "sse" and not self.stream:
            raise ValueError("stream_format sse needs stream=true")
        return self

    def call(self, upload: bytes | None) -> SpeakCall:
        """upload: prompt audio that came as a file. Raises InputError for a mode that speaks no text."""
        call = replace(self.call_for(self.input), resume=ResumePoint(0, self.resume_from_sample))
        return call if upload is None else replace(call, prompt_audio=upload)


async def read_speech_body(request: Request) -> tuple[SpeechBody, SpeakCall]:
    """Read either kind of body. Raises InputError or pydantic's ValidationError, which name the field.

    `Last-Event-ID`, which clients of events send when they were cut, asks for what follows that event.
    """
    is_form = request.headers.get("content-type", "").startswith("multipart/form-data")
    body, upload = await _read_form(request) if is_form else (await _read_json(request), None)
    last_event_id = request.headers.get("last-event-id")
    if last_event_id is not None and body.stream_format == "sse":
        body = body.resumed(last_event_id)
    return body, body.call(upload)


async def _read_json(request: Request) -> SpeechBody:
    try:
        data = json.loads(await request.body())
    # A number of too many digits is no JSONDecodeError, but a ValueError like those.
    except (ValueError, RecursionError) as error:
        raise InputError("body", f"not valid JSON ({error})", "a JSON object or a multipart form") from None
    return SpeechBody.model_validate(data)


async def _read_form(request: Request) -> tuple[SpeechBody, bytes | None]:
    fields: dict[str, object] = {}
    audio: bytes | None = None
    async with request.form(max_files=1, max_fields=32) as form:
        for name, value in form.multi_items():
            if name in fields or (name in _UPLOADS and audio is not None):
                raise InputError(name, "the field is given twice", "each field once")
            if isinstance(value, UploadFile):
                if name not in _UPLOADS:
                    raise InputError(name, "this field takes no file", "a file only as prompt_audio")
                audio = await value.read()
            elif name in _UPLOADS:
                raise InputError(name, "this field takes a file", "audio as an upload")
            elif name in ("lexicon", "sampling"):
                fields[name] = _json_field(name, value)
            else:
                fields[name] = value
    return SpeechBody.model_validate(fields), audio


def _json_field(name: str, value: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InputError(name, f"not valid JSON ({error})", "a JSON object") from None
