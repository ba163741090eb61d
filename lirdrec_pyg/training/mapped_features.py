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
from lirdrec_pyg.transforms.pca import Count, check_components, compress_features, open_features
from lirdrec_pyg.typing import LARGEST, check_mask, check_nodes


class MappedFeatures:
    r"""Features in ``.npy`` files, of which only the rows asked for are read.

    The spectrum is that of :class:`~lirdrec_pyg.transforms.DCT`, made of the rows that were read.

    .. code-block:: python

        numpy.save('image_feat.npy', data['item'].x_image)
        features = MappedFeatures({'image': 'image_feat.npy'}, num_items=48)
        x, spectrum, has = features.rows(torch.tensor([3, 7]))
        print(x['image'].shape, spectrum.shape)

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
            x = open_features(path)
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

    def compress(
        self,
        folder: str | os.PathLike[str],
        num_components: Count | Mapping[str, Count] = 'auto',
        batch_size: int = 4096,
    ) -> 'MappedFeatures':
        r"""Writes the leading principal components of the features to ``<folder>/<modality>_feat.npy``, and returns
        the features that are there. Modalities that are better left as they are stay where they are.

        Args:
            folder (path): The folder.
            num_components (str, float, int or Components, or mapping of str to these, optional): What decides about
                their number, see :class:`~lirdrec_pyg.transforms.PCA`. (default: ``'auto'``)
            batch_size (int, optional): The number of rows read at once. (default: :obj:`4096`)

        Raises:
            ValueError: As :func:`~lirdrec_pyg.transforms.compress_features`, or if a modality is unknown.
        """
        counts = num_components
        if not isinstance(counts, Mapping):
            counts = dict.fromkeys(self.paths, counts)
        for name, count in counts.items():
            if name not in self.paths:
                raise ValueError(f"'num_components' names the unknown modality '{name}' (there are {[*self.paths]})")
            check_components(count)
        paths = dict(self.paths)
        for name, count in counts.items():
            out, mask = Path(folder) / f'{name}_feat.npy', self.masks.get(name)
            sizes = {'num_items': self.num_items, 'batch_size': batch_size}
            if compress_features(paths[name], out, count, mask=mask, **sizes) is not None:
                paths[name] = out
        return MappedFeatures(paths, self.num_items, self.masks)

    def identity(self) -> dict[str, Any]:
        r"""Returns digests of the files and of the masks."""
        files = {name: file_digest(path) for name, path in self.paths.items()}
        return {'files': files, 'masks': digest(self.masks)}

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_items}, {self.in_channels})'
