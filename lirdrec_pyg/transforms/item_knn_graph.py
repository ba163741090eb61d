import operator
import re
from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform
from torch_geometric.utils import coalesce

from lirdrec_pyg.typing import ITEM, SIMILAR_TO, check, check_count, modalities, modality_features

Matrix = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
TOLERANCE = 4e-6  # of a single precision inner product of two unit vectors


class ItemKNNGraph(BaseTransform):
    r"""Connects every item to its :math:`k` most similar items, itself included, and mixes the graphs of the
    modalities into the relation ``('item', 'similar_to', 'item')`` (source = neighbour, target = item).

    .. math::
        S_{ij} = \sum_m \frac{w_m}{k} \big[\, j \in \mathrm{top}_k \cos(\mathbf{x}_{i,m}, \cdot) \,\big]

    An item takes part in the graph of a modality only if it has it: rows that are missing (``has_<modality>``) or
    zero are neither connected nor found there, and an item's weights :math:`w_m` are rescaled to keep their sum over
    the modalities that it has. Ties go to the lowest id, but the item itself always
    comes first.

    .. code-block:: python

        data = ItemKNNGraph(k=10, weights={'image': 0.1, 'text': 0.9})(data)
        print(data['item', 'similar_to', 'item'].k)  # 10

    The relation says how it was made, ``k`` and ``weights``, so that new items join it in the same way.

    The exact search takes memory for :math:`k` neighbours an item and ``chunk_size`` rows of similarities, never for
    :math:`|\mathcal{I}|^2` similarities.

    Args:
        k (int): The number of neighbours, the item itself included.
        weights (mapping of str to float, optional): The mixing weight of each modality. Modalities of weight zero and
            those not named are left out. (default: equal weights that sum to one)
        index (str, optional): A `FAISS factory string <https://github.com/facebookresearch/faiss/wiki/The-index-factory>`_
            of an approximate index, *e.g.*, ``'HNSW32'`` or ``'IVF256,Flat'``. (default: exact search)
        index_params (str, optional): How FAISS searches it, *e.g.*, ``'nprobe=8'`` or ``'efSearch=64'``.
            (default: FAISS' own choice)
        chunk_size (int, optional): The number of rows searched at once. (default: 4096)

    Shapes:
        - ``data['item'].x_<modality>`` :math:`(|\mathcal{I}|, C_m)` → ``edge_index`` :math:`(2, |\mathcal{E}|)` sorted
          by target, ``edge_weight`` :math:`(|\mathcal{E}|)`, ``k`` and the ``weights`` of the modalities that take part

    Raises:
        ValueError: If ``k`` is not in :math:`[1, |\mathcal{I}|]`, there is no modality, or a weight is negative or
            names an unknown one, weights are infinite or differ too much, or FAISS can't make such an index.
    """

    def __init__(
        self,
        k: int = 10,
        weights: Mapping[str, float] | None = None,
        index: str | None = None,
        chunk_size: int = 4096,
        index_params: str | None = None,
    ) -> None:
        if chunk_size < 1:
            raise ValueError(f"'chunk_size' needs to be positive (got {chunk_size})")
        if index_params is not None and index is None:
            raise ValueError(f"'index_params' needs an 'index' (got '{index_params}' for the exact search)")
        self.k = operator.index(k)
        self.weights = None if weights is None else dict(weights)
        self.index = index
        self.chunk_size = chunk_size
        self.index_params = index_params

    def forward(self, data: HeteroData) -> HeteroData:
        data = check(data, interactions=False)
        num_items = data[ITEM].num_nodes
        check_count(self.k, num_items)
        weights = self.mixing_weights(data)
        present, share = shares(data, weights)

        edge_indices, edge_weights = [], []
        for m, name in enumerate(weights):
            ids = present[name].nonzero().view(-1)
            if len(ids) == 0:
                continue
            x = modality_features(data, name)[0].float()
            x = x if len(ids) == len(x) else x[ids]
            row, col = self._search(x.numpy())  # target, neighbour
            degree = np.bincount(row, minlength=len(ids))
            target = ids[torch.from_numpy(row)]
            edge_indices.append(torch.stack([ids[torch.from_numpy(col)], target]))
            edge_weights.append(share[m, target] / torch.from_numpy(degree[row]).float())
        empty = torch.empty(2, 0, dtype=torch.long), torch.empty(0)
        edge_index = torch.cat([empty[0], *edge_indices], dim=1)
        edge_index, edge_weight = coalesce(
            edge_index, torch.cat([empty[1], *edge_weights]), num_items, reduce='sum', sort_by_row=False
        )
        data = copy(data)
        data[SIMILAR_TO].edge_index = edge_index
        data[SIMILAR_TO].edge_weight = edge_weight
        data[SIMILAR_TO].k, data[SIMILAR_TO].weights = self.k, weights
        return data

    def mixing_weights(self, data: HeteroData) -> dict[str, float]:
        r"""Returns the weights of the modalities that take part."""
        names = modalities(data)
        if len(names) == 0:
            raise ValueError("'data' needs at least one modality `data['item'].x_<modality>` (got none)")
        if self.weights is None:
            return {name: 1 / len(names) for name in names}
        for name, weight in self.weights.items():
            if name not in names:
                raise ValueError(f"'weights' names the unknown modality '{name}' (the data has {names})")
            if not 0 <= weight < float('inf'):
                raise ValueError(f"'weights' need to be finite and non-negative (got {weight} for '{name}')")
        weights = {name: float(self.weights[name]) for name in names if self.weights.get(name, 0) > 0}
        if len(weights) == 0:
            raise ValueError(f"'weights' needs a positive weight (got {self.weights})")
        return weights

    def _search(self, x: Matrix) -> tuple[Ids, Ids]:
        k = min(self.k, len(x))
        if self.index is None:
            return np.repeat(np.arange(len(x)), k), exact_knn(x, k, self.chunk_size).ravel()
        x = _normalise(x)
        index = faiss_index(x, self.index)
        if self.index_params is not None:
            import faiss

            try:
                faiss.ParameterSpace().set_index_parameters(index, self.index_params)  # type: ignore[arg-type]
            except RuntimeError as error:
                raise ValueError(
                    f"'index_params' need to be such as 'nprobe=8', of the index '{self.index}' (got "
                    f"'{self.index_params}')"
                ) from error
        rows, cols = [], []
        for start in range(0, len(x), self.chunk_size):
            found = index.search(x[start : start + self.chunk_size], k)[1]
            self_ = np.arange(start, start + len(found))[:, None]
            found = np.concatenate([self_, np.where(found == self_, -1, found)], axis=1)
            keep = (found >= 0) & (np.cumsum(found >= 0, axis=1) <= k)  # an approximate index pads with -1
            rows.append(np.broadcast_to(self_, found.shape)[keep])
            cols.append(found[keep])
        return np.concatenate(rows), np.concatenate(cols)

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(k={self.k}, weights={self.weights}, index={self.index!r}, '
            f'chunk_size={self.chunk_size}, index_params={self.index_params!r})'
        )


def shares(data: HeteroData, weights: Mapping[str, float]) -> tuple[dict[str, Tensor], Tensor]:
    r"""Returns which items take part in the graph of each modality, and how much it weighs for each item.

    Shapes:
        - **output:** :math:`(|\mathcal{I}|)` each, and :math:`(|M|, |\mathcal{I}|)`

    Raises:
        ValueError: If the weights are beyond single precision.
    """
    present: dict[str, Tensor] = {}
    for name in weights:
        x, has = modality_features(data, name)
        present[name] = (x != 0).any(dim=1) if has is None else (x != 0).any(dim=1) & has
    share = torch.stack([present[name] * weight for name, weight in weights.items()])
    share = share * (sum(weights.values()) / share.sum(dim=0).clamp_min(torch.finfo(share.dtype).tiny))
    if not share.isfinite().all() or min(weights.values()) < torch.finfo(share.dtype).tiny:
        raise ValueError(f"'weights' need to be of like size, such as 0.1 and 0.9 (got {dict(weights)})")
    return present, share


def faiss_index(x: Matrix, factory: str) -> Any:
    r"""Returns an index of rows to search by inner product.

    Raises:
        ValueError: If FAISS can't make such an index of them.
    """
    import faiss

    try:
        index = faiss.index_factory(x.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        index.train(x)
        index.add(x)
        index.search(x[:1], 1)
    except RuntimeError as error:
        why = re.sub(r'^Error in .* at \S+:\d+: (Error: )?', '', str(error))
        raise ValueError(
            f"'index' needs to be a FAISS factory string that fits {len(x)} rows of {x.shape[1]} columns, such as "
            f"'HNSW32' (got '{factory}': {why})"
        ) from error
    return index


def exact_knn(x: Matrix, k: int, chunk_size: int = 4096, rows: Ids | None = None) -> Ids:
    r"""Returns the :math:`k` rows of largest cosine with each row of ``x``, in no particular order.

    The row itself is always one of them. Where single precision can't tell the last places, they are decided in double
    precision; what is equal even then (to :math:`2^{-32}`) goes by lowest id.

    Args:
        x (numpy.ndarray): Rows without a zero one, float32, :math:`(N, C)`.
        k (int): The number of neighbours, the row itself included.
        chunk_size (int, optional): The number of rows searched at once.
        rows (numpy.ndarray, optional): The rows :math:`(R)` whose neighbours to return. (default: all)

    Shapes:
        - **output:** :math:`(N, k)` or :math:`(R, k)`, int64
    """
    import faiss

    n = len(x)
    rows = np.arange(n) if rows is None else rows
    if k >= n:
        return np.tile(np.arange(n), (len(rows), 1))
    unit = _normalise(x)
    out = np.empty((len(rows), k), dtype=np.int64)
    for start in range(0, len(rows), chunk_size):
        ids = rows[start : start + chunk_size]
        sim, found = faiss.knn(unit[ids], unit, k + 1, metric=faiss.METRIC_INNER_PRODUCT)
        out[start : start + len(ids)] = found[:, :k]
        contested = sim[:, k - 1] - sim[:, k] <= 2 * TOLERANCE
        contested |= (found[:, :k] != ids[:, None]).all(axis=1)  # crowded out by duplicates
        at, limit = np.flatnonzero(contested), sim[contested, k - 1]
        block = max(1, chunk_size * k // n)
        for lo in range(0, len(at), block):
            part = slice(lo, lo + block)
            out[start + at[part]] = _decide(x, unit, ids[at[part]], limit[part], k)
    return out


def _decide(x: Matrix, unit: Matrix, rows: Ids, limit: Matrix, k: int) -> Ids:
    r"""Returns the neighbours of the given rows, whose :math:`k`-th similarity is about ``limit``."""
    sim = unit[rows] @ unit.T
    np.put_along_axis(sim, rows[:, None], np.inf, axis=1)  # the row itself comes first
    row, col = np.nonzero(sim >= limit[:, None] - 2 * TOLERANCE)
    level = np.full(len(row), np.iinfo(np.int64).max)
    close = sim[row, col] <= limit[row] + 2 * TOLERANCE
    pairs = np.flatnonzero(close)
    step = max(1, 2**22 // x.shape[1])
    for lo in range(0, len(pairs), step):
        at = pairs[lo : lo + step]
        a, b = _normalise(x[rows[row[at]]].astype(np.float64)), _normalise(x[col[at]].astype(np.float64))
        level[at] = np.rint((a * b).sum(axis=1) * 2**32)
    order = np.lexsort((col, -level, row))
    row, col = row[order], col[order]
    start = np.searchsorted(row, np.arange(len(rows)))
    return col[start[:, None] + np.arange(k)]


def _normalise(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    x = x / np.abs(x).max(axis=1, keepdims=True)  # no row is too short or too long
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x
