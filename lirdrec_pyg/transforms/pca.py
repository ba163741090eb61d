import functools
import logging
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from lirdrec_pyg._io import replacing
from lirdrec_pyg.typing import ITEM, LARGEST, check, check_mask, modalities, modality_features

logger = logging.getLogger('lirdrec_pyg')
PathLike = str | os.PathLike[str]
VARIANCE = 0.95  # the share of the variance that 'auto' keeps
NARROW = 128  # 'auto' leaves what is no wider: an encoder is not faster for less
ROWS = 4096  # read at once


class Components(NamedTuple):
    r"""The leading principal components of a modality, by which items that come later are compressed as those before.

    .. code-block:: python

        components = PCA(4).components(data)['image']
        print(components.share, components.project(data['item'].x_image[:3]).shape)

    Args:
        mean (Tensor): The mean of the features.
        basis (Tensor): The components, orthonormal columns in the order of their variance.
        share (float): The share of the variance that they keep.

    Shapes:
        - **mean:** :math:`(C)`
        - **basis:** :math:`(C, r)`
    """

    mean: Tensor
    basis: Tensor
    share: float

    def project(self, x: Tensor) -> Tensor:
        r"""Returns features along the components, in double precision if they are, else in single precision.

        Shapes:
            - **x:** :math:`(N, C)`
            - **output:** :math:`(N, r)`

        Raises:
            ValueError: If the features are of another width.
        """
        if x.dim() != 2 or x.size(1) != len(self.mean):
            raise ValueError(f"'x' needs to have the {len(self.mean)} columns of these components (got {[*x.shape]})")
        dtype = torch.double if x.dtype == torch.double else torch.float
        mean, basis = (value.to(x.device, dtype) for value in (self.mean, self.basis))
        return torch.cat([(rows.to(dtype) - mean) @ basis for rows in x.split(ROWS)])

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.basis.size(0)}, {self.basis.size(1)}, share={self.share:.4f})'


Count = int | float | Literal['auto'] | Components


class PCA(BaseTransform):
    r"""Compresses the features of each modality to their leading principal components, once, before training.

    .. math::
        \mathbf{x}_i \leftarrow \mathbf{V}_r^\top (\mathbf{x}_i - \bar{\mathbf{x}})

    The work of an encoder is linear in the width of the features, so this is an approximation that buys time: apply it
    before :class:`~lirdrec_pyg.transforms.DCT`, and after :class:`~lirdrec_pyg.transforms.ItemKNNGraph` where the item
    graph should be that of the whole features. Items that lack a modality take no part in its mean and components, and
    keep a zero row.

    What decides is one of these:

    - ``'auto'``: the fewest components that keep 95 % of the variance. A modality stays as it is where little would be
      gained: where that is more than half its width, or where it is at most 128 wide. ``docs/scale.md`` says what this
      does to quality.
    - A number in :math:`(0, 1)`: the fewest components that keep this share of the variance.
    - An integer: so many components. Here and above, a modality that is no wider stays as it is.
    - :class:`Components`: those of earlier items, for items that came later.

    What was decided is in the log of ``lirdrec_pyg``, in the widths of the features, and in :meth:`components`.

    .. code-block:: python

        data = PCA(4)(data)
        print(data['item'].x_image.shape)  # (48, 4)

    Args:
        num_components (str, float, int or Components, or mapping of str to these, optional): The number :math:`r` of
            components of each modality. A mapping gives that of the modalities to compress. (default: ``'auto'``)

    Shapes:
        - ``data['item'].x_<modality>`` :math:`(|\mathcal{I}|, C_m)` → :math:`(|\mathcal{I}|, r_m)`

    Raises:
        ValueError: If ``num_components`` is none of these, names an unknown modality, or is above the number of items
            that have a wider modality.
    """

    def __init__(self, num_components: Count | Mapping[str, Count] = 'auto') -> None:
        for count in num_components.values() if isinstance(num_components, Mapping) else [num_components]:
            check_components(count)
        self.num_components = num_components

    def forward(self, data: HeteroData) -> HeteroData:
        data = copy(check(data, interactions=False))
        for name, components in self.components(data).items():
            x, has = modality_features(data, name)
            rows = slice(None) if has is None else has
            out = x.new_zeros(x.size(0), components.basis.size(1))
            out[rows] = components.project(x[rows]).to(x.dtype)
            data[ITEM][f'x_{name}'] = out
        return data

    def components(self, data: HeteroData) -> dict[str, Components]:
        r"""Returns the components of the modalities that are compressed; those that stay as they are have none.

        ``PCA(pca.components(data))`` compresses the items of other data as those of ``data``.
        """
        data = check(data, interactions=False)
        counts = self.num_components
        if not isinstance(counts, Mapping):
            counts = dict.fromkeys(modalities(data), counts)
        out = {}
        for name, count in counts.items():
            x, has = modality_features(data, name)
            rows = x if has is None else x[has]
            found = principal_components(functools.partial(rows.split, ROWS), x.size(1), count, f"modality '{name}'")
            if found is not None:
                out[name] = found
        return out

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(num_components={self.num_components!r})'


def compress_features(
    path: PathLike,
    out: PathLike,
    num_components: Count = 'auto',
    *,
    num_items: int | None = None,
    mask: Tensor | None = None,
    batch_size: int = ROWS,
) -> Components | None:
    r"""Compresses the features in a ``.npy`` file to their leading principal components, as :class:`PCA` does, and
    writes them to another one, float32. Neither is ever in memory as a whole: the file is read a block of rows at a
    time, for the mean, for the covariance, and for what is written.

    .. code-block:: python

        numpy.save('image_feat.npy', data['item'].x_image)
        components = compress_features('image_feat.npy', 'small.npy', 4)
        print(numpy.load('small.npy').shape)  # (48, 4)

    Args:
        path (path): The file :math:`(\geq |\mathcal{I}|, C)` of the features, of any float type.
        out (path): The file :math:`(|\mathcal{I}|, r)` to write, whole or not at all.
        num_components (str, float, int or Components, optional): What decides about :math:`r`, see :class:`PCA`.
            (default: ``'auto'``)
        num_items (int, optional): The number of items, the first rows of the file. (default: all)
        mask (Tensor, optional): Which items have the modality, bool :math:`(|\mathcal{I}|)`. The others take no part,
            and get a zero row. (default: all)
        batch_size (int, optional): The number of rows read at once. (default: :obj:`4096`)

    Returns:
        The components, to compress the features of items that come later. :obj:`None` if the features are better left
        as they are: then nothing is written.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is no matrix of floats, too short, or has a row that is not finite or too large, or an
            argument is out of range.
    """
    check_components(num_components)
    if batch_size < 1:
        raise ValueError(f"'batch_size' needs to be positive (got {batch_size})")
    if Path(out).resolve() == Path(path).resolve():
        raise ValueError(f"'out' needs to be another file than 'path' (got '{out}')")
    x = open_features(path)
    size, width = (len(x) if num_items is None else operator.index(num_items)), x.shape[1]
    if not 0 < size <= len(x):
        raise ValueError(f"'{path}' needs a row for each of the {size} items (got {len(x)})")
    has = None if mask is None else check_mask(mask, size, 'mask')
    del x

    def blocks() -> Iterator[Tensor]:
        for start in range(0, size, batch_size):  # a mapping counts as memory for as long as it is open
            block = np.asarray(open_features(path)[start : min(start + batch_size, size)])
            yield torch.from_numpy(block.astype(np.float64 if block.dtype == np.float64 else np.float32))

    def present() -> Iterator[Tensor]:
        for start, block in zip(range(0, size, batch_size), blocks(), strict=True):
            bad = ~(block.abs() <= LARGEST).all(dim=1)
            if bad.any():
                row = start + int(bad.nonzero()[0])
                raise ValueError(f"'{path}' needs to be finite (got {int(bad.sum())} bad rows, first: row {row})")
            yield block if has is None else block[has[start : start + len(block)]]

    components = principal_components(present, width, num_components, f"'{path}'")
    if components is None:
        return None
    with replacing(out) as temporary, temporary.open('wb') as file:
        header = {'descr': '<f4', 'fortran_order': False, 'shape': (size, components.basis.size(1))}
        np.lib.format.write_array_header_1_0(file, header)
        for start, block in zip(range(0, size, batch_size), blocks(), strict=True):
            y = components.project(block).float()
            if has is not None:
                y[~has[start : start + len(y)]] = 0
            file.write(y.numpy().astype('<f4', copy=False).tobytes())
    return components


def open_features(path: PathLike) -> np.ndarray[Any, Any]:
    r"""Returns the matrix of floats in a ``.npy`` file, of which rows are read as they are needed.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is none, or cut off.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no features at '{path}'")
    try:
        x: np.ndarray[Any, Any] = np.load(path, mmap_mode='r', allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"'{path}' is cut off or no `.npy` file ({error})") from error
    if x.ndim != 2 or x.dtype.kind != 'f':
        raise ValueError(f"'{path}' needs to hold a matrix of floats (got {x.dtype} {x.shape})")
    return x


def check_components(count: Count) -> None:
    r"""Refuses what decides about no number of components."""
    if isinstance(count, Components) or count == 'auto' or (isinstance(count, float) and 0 < count < 1):
        return
    if isinstance(count, float | str):
        raise ValueError(
            "'num_components' needs to be 'auto', a share of the variance in (0, 1), a positive integer, or "
            f'`Components` (got {count!r})'
        )
    if operator.index(count) < 1:
        raise ValueError(f"'num_components' needs to be positive (got {count})")


def principal_components(
    blocks: Callable[[], Iterable[Tensor]], width: int, count: Count, name: str
) -> Components | None:
    r"""Returns the components of rows that come in blocks, by their covariance in double precision.

    Args:
        blocks (callable): Gives the blocks, each :math:`(N_b, C)`, as often as it is called.
        width (int): The width :math:`C`.
        count (str, float, int or Components): What decides about their number, see :class:`PCA`.
        name (str): What errors and the log call the rows.

    Returns:
        The components, :obj:`None` if the rows are better left as they are.
    """
    if isinstance(count, Components):
        if len(count.mean) != width:
            raise ValueError(f'{name} needs the {len(count.mean)} columns of its components (got {width})')
        return count
    if (isinstance(count, int) and width <= count) or (count == 'auto' and width <= NARROW):
        return None
    size, mean = 0, torch.zeros(width, dtype=torch.double)
    for rows in blocks():
        size += len(rows)
        mean = mean.to(rows.device) + rows.sum(dim=0, dtype=torch.double)
    if isinstance(count, int) and size < count:
        raise ValueError(f"'num_components' needs to be at most the {size} items with {name} (got {count})")
    if size == 0:
        return None
    mean /= size
    gram = mean.new_zeros(width, width)
    for rows in blocks():
        centred = rows.double() - mean
        gram.addmm_(centred.t(), centred)
    value, vector = torch.linalg.eigh(gram)
    shares = value.flip(0).clamp_min(0).cumsum(0)
    shares /= shares[-1].clamp_min(torch.finfo(shares.dtype).tiny)
    if isinstance(count, int):
        r = count
    else:
        r = min(int((shares < (VARIANCE if count == 'auto' else count)).sum()) + 1, width)
        if r > (width // 2 if count == 'auto' else width - 1):
            logger.info(
                '%s keeps its %d columns (%d components would keep %g of its variance)', name, width, r, VARIANCE
            )
            return None
    basis = vector[:, width - r :].flip(1)
    basis *= basis.gather(0, basis.abs().argmax(dim=0, keepdim=True)).sign()  # unique signs
    logger.info('%s has %d components in place of %d columns (%.4f of its variance)', name, r, width, shares[r - 1])
    return Components(mean, basis, float(shares[r - 1]))
