r"""Rows grouped by a key, as a CSR matrix holds them: pointers, ranks within a group, and rows taken out."""

import torch
from torch import Tensor

EPS = 1e-7  # added to degrees, as the released implementation does


def pointers(index: Tensor, size: int) -> Tensor:
    r"""Returns where each group starts in a sorted ``index``: :math:`(\textrm{size} + 1)`, from zero."""
    out = torch.zeros(size + 1, dtype=torch.long, device=index.device)
    torch.cumsum(torch.bincount(index, minlength=size), dim=0, out=out[1:])
    return out


def ranks(index: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns the place of each entry in its group, taken in the given order, and the size of that group.

    Shapes:
        - **index:** :math:`(E)`, the group of each entry
        - **order:** :math:`(E)`, a permutation of the entries
        - **output:** :math:`(E)` twice
    """
    order = order[torch.argsort(index[order], stable=True)]
    count = torch.bincount(index)
    rank = torch.empty_like(index)
    rank[order] = torch.arange(index.numel(), device=index.device) - (count.cumsum(0) - count)[index[order]]
    return rank, count[index]


def take_rows(ptr: Tensor, col: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns some rows of a CSR matrix in the same form: where each starts, and the columns.

    Shapes:
        - **ptr:** :math:`(N + 1)`
        - **col:** :math:`(E)`
        - **rows:** :math:`(B)`
        - **output:** :math:`(B + 1)` and the number of columns in these rows
    """
    count = ptr[rows + 1] - ptr[rows]
    out = torch.cat([count.new_zeros(1), count.cumsum(0)])
    row = torch.repeat_interleave(count)
    return out, col[ptr[rows][row] + torch.arange(row.numel(), device=col.device) - out[row]]
