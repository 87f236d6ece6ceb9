"""Arguments of the application, as they stand in `serve_config.yaml` under `args`. One place for every knob."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cosyvoice_core.flow.runner import DEFAULT_PAGES
from cosyvoice_core.flow.scheduler import SchedulerLimits
from cosyvoice_core.hops import HopPlan
from cosyvoice_core.streamed import StreamedLimits
from cosyvoice_core.text.frontend import Profile
from cosyvoice_core.text.split import SplitLimits
from cosyvoice_core.voice.alignment import ChunkAlignment
from deployments.pulse import EVERY_S
from deployments.speech_lm.vllm_args import VllmArgs
from deployments.voices.args import VoicesArgs

Device = Literal["auto", "cpu", "cuda"]
DType = Literal["float32", "bfloat16", "float16"]
LMEngine = Literal["auto", "vllm", "torch"]
CacheChoice = Literal["auto", "full", "compact"]
GraphChoice = Literal["auto", "off"]

_PROJECT = Path(__file__).resolve().parent.parent


class _Args(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageArgs(_Args):
    """Where one stage computes."""

    device: Device = Field(default="auto", description="auto: cuda where there is one, else cpu")
    threads: int = Field(default=1, ge=1, description="CPU threads of one replica")


class FlowArgs(StageArgs):
    """The flow stage, see `cosyvoice_core.flow.scheduler` and `cosyvoice_core.flow.memory`."""

    dtype: DType = Field(
        default="float32", description="numbers it computes with; a GPU that must be faster: float16, see decisions.md"
    )
    max_batch: int = Field(default=4, ge=1, description="utterances in one call of the estimator; more on a GPU")
    cache_bytes: int = Field(
        default=2 * 2**30, ge=0, description="caches of all utterances of a replica; beyond it they recompute"
    )
    cache_form: CacheChoice = Field(
        default="auto",
        description="full: keys and values; compact: a quarter of the memory, slower; auto: full where it holds "
        "30 s of each of max_batch utterances",
    )
    prefix_cache_bytes: int = Field(
        default=512 * 2**20, ge=0, description="of cache_bytes, what voice prompts may keep for later utterances"
    )
    warm_voices: bool = Field(default=True, description="compute the caches of saved voices before the first request")
    warm_up_s: int = Field(
        default=4, ge=0, description="speech that a replica computes for nobody before it is ready; 0: none"
    )
    patience_s: float = Field(
        default=3.0, ge=0, description="with so much left to hear a listener's utterance waits for memory"
    )
    left_chunks: int | None = Field(
        default=None, ge=1, description="approximation: attention sees the prompt and so many seconds; null sees all"
    )

    graphs: GraphChoice = Field(
        default="auto",
        description="auto: on a CUDA device steps have a few fixed shapes, each recorded once at start and replayed",
    )
    graph_pages: tuple[int, ...] = Field(
        default=DEFAULT_PAGES,
        description="seconds of past (prompt included) that there are such shapes for; utterances go on without beyond",
    )

    def limits(self) -> SchedulerLimits:
        return SchedulerLimits(batch=self.max_batch, patience_s=self.patience_s)


class VocoderArgs(StageArgs):
    """The vocoder stage."""

    max_batch: int = Field(default=1, ge=1, description="windows in one call; more on a GPU, nothing to gain on a CPU")
    window_frames: tuple[int, ...] | None = Field(
        default=None, description="frames (20 ms) a window may emit, growing; null: those of vocoder.StreamWindow"
    )
    cuda_graphs: bool = Field(default=False, description="record each shape once and replay it; on CUDA only")


class LMArgs(StageArgs):
    """The language model stage."""

    engine: LMEngine = Field(default="auto", description="auto: vllm where it can be imported, else torch")
    dtype: DType = Field(
        default="float32", description="only in float32 are the tokens of a seed the same in any company"
    )
    max_sequences: int = Field(default=64, ge=1, description="utterances decoded together on one replica")
    vllm: VllmArgs = VllmArgs()
    max_paused_sequences: int = Field(
        default=32, ge=1, description="utterances of one replica whose text may still be growing; more are refused"
    )
    text_idle_timeout_s: float = Field(default=30.0, gt=0, description="a growing text must go on within this time")

    @property
    def growing_texts(self) -> int:
        """Bound on utterances that may pause: one place at least is left to those that cannot."""
        return min(self.max_paused_sequences, max(self.max_sequences - 1, 1))


class HopArgs(_Args):
    """Sizes of token hops, see `cosyvoice_core.hops.HopPlan`."""

    min_first_tokens: int = Field(
        default=15, ge=1, description="tokens of the first hop at least: fewer sound earlier, and run dry earlier"
    )
    max_tokens: int = Field(default=50, ge=25, description="to which later hops grow")
    align_prompts: bool = Field(
        default=True, description="cut up to 1 s off a prompt's start, so that every first hop is min_first_tokens long"
    )

    def plan(self) -> HopPlan:
        return HopPlan(self.min_first_tokens, self.max_tokens)

    def alignment(self, chunk_tokens: int) -> ChunkAlignment | None:
        return ChunkAlignment(chunk_tokens, min(self.min_first_tokens, chunk_tokens)) if self.align_prompts else None


class SplitArgs(_Args):
    """Sizes of text segments, see `cosyvoice_core.text.split.SplitLimits`."""

    max_tokens: int = Field(default=80, ge=24, description="text tokens of a segment at most")
    max_characters: int = Field(default=80, ge=24, description="the same in characters of Chinese, Japanese and Korean")
    join_tokens: int = Field(default=80, ge=1, description="short sentences are joined up to so many tokens")
    join_characters: int = Field(default=80, ge=1, description="and up to so many characters")

    def limits(self) -> SplitLimits:
        return SplitLimits(**self.model_dump())


class StreamedArgs(_Args):
    """Utterances of a text that is still being written, see `cosyvoice_core.streamed.StreamedLimits`."""

    sentence_tokens: int = Field(default=60, ge=1, description="an utterance ends with the sentence that reaches this")
    max_tokens: int = Field(default=200, ge=1, le=350, description="and at this many text tokens wherever it is")

    def limits(self) -> StreamedLimits:
        return StreamedLimits(**self.model_dump())


class Limits(_Args):
    """What a request may ask for."""

    max_body_bytes: int = Field(default=32 * 2**20, ge=1024, description="of a request, prompt audio included")
    max_text_chars: int = Field(default=200_000, ge=1, description="streamed answers")
    max_unstreamed_chars: int = Field(default=10_000, ge=1, description="answers sent whole, with stream=false")
    max_source_s: float = Field(default=300.0, ge=1, description="of a recording that is to be spoken in another voice")
    max_script_lines: int = Field(default=10_000, ge=1, description="of one script")
    max_script_chars: int = Field(default=2_000_000, ge=1, description="of all lines of a script, streamed")
    max_instruction_chars: int = Field(default=500, ge=1, description="of `instructions`")
    max_lexicon_entries: int = Field(default=1_000, ge=0, description="of a request's `lexicon`")
    live_contexts: int = Field(default=8, ge=1, description="contexts at once on one WebSocket")
    live_idle_s: float = Field(
        default=300.0, gt=0, description="a WebSocket on which nothing is spoken and nothing comes is closed"
    )
    max_header_bytes: int = Field(default=32 * 2**10, ge=1024, description="names and values together")
    body_timeout_s: float = Field(default=60.0, gt=0, description="a body must have come within this time")


class PlaybackArgs(_Args):
    """How segments of a long text follow each other."""

    look_ahead_segments: int = Field(default=1, ge=0, description="segments synthesised ahead of the one that plays")
    pause_s: float = Field(default=0.0, ge=0, le=10, description="silence between segments")
    max_run_ahead_s: float = Field(
        default=60.0, gt=0, description="no new segment starts while the listener is this far behind"
    )
    first_audio_timeout_s: float = Field(
        default=120.0, gt=0, description="an utterance without any sound by then has failed"
    )
    stall_timeout_s: float = Field(default=60.0, gt=0, description="and one that gave none for so long")
    silence_timeout_s: float = Field(
        default=10.0,
        ge=3 * EVERY_S,
        description="a stage without a sign of life for so long is lost with its machine; it gives one every second",
    )
    max_replays: int = Field(default=4, ge=0, description="replays of an utterance in a row that bring no more sound")
    replay_pause_s: float = Field(default=0.5, ge=0, description="before the second of these; doubled for each further")
    file_lead_s: float = Field(
        default=60.0, ge=0, description="a file is computed like audio that a listener needs so much later"
    )
    script_look_ahead: int = Field(
        default=3,
        ge=0,
        description="segments of a script synthesised ahead of the one that is sent; each holds 64 s (6 MB) at most",
    )
    script_run_ahead_s: float = Field(
        default=3600.0,
        gt=0,
        description="and no new one starts while a listener in real time would be this far behind: bounds what the "
        "proxy holds for a reader who does not read",
    )


class AdmissionArgs(_Args):
    """Who is served when more come than can be, of one ingress replica, see `deployments.ingress.admission`."""

    enabled: bool = Field(default=True, description="false: all are let in, whether they can be served or not")
    max_first_audio_s: float = Field(
        default=5.0, gt=0, description="a listener who would hear nothing for longer is refused (429)"
    )
    margin: float = Field(
        default=1.25, ge=1.0, description="least audio that the stages must be able to make for each second played"
    )
    gap_share: float = Field(
        default=0.02, gt=0, lt=1, description="listeners who may hear a gap; the margin grows until no more do"
    )
    unproven_listeners: int = Field(
        default=8, ge=1, description="let in together while it is not known yet how fast the stages are"
    )
    max_waiting: int = Field(default=256, ge=0, description="calls that wait; more are refused (429)")
    max_files: int = Field(
        default=8, ge=1, description="answers at once that nobody hears while they are made (whole, or realtime=false)"
    )


class SecurityArgs(_Args):
    """Who may use the service, see docs/security.md. Nothing is asked of anybody by default."""

    keys_file: str | None = Field(
        default=None, description="API keys (YAML); null: those of COSYVOICE_API_KEYS, or none are needed"
    )
    quota_timeout_s: float = Field(
        default=2.0, gt=0, description="the count of quotas must answer within this; else each ingress replica counts"
    )
    cors_origins: tuple[str, ...] = Field(
        default=(), description="origins of web pages that may call, as https://example.com; * for all"
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="names that the service is called by (Host header); none given: any"
    )

    def keys_path(self) -> Path | None:
        """A relative one is of the project's folder, whatever process asks."""
        return None if self.keys_file is None else _PROJECT / self.keys_file

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
                raise ValueError(f"{origin!r} is no origin; expected scheme://host or scheme://host:port, or *")
        return origins


class AppArgs(_Args):
    """Arguments of `deployments.app:build`."""

    model: str = Field(default="checkpoints/demo", description="checkpoint directory, or a model id to download")
    model_name: str = Field(default="cosyvoice2", description="name shown to clients")
    text_profile: Profile = Field(
        default=Profile.ROBUST, description="how text is read; reference: as the original does, off: as it stands"
    )
    split: SplitArgs = SplitArgs()
    streamed: StreamedArgs = StreamedArgs()
    lexicon: dict[str, str] = Field(default_factory=dict, description="word -> replacement, for every request")
    lm: LMArgs = LMArgs()
    flow: FlowArgs = FlowArgs()
    vocoder: VocoderArgs = VocoderArgs()
    voice_encoder: StageArgs = StageArgs()
    voice_cache_bytes: int = Field(
        default=64 * 2**20, ge=0, description="features of prompt audio that a voice encoder keeps, by content"
    )
    hops: HopArgs = HopArgs()
    limits: Limits = Limits()
    playback: PlaybackArgs = PlaybackArgs()
    admission: AdmissionArgs = AdmissionArgs()
    security: SecurityArgs = SecurityArgs()
    voices: VoicesArgs = VoicesArgs()

    def model_source(self) -> str:
        """The model with a relative folder resolved against the project, so that every process finds it."""
        relative = _PROJECT / self.model
        return str(relative) if relative.is_dir() else self.model
