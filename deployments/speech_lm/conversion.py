"""From `llm.pt` to the folder an engine process loads: safetensors over merged ids and a `config.json`, made once.

Knows file formats and locks, not vLLM: the folder is plain Hugging Face layout with one field of our own. Many
replicas may ask at once; one converts and the others wait for it. Source: docs/model.md, "Merged vocabulary".
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import LMConfig
from cosyvoice_core.errors import CheckpointError
from cosyvoice_core.lm.merge import merge
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from deployments.speech_lm.widening import widened, widened_config

FORMAT = 1
"""Raised whenever what is written changes, so that folders of older releases are not taken for ours."""
ARCHITECTURE = "SpeechTokenLM"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"

_BLOCK = 1 << 24
_REPORT_BYTES = 1 << 29

logger = logging.getLogger("ray.serve")


def default_cache() -> Path:
    """COSYVOICE_CACHE, else `~/.cache/cosyvoice-serve`."""
    named = os.environ.get("COSYVOICE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "cosyvoice-serve"


@dataclass(frozen=True, slots=True)
class ConvertedModels:
    """Converted language models under one folder, each in a folder named by what it was made from.

    A folder that exists is complete: it is filled under another name and renamed, with all bytes on the disk before.
    """

    root: Path

    def model(self, source: Path, config: LMConfig, dtype: torch.dtype = torch.float32, widening: int = 1) -> Path:
        """The folder made from `source`, an `llm.pt`; made now if there is none. widening: see `widening_factor`.

        Raises CheckpointError when the file is missing, changes meanwhile or does not fit `config`.
        """
        if not source.is_file():
            raise CheckpointError(f"{source}: file is missing; expected the language model's weights")
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock():
            folder = self.root / self._key(self._digest(source.resolve()), config, dtype, widening)
            if not folder.is_dir():
                self._convert(source, config, dtype, widening, folder)
        return folder

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Held by one process at a time; the system frees it when its holder dies."""
        with (self.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("another process prepares the language model in %s; waiting for it", self.root)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _key(digest: str, config: LMConfig, dtype: torch.dtype, widening: int) -> str:
        parts = json.dumps([FORMAT, digest, str(dtype), widening, asdict(config)], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:32]

    def _digest(self, source: Path) -> str:
        """SHA-256 of the file, remembered by size, time and inode: hashing gigabytes delays every start otherwise."""
        memory = self.root / f"{hashlib.sha256(str(source).encode()).hexdigest()[:32]}.digest"
        identity = _identity(source)
        known = _read_digest(memory, identity)
        if known is not None:
            return known
        digest = _sha256(source)
        if _identity(source) != identity:
            raise CheckpointError(f"{source}: was changed while it was read")
        partial = memory.with_suffix(".partial")
        partial.write_text(json.dumps({"identity": identity, "sha256": digest}))
        partial.replace(memory)
        return digest

    def _convert(self, source: Path, config: LMConfig, dtype: torch.dtype, widening: int, folder: Path) -> None:
        # The lock is ours, so whatever half-filled folder is there was left by a process that died.
        for left in self.root.glob("partial-*"):
            shutil.rmtree(left, ignore_errors=True)
        began = time.monotonic()
        logger.info("converting %s to %s, once", source, folder)
        vocabulary = SpeechVocabulary.cosyvoice2(config.text_rows, config.speech_tokens)
        merged = widened(
            merge(read_state(source, mapped=True), config, vocabulary, str(source), dtype), config, widening
        )
        settings = model_settings(widened_config(config, widening), vocabulary, dtype)
        size = sum(tensor.numel() * tensor.element_size() for tensor in merged.values())
        partial = Path(tempfile.mkdtemp(prefix="partial-", dir=self.root))
        logger.info("writing %.0f MB (%.1f s so far)", size / 1e6, time.monotonic() - began)
        save_file(
            {key: tensor.contiguous() for key, tensor in merged.items()}, str(partial / WEIGHTS), {"format": "pt"}
        )
        (partial / CONFIG).write_text(json.dumps(settings, indent=1))
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        partial.chmod(0o755)
        partial.rename(folder)
        _sync(self.root)
        logger.info("converted in %.1f s", time.monotonic() - began)


def model_settings(config: LMConfig, vocabulary: SpeechVocabulary, dtype: torch.dtype) -> dict[str, Any]:
    """What stands in `config.json`: a Qwen2 body whose vocabulary is the head's, with the input table's rows beside.

    Engines size everything that concerns sampling by `vocab_size`, so that is the head's width.
    """
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "qwen2",
        "vocab_size": vocabulary.head_rows,
        "input_vocab_size": vocabulary.input_rows,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": str(dtype).removeprefix("torch."),
    }


def _identity(source: Path) -> list[int]:
    stat = source.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_dev]


def _read_digest(memory: Path, identity: list[int]) -> str | None:
    if not memory.is_file():
        return None
    noted = json.loads(memory.read_text())
    return str(noted["sha256"]) if noted["identity"] == identity else None


def _sha256(source: Path) -> str:
    digest = hashlib.sha256()
    done, report, size = 0, _REPORT_BYTES, source.stat().st_size
    with source.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            if done >= report:
                logger.info("reading %s: %d of %d MB", source.name, done // 10**6, size // 10**6)
                report += _REPORT_BYTES
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
