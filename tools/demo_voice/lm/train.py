"""Stage `lm`: text to speech tokens, half of it in the order of bi-stream, a part of it behind another utterance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from cosyvoice_core.config import LMConfig
from cosyvoice_core.lm.body import SpeechBody
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.merge import merge
from cosyvoice_core.lm.prompt import length_bounds
from cosyvoice_core.lm.request import TokenRequest
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from cosyvoice_core.text.tokenizer import Tokenizer
from tools.demo_voice.codec.codes import CodeBook, IntArray
from tools.demo_voice.codec.train import ALIGNED, HEARD
from tools.demo_voice.data.corpus import Corpus
from tools.demo_voice.lm.guide import looking_loss, places_to_look, words_said
from tools.demo_voice.lm.layout import IGNORED, Example, bi, fits_bi, noisy, uni
from tools.demo_voice.lm.network import SpeechNetwork
from tools.demo_voice.trainer import Machine, Part, Plan, Step, Trainer, save_atomically

STATE = "llm.pt"
_MOST_JUDGED = 100
_CHOICE = 4
"""Batches among which one of sequences of about one length is found: less than a tenth of it is padding then, instead
of almost half."""


@dataclass(frozen=True, slots=True)
class LMMix:
    """Shares of the examples: bi-stream; behind another utterance of the same voice; of these, those that say the other
    one as well, instead of hearing it as a prompt; and of speech tokens read wrong.

    guided: the progress until which attention is trained to look at the word that is said; guide_weight: of that loss.
    """

    streamed: float = 0.5
    prompted: float = 0.6
    joined: float = 0.5
    noise: float = 0.05
    guided: float = 0.6
    guide_weight: float = 0.3

    def __post_init__(self) -> None:
        for name in ("streamed", "prompted", "joined", "noise", "guided", "guide_weight"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in 0..1, got {getattr(self, name)}")


class Examples:
    """Draws examples of a corpus."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, book: CodeBook, config: LMConfig, mix: LMMix) -> None:
        self._corpus, self._book, self._mix = corpus, book, mix
        self._vocabulary = SpeechVocabulary.cosyvoice2(config.text_rows, config.speech_tokens)
        self._texts = [tokenizer.encode(utterance.text) for utterance in corpus.utterances]
        # Arrays: numpy would copy a list at every choice.
        self._by_voice = {voice: np.array(numbers) for voice, numbers in corpus.by_voice().items()}
        self._training = np.array(corpus.numbers(held_out=False))
        self._tokenizer = tokenizer
        self._said: dict[int, IntArray] = {}

    def draw(self, count: int, random: np.random.Generator) -> list[tuple[Example, IntArray]]:
        """Some of about one length to train on, each with the text tokens (T, 2) that its speech tokens say."""
        pairs = [self._pair(random) for _ in range(_CHOICE * count)]
        pairs.sort(key=lambda pair: sum(self._length(number) for number in pair if number is not None))
        first = int(random.integers(_CHOICE)) * count
        return [self._drawn(number, before, random) for number, before in pairs[first : first + count]]

    def _pair(self, random: np.random.Generator) -> tuple[int, int | None]:
        """An utterance, and perhaps another of the same voice as its prompt."""
        number = int(random.choice(self._training))
        if random.random() >= self._mix.prompted:
            return number, None
        return number, int(random.choice(self._by_voice[self._corpus.utterances[number].voice]))

    def _length(self, number: int) -> int:
        return len(self._texts[number]) + self._corpus.utterances[number].tokens

    def _drawn(self, number: int, before: int | None, random: np.random.Generator) -> tuple[Example, IntArray]:
        streamed, joined = (bool(random.random() < share) for share in (self._mix.streamed, self._mix.joined))
        example = self.example(number, before, streamed=streamed, joined=joined)
        said = self._words(number)
        if before is not None:
            said = np.concatenate([self._words(before), said + len(self._texts[before])])
        return noisy(example, self._mix.noise, self._vocabulary, self._book.size, random), said

    def _words(self, number: int) -> IntArray:
        if number not in self._said:
            self._said[number] = words_said(self._corpus.utterances[number], self._texts[number], self._tokenizer)
        return self._said[number]

    def example(
        self, number: int, before: int | None = None, *, streamed: bool = False, joined: bool = False
    ) -> Example:
        """An utterance, behind the prompt `before` as a recording of it is heard; bi-stream where lengths allow.

        joined: `before` is no prompt, but said first.
        """
        text, speech = self._texts[number], self._corpus.derived(ALIGNED, number)
        first: IntArray = np.zeros(0, np.int64)
        if before is not None:
            first = self._corpus.derived(ALIGNED if joined else HEARD, before)
            text = [*self._texts[before], *text]
            speech = self._book.shifted(speech, first)
        spoken = [*first.tolist(), *speech.tolist()]
        laid_out = bi if streamed and fits_bi(len(text), len(spoken)) else uni
        return laid_out(self._vocabulary, text, spoken, 0 if joined else len(first))


def train_lm(
    folder: Path,
    corpus: Corpus,
    tokenizer: Tokenizer,
    book: CodeBook,
    config: LMConfig,
    plan: Plan,
    seed: int,
    mix: LMMix | None = None,
) -> dict[str, float]:
    """Run the stage and write its tensors; returns figures measured on held-out sentences."""
    machine, mix = Machine.here(), mix or LMMix()
    torch.manual_seed(seed)
    network = SpeechNetwork(config).to(machine.device)
    part = Part.adamw(network, plan.learning_rate)
    examples = Examples(corpus, tokenizer, book, config, mix)
    vocabulary = SpeechVocabulary.cosyvoice2(config.text_rows, config.speech_tokens)

    def step(now: Step) -> dict[str, Tensor]:
        drawn = examples.draw(plan.batch, now.random)
        plain = [example for example, _ in drawn]
        watched: list[Tensor] | None = [] if now.progress < mix.guided else None
        with machine.autocast():
            loss, right = next_token_loss(network, plain, machine.device, watched)
        losses = {"loss": loss, "right": right}
        if watched:
            places = padded([places_to_look(example, said, vocabulary) for example, said in drawn])
            losses["looking"] = looking_loss(torch.stack(watched, 1), places.to(machine.device))
            loss = loss + mix.guide_weight * (1 - now.progress / mix.guided) * losses["looking"]
        part.descend(loss, plan.clip)
        return losses

    Trainer(folder, {"network": part}, plan, seed, "lm").run(step)
    network = network.cpu().eval()
    save_atomically(network.state_dict(), folder / STATE)
    judged = corpus.numbers(held_out=True)[:_MOST_JUDGED] or corpus.numbers(held_out=False)[:_MOST_JUDGED]
    with torch.inference_mode():
        loss, right = next_token_loss(network, [examples.example(number) for number in judged], torch.device("cpu"))
    return {
        "held-out cross entropy": float(loss),
        "held-out tokens right": float(right),
        **sampled_figures(network.state_dict(), corpus, tokenizer, book, config, judged, seed),
    }


def next_token_loss(
    network: SpeechNetwork, examples: Sequence[Example], device: torch.device, watched: list[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Mean cross entropy over all labels of a batch, and the share of them that scores highest."""
    longest = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full((len(examples), longest), IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        labels[row, : len(example.labels)] = torch.tensor(example.labels)
    scores = network(ids.to(device), watched)
    kept = (labels != IGNORED).to(device)
    goals, picked = labels.to(device)[kept], scores[kept].float()
    return F.cross_entropy(picked, goals), (picked.argmax(1) == goals).float().mean()


def padded(squares: Sequence[npt.NDArray[np.bool_]]) -> Tensor:
    """(L, L) of different sizes to (B, L, L) of the largest."""
    longest = max(len(square) for square in squares)
    out = torch.zeros(len(squares), longest, longest, dtype=torch.bool)
    for row, square in zip(out, squares, strict=True):
        row[: len(square), : len(square)] = torch.from_numpy(square)
    return out


def sampled_figures(
    state: dict[str, Tensor],
    corpus: Corpus,
    tokenizer: Tokenizer,
    book: CodeBook,
    config: LMConfig,
    numbers: Sequence[int],
    seed: int,
) -> dict[str, float]:
    """What the engine that serves samples for sentences: phone errors, whether it ends by itself, lengths.

    The judge to trust while training: accuracy hardly moves where several tokens are as good as each other.
    """
    vocabulary = SpeechVocabulary.cosyvoice2(config.text_rows, config.speech_tokens)
    engine = TorchEngine(SpeechBody(merge(state, config, vocabulary), config), vocabulary, config)
    errors = phones = ended = 0
    ratios = []
    for number in numbers:
        ids = tokenizer.encode(corpus.utterances[number].text)
        least, most = length_bounds(len(ids))
        context = (vocabulary.sos, *vocabulary.text(ids), vocabulary.task)
        request = TokenRequest(context, most, least, config.sampling, seed)
        said = np.array(list(engine.generate(request)), np.int64)
        wanted = corpus.derived(ALIGNED, number)
        ended += len(said) < most
        ratios.append(len(said) / len(wanted))
        one, other = _phones(book, wanted), _phones(book, said)
        errors, phones = errors + edit_distance(one, other), phones + len(one)
    return {
        "sampled phone error": errors / phones,
        "sampled ends by itself": ended / len(numbers),
        "sampled length to the teacher's": float(np.mean(ratios)),
    }


def _phones(book: CodeBook, codes: IntArray) -> list[int]:
    """Phones in order, silence left out, one for each run."""
    known = book.phone_of(np.minimum(codes, book.size - 1))
    changes = np.flatnonzero(np.diff(known, prepend=-1))
    return [int(phone) for phone in known[changes] if phone]


def edit_distance(one: Sequence[object], other: Sequence[object]) -> int:
    """Fewest insertions, deletions and replacements that make one of the other."""
    row = list(range(len(other) + 1))
    for count, mine in enumerate(one, start=1):
        before, row[0] = row[0], count
        for place, theirs in enumerate(other, start=1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (mine != theirs))
    return row[-1]
