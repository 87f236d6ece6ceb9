"""Files made to break a decoder are refused by name with what is allowed, in little memory."""

from __future__ import annotations

import psutil
import pytest

from cosyvoice_core.audio.decode import decode_audio
from cosyvoice_core.audio.limits import AudioLimits
from cosyvoice_core.errors import InputError
from tests.audio.broken import bombs, broken_files


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in broken_files()])
def test_what_can_be_no_voice_is_refused_with_what_is_allowed(content: bytes) -> None:
    with pytest.raises(InputError) as caught:
        decode_audio(content)
    assert caught.value.field == "prompt_audio"
    assert caught.value.allowed


def test_bombs_are_refused_at_the_cost_of_what_is_allowed() -> None:
    """By the process's own size, as decoders take memory that Python does not see."""
    process = psutil.Process()
    for name, content in bombs():
        # The first of a kind pays for its decoder.
        with pytest.raises(InputError):
            decode_audio(content, limits=AudioLimits(max_seconds=0.5))
        before = process.memory_info().rss
        with pytest.raises(InputError, match="longer than 30 s"):
            decode_audio(content)
        # 30 s of 8 channels at 48 kHz in floats are 46 MB.
        assert process.memory_info().rss - before < 64 << 20, name
