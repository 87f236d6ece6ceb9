"""What holds for every text under the robust profile."""

from __future__ import annotations

import regex

from cosyvoice_core.text.frontend import TextFrontEnd
from cosyvoice_core.text.split import SplitLimits
from cosyvoice_core.text.tags import INLINE_TAGS

_SPEAKABLE = regex.compile(r"[\p{L}\p{N}]")
_ENDER = regex.compile(r"[\p{Sentence_Terminal}།]$")
_UNSEEN = regex.compile(r"[\p{Cc}\p{Cs}\p{Co}\p{Cn}\u200b\ufeff\ufe0f]")
_EAST_ASIAN = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")


def assert_robust_segments(front_end: TextFrontEnd, text: str, limits: SplitLimits | None = None) -> list[str]:
    """Segments of `text`, after asserting that each is bounded, speakable, ended, and free of control tokens."""
    limits = limits or SplitLimits()
    segments = list(front_end.segments(text))
    control = {number for token, number in front_end.tokenizer.special_ids.items() if token not in INLINE_TAGS}
    for segment in segments:
        ids = front_end.encode(segment)
        within_tokens = len(ids) <= limits.max_tokens
        within_characters = len(segment) <= limits.max_characters and bool(_EAST_ASIAN.search(segment))
        assert within_tokens or within_characters, segment
        assert _SPEAKABLE.search(segment), segment
        assert _ENDER.search(segment), segment
        assert not _UNSEEN.search(segment), segment
        assert "  " not in segment and segment == segment.strip(), segment
        assert not control & set(ids), segment
        assert "<|" not in segment and "|>" not in segment, segment
    assert bool(front_end.normalise(text)) == bool(segments)
    return segments
