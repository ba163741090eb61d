from copy import copy

from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from lirdrec_pyg.typing import ITEM, check, modalities


class FlushDenormals(BaseTransform):
    r"""Sets features to zero where they are less than :math:`10^{-20}` of the largest in their matrix.

    Sentence encoders leave some columns near :math:`10^{-34}`. They change no sum, but their products with a gradient
    are denormal numbers, which a CPU takes a hundred times as long for: up to half of a training step.
    :func:`~lirdrec_pyg.fit` applies this to what it trains on.

    .. code-block:: python

        data['item'].x_text[0, 0] = 1e-34
        print(FlushDenormals()(data)['item'].x_text[0, 0])  # zero

    Shapes:
        - ``data['item'].x_<modality>`` and ``data['item'].spectrum`` keep theirs; a matrix without such values is not
          copied
    """

    def forward(self, data: HeteroData) -> HeteroData:
        data = copy(check(data, interactions=False))
        for name in [*(f'x_{name}' for name in modalities(data)), 'spectrum']:
            if name in data[ITEM] and data[ITEM][name].device.type == 'cpu':
                data[ITEM][name] = flush_denormals(data[ITEM][name])
        return data

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}()'


def flush_denormals(x: Tensor, rows: int = 4096) -> Tensor:
    r"""Returns what :class:`FlushDenormals` makes of a matrix: a copy only where there is something to change."""
    if x.numel() == 0:
        return x
    low, high = x.aminmax()
    least = 1e-20 * max(float(high), -float(low))
    if not any(((part.abs() < least) & (part != 0)).any() for part in x.split(rows)):
        return x
    x = x.clone()
    for part in x.split(rows):
        part.masked_fill_(part.abs() < least, 0)
    return x
