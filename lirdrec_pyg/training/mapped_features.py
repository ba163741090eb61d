import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lirdrec_pyg._io import digest, file_digest
from lirdrec_pyg.transforms.dct import dct
from lirdrec_pyg.transforms.flush_denormals import flush_denormals
from lirdrec_pyg.typing import LARGEST, check_mask, check_nodes


class MappedFeatures:
    r"""Features in ``.npy`` files, of which only the rows asked for are read.

    The spectrum is that of :class:`~lirdrec_pyg.transforms.DCT`, made of the rows that were read.

    Args:
        paths (mapping of str to path): The file :math:`(\geq |\mathcal{I}|, C_m)` of each modality, of any float type.
        num_items (int): The number of items.
        masks (mapping of str to Tensor, optional): Which items have a modality, bool :math:`(|\mathcal{I}|)`.
            (default: all)

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If there is none, or one is no matrix of floats, shorter than the catalogue, or cut off.
    """

    def __init__(
        self,
        paths: Mapping[str, str | os.PathLike[str]],
        num_items: int,
        masks: Mapping[str, Tensor] | None = None,
    ) -> None:
        if len(paths) == 0:
            raise ValueError("'paths' needs at least one modality (got none)")
        self.num_items = num_items
        self.masks = {name: check_mask(mask, num_items, f'masks[{name!r}]') for name, mask in (masks or {}).items()}
        self.paths = {name: Path(path) for name, path in paths.items()}
        self._x: dict[str, np.ndarray[Any, Any]] = {}
        for name, path in paths.items():
            if not Path(path).is_file():
                raise FileNotFoundError(f"no features of '{name}' at '{path}'")
            try:
                x = np.load(path, mmap_mode='r', allow_pickle=False)
            except ValueError as error:
                raise ValueError(f"'{path}' is cut off or no `.npy` file ({error})") from error
            if x.ndim != 2 or x.dtype.kind != 'f':
                raise ValueError(f"'{path}' needs to hold a matrix of floats (got {x.dtype} {x.shape})")
            if len(x) < num_items:
                raise ValueError(f"'{path}' needs a row for each of the {num_items} items (got {len(x)})")
            self._x[name] = x

    @property
    def in_channels(self) -> dict[str, int]:
        r"""The width of each modality."""
        return {name: x.shape[1] for name, x in self._x.items()}

    def rows(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor | None]]:
        r"""Returns the features, the spectra and the masks of some items, float32.

        Raises:
            ValueError: If an item does not exist, or a feature is not finite or too large.
        """
        index = check_nodes(index, self.num_items, 'index')
        order = index.sort()  # reads forward through the files
        xs, masks, spectra = {}, {}, []
        for name, x in self._x.items():
            block = np.empty((len(index), x.shape[1]), dtype=np.float32)
            block[order.indices.numpy()] = x[order.values.numpy()]
            bad = np.logical_not(np.abs(block) <= LARGEST).any(axis=1)
            if bad.any():
                first = int(index[int(np.flatnonzero(bad)[0])])
                raise ValueError(f"'x_{name}' needs to be finite (got {int(bad.sum())} bad rows, first: item {first})")
            spectrum = torch.from_numpy(dct(block))
            masks[name] = None if name not in self.masks else self.masks[name][index]
            if (mask := masks[name]) is not None:
                spectrum[~mask] = 0
            xs[name] = flush_denormals(torch.from_numpy(block))
            spectra.append(flush_denormals(spectrum))
        return xs, torch.cat(spectra, dim=1), masks

    def identity(self) -> dict[str, Any]:
        r"""Returns digests of the files and of the masks."""
        files = {name: file_digest(path) for name, path in self.paths.items()}
        return {'files': files, 'masks': digest(self.masks)}

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_items}, {self.in_channels})'
