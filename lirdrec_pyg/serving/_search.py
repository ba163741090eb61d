r"""Searches in one state: all items or those that an index finds, one kind of score, more or less alike results."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lirdrec_pyg._segments import take_rows
from lirdrec_pyg.ranking import best_of_rows
from lirdrec_pyg.serving._state import Rows, State

SCORES = 2**26  # held at once
TINY = 1e-30  # the length of a row that is taken to be zero
Found = tuple[Tensor, Tensor, Tensor]  # rows (N), scores and items (N, k); no item where the score is -inf


def scan(
    state: State, query: Tensor, k: int, ptr: Tensor, col: Tensor, mask: Tensor | None, cosine: bool = False
) -> Iterator[Found]:
    r"""Ranks all items, for as many rows at once as memory allows."""
    items = state.item
    for rows in torch.arange(len(query)).split(max(1, SCORES // max(len(items.ids), 1))):
        score = query[rows] @ items.x.t()
        if cosine:
            score /= items.length.clamp_min(TINY)
        if mask is not None:
            score.masked_fill_(~mask, float('-inf'))
        part, own = take_rows(ptr, col, rows)
        score[torch.repeat_interleave(part.diff()), own] = float('-inf')
        yield rows, *best_of_rows(score, k)


def probe(
    state: State, query: Tensor, k: int, ptr: Tensor, col: Tensor, mask: Tensor | None, oversample: int
) -> Iterator[Found]:
    r"""Ranks what the index finds, rows of like histories together; rows that get too little are scanned."""
    assert state.index is not None
    size = len(state.item.ids)
    limit = size // 4
    if mask is None:
        number, left = size, size - ptr.diff()
    else:
        number = state.item.num_alive if mask is state.item.alive else int(mask.sum())
        left = number - torch.zeros(len(query), dtype=torch.long).index_add_(
            0, torch.repeat_interleave(ptr.diff()), mask[col].long()
        )
    order, start = ptr.diff().argsort(descending=True), 0
    short = [order[:0]]
    while start < len(order):
        longest = int(ptr[order[start] + 1] - ptr[order[start]])
        wide = (oversample * k + longest) * size // max(number, 1) + 1
        rows = order[start : start + max(1, SCORES // (wide * query.size(1)))]
        start += len(rows)
        if wide > limit:
            short.append(rows)
            continue
        found = state.index.search(query[rows], wide)
        here = (found >= 0) & (found < size)  # -1: nothing found; others: added meanwhile
        item = torch.where(here, found, 0)
        score = torch.bmm(state.item.x[item], query[rows].unsqueeze(-1)).squeeze(-1)
        part, own = take_rows(ptr, col, rows)
        seen = torch.repeat_interleave(part.diff()) * size + own
        keys = torch.arange(len(rows)).unsqueeze(1) * size + item
        keep = here & ~torch.isin(keys, seen)
        if mask is not None:
            keep &= mask[item]
        best = score.masked_fill_(~keep, float('-inf')).topk(k, dim=1)
        enough = keep.sum(dim=1) >= left[rows].clamp(max=k)
        yield rows[enough], best.values[enough], item.gather(1, best.indices)[enough]
        short.append(rows[~enough])
    rest = torch.cat(short)
    for rows, values, items in scan(state, query[rest], k, *take_rows(ptr, col, rest), mask):
        yield rest[rows], values, items


def diversify(items: Rows, score: Tensor, item: Tensor, k: int, weight: float) -> tuple[Tensor, Tensor]:
    r"""Takes :math:`k` of the candidates of each row, one after another, by maximal marginal relevance: the next is
    that of largest :math:`(1 - \lambda) r - \lambda \max \cos`, where :math:`r` is the score, scaled to :math:`[0, 1]`
    among the candidates, and the cosine is that with those which were taken. From `"The Use of MMR, Diversity-Based
    Reranking for Reordering Documents and Producing Summaries" <https://doi.org/10.1145/290941.291025>`_.

    Shapes:
        - **score**, **item:** :math:`(N, M)`, best first; no candidate where the score is -inf
        - **output:** :math:`(N, k)` twice, in the order in which they were taken
    """
    out = []
    step = max(1, SCORES // max(item.size(1) * items.x.size(1), 1))
    for left, own in zip(score.split(step), item.split(step), strict=True):
        there = left > float('-inf')
        low = left.masked_fill(~there, float('inf')).amin(dim=1, keepdim=True)
        relevance = ((left - low) / (left[:, :1] - low).clamp_min(TINY)).masked_fill_(~there, float('-inf'))
        unit = items.x[own] / items.length[own].clamp_min(TINY).unsqueeze(-1)
        left, nearest, row = left.clone(), torch.zeros_like(left), torch.arange(len(left))
        picks, values = [], []
        for number in range(k):
            pick = ((1 - weight) * relevance - weight * nearest).argmax(dim=1)
            picks.append(own[row, pick])
            values.append(left[row, pick])
            left[row, pick], relevance[row, pick] = float('-inf'), float('-inf')
            cosine = torch.bmm(unit, unit[row, pick].unsqueeze(-1)).squeeze(-1)
            nearest = cosine if number == 0 else torch.maximum(nearest, cosine)
        out.append((torch.stack(values, dim=1), torch.stack(picks, dim=1)))
    return torch.cat([values for values, _ in out]), torch.cat([picks for _, picks in out])


def reasons(items: Rows, item: Tensor, row: Tensor, ptr: Tensor, col: Tensor, count: int) -> list[list[int]]:
    r"""Returns the rows of a user's own items that are nearest to an item by cosine, at most ``count``, nearest first.

    Shapes:
        - **item**, **row:** :math:`(N)`, an item and whose it is: a row of ``ptr``, in order
    """
    out: list[list[int]] = []
    numbers, sizes = row.unique_consecutive(return_counts=True)
    for user, part in zip(numbers.tolist(), item.split(sizes.tolist()), strict=True):
        own = col[int(ptr[user]) : int(ptr[user + 1])]
        unit, other = (items.x[rows] / items.length[rows].clamp_min(TINY).unsqueeze(1) for rows in (part, own))
        cosine = (unit @ other.t()).masked_fill_(part.unsqueeze(1) == own, float('-inf'))
        best = cosine.topk(min(count, len(own)), dim=1)
        for value, nearest in zip(best.values, own[best.indices], strict=True):
            out.append(nearest[value > float('-inf')].tolist())
    return out
