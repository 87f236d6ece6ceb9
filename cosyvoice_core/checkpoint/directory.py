"""Which files make up a checkpoint directory, and where each one lies.

Opens none of them. Source: docs/model.md, "Checkpoint files".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cosyvoice_core.errors import CheckpointError

OFFICIAL_MODELS = {"huggingface": "FunAudioLLM/CosyVoice2-0.5B", "modelscope": "iic/CosyVoice2-0.5B"}
WHERE_TO_GET = (
    f"official weights: {OFFICIAL_MODELS['huggingface']} on https://huggingface.co "
    f"or {OFFICIAL_MODELS['modelscope']} on https://modelscope.cn"
)

SETTINGS = "cosyvoice2.yaml"
OTHER_FAMILIES = {"cosyvoice.yaml": "CosyVoice 1", "cosyvoice3.yaml": "CosyVoice 3"}
TOKENIZER = "CosyVoice-BlankEN"
SAVED_VOICES = "spk2info.pt"

NEEDED = {
    SETTINGS: "settings",
    "llm.pt": "weights of the speech-token language model",
    "flow.pt": "weights of the flow decoder",
    "hift.pt": "weights of the vocoder",
    "campplus.onnx": "speaker encoder",
    "speech_tokenizer_v2.onnx": "speech tokenizer",
    f"{TOKENIZER}/config.json": "dimensions of the language model",
    f"{TOKENIZER}/vocab.json": "text tokenizer vocabulary",
    f"{TOKENIZER}/merges.txt": "text tokenizer merges",
    f"{TOKENIZER}/tokenizer_config.json": "text tokenizer settings",
}
"""Relative path -> what it is, for every file that must be there."""

FRONT_END = tuple(name for name in NEEDED if name.endswith(".onnx") or name.startswith(TOKENIZER))
"""The files that turn text and prompt audio into ids and vectors."""


@dataclass(frozen=True, slots=True)
class CheckpointDirectory:
    """Typed paths of one model directory in the official layout."""

    path: Path

    @property
    def settings(self) -> Path:
        return self.path / SETTINGS

    @property
    def llm(self) -> Path:
        return self.path / "llm.pt"

    @property
    def flow(self) -> Path:
        return self.path / "flow.pt"

    @property
    def vocoder(self) -> Path:
        return self.path / "hift.pt"

    @property
    def speaker_encoder(self) -> Path:
        return self.path / "campplus.onnx"

    @property
    def speech_tokenizer(self) -> Path:
        return self.path / "speech_tokenizer_v2.onnx"

    @property
    def tokenizer(self) -> Path:
        """Directory of the text tokenizer's files."""
        return self.path / TOKENIZER

    @property
    def lm_config(self) -> Path:
        return self.tokenizer / "config.json"

    @property
    def saved_voices(self) -> Path | None:
        """`spk2info.pt`, which a checkpoint may lack."""
        path = self.path / SAVED_VOICES
        return path if path.is_file() else None

    def check_family(self) -> None:
        """Raises CheckpointError when the directory holds another generation of the model."""
        if self.settings.is_file():
            return
        for name, family in OTHER_FAMILIES.items():
            if (self.path / name).is_file():
                raise CheckpointError(
                    f"{self.path} holds {name}: this is {family}; only CosyVoice 2 ({SETTINGS}) is supported"
                )

    def missing(self, names: Iterable[str] = NEEDED) -> list[str]:
        """Those of the needed files `names` that are not there, each with what it is."""
        return [f"{name} ({NEEDED[name]})" for name in names if not (self.path / name).is_file()]

    def verify(self, names: Iterable[str] = NEEDED) -> None:
        """Check that the needed files `names` are there.

        Raises CheckpointError that lists every missing file and says where the official weights are.
        """
        if not self.path.is_dir():
            raise CheckpointError(f"{self.path}: no such directory; expected a CosyVoice2 checkpoint ({WHERE_TO_GET})")
        self.check_family()
        missing = self.missing(names)
        if missing:
            raise CheckpointError(
                f"{self.path} is not a complete CosyVoice2 checkpoint; missing: {', '.join(missing)} ({WHERE_TO_GET})"
            )
