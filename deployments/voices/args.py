"""Arguments of the store of voices, as they stand under `args.voices` of a Serve config."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_PROJECT = Path(__file__).resolve().parent.parent.parent


class VoicesArgs(BaseModel):
    """Voices that callers save, see docs/voices.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = Field(
        default=None,
        description="folder that all nodes reach, a path or fsspec URL; null: none. COSYVOICE_VOICES goes before it",
    )
    max_voices: int = Field(default=1000, ge=0, description="saved voices altogether")
    max_per_key: int = Field(default=100, ge=0, description="private voices of one API key")
    cache_bytes: int = Field(default=64 * 2**20, ge=0, description="voices that an ingress replica keeps in memory")
    look_every_s: float = Field(
        default=0.5,
        ge=0,
        description="how old the list may be that a known voice is taken from; unknown ones: not at all",
    )
    timeout_s: float = Field(
        default=5.0, gt=0, description="the store must answer within this; known voices are served without it"
    )

    def place(self) -> str | None:
        """COSYVOICE_VOICES, or the URL; a relative path is of the project's folder, whatever process asks."""
        url = os.environ.get("COSYVOICE_VOICES") or self.url
        return url if url is None or "://" in url else str(_PROJECT / url)
