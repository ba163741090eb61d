import operator
from collections.abc import Mapping
from copy import copy

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from lirdrec_pyg.typing import ITEM, check, modalities, modality_features


class PCA(BaseTransform):
    r"""Compresses the features of each modality to their leading principal components, once, before training.

    .. math::
        \mathbf{x}_i \leftarrow \mathbf{V}_r^\top (\mathbf{x}_i - \bar{\mathbf{x}})

    The work of an encoder is linear in the width of the features, so this is an approximation that buys time: apply it
    before :class:`~lirdrec_pyg.transforms.DCT`, and after :class:`~lirdrec_pyg.transforms.ItemKNNGraph` where the item
    graph should be that of the whole features. Modalities that are no wider than :obj:`num_components` stay as they
    are. Items that lack a modality take no part in its mean and components, and keep a zero row.

    Args:
        num_components (int or mapping of str to int): The number :math:`r` of components of each modality. A mapping
            gives that of the modalities to compress.

    Shapes:
        - ``data['item'].x_<modality>`` :math:`(|\mathcal{I}|, C_m)` → :math:`(|\mathcal{I}|, \min(r, C_m))`

    Raises:
        ValueError: If ``num_components`` is not positive or above the number of items that have a wider modality.
    """

    def __init__(self, num_components: int | Mapping[str, int]) -> None:
        for r in num_components.values() if isinstance(num_components, Mapping) else [num_components]:
            if operator.index(r) < 1:
                raise ValueError(f"'num_components' needs to be positive (got {r})")
        self.num_components = num_components

    def forward(self, data: HeteroData) -> HeteroData:
        data = copy(check(data, interactions=False))
        counts = self.num_components
        if not isinstance(counts, Mapping):
            counts = dict.fromkeys(modalities(data), counts)
        for name, r in counts.items():
            x, has = modality_features(data, name)
            if x.size(1) <= r:
                continue
            rows = x if has is None else x[has]
            if len(rows) < r:
                raise ValueError(
                    f"'num_components' needs to be at most the {len(rows)} items with modality '{name}' (got {r})"
                )
            out = x.new_zeros(x.size(0), r)
            out[slice(None) if has is None else has] = self._project(rows, r)
            data[ITEM][f'x_{name}'] = out
        return data

    @staticmethod
    def _project(x: Tensor, r: int) -> Tensor:
        # By the covariance in double precision, a block of rows at a time.
        mean = x.mean(dim=0)
        gram = torch.zeros(x.size(1), x.size(1), dtype=torch.double)
        for rows in x.split(4096):
            centred = (rows - mean).double()
            gram.addmm_(centred.t(), centred)
        components = torch.linalg.eigh(gram).eigenvectors[:, -r:].flip(1)
        components *= components.gather(0, components.abs().argmax(dim=0, keepdim=True)).sign()  # unique signs
        components = components.to(x.dtype)
        return torch.cat([(rows - mean) @ components for rows in x.split(4096)])

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(num_components={self.num_components})'
