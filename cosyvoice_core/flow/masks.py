"""Which keys a query may see. Positions are absolute, counted from the first frame of the prompt."""

from __future__ import annotations

import torch
from torch import Tensor


def chunk_mask(first_query: int, queries: int, keys: int, chunk: int, device: torch.device) -> Tensor | None:
    """Block-causal mask (queries, keys), True where visible: key j < (floor(i / chunk) + 1) * chunk.

    None when every query sees every key, as in a push that completes exactly one chunk.
    Source: docs/model.md, "Token encoder" and "Estimator".
    """
    if (first_query // chunk + 1) * chunk >= keys:
        return None
    positions = torch.arange(first_query, first_query + queries, device=device)
    visible_end = (positions.div(chunk, rounding_mode="floor") + 1) * chunk
    return torch.arange(keys, device=device)[None, :] < visible_end[:, None]


def with_padding(mask: Tensor | None, valid: Tensor | None) -> Tensor | None:
    """Combine a (queries, keys) mask with key validity (B, keys); the result broadcasts over heads."""
    if valid is None:
        return mask
    keys = valid[:, None, None, :]
    return keys if mask is None else mask & keys


def past_mask(
    first: int, stop: int, chunk: int, device: torch.device, *, left_chunks: int | None, always: int
) -> Tensor | None:
    """Mask (stop - first, stop) of frames first..stop that are computed together, True where visible.

    As `chunk_mask`, but with left_chunks a query sees no more than so many chunks before its own, and the first
    `always` chunks. None when every query sees every key.
    """
    queries = torch.arange(first, stop, device=device).div(chunk, rounding_mode="floor")[:, None]
    keys = torch.arange(stop, device=device).div(chunk, rounding_mode="floor")[None, :]
    if first // chunk == (stop - 1) // chunk and (left_chunks is None or first // chunk - left_chunks <= always):
        return None
    visible = keys <= queries
    if left_chunks is not None:
        visible &= (keys >= queries - left_chunks) | (keys < always)
    return visible
