"""Repetition-aware sampling inside vLLM: replaces the logits of a request by what RAS makes of them.

Give it to the engine as `AsyncEngineArgs(logits_processors=["deployments.speech_lm.ras_processor:RasProcessor"])`,
never by the entry point `vllm.logits_processors`: only the argument makes vLLM keep the token history that the window
is taken from. vLLM 0.32 has two model runners with an interface each, and both take this one class. Masks such as
minimum lengths and biases are in the logits already when they get here. Rows whose logits are not numbers are marked
here too, whether they ask for RAS or not: vLLM would go on with any id. Knows no prompts and no plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor as BatchProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SlotProcessor

from cosyvoice_core.errors import InputError
from cosyvoice_core.lm.draw import draw, seed_word
from cosyvoice_core.lm.ras import Rules, mixture, rejection_count
from cosyvoice_core.lm.sampling import recent_ids, tempered
from cosyvoice_core.lm.vocabulary import COSYVOICE2_EXTRA_ROWS
from deployments.speech_lm.ras_params import LOOKBACK, RasParams, broken_id

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.sample.logits_processor import BatchUpdate
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState


@dataclass(frozen=True, slots=True)
class Draws:
    """What fixes the draws of a batch: seeds `(B,)`, positions `(B,)`; seeded `(B,)`: rows that have a seed."""

    seeds: Tensor
    positions: Tensor
    seeded: Tensor


def rewritten(logits: Tensor, recent: Tensor, rules: Rules, draws: Draws | None) -> Tensor:
    """Logits `(B, V)` from which sampling at temperature 1 gives RAS; recent: ids `(B, W)`, -1 where none.

    A row without a seed holds the logarithm of its distribution. In a row with a seed the draw is made here, so
    all ids but the drawn one are impossible and whatever samples from it has no choice. Never waits for the device.
    """
    chances = mixture(logits, recent, rules).over(logits)
    scores = chances.log()
    if draws is not None:
        ids = torch.arange(logits.shape[1], device=logits.device)
        drawn = draw(ids, chances, draws.seeds, draws.positions)
        alone = torch.full_like(scores, -torch.inf).scatter(1, drawn[:, None], 0.0)
        scores = torch.where(draws.seeded[:, None], alone, scores)
    return scores.to(logits.dtype)


def marked(logits: Tensor, broken: Tensor, speech_tokens: int) -> Tensor:
    """Logits `(B, V)` in which only `broken_id` is possible where broken `(B,)`. Never waits for the device."""
    alone = torch.full_like(logits[:1], -torch.inf)
    alone[:, broken_id(speech_tokens)] = 0.0
    return torch.where(broken[:, None], alone, logits)


class RasProcessor(BatchProcessor, SlotProcessor):
    """RAS for the requests whose `extra_args` ask for it (see `RasParams`); sound rows of others are left untouched.

    The V1 runner constructs it with (config, device, pinning) and calls `update_state` and `apply(logits)`; the V2
    runner with (config, request states) and calls `add_request`, `apply_staged_writes` and `apply(logits, context)`.
    """

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse what RAS cannot follow and what would take the whole engine down.

        vLLM looks up prompt ids in tables as wide as the head when it applies penalties or scores prompts; text ids
        lie beyond that, and the error in the worker ends every request. Raises InputError.
        """
        fatal = {
            "repetition_penalty": sampling_params.repetition_penalty != 1.0,
            "presence_penalty": sampling_params.presence_penalty != 0.0,
            "frequency_penalty": sampling_params.frequency_penalty != 0.0,
            "prompt_logprobs": sampling_params.prompt_logprobs is not None,
            "prompt_logprob_token_ids": sampling_params.prompt_logprob_token_ids is not None,
            "logprob_token_ids": sampling_params.logprob_token_ids is not None,
            "bad_words": bool(sampling_params.bad_words),
        }
        _refuse(fatal, "is not possible with this model")
        params = RasParams.of(sampling_params.extra_args)
        if params is None:
            return
        competing = {
            "temperature": sampling_params.temperature != 1.0,
            "top_p": sampling_params.top_p != 1.0,
            "top_k": sampling_params.top_k > 0,
            "min_p": sampling_params.min_p != 0.0,
            "seed": params.seed is not None and sampling_params.seed is not None,
            "n": params.seed is not None and sampling_params.n != 1,
        }
        _refuse(competing, "would change what repetition-aware sampling has decided")

    def __init__(self, vllm_config: VllmConfig, *interface: Any) -> None:
        """Raises ValueError when speculative decoding is on: drafts are in neither interface's history."""
        if vllm_config.speculative_config is not None:
            raise ValueError("repetition-aware sampling cannot follow speculative decoding; switch it off")
        self._speech_tokens = vllm_config.model_config.get_vocab_size() - COSYVOICE2_EXTRA_ROWS
        self._rows: _BatchRows | None = None
        self._slots: _Slots | None = None
        if len(interface) == 2:
            self._rows = _BatchRows(self._speech_tokens)
        else:
            (states,) = interface
            self._slots = _Slots(self._speech_tokens, states)

    def is_argmax_invariant(self) -> bool:
        """False: V1 then calls it for greedy requests too, and before the temperature."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        assert self._rows is not None
        self._rows.update(batch_update)

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """True: any row's logits may turn out broken."""
        assert self._slots is not None
        self._slots.add(req_idx, RasParams.of(sampling_params.extra_args))
        return True

    def apply_staged_writes(self) -> None:
        assert self._slots is not None
        self._slots.publish()

    def apply(self, logits: Tensor, ctx: LogitsContext | None = None) -> Tensor:
        # The greatest of a row is NaN when any is, and infinite when nothing or anything is possible.
        broken = ~torch.isfinite(logits.amax(1))
        if ctx is None:
            assert self._rows is not None
            scores = self._rows.apply(logits)
        else:
            assert self._slots is not None
            scores = self._slots.apply(logits, ctx)
        return marked(scores, broken, self._speech_tokens)


@dataclass(frozen=True, slots=True)
class _Row:
    """A request of the V1 runner: the id lists are vLLM's own and grow while it runs."""

    params: RasParams
    prompt: Sequence[int]
    output: Sequence[int]

    def spoken(self, speech_tokens: int) -> list[int]:
        """Speech tokens since generation began that lie at most LOOKBACK positions back."""
        first = max(self.params.start, len(self.prompt) + len(self.output) - LOOKBACK)
        recent = self.output[max(0, first - len(self.prompt)) :]
        if min(recent, default=0) < 0:
            raise RuntimeError(
                "the token history has gaps; give the engine RasProcessor by `logits_processors=`, not by entry point"
            )
        return [id_ for id_ in (*self.prompt[first:], *recent) if id_ < speech_tokens]


class _BatchRows:
    """The V1 runner's side: requests by their row in the batch."""

    def __init__(self, speech_tokens: int) -> None:
        self._speech_tokens = speech_tokens
        self._rows: dict[int, _Row] = {}

    def update(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._rows, batch_update, self._row)

    @staticmethod
    def _row(params: SamplingParams, prompt: list[int] | None, output: list[int]) -> _Row | None:
        ras = RasParams.of(params.extra_args)
        if ras is None:
            return None
        if prompt is None:
            raise RuntimeError("repetition-aware sampling needs prompts of ids, not of embeddings")
        return _Row(ras, prompt, output)

    def apply(self, logits: Tensor) -> Tensor:
        if not self._rows:
            return logits
        device = logits.device
        rows = [self._rows[index] for index in self._rows]
        params = [row.params for row in rows]
        windows = [row.spoken(self._speech_tokens) for row in rows]
        recent = recent_ids(windows, [one.sampling.window for one in params], device)
        draws = None
        if any(one.seed is not None for one in params):
            draws = Draws(
                seeds=torch.tensor([seed_word(one.seed or 0) for one in params], device=device),
                positions=torch.tensor([row.params.position + len(row.output) for row in rows], device=device),
                seeded=torch.tensor([one.seed is not None for one in params], device=device),
            )
        index = torch.tensor(list(self._rows), device=device)
        configs = [one.sampling for one in params]
        logits[index] = rewritten(tempered(logits[index], configs), recent, Rules.of(configs, device), draws)
        return logits


_ASKED, _SEEDED, _TOP_K, _WINDOW, _START, _POSITION, _SEED = range(7)
_TOP_P, _LIMIT, _TEMPERATURE = range(3)


class _Slots:
    """The V2 runner's side: requests by slot, their settings in two tables that the device reads."""

    def __init__(self, speech_tokens: int, states: LogitsProcRequestState) -> None:
        # Belongs to the runner, pulls in Triton and is not there where the runner is not.
        from vllm.v1.worker.gpu.buffer_utils import UvaBackedTensor

        self._speech_tokens = speech_tokens
        self._states = states
        self._integers = UvaBackedTensor((states.max_num_reqs, 7), dtype=torch.int64)
        self._shares = UvaBackedTensor((states.max_num_reqs, 3), dtype=torch.float64)
        self._changed = False

    def add(self, slot: int, params: RasParams | None) -> None:
        """Write a slot anew, whoever had it before."""
        integers, shares = self._integers.np[slot], self._shares.np[slot]
        integers[:] = 0
        shares[:] = 0.0
        self._changed = True
        if params is None:
            return
        sampling = params.sampling
        integers[_ASKED] = 1
        integers[_SEEDED] = params.seed is not None
        integers[_TOP_K] = sampling.top_k
        integers[_WINDOW] = sampling.window
        integers[_START] = params.start
        integers[_POSITION] = params.position
        integers[_SEED] = seed_word(params.seed or 0)
        shares[_TOP_P] = sampling.top_p
        shares[_LIMIT] = rejection_count(sampling)
        shares[_TEMPERATURE] = sampling.temperature

    def publish(self) -> None:
        if self._changed:
            self._integers.copy_to_uva()
            self._shares.copy_to_uva()
            self._changed = False

    def apply(self, logits: Tensor, ctx: LogitsContext) -> Tensor:
        here = self._integers.np[ctx.idx_mapping_np]
        if not here[:, _ASKED].any():
            return logits
        slots = ctx.expanded_idx_mapping.long()
        integers, shares = self._integers.gpu[slots], self._shares.gpu[slots]
        rules = Rules(
            top_p=shares[:, _TOP_P],
            top_k=integers[:, _TOP_K],
            limit=shares[:, _LIMIT],
            widest=int(here[:, _TOP_K].max()),
        )
        draws = None
        if here[:, _SEEDED].any():
            turn = ctx.pos + 1 - self._states.prompt_len.gpu[slots]
            draws = Draws(integers[:, _SEED], integers[:, _POSITION] + turn, integers[:, _SEEDED] > 0)
        recent = self._recent(slots, ctx.pos, integers, int(np.max(ctx.seq_lens_upper_bound_np)))
        scores = logits / shares[:, _TEMPERATURE, None].to(logits.dtype)
        return torch.where(integers[:, _ASKED, None] > 0, rewritten(scores, recent, rules, draws), logits)

    def _recent(self, slots: Tensor, last: Tensor, integers: Tensor, longest: int) -> Tensor:
        """Ids `(B, W)` of every row's window, -1 elsewhere; last: `(B,)`, position of the newest id; longest: no
        sequence has more positions, known on the host."""
        width = min(LOOKBACK, longest)
        places = last[:, None] - torch.arange(width, device=last.device)
        ids = self._states.all_token_ids.gpu[slots[:, None], places.clamp(min=0)].long()
        spoken = (places >= integers[:, _START, None]) & (places >= 0) & (ids < self._speech_tokens)
        # Places run backwards, so the first `window` spoken ones are the newest.
        inside = spoken & (spoken.cumsum(1) <= integers[:, _WINDOW, None])
        return torch.where(inside, ids, -1)


def _refuse(problems: dict[str, bool], why: str) -> None:
    found = next((field for field, wrong in problems.items() if wrong), None)
    if found is not None:
        raise InputError(found, why)
