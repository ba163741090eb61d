r"""Rows grouped by a key, as a CSR matrix holds them: pointers, ranks within a group, rows taken out, the matrix."""

import warnings
from collections.abc import Sequence
from typing import Any

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


class CSRTensor(Tensor):
    r"""A CSR matrix of torch that can be copied by :func:`copy.deepcopy` and shared between processes, which torch's
    own can't. It is a :class:`torch.Tensor` in all else."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # results are plain

    def clone(self, *args: Any, **kwargs: Any) -> 'CSRTensor':
        return _own_kind(super().clone(*args, **kwargs))

    def to(self, *args: Any, **kwargs: Any) -> 'CSRTensor':
        return _own_kind(super().to(*args, **kwargs))

    def cpu(self, *args: Any, **kwargs: Any) -> 'CSRTensor':
        return self.to('cpu')

    def cuda(self, *args: Any, **kwargs: Any) -> 'CSRTensor':
        return _own_kind(super().cuda(*args, **kwargs))

    def __deepcopy__(self, memo: dict[int, Any]) -> 'CSRTensor':
        if id(self) not in memo:
            memo[id(self)] = self.clone()
        return memo[id(self)]  # type: ignore[no-any-return]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return csr_matrix, (self.crow_indices(), self.col_indices(), self.values(), tuple(self.shape))

    def share_memory_(self) -> 'CSRTensor':
        for part in (self.crow_indices(), self.col_indices(), self.values()):
            part.share_memory_()
        return self

    def is_shared(self) -> bool:
        return self.values().is_shared()


def csr_matrix(ptr: Tensor, col: Tensor, value: Tensor, size: Sequence[int]) -> CSRTensor:
    r"""Returns a CSR matrix.

    Shapes:
        - **ptr:** :math:`(N + 1)`
        - **col**, **value:** :math:`(E)`
        - **output:** ``size``, :math:`(N, M)`
    """
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Sparse CSR tensor support is in beta state')
        return _own_kind(torch.sparse_csr_tensor(ptr, col, value, tuple(size), check_invariants=False))


def _own_kind(matrix: Tensor) -> CSRTensor:
    return matrix if isinstance(matrix, CSRTensor) else Tensor._make_subclass(CSRTensor, matrix)


torch.serialization.add_safe_globals([csr_matrix])  # so that data that holds one can be read with `weights_only=True`
