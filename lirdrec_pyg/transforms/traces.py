from copy import copy

from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg.typing import ITEM, modalities


def without_traces(data: HeteroData) -> HeteroData:
    r"""Returns the data with features zero where they are less than :math:`10^{-20}` of the largest in their matrix.

    Sentence encoders leave some columns near :math:`10^{-34}`. They change no sum, but their products with a gradient
    are subnormal numbers, which a CPU takes a hundred times as long for: up to half of a training step.
    """
    data = copy(data)
    for name in [*(f'x_{name}' for name in modalities(data)), 'spectrum']:
        if name in data[ITEM] and data[ITEM][name].device.type == 'cpu':
            data[ITEM][name] = zero_traces(data[ITEM][name])
    return data


def zero_traces(x: Tensor, rows: int = 4096) -> Tensor:
    r"""Returns what :func:`without_traces` makes of a matrix: a copy only where there is something to change."""
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
