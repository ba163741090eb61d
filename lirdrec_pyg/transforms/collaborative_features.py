from copy import copy

import numpy as np
import torch
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from lirdrec_pyg.typing import INTERACTS, ITEM, USER, check


class CollaborativeFeatures(BaseTransform):
    r"""Adds one more modality, ``x_collaborative``: where an item lies among the leading singular vectors of the
    interactions. This is ours, not the paper's.

    .. math::
        \mathbf{D}_\mathcal{U}^{-1/2} \mathbf{R} \mathbf{D}_\mathcal{I}^{-1/2} \approx
        \mathbf{U} \boldsymbol{\Sigma} \mathbf{V}^\top, \quad
        \mathbf{x}_i = \mathrm{normalize} [\mathbf{V} \boldsymbol{\Sigma}]_i

    The features are computed once, from what is known of an item, and nothing is learned per item. An item without
    interactions lacks the modality (``has_collaborative`` is false), as one without an image lacks that: it is served
    by its other content until there are interactions, and the next fit.

    Apply it *after* the split, so that it reads training interactions alone, after
    :class:`~lirdrec_pyg.transforms.ItemKNNGraph`, where the item graph should be that of the content, and before
    :class:`~lirdrec_pyg.transforms.DCT`.

    Args:
        num_components (int, optional): The number :math:`r` of singular vectors. (default: :obj:`64`)

    Shapes:
        - ``('user', 'interacts', 'item').edge_index`` :math:`(2, |\mathcal{E}|)` →
          ``data['item'].x_collaborative`` :math:`(|\mathcal{I}|, r)`, float32

    Raises:
        ValueError: If ``num_components`` is not in :math:`[1, \min(|\mathcal{U}|, |\mathcal{I}|))`.
    """

    def __init__(self, num_components: int = 64) -> None:
        self.num_components = num_components

    def forward(self, data: HeteroData) -> HeteroData:
        from scipy.sparse import csr_array
        from scipy.sparse.linalg import svds

        data = check(data)
        shape = (data[USER].num_nodes, data[ITEM].num_nodes)
        if not 1 <= self.num_components < min(shape):
            raise ValueError(f"'num_components' needs to be in [1, {min(shape)}) (got {self.num_components})")
        user, item = data[INTERACTS].edge_index.numpy()
        matrix = csr_array((np.ones(len(user)), (user, item)), shape=shape)
        matrix.data[:] = 1  # an interaction that is repeated counts once
        degree = matrix.sum(axis=1), matrix.sum(axis=0)
        user_scale, item_scale = (np.maximum(d, 1) ** -0.5 for d in degree)
        matrix = matrix.multiply(user_scale[:, None]).multiply(item_scale).tocsr()
        _, s, v = svds(matrix, k=self.num_components, v0=np.ones(min(shape)))  # a start that is always the same
        x = (v * s[:, None])[::-1]  # leading component first
        x *= np.sign(x[np.arange(len(x)), np.abs(x).argmax(axis=1)])[:, None]  # unique signs
        length = np.linalg.norm(x, axis=0)
        x /= np.maximum(length, np.finfo(np.float32).tiny)

        data = copy(data)
        data[ITEM].x_collaborative = torch.from_numpy(np.ascontiguousarray(x.T, dtype=np.float32))
        has = torch.from_numpy(degree[1] > 0)
        if not has.all():
            data[ITEM].x_collaborative[~has] = 0
            data[ITEM].has_collaborative = has
        return data

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(num_components={self.num_components})'
