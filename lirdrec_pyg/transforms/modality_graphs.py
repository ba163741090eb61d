import operator
from copy import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform
from torch_geometric.utils import scatter

from lirdrec_pyg.transforms.item_knn_graph import exact_knn
from lirdrec_pyg.typing import ITEM, check, check_count, modalities, modality_features, similar_by


class ModalityGraphs(BaseTransform):
    r"""Connects every item to its :math:`k` most similar items, itself included, in a graph for each modality: the
    relations ``('item', 'similar_by_<modality>', 'item')`` (source = neighbour, target = item). Edges weigh what their
    items have in common, and are normalised, as :class:`~lirdrec_pyg.nn.MGCN` has it from `LATTICE
    <https://arxiv.org/abs/2104.09036>`_:

    .. math::
        S_{ij} = \frac{s_{ij}}{\sqrt{d_i d_j}}, \quad s_{ij} = \max(\cos(\mathbf{x}_i, \mathbf{x}_j), 0) \,
        [\, j \in \mathrm{top}_k \cos(\mathbf{x}_i, \cdot) \,], \quad d_i = \sum_j s_{ij}

    It is beside :class:`ItemKNNGraph`, which mixes all modalities into one graph. An item that lacks a modality
    (``has_<modality>``, or a row of zeros) has no edges in its graph. Ties go to the lowest id.

    .. code-block:: python

        data = ModalityGraphs(k=4)(data)
        print(data['item', 'similar_by_image', 'item'].edge_index.shape)

    Args:
        k (int, optional): The number of neighbours, the item itself included. (default: :obj:`10`)
        chunk_size (int, optional): The number of rows searched at once. (default: :obj:`4096`)

    Shapes:
        - ``data['item'].x_<modality>`` :math:`(|\mathcal{I}|, C_m)` → ``edge_index`` :math:`(2, |\mathcal{E}_m|)`
          sorted by target, ``edge_weight`` :math:`(|\mathcal{E}_m|)`

    Raises:
        ValueError: If ``k`` is not in :math:`[1, |\mathcal{I}|]`, or there is no modality.
    """

    def __init__(self, k: int = 10, chunk_size: int = 4096) -> None:
        if chunk_size < 1:
            raise ValueError(f"'chunk_size' needs to be positive (got {chunk_size})")
        self.k = operator.index(k)
        self.chunk_size = chunk_size

    def forward(self, data: HeteroData) -> HeteroData:
        data = copy(check(data, interactions=False))
        num_items = data[ITEM].num_nodes
        check_count(self.k, num_items)
        names = modalities(data)
        if len(names) == 0:
            raise ValueError("'data' needs at least one modality `data['item'].x_<modality>` (got none)")
        for name in names:
            x, has = modality_features(data, name)
            present = (x != 0).any(dim=1) if has is None else (x != 0).any(dim=1) & has
            ids = present.nonzero().view(-1)
            k = min(self.k, len(ids))
            row = torch.arange(len(ids)).repeat_interleave(k)
            col = row[:0]
            if len(ids) > 0:
                found = np.sort(exact_knn(x[ids].float().numpy(), k, self.chunk_size), axis=1)
                col = torch.from_numpy(found).view(-1)
            unit = F.normalize(x[ids].float(), dim=1)
            pairs = zip(row.split(2**16), col.split(2**16), strict=True)
            weight = torch.cat([(unit[a] * unit[b]).sum(dim=1) for a, b in pairs]).clamp(min=0)
            scale = scatter(weight, row, dim_size=len(ids)).rsqrt()  # at least one, that of the item itself
            store = data[similar_by(name)]
            store.edge_index = torch.stack([ids[col], ids[row]])
            store.edge_weight = scale[row] * weight * scale[col]
        return data

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(k={self.k}, chunk_size={self.chunk_size})'
