from collections.abc import Sequence
from copy import copy

import numpy as np
import numpy.typing as npt
import torch
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from lirdrec_pyg.typing import ITEM, check, modalities, modality_features


class DCT(BaseTransform):
    r"""Writes the spectrum that the shared encoder of :class:`~lirdrec_pyg.nn.LIRDRec` reads: the orthonormal type-II
    discrete cosine transform of every modality along its feature axis, concatenated.

    .. math::
        \mathbf{s}_i = \big\Vert_{m} \mathrm{DCT}(\mathbf{x}_{i, m})

    The `"LIRDRec" <https://arxiv.org/abs/2505.04960>`_ paper writes a 2-D transform over items × features; the
    transform of its released implementation, and ours, runs along the features alone, so it neither depends on the
    order of the items nor on which others there are. A row that lacks a modality (``has_<modality>`` is false) gets a
    zero spectrum there.

    .. code-block:: python

        data = DCT()(data)
        print(data['item'].spectrum.shape)  # as wide as all modalities together

    Args:
        modalities (sequence of str, optional): The modalities to transform. (default: all, in the data's order)

    Shapes:
        - ``data['item'].x_<modality>`` :math:`(|\mathcal{I}|, C_m)` →
          ``data['item'].spectrum`` :math:`(|\mathcal{I}|, \sum_m C_m)`, float32

    Raises:
        ValueError: If a modality is unknown, or there is none.
    """

    def __init__(self, modalities: Sequence[str] | None = None) -> None:
        self.modalities = None if modalities is None else list(modalities)

    def forward(self, data: HeteroData) -> HeteroData:
        data = check(data, interactions=False)
        names = modalities(data) if self.modalities is None else self.modalities
        if len(names) == 0:
            raise ValueError("'data' needs at least one modality `data['item'].x_<modality>` (got none)")
        xs = [modality_features(data, name) for name in names]
        out = np.empty((xs[0][0].size(0), sum(x.size(1) for x, _ in xs)), dtype=np.float32)
        offset = 0
        for x, has in xs:
            block = out[:, offset : offset + x.size(1)]
            block[:] = dct(x.float().numpy())
            if has is not None:
                block[~has.numpy()] = 0
            offset += x.size(1)
        data = copy(data)
        data[ITEM].spectrum = torch.from_numpy(out)
        return data

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(modalities={self.modalities})'


def dct(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    r"""Returns the orthonormal type-II discrete cosine transform of each row.

    Shapes:
        - **x**, **output:** :math:`(N, C)`
    """
    import scipy.fft

    return scipy.fft.dct(x, type=2, norm='ortho', axis=1)  # type: ignore[no-any-return]
