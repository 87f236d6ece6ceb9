"""Tags a user may write into a text, and special tokens a user may not. Knows strings only, no ids.

While a text is being normalised every tag is one private-use character, so that no rule can cut, read or
replace a part of it. Source: docs/model.md, "Text tokenizer".
"""

from __future__ import annotations

import re

END_OF_PROMPT = "<|endofprompt|>"

INLINE_TAGS = (
    "[breath]",
    "<strong>",
    "</strong>",
    "[noise]",
    "[laughter]",
    "[cough]",
    "[clucking]",
    "[accent]",
    "[quick_breath]",
    "<laughter>",
    "</laughter>",
    "[hissing]",
    "[sigh]",
    "[vocalized-noise]",
    "[lipsmack]",
    "[mn]",
)

# The order is the order of their ids.
ADDED_TOKENS = (END_OF_PROMPT, *INLINE_TAGS)

_FIRST = 0xE000
_MASK_OF = {tag: chr(_FIRST + index) for index, tag in enumerate(INLINE_TAGS)}
_TAG_OF = {mask: tag for tag, mask in _MASK_OF.items()}

#: Character class body of all masks, for use inside `[...]` of other patterns.
MASKS = f"{chr(_FIRST)}-{chr(_FIRST + len(INLINE_TAGS) - 1)}"
#: Masks of tags that make a sound by themselves; the `<...>` ones only colour the words they enclose.
SOUNDS = "".join(mask for tag, mask in _MASK_OF.items() if tag.startswith("["))
#: Masks of closing tags: they belong to the sentence before them.
CLOSING = "".join(mask for tag, mask in _MASK_OF.items() if tag.startswith("</"))

_TAG = re.compile("|".join(re.escape(tag) for tag in INLINE_TAGS))
_MASK = re.compile(f"[{MASKS}]")
_SPECIAL = re.compile(r"<\|[^\s<>|]{0,64}\|>")


def mask(text: str) -> str:
    """`text` with every inline tag as one private-use character; private-use characters of its own must be gone."""
    return _TAG.sub(lambda match: _MASK_OF[match.group()], text)


def unmask(text: str) -> str:
    """Inverse of `mask`."""
    return _MASK.sub(lambda match: _TAG_OF[match.group()], text)


def neutralise(text: str) -> str:
    """`text` with everything shaped like a control token (`<|endoftext|>`, `<|en|>`, …) replaced by a blank."""
    return _SPECIAL.sub(" ", text)
