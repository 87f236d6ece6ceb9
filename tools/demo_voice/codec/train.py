"""Stage `tokenizer`: learns to hear phones, writes the ONNX file, and tokens of every utterance two ways.

`aligned` are the tokens of the teacher's alignment, `heard` those that the ONNX file hears, as it will in prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from cosyvoice_core.voice.onnx_session import OnnxModel
from tools.demo_voice.codec.codes import CodeBook, IntArray, Labels
from tools.demo_voice.codec.network import TokenizerConfig, TokenizerNetwork
from tools.demo_voice.codec.onnx_file import write_tokenizer
from tools.demo_voice.data.corpus import Corpus
from tools.demo_voice.trainer import Machine, Part, Plan, Step, Trainer

ALIGNED, HEARD = "aligned", "heard"
BOOK, ONNX = "codes.json", "speech_tokenizer_v2.onnx"
_FRAMES = 4


def train_tokenizer(folder: Path, corpus: Corpus, config: TokenizerConfig, plan: Plan, seed: int) -> dict[str, float]:
    """Run the stage; returns its figures, measured on held-out utterances."""
    folder.mkdir(parents=True, exist_ok=True)
    book = CodeBook.of(corpus)
    book.save(folder / BOOK)
    numbers = [number for number in range(len(corpus)) if _known(corpus, book, number)]
    labels = {number: labels_of(corpus, book, number) for number in numbers}
    aligned = {number: book.codes(each.phone, each.start, each.level) for number, each in labels.items()}
    machine = Machine.here()
    torch.manual_seed(seed)
    network = TokenizerNetwork(config, len(book.phones)).to(machine.device)
    training = [number for number in corpus.numbers(held_out=False) if number in labels]
    part = Part.adamw(network, plan.learning_rate)

    def step(now: Step) -> dict[str, Tensor]:
        chosen = now.random.choice(training, plan.batch).tolist()
        with machine.autocast():
            losses = tokenizer_losses(network, corpus, [labels[number] for number in chosen], chosen, machine)
        part.descend(losses["phone"] + 0.5 * losses["onset"] + 0.5 * losses["level"], plan.clip)
        return losses

    Trainer(folder, {"network": part}, plan, seed, "tokenizer").run(step)
    path = folder / ONNX
    write_tokenizer(network.cpu().eval(), book, path)
    heard = heard_tokens(corpus, path)
    # A held-out sentence may hold a phone that no training sentence has: what is heard stands in for it.
    corpus.write_derived(ALIGNED, {number: aligned.get(number, heard[number]) for number in heard}, per_token=True)
    corpus.write_derived(HEARD, heard, per_token=True)
    judged = [number for number in corpus.numbers(held_out=True) if number in aligned] or training
    phones = [book.phone_of(heard[number]) == labels[number].phone for number in judged]
    codes = [heard[number] == aligned[number] for number in judged]
    return {
        "codes": float(book.size),
        "codes used": float(len({int(code) for each in aligned.values() for code in each})),
        "phones heard right": float(np.concatenate(phones).mean()),
        "tokens heard right": float(np.concatenate(codes).mean()),
    }


def labels_of(corpus: Corpus, book: CodeBook, number: int) -> Labels:
    """The aligned labels of an utterance."""
    utterance = corpus.utterances[number]
    return book.aligned(utterance.phones, utterance.tokens, corpus.pitch(number))


def heard_tokens(corpus: Corpus, onnx: Path) -> dict[int, IntArray]:
    """Tokens of every utterance by the file that is going to be served."""
    model = OnnxModel(onnx, (("tensor(float)", (1, 128, None)), ("tensor(int32)", (1,))))
    heard = {}
    for number in tqdm(range(len(corpus)), desc="tokens", disable=None):
        mel = np.ascontiguousarray(corpus.log_mel(number).T)[None]
        heard[number] = model.run(mel, np.array([mel.shape[2]], np.int32)).reshape(-1).astype(np.int64)
    return heard


def tokenizer_losses(
    network: TokenizerNetwork, corpus: Corpus, labels: Sequence[Labels], numbers: Sequence[int], machine: Machine
) -> dict[str, Tensor]:
    """Cross entropies over all tokens of a batch; of pitch levels as well, where the teacher's phone has any."""
    lengths = [corpus.utterances[number].tokens for number in numbers]
    mel = torch.zeros(len(numbers), 128, _FRAMES * max(lengths))
    for row, number in enumerate(numbers):
        mel[row, :, : _FRAMES * lengths[row]] = torch.from_numpy(corpus.log_mel(number).T)
    phones, onsets, levels = network(mel.to(machine.device), torch.tensor(lengths, device=machine.device))

    def picked(logits: Tensor) -> Tensor:
        return torch.cat([row[:length] for row, length in zip(logits, lengths, strict=True)]).float()

    def joined(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(each, name) for each in labels])).to(machine.device)

    return {
        "phone": F.cross_entropy(picked(phones), joined("phone")),
        "onset": F.binary_cross_entropy_with_logits(picked(onsets), joined("start").float()),
        "level": F.cross_entropy(picked(levels), joined("level")),
    }


def _known(corpus: Corpus, book: CodeBook, number: int) -> bool:
    return {segment.label for segment in corpus.utterances[number].phones} <= set(book.phones)
