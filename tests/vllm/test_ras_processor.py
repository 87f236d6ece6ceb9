"""Repetition-aware sampling as vLLM's logits processor, through both of its interfaces.

The runners are played by fakes here: one batch must be shown to both interfaces in states that a live engine reaches
rarely, such as rows that were moved, slots used again and the second turn of a text stream. What the fakes assume
about the runners is confirmed in live engines by `test_ras_engine.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality
from vllm.v1.sample.logits_processor import LogitsProcessor as BatchProcessor
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SlotProcessor

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.lm.sampler import Choice, Sampler
from cosyvoice_core.lm.sampling import ras_probabilities
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from deployments.speech_lm.ras_params import LOOKBACK, RasParams, broken_id
from deployments.speech_lm.ras_processor import RasProcessor

pytestmark = pytest.mark.vllm

VOCABULARY = SpeechVocabulary.cosyvoice2(50, speech_tokens=200)
TEXT = VOCABULARY.text_offset
CONFIG = SamplingConfig()
SLOTS, LENGTH = 8, 2 * LOOKBACK
EXACT = 1e-6


def engine_config(speculative: object = None) -> Any:
    model = SimpleNamespace(get_vocab_size=lambda: VOCABULARY.head_rows)
    return SimpleNamespace(speculative_config=speculative, model_config=model)


@dataclass
class Request:
    """What both runners are told about one request; the window it should give is written out by the test."""

    prompt: list[int]
    output: list[int]
    ras: RasParams | None
    window: list[int] = field(default_factory=list)

    @property
    def params(self) -> SamplingParams:
        return SamplingParams(extra_args=self.ras.extra_args() if self.ras else None)


def by_rows(requests: Sequence[Request], logits: Tensor) -> Tensor:
    processor = RasProcessor(engine_config(), torch.device("cpu"), False)
    added = [(row, request.params, request.prompt, request.output) for row, request in enumerate(requests)]
    processor.update_state(BatchUpdate(batch_size=len(added), removed=[], added=added, moved=[]))
    return processor.apply(logits.clone())


class Published:
    """vLLM's table that the host writes and the device reads: the device sees only what was published."""

    def __init__(self, size: tuple[int, ...], dtype: torch.dtype) -> None:
        self._host = torch.zeros(size, dtype=dtype)
        self.np = self._host.numpy()
        self.gpu = self._host.clone()

    def copy_to_uva(self) -> None:
        self.gpu = self._host.clone()


@pytest.fixture(autouse=True)
def _tables_without_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm.v1.worker.gpu.buffer_utils.UvaBackedTensor", Published)


class Slots:
    """The V2 runner's request state, without its kernels."""

    def __init__(self) -> None:
        self.ids = torch.full((SLOTS, LENGTH), 7, dtype=torch.int32)
        self.prompt_len = torch.zeros(SLOTS, dtype=torch.int32)
        tensors = {"all_token_ids": self.ids, "prompt_len": self.prompt_len}
        self.processor = RasProcessor(
            engine_config(),
            LogitsProcRequestState(
                device=torch.device("cpu"),
                max_num_reqs=SLOTS,
                vocab_size=VOCABULARY.head_rows,
                prefill_len=SimpleNamespace(),
                total_len=SimpleNamespace(),
                **{name: SimpleNamespace(gpu=tensor) for name, tensor in tensors.items()},
            ),
        )

    def add(self, slot: int, request: Request) -> bool:
        sequence = [*request.prompt, *request.output]
        self.ids[slot, : len(sequence)] = torch.tensor(sequence, dtype=torch.int32)
        self.prompt_len[slot] = len(request.prompt)
        return self.processor.add_request(slot, request.params)

    def apply(self, slots: Sequence[int], requests: Sequence[Request], logits: Tensor) -> Tensor:
        self.processor.apply_staged_writes()
        return self.processor.apply(logits.clone(), self.context(slots, requests))

    @staticmethod
    def context(slots: Sequence[int], requests: Sequence[Request]) -> LogitsContext:
        index = torch.tensor(slots, dtype=torch.int32)
        lengths = np.array([len(request.prompt) + len(request.output) for request in requests])
        return LogitsContext(
            expanded_idx_mapping=index,
            idx_mapping=index,
            idx_mapping_np=index.numpy(),
            expanded_local_pos=torch.zeros(len(slots), dtype=torch.int32),
            input_ids=torch.zeros(len(slots), dtype=torch.int32),
            pos=torch.from_numpy(lengths - 1),
            seq_lens_upper_bound_np=lengths,
        )


def by_slots(requests: Sequence[Request], logits: Tensor) -> Tensor:
    state = Slots()
    order = [5, 0, 7, 2, 6, 1, 4, 3][: len(requests)]
    for slot, request in zip(order, requests, strict=True):
        assert state.add(slot, request)
    return state.apply(order, requests, logits)


INTERFACES = pytest.mark.parametrize("run", [by_rows, by_slots])


def scores(rows: int) -> Tensor:
    return 2 * torch.randn(rows, VOCABULARY.head_rows, generator=torch.Generator().manual_seed(5))


def likely(logits: Tensor, row: int, count: int) -> list[int]:
    """Ids a window must hold to matter."""
    return logits[row, : VOCABULARY.speech_tokens].topk(count).indices.tolist()


def requests_for(logits: Tensor) -> list[Request]:
    """One request per kind of history, each with the window it should give."""
    best = [likely(logits, row, 14) for row in range(len(logits))]
    text = [TEXT + 3] * 5
    voice = best[1][:4]
    late = [VOCABULARY.sos, *text, *best[3][:9], *text, *best[3][9:12]]
    far = [*best[5][:2], *([TEXT] * (LOOKBACK - 1)), best[5][2]]
    return [
        Request([VOCABULARY.sos, *text], [], RasParams(CONFIG, start=6), []),
        Request([VOCABULARY.sos, *text, *voice], best[1][4:7], RasParams(CONFIG, start=10), best[1][4:7]),
        Request([*text], best[2][:13], RasParams(SamplingConfig(window=4, tau=0.25), start=5), best[2][9:13]),
        Request(late, best[3][12:14], RasParams(CONFIG, start=6), best[3][4:14]),
        Request([*text], best[4][:3], None),
        Request([TEXT, *far[:-1]], far[-1:], RasParams(CONFIG, start=1), best[5][2:3]),
        Request(text, best[6][:8], RasParams(SamplingConfig(top_p=0.5, top_k=3, window=0), start=5)),
        Request(text, best[7][:3], RasParams(SamplingConfig(temperature=0.6), start=5), best[7][:3]),
    ]


@INTERFACES
def test_logits_become_the_logarithm_of_the_distribution(run: Any) -> None:
    logits = scores(8)
    requests = requests_for(logits)
    written = run(requests, logits)
    for row, request in enumerate(requests):
        if request.ras is None:
            assert torch.equal(written[row], logits[row])
            continue
        expected = ras_probabilities(logits[row : row + 1], [request.window], request.ras.sampling)[0]
        torch.testing.assert_close(written[row].double().exp(), expected, rtol=EXACT, atol=EXACT)
        if request.window:
            unlike = ras_probabilities(logits[row : row + 1], [request.window[1:]], request.ras.sampling)[0]
            assert (unlike - expected).abs().max() > 1000 * EXACT


@INTERFACES
def test_with_a_seed_only_the_id_of_the_torch_engine_is_left(run: Any) -> None:
    """As if each request went on after 40 ids that were drawn before its prompt."""
    logits = scores(8)
    requests = requests_for(logits)
    seeded = [row for row, request in enumerate(requests) if request.ras is not None and row != 2]
    for row in seeded:
        requests[row].ras = replace(requests[row].ras, seed=2**64 - 1 - row, position=40)
    written = run(requests, logits)
    for row in seeded:
        request = requests[row]
        position = 40 + len(request.output)
        masked = logits[row : row + 1].clone()
        choice = Choice(request.ras.sampling, request.ras.seed, position, False, request.window, VOCABULARY.eos)
        masked[:, [VOCABULARY.eos + 1, VOCABULARY.fill]] = -torch.inf
        expected = Sampler(VOCABULARY).choose(masked, [choice])
        found = run([replace(request)], masked)[0]
        assert [int(found.argmax())] == expected
        assert torch.isfinite(written[row]).sum() == 1
        assert torch.isfinite(found).sum() == 1
    assert torch.isfinite(written[2]).sum() > 1
    assert torch.equal(written[4], logits[4])


@INTERFACES
def test_seeded_draws_follow_the_distribution(run: Any) -> None:
    logits = scores(1)
    window = likely(logits, 0, 3)
    counts = torch.zeros(VOCABULARY.head_rows, dtype=torch.float64)
    rounds = 1500
    for position in range(rounds):
        counts += run([Request([TEXT], window, RasParams(CONFIG, 1, seed=9, position=position))], logits)[0].exp()
    expected = ras_probabilities(logits, [window], CONFIG)[0] * rounds
    assert not counts[expected == 0.0].any()
    common = expected > 5
    assert (((counts - expected) ** 2 / expected)[common].mean() - 1.0).abs() < 4 * (2 / int(common.sum())) ** 0.5


def test_both_interfaces_write_the_same() -> None:
    logits = scores(8)
    requests = requests_for(logits)
    for row in (0, 3):
        requests[row].ras = replace(requests[row].ras, seed=77)
    assert torch.equal(by_rows(requests, logits), by_slots(requests, logits))


def test_masked_ids_stay_impossible() -> None:
    logits = scores(1)
    logits[0, 100:] = -torch.inf
    for run in (by_rows, by_slots):
        written = run([Request([TEXT], likely(logits, 0, 5), RasParams(CONFIG, 1))], logits)
        assert not torch.isfinite(written[0, 100:]).any()


@INTERFACES
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_numbers_can_only_say_so(run: Any, value: float) -> None:
    """With RAS, with a seed or with neither; the other rows come out as they do without it."""
    logits = scores(8)
    requests = requests_for(logits)
    expected = run(requests, logits)
    for row in range(len(requests)):
        broken = logits.clone()
        broken[row, slice(None) if value == -torch.inf else 17] = value
        found = run(requests, broken)
        assert found[row].isfinite().nonzero().tolist() == [[broken_id(VOCABULARY.speech_tokens)]]
        others = [other for other in range(len(requests)) if other != row]
        torch.testing.assert_close(found[others], expected[others], rtol=0, atol=0)


def test_rows_may_move_swap_and_leave() -> None:
    logits = scores(4)
    windows = [likely(logits, row, 5) for row in range(4)]
    requests = [Request([TEXT], window, RasParams(CONFIG, 1, seed=row)) for row, window in enumerate(windows)]
    processor = RasProcessor(engine_config(), torch.device("cpu"), False)
    added = [(row, request.params, request.prompt, request.output) for row, request in enumerate(requests)]
    processor.update_state(BatchUpdate(batch_size=4, removed=[], added=added, moved=[]))
    before = processor.apply(logits.clone())
    # Request 1 leaves and 3 takes its row; 0 and 2 change places.
    moved = [(3, 1, MoveDirectionality.UNIDIRECTIONAL), (0, 2, MoveDirectionality.SWAP)]
    processor.update_state(BatchUpdate(batch_size=3, removed=[1], added=[], moved=moved))
    order = [2, 3, 0]
    assert torch.equal(processor.apply(logits[order]), before[order])
    # A request without RAS takes row 0: nothing of the former one may be left there.
    processor.update_state(BatchUpdate(batch_size=3, removed=[], added=[(0, SamplingParams(), [1], [])], moved=[]))
    now = processor.apply(logits[order])
    assert torch.equal(now[0], logits[2])
    assert torch.equal(now[1:], before[order][1:])


def test_history_that_grows_is_followed_without_an_update() -> None:
    logits = scores(1)
    output = likely(logits, 0, 2)
    request = Request([TEXT], output, RasParams(CONFIG, 1, seed=1))
    processor = RasProcessor(engine_config(), torch.device("cpu"), False)
    added = [(0, request.params, request.prompt, request.output)]
    processor.update_state(BatchUpdate(batch_size=1, removed=[], added=added, moved=[]))
    for _ in range(5):
        drawn = int(processor.apply(logits.clone())[0].argmax())
        assert int(by_slots([request], logits)[0].argmax()) == drawn
        output.append(drawn)
        processor.update_state(None)


def test_a_slot_used_again_keeps_nothing() -> None:
    logits = scores(1)
    state = Slots()
    first = Request([TEXT], likely(logits, 0, 5), RasParams(CONFIG, 1, seed=3))
    plain = Request([TEXT], [], None)
    unseeded = Request([TEXT], [], RasParams(CONFIG, 1))
    for request in (first, plain, unseeded):
        state.add(2, request)
        assert torch.equal(state.apply([2], [request], logits), by_rows([request], logits))


def test_a_history_with_placeholders_is_refused() -> None:
    with pytest.raises(RuntimeError, match="logits_processors="):
        by_rows([Request([TEXT], [4, 5, -1], RasParams(CONFIG, 1))], scores(1))


def test_speculative_decoding_is_refused() -> None:
    for interface in ((torch.device("cpu"), False), (SimpleNamespace(),)):
        with pytest.raises(ValueError, match="speculative"):
            RasProcessor(engine_config(SimpleNamespace()), *interface)


def test_the_v2_runner_is_never_made_to_wait_for_its_device() -> None:
    """Tensors without values stand for those whose values are still being computed: asking for one raises."""
    logits = scores(2)
    requests = [
        Request([TEXT], likely(logits, 0, 5), RasParams(CONFIG, 1, seed=3)),
        Request([TEXT], likely(logits, 1, 5), RasParams(SamplingConfig(window=0), 1)),
    ]
    state = Slots()
    for slot, request in enumerate(requests):
        state.add(slot, request)
    context = state.context([0, 1], requests)
    state.processor.apply_staged_writes()
    with FakeTensorMode(allow_non_fake_inputs=True):
        written = state.processor.apply(logits, context)
        assert written.shape == logits.shape
        with pytest.raises(DataDependentOutputException):
            bool(written.isfinite().any())


def test_it_is_a_processor_of_both_runners() -> None:
    assert issubclass(RasProcessor, BatchProcessor)
    assert issubclass(RasProcessor, SlotProcessor)
    assert not RasProcessor(engine_config(), torch.device("cpu"), False).is_argmax_invariant()
