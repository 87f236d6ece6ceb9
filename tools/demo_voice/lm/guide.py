"""Where the language model should look: while it says a word, at the text tokens of that word.

The teacher tells when each word is said. A part of the attention is trained to look there at first, which saves the
model the long search for what text and speech have to do with each other. Knows places in sequences, no networks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from cosyvoice_core.text.tokenizer import Tokenizer
from tools.demo_voice.data.alignment import TOKEN_RATE, per_frame
from tools.demo_voice.data.corpus import Utterance
from tools.demo_voice.lm.layout import Example

IntArray = npt.NDArray[np.int64]

_LEAST = 1e-4


def words_said(utterance: Utterance, text: Sequence[int], tokenizer: Tokenizer) -> IntArray:
    """(T, 2): first and last + 1 of the text tokens of the word that each speech token says; (0, 0) for none."""
    ends = np.array([len(tokenizer.decode(text[: count + 1])) for count in range(len(text))], np.int64)
    said = np.zeros((utterance.tokens, 2), np.int64)
    spans, searched = [], 0
    for word in utterance.words:
        # The teacher's places in the text are off by a letter at times: what is no whole word is left out.
        found = re.compile(rf"\b{re.escape(word.label)}\b").search(utterance.text, searched) if word.label else None
        if found is None:
            spans.append((0, 0))
            continue
        searched = found.end()
        first, last = np.searchsorted(ends, found.start(), "right"), np.searchsorted(ends, searched, "left")
        spans.append((int(first), int(last) + 1))
    if spans:
        index = per_frame(utterance.words, utterance.tokens, TOKEN_RATE)
        said[index >= 0] = np.array(spans)[index[index >= 0]]
    return said


def places_to_look(example: Example, said: IntArray, vocabulary: SpeechVocabulary) -> npt.NDArray[np.bool_]:
    """(L, L): for each place from which speech is predicted, the earlier places that hold the text of that word.

    said: `words_said` of all speech of the example, in numbers of its text tokens. A row is empty where no word is
    said, or its text has not arrived yet.
    """
    ids = np.array(example.ids)
    places = np.zeros((len(ids), len(ids)), bool)
    text = np.flatnonzero(ids >= vocabulary.text_offset)
    speech = np.flatnonzero(ids < vocabulary.speech_tokens)
    for place, (first, last) in zip(speech, said, strict=True):
        places[place - 1, text[first:last]] = True
    return np.tril(places)


def looking_loss(attention: Tensor, places: Tensor) -> Tensor:
    """Mean of -log of the attention (B, H, L, L) that lies on `places` (B, L, L), over the rows that have any."""
    asked = places.any(2)
    mass = (attention * places[:, None]).sum(3).clamp(min=_LEAST)
    logs: Tensor = -torch.log(mass).mean(1)
    return logs[asked].mean() if bool(asked.any()) else logs.new_zeros(())
