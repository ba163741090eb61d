from copy import copy

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from lirdrec_pyg._segments import csr_matrix
from lirdrec_pyg.typing import ITEM, check, modalities


class HalfPrecision(BaseTransform):
    r"""Stores features in bfloat16, and on CPU edge weights, too. A model then takes its products with them in
    bfloat16. Its parameters, all sums and the loss stay in single precision.

    This is what ``fit(precision='bf16')`` trains on. It pays most where the processor has bfloat16 instructions.

    .. code-block:: python

        print(HalfPrecision()(train)['item'].x_image.dtype)  # torch.bfloat16

    Args:
        edge_weight (bool, optional): Whether the values of CSR matrices are stored in bfloat16 as well. Kernels for
            them exist on CPU alone. (default: where the data is on CPU)

    Shapes:
        - ``data['item'].x_<modality>``, ``data['item'].spectrum`` and the matrices ``adj_t`` and ``adj`` keep theirs
    """

    def __init__(self, edge_weight: bool | None = None) -> None:
        self.edge_weight = edge_weight

    def forward(self, data: HeteroData) -> HeteroData:
        data = copy(check(data, interactions=False))
        for name in [*(f'x_{name}' for name in modalities(data)), 'spectrum']:
            if name in data[ITEM]:
                data[ITEM][name] = data[ITEM][name].to(torch.bfloat16)
        for store in data.edge_stores:
            for name in ('adj_t', 'adj'):
                adj = store.get(name)
                if not isinstance(adj, Tensor) or isinstance(adj, EdgeIndex) or adj.layout != torch.sparse_csr:
                    continue
                if adj.device.type == 'cpu' if self.edge_weight is None else self.edge_weight:
                    value = adj.values().to(torch.bfloat16)
                    store[name] = csr_matrix(adj.crow_indices(), adj.col_indices(), value, adj.size())
        return data

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(edge_weight={self.edge_weight})'
