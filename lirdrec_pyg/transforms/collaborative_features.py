import operator
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from lirdrec_pyg.typing import INTERACTS, ITEM, USER, check

DENSE = 1000  # users or items up to which the whole decomposition takes no time
EXTRA = 16  # vectors beyond those asked for
LEAST = 1e-4  # the least share of the length of an item's row that the leading vectors need to hold


class CollaborativeFeatures(BaseTransform):
    r"""Adds one more modality, ``x_collaborative``: where an item lies among the leading singular vectors of the
    interactions. This is ours, not the paper's.

    .. math::
        \mathbf{D}_\mathcal{U}^{-1/2} \mathbf{R} \mathbf{D}_\mathcal{I}^{-1/2} \approx
        \mathbf{U} \boldsymbol{\Sigma} \mathbf{V}^\top, \quad
        \mathbf{x}_i = \mathrm{normalize} [\mathbf{V} \boldsymbol{\Sigma}]_i

    The features are computed once, from what is known of an item, and nothing is learned per item. An item lacks the
    modality (``has_collaborative`` is false), as one without an image lacks that, if nothing links it to another one:
    it has no interactions, or only those of users who have no others, or it is not among the leading vectors. It is
    served by its other content until there are interactions, and the next fit.

    Apply it *after* the split, so that it reads training interactions alone, after
    :class:`~lirdrec_pyg.transforms.ItemKNNGraph`, where the item graph should be that of the content, and before
    :class:`~lirdrec_pyg.transforms.DCT`.

    .. code-block:: python

        train, val, test = FixedSplit()(data)
        train = CollaborativeFeatures(num_components=8)(train)
        print(train['item'].x_collaborative.shape)  # (48, 8)

    Args:
        num_components (int, optional): The number :math:`r` of singular vectors. (default: :obj:`64`)

    Shapes:
        - ``('user', 'interacts', 'item').edge_index`` :math:`(2, |\mathcal{E}|)` →
          ``data['item'].x_collaborative`` :math:`(|\mathcal{I}|, r)`, float32

    Raises:
        ValueError: If ``num_components`` is not in :math:`[1, \min(|\mathcal{U}|, |\mathcal{I}|))`.
    """

    def __init__(self, num_components: int = 64) -> None:
        self.num_components = operator.index(num_components)

    def forward(self, data: HeteroData) -> HeteroData:
        from scipy.sparse import csr_array

        data = check(data)
        shape = (data[USER].num_nodes, data[ITEM].num_nodes)
        if not 1 <= self.num_components < min(shape):
            raise ValueError(f"'num_components' needs to be in [1, {min(shape)}) (got {self.num_components})")
        user, item = data[INTERACTS].edge_index.numpy()
        matrix = csr_array((np.ones(len(user)), (user, item)), shape=shape)
        matrix.data[:] = 1  # an interaction that is repeated counts once
        degree = matrix.sum(axis=1), matrix.sum(axis=0)
        linked = (matrix > 0).T @ np.maximum(degree[0] - 1, 0) > 0  # by a user to another item
        user_scale, item_scale = (np.maximum(d, 1) ** -0.5 for d in degree)
        matrix = matrix.multiply(user_scale[:, None]).multiply(item_scale * linked).tocsr()
        x = _leading(matrix, self.num_components)
        x *= np.sign(x[np.abs(x).argmax(axis=0), np.arange(x.shape[1])])  # unique signs
        length, whole = np.linalg.norm(x, axis=1), np.sqrt(matrix.power(2).sum(axis=0))
        has = linked & (length > LEAST * whole)

        data = copy(data)
        data[ITEM].x_collaborative = torch.from_numpy(
            (x * has[:, None] / np.where(has, length, 1)[:, None]).astype('f4')
        )
        if not has.all():
            data[ITEM].has_collaborative = torch.from_numpy(has)
        return data

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(num_components={self.num_components})'


def _leading(matrix: Any, r: int) -> npt.NDArray[np.float64]:
    r"""Returns the leading right singular vectors of a matrix, each times its singular value, the largest first.

    Lanczos' method finds one vector only of those with the same singular value. What it finds is the start of a block
    method, which finds up to ``EXTRA`` more at a time.

    Shapes:
        - **matrix:** :math:`(N, M)`, sparse
        - **output:** :math:`(M, r)`
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    wide = matrix.shape[0] < matrix.shape[1]
    a, at = (matrix.T.tocsr(), matrix) if wide else (matrix, matrix.T.tocsr())
    n = a.shape[1]
    if n <= max(DENSE, 3 * (r + EXTRA)):
        value, v = np.linalg.eigh((at @ a).toarray())
        value, v = value[::-1][:r], v[:, ::-1][:, :r]
    else:
        random = np.random.default_rng(0)
        try:
            v = eigsh(LinearOperator((n, n), lambda y: at @ (a @ y)), k=r, v0=random.standard_normal(n))[1]
        except ArpackNoConvergence:
            v = random.standard_normal((n, r))
        v = np.linalg.qr(np.concatenate([v, random.standard_normal((n, EXTRA))], axis=1))[0]
        rest = np.arange(r, r + EXTRA)  # columns that are no singular vectors yet
        for step in range(100):
            basis, block = v, v[:, rest]
            for _ in range(2):
                block = at @ (a @ block)
                for _ in range(2):  # the second time for what rounding left
                    block -= basis @ (basis.T @ block)
                    block = np.linalg.qr(block)[0]
                basis = np.concatenate([basis, block], axis=1)
            image = at @ (a @ basis)
            value, turn = np.linalg.eigh(basis.T @ image)
            value, turn = value[::-1][: r + EXTRA], turn[:, ::-1][:, : r + EXTRA]
            v = basis @ turn
            error = np.linalg.norm(image @ turn - v * value, axis=0)
            rest = np.union1d(np.flatnonzero(error > 1e-7 * value[0]), np.arange(r, r + EXTRA))
            if step > 0 and len(rest) == EXTRA:
                break
        value, v = value[:r], v[:, :r]
    return a @ v if wide else v * np.sqrt(np.maximum(value, 0))
