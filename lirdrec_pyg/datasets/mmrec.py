import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData, InMemoryDataset

from lirdrec_pyg.typing import INTERACTS, ITEM, USER

# users, items, interactions; size and first digits of the sha256 of each file where known
PUBLISHED: dict[str, tuple[int, int, int]] = {
    'baby': (19_445, 7_050, 160_792),
    'sports': (35_598, 18_357, 296_337),
    'clothing': (39_387, 23_033, 278_677),
    'elec': (192_403, 63_001, 1_689_188),
    'microlens': (98_129, 17_228, 705_174),
}
PUBLISHED_FILES: dict[str, tuple[int, str]] = {
    'baby.inter': (4_362_239, 'e0abb033'),
    'baby/image_feat.npy': (231_014_528, '36c3be59'),
    'baby/text_feat.npy': (10_828_928, '6667f2ad'),
}


class MMRecDataset(InMemoryDataset):
    r"""A dataset in the folder format of the MMRec framework, such as the published Amazon sets ``baby``, ``sports``,
    ``clothing``, ``elec`` and ``microlens``, or your own.

    The folder ``<root>/<name>`` (or ``root`` itself) holds:

    * ``<name>.inter``: tab-separated with a header; ``userID`` and ``itemID`` (integers from 0), optionally ``x_label``
      (0 = train, 1 = validation, 2 = test), ``timestamp`` (or ``position``) and ``rating``;
    * ``<modality>_feat.npy`` for any number of modalities: ``[I, C]``, row i = item i, any float type, stored as
      float32. A zero row is allowed and takes no part in the item graph;
    * optionally ``<modality>_mask.npy``: ``[I]`` bool, which items have the modality;
    * optionally ``items.tsv``: ``itemID``, a raw id (``raw_id`` or ``asin``) and a ``title`` (or ``text``).

    Items without interactions are legitimate: they are cold. The processed data is cached in a folder whose name
    depends on the raw files and on every argument that changes the data.

    Args:
        root (str): The folder that holds ``<name>/``, or that folder itself.
        name (str): The name of the dataset.
        modalities (sequence of str, optional): The modalities to load. (default: all, sorted by name)
        transform (callable, optional): Applied at each access.
        pre_transform (callable, optional): Applied once, before the cache is written.
        cache_dir (str, optional): Where to keep the cache. (default: ``processed`` in the dataset's folder)
        force_reload (bool, optional): Process again. (default: :obj:`False`)

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file does not have the form above; names the file, the line or row, and the value.
    """

    def __init__(
        self,
        root: str,
        name: str,
        modalities: Sequence[str] | None = None,
        transform: Callable[[HeteroData], HeteroData] | None = None,
        pre_transform: Callable[[HeteroData], HeteroData] | None = None,
        cache_dir: str | None = None,
        force_reload: bool = False,
    ) -> None:
        self.name = name
        self.modalities = None if modalities is None else sorted(modalities)
        base = Path(root).expanduser()
        self.folder = base if (base / f'{name}.inter').is_file() and not (base / name).is_dir() else base / name
        self.inter = self.folder / f'{name}.inter'
        if not self.inter.is_file():
            raise FileNotFoundError(
                f"no '{self.inter}': '{self.folder}' needs to hold '{name}.inter' and '<modality>_feat.npy' files"
            )
        found = sorted(path.name.removesuffix('_feat.npy') for path in self.folder.glob('*_feat.npy'))
        for modality in self.modalities or []:
            if modality not in found:
                raise FileNotFoundError(f"no '{self.folder / modality}_feat.npy' (found the modalities {found})")
        self.found = found if self.modalities is None else self.modalities
        if len(self.found) == 0:
            raise FileNotFoundError(f"no '<modality>_feat.npy' in '{self.folder}'")
        self._cache = Path(cache_dir).expanduser() / name if cache_dir else self.folder / 'processed'
        self._key = self._cache_key(pre_transform)
        super().__init__(str(base), transform, pre_transform, force_reload=force_reload)
        self.load(self.processed_paths[0], data_cls=HeteroData)

    def _files(self) -> list[Path]:
        optional = [self.folder / f'{name}_mask.npy' for name in self.found] + [self.folder / 'items.tsv']
        return [self.inter, *(self.folder / f'{name}_feat.npy' for name in self.found)] + [
            path for path in optional if path.is_file()
        ]

    def _cache_key(self, pre_transform: object) -> str:
        files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self._files()]
        return hashlib.sha256(repr((self.name, self.found, repr(pre_transform), files)).encode()).hexdigest()[:16]

    @property
    def raw_file_names(self) -> list[str]:
        return []

    @property
    def processed_dir(self) -> str:
        return str(self._cache / self._key)

    @property
    def processed_file_names(self) -> str:
        return 'data.pt'

    def process(self) -> None:
        data = HeteroData()
        data[USER].num_nodes = data[ITEM].num_nodes = 0
        for name in self.found:
            data[ITEM][f'x_{name}'] = x = read_features(self.folder / f'{name}_feat.npy')
            num_items = data[ITEM].num_nodes = data[ITEM].num_nodes or len(x)
            if len(x) != num_items:
                raise ValueError(f"'{name}_feat.npy' needs a row for each of {num_items} items (got {len(x)})")
            mask = self.folder / f'{name}_mask.npy'
            if mask.is_file():
                has = torch.from_numpy(np.load(mask, allow_pickle=False).astype(bool))
                if has.shape != (num_items,):
                    raise ValueError(f"'{mask.name}' needs to be of shape ({num_items},) (got {tuple(has.shape)})")
                data[ITEM][f'has_{name}'] = has
                x[~has] = 0
        read_interactions(self.inter, data)
        _read_items(self.folder / 'items.tsv', data)
        self._check_published(data)
        if self.pre_transform is not None:
            data = self.pre_transform(data)
        temporary = f'{self.processed_paths[0]}.{os.getpid()}.tmp'
        self.save([data], temporary)
        os.replace(temporary, self.processed_paths[0])

    def _check_published(self, data: HeteroData) -> None:
        if self.name not in PUBLISHED:
            return
        expected = PUBLISHED[self.name]
        got = (data[USER].num_nodes, data[ITEM].num_nodes, data[INTERACTS].edge_index.size(1))
        if got != expected:
            warnings.warn(
                f"'{self.name}' differs from the published set (users, items, interactions: expected {expected}, got "
                f'{got}): results are not comparable with published ones',
                stacklevel=2,
            )
        for path in self._files():
            key = path.name if path.suffix == '.inter' else f'{self.name}/{path.name}'
            if key in PUBLISHED_FILES:
                size, prefix = PUBLISHED_FILES[key]
                if path.stat().st_size != size or not _sha256(path).startswith(prefix):
                    warnings.warn(
                        f"'{path}' differs from the published file ({size} bytes, sha256 {prefix}…)", stacklevel=2
                    )

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}('{self.name}', modalities={self.found})"


def read_features(path: Path, chunk_size: int = 8192) -> Tensor:
    r"""Reads a ``.npy`` matrix as float32 in chunks of rows, and refuses values that are not finite."""
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"'{path}' is not a numeric .npy file ({error})") from error
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.number) or len(array) == 0:
        raise ValueError(f"'{path}' needs to be a numeric matrix [I, C] (got {array.dtype} of shape {array.shape})")
    out = torch.empty(array.shape, dtype=torch.float32)
    for start in range(0, len(array), chunk_size):
        out[start : start + chunk_size] = torch.from_numpy(array[start : start + chunk_size].astype(np.float32))
    bad = ~torch.isfinite(out).all(dim=1)
    if bad.any():
        raise ValueError(
            f"'{path}' needs to be finite (got NaN or Inf in {int(bad.sum())} rows, first: row {int(bad.nonzero()[0])})"
        )
    return out


def read_interactions(path: Path, data: HeteroData) -> None:
    r"""Reads an ``.inter`` file into ``data``, which knows the number of items."""
    frame = pd.read_csv(path, sep='\t', dtype=str, keep_default_na=False, engine='c', on_bad_lines='error')
    for column in ('userID', 'itemID'):
        if column not in frame:
            raise ValueError(f"'{path}' lacks the column '{column}' (found {list(frame.columns)})")
    columns: dict[str, tuple[str, type]] = {'user': ('userID', int), 'item': ('itemID', int)}
    time = next((name for name in ('timestamp', 'position') if name in frame), None)
    for key, name, dtype in [('split', 'x_label', int), ('time', time, float), ('rating', 'rating', float)]:
        if name in frame:
            columns[key] = str(name), dtype
    values = {}
    for key, (column, dtype) in columns.items():
        number = pd.to_numeric(frame[column], errors='coerce').to_numpy(dtype=float)
        bad = ~np.isfinite(number)
        if dtype is int:
            bad |= number != np.round(number)
        if bad.any():
            line = int(bad.nonzero()[0][0])
            raise ValueError(f"line {line + 2} of '{path}': '{column}' is not a number (got '{frame[column][line]}')")
        values[key] = number.astype(np.int64) if dtype is int else number
    user, item, num_items = values['user'], values['item'], data[ITEM].num_nodes
    if len(user) == 0:
        raise ValueError(f"'{path}' has no interactions")
    for column, ids in [('userID', user), ('itemID', item)]:
        if ids.min() < 0:
            raise ValueError(f"line {ids.argmin() + 2} of '{path}': '{column}' is negative (got {ids.min()})")
    if item.max() >= num_items:
        raise ValueError(f"'{path}' names item {item.max()}, but the features have {num_items} rows")
    known = np.bincount(user)
    if (known == 0).any():
        raise ValueError(f"'userID' of '{path}' has gaps ({(known == 0).sum()}, first: {known.argmin()})")
    repeated = pd.Series(user * num_items + item).duplicated().to_numpy()
    if repeated.any():
        line = int(repeated.nonzero()[0][0])
        raise ValueError(
            f"'{path}' repeats interactions ({repeated.sum()}, first: line {line + 2}, user {user[line]}, "
            f'item {item[line]})'
        )
    split = values.get('split')
    if split is not None and not ((split >= 0) & (split <= 2)).all():
        line = int(((split < 0) | (split > 2)).nonzero()[0][0])
        raise ValueError(f"line {line + 2} of '{path}': 'x_label' needs to be 0, 1 or 2 (got {split[line]})")
    data[USER].num_nodes = int(user.max()) + 1
    data[USER].raw_id = [str(i) for i in range(data[USER].num_nodes)]
    data[INTERACTS].edge_index = torch.from_numpy(np.stack([user, item]))
    for key in columns.keys() - {'user', 'item'}:
        data[INTERACTS][key] = torch.from_numpy(values[key])


def _read_items(path: Path, data: HeteroData) -> None:
    num_items = data[ITEM].num_nodes
    data[ITEM].raw_id = [str(i) for i in range(num_items)]
    if not path.is_file():
        return
    frame = pd.read_csv(path, sep='\t', dtype=str, keep_default_na=False, quoting=3)
    if 'itemID' not in frame or sorted(frame['itemID'].astype(int)) != list(range(num_items)):
        raise ValueError(f"'{path}' needs a column 'itemID' that names each of {num_items} items once")
    frame = frame.sort_values('itemID', key=lambda ids: ids.astype(int))
    for key, names in [('raw_id', ('raw_id', 'asin')), ('title', ('title', 'text'))]:
        column = next((name for name in names if name in frame), None)
        if column is not None:
            data[ITEM][key] = frame[column].tolist()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
