"""Speech-token language model: prompts in, speech tokens out."""

from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.interleave import Interleave
from cosyvoice_core.lm.prompt import length_bounds, uni_prompt
from cosyvoice_core.lm.request import StreamRequest, TokenEvent, TokenRequest
from cosyvoice_core.lm.vocabulary import SpeechVocabulary

__all__ = [
    "Interleave",
    "SpeechVocabulary",
    "StreamRequest",
    "TokenEvent",
    "TokenRequest",
    "TorchEngine",
    "length_bounds",
    "uni_prompt",
]
