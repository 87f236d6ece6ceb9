"""The token sequence an utterance starts from, and how long its answer may be.

Knows the merged vocabulary and the request's ids; does not run anything.
Source: docs/model.md, "Speech-token LM".
"""

from __future__ import annotations

from cosyvoice_core.inputs import UtteranceInputs
from cosyvoice_core.lm.vocabulary import SpeechVocabulary

# Speech tokens per text token, as the original bounds them.
MIN_RATIO, MAX_RATIO = 2.0, 20.0


def uni_prompt(vocabulary: SpeechVocabulary, inputs: UtteranceInputs) -> list[int]:
    """Merged ids `[sos] prompt text, text [task] prompt speech` of a request whose text is complete.

    Raises InputError when an id is outside its vocabulary.
    """
    return [
        vocabulary.sos,
        *vocabulary.text(inputs.lm_prompt_text_ids),
        *vocabulary.text(inputs.text_ids),
        vocabulary.task,
        *vocabulary.speech(inputs.lm_prompt_speech),
    ]


def length_bounds(text_tokens: int, min_ratio: float = MIN_RATIO, max_ratio: float = MAX_RATIO) -> tuple[int, int]:
    """Fewest and most speech tokens for `text_tokens` tokens of text, the prompt's not counted."""
    return int(text_tokens * min_ratio), int(text_tokens * max_ratio)
