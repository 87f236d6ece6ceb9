"""Messages of the live door, both ways. The protocol is told in docs/live.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from deployments.ingress.options import SpeechOptions

ContextId = Annotated[str, Field(min_length=1, max_length=64)]
DEFAULT_CONTEXT = "default"


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Start(SpeechOptions):
    """Open a context: one voice that will speak one text."""

    type: Literal["start"]
    context_id: ContextId = DEFAULT_CONTEXT
    request_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,64}$")] | None = Field(
        default=None, description="names the context in the service's logs; a new one if left out"
    )
    audio: Literal["binary", "base64"] = Field(
        default="binary", description="audio as a binary message after its `audio` event, or within it"
    )


class Text(_Message):
    """More of a context's text, cut anywhere."""

    type: Literal["text"]
    text: str
    context_id: ContextId = DEFAULT_CONTEXT


class Flush(_Message):
    """Speak what there is without waiting for more; what follows begins anew."""

    type: Literal["flush"]
    context_id: ContextId = DEFAULT_CONTEXT


class End(_Message):
    """The context's text is complete."""

    type: Literal["end"]
    context_id: ContextId = DEFAULT_CONTEXT


class Cancel(_Message):
    """Stop speaking a context at once, and forget it."""

    type: Literal["cancel"]
    context_id: ContextId = DEFAULT_CONTEXT


Incoming = Annotated[Start | Text | Flush | End | Cancel, Field(discriminator="type")]
_INCOMING: TypeAdapter[Start | Text | Flush | End | Cancel] = TypeAdapter(Incoming)


def parse(message: str) -> Start | Text | Flush | End | Cancel:
    """Raises pydantic's ValidationError."""
    return _INCOMING.validate_json(message)


class Started(_Message):
    """The context is open."""

    type: Literal["started"] = "started"
    context_id: str
    request_id: str
    sample_rate: int


class Audio(_Message):
    """Audio of a context: in `audio`, in base64, or else in the binary message of `bytes` bytes that comes next."""

    type: Literal["audio"] = "audio"
    context_id: str
    bytes: int
    audio: str | None = None


class FirstAudio(_Message):
    """Where the time to the first audio went, in milliseconds; comes right before it, for each flushed part."""

    type: Literal["first_audio"] = "first_audio"
    context_id: str
    total_ms: float
    parts: dict[str, float]


class Segment(_Message):
    """A segment of the text begins `start_s` seconds after the context's first audio."""

    type: Literal["segment"] = "segment"
    context_id: str
    index: int
    start_s: float


class Flushed(_Message):
    """All audio of what was flushed has been sent."""

    type: Literal["flushed"] = "flushed"
    context_id: str
    audio_s: float


class Done(_Message):
    """All audio of a context has been sent, and it is closed."""

    type: Literal["done"] = "done"
    context_id: str
    audio_s: float


class Cancelled(_Message):
    """A context was cancelled: no more audio of it will come."""

    type: Literal["cancelled"] = "cancelled"
    context_id: str


class Error(_Message):
    """What went wrong, as in HTTP answers; the context is closed, or where there is none the message was ignored."""

    type: Literal["error"] = "error"
    context_id: str | None
    error: dict[str, Any]


Outgoing = Started | FirstAudio | Audio | Segment | Flushed | Done | Cancelled | Error
