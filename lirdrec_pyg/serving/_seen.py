r"""What users have seen, as sorted keys of a row of users and a row of items."""

import torch
from torch import Tensor

from lirdrec_pyg._segments import pointers

BITS = 32  # of the row of items in a key


def keys(user: Tensor, item: Tensor) -> Tensor:
    r"""Returns one number for each pair, by which pairs are sorted as in a CSR matrix."""
    return user << BITS | item


def pairs(key: Tensor) -> Tensor:
    r"""Returns the pairs of keys, :math:`(2, E)`."""
    return torch.stack([key >> BITS, items(key)])


def items(key: Tensor) -> Tensor:
    return key & (1 << BITS) - 1


def starts(key: Tensor, num_users: int) -> Tensor:
    r"""Returns where each row of users starts, :math:`(N + 1)`."""
    return pointers(key >> BITS, num_users)


def have(key: Tensor, few: Tensor) -> Tensor:
    r"""Returns which of a few keys are among the others."""
    if len(key) == 0:
        return torch.zeros_like(few, dtype=torch.bool)
    return key[torch.searchsorted(key, few).clamp_max_(len(key) - 1)] == few


def insert(key: Tensor, more: Tensor) -> Tensor:
    r"""Returns the keys with others among them, each once, in time that grows in a straight line."""
    more = more.unique()
    more = more[~have(key, more)]
    if len(more) == 0:
        return key
    place = torch.searchsorted(key, more) + torch.arange(len(more))
    out, old = key.new_empty(len(key) + len(more)), torch.ones(len(key) + len(more), dtype=torch.bool)
    out[place], old[place] = more, False
    out[old] = key
    return out


def among(rows: Tensor, part: Tensor) -> Tensor:
    r"""Returns which of the rows are in a part of them."""
    if len(rows) == 0 or len(part) == 0:
        return torch.zeros_like(rows, dtype=torch.bool)
    flag = torch.zeros(int(max(rows.max(), part.max())) + 1, dtype=torch.bool)
    flag[part] = True
    return flag[rows]
