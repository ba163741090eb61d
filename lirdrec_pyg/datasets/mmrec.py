import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData

from lirdrec_pyg._io import file_digest
from lirdrec_pyg.datasets._common import (
    CachedDataset,
    Transform,
    read_features,
    read_ids,
    read_mask,
    read_matrix,
)
from lirdrec_pyg.datasets._mirrors import MIRRORS, PUBLISHED, PUBLISHED_FILES, SPLITS, fetch
from lirdrec_pyg.datasets._tables import MAX_FLOAT, read_table
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, check_modality_name


class MMRecDataset(CachedDataset):
    r"""A dataset in the folder format of the MMRec framework, such as the published sets ``baby``, ``sports``,
    ``clothing``, ``elec`` and ``microlens``, or your own.

    With ``download=True``, what lacks of ``baby``, ``sports`` and ``clothing`` comes from a public mirror. It is
    checked by its sha256, where that is known (``baby``), and else by the numbers of users, items and interactions of
    each part and the shape of the features.

    The folder ``<root>/<name>`` (or ``root`` itself) holds:

    * ``<name>.inter``: tab-separated with a header; ``userID`` and ``itemID`` (integers from 0), optionally ``x_label``
      (0 = train, 1 = validation, 2 = test), ``timestamp`` (or ``position``) and ``rating``. Each pair occurs once, and
      each user at least once; items without interactions are legitimate, they are cold;
    * ``<modality>_feat.npy`` for one or more modalities: ``[I, C]``, row i = item i, of any real type, stored as
      float32. A zero row is allowed;
    * optionally ``<modality>_mask.npy``: ``[I]`` bool, which items have the modality. Features of others become zero;
    * optionally ``items.tsv`` with ``itemID``, ``title`` (or ``text``) and a raw id (``raw_id``, or the first other
      column without repeated values), and ``users.tsv`` with ``userID`` and a raw id, a line for each item or user.

    The data is processed once and kept in a folder of its own for each state of the raw files and of all arguments that
    change it. ``pre_transform`` counts by its class, attributes and code. A plain function has none of these: it is
    applied each time.

    .. code-block:: python

        save_mmrec(data, 'data', 'toy')
        data = MMRecDataset('data', 'toy')[0]  # or 'baby', with download=True
        train, val, test = FixedSplit()(data)

    Args:
        root (str): The folder that holds ``<name>/``, or that folder itself.
        name (str): The name of the dataset.
        transform (callable, optional): Applied at each access. (default: :obj:`None`)
        pre_transform (callable, optional): Applied once, before the data is stored. (default: :obj:`None`)
        force_reload (bool, optional): Whether to process again. (default: :obj:`False`)
        modalities (sequence of str, optional): The modalities to load; their order is always that of their names.
            (default: all)
        cache_dir (str, optional): Where to store the processed data, if the folder is read-only.
            (default: ``processed`` in the dataset's folder)
        encoding (str, optional): The encoding of the tables. (default: that of the byte order mark, or else UTF-8)
        download (bool, optional): Whether to get what lacks of ``baby``, ``sports`` or ``clothing``, interactions and
            image and text features (0.2 to 0.8 GB), from a public mirror. (default: :obj:`False`)

    Raises:
        ConnectionError: If a file can't be downloaded; says where to put it by hand. The next attempt goes on.
        FileNotFoundError: If a file is missing; names it and the expected layout.
        ValueError: If a file does not have the form above; names the file, the line or row, and the value.
    """

    place = "pass 'cache_dir'"

    def __init__(
        self,
        root: str,
        name: str,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
        force_reload: bool = False,
        modalities: Sequence[str] | None = None,
        cache_dir: str | None = None,
        encoding: str | None = None,
        download: bool = False,
    ) -> None:
        self.name, self.encoding = name, encoding
        base = Path(root).expanduser()
        self.folder = next((path for path in (base / name, base) if (path / f'{name}.inter').is_file()), base / name)
        if isinstance(modalities, str) or (modalities is not None and len(modalities) == 0):
            raise ValueError(f"'modalities' needs to be one or more names in a sequence (got {modalities!r})")
        if download:
            fetch(name, self.folder, modalities)
        self.inter = self.folder / f'{name}.inter'
        layout = f"'{self.folder}' needs to hold '{name}.inter' and a '<modality>_feat.npy' for each modality"
        if name in MIRRORS:
            layout += ' (or pass `download=True`)'
        if not self.inter.is_file():
            raise FileNotFoundError(f"no '{self.inter}': {layout}")
        found = sorted(path.name.removesuffix('_feat.npy') for path in self.folder.glob('?*_feat.npy'))
        if not found:
            raise FileNotFoundError(f"no '{self.folder}/<modality>_feat.npy': {layout}")
        for modality in modalities or []:
            if modality not in found:
                raise FileNotFoundError(f"no '{self.folder / modality}_feat.npy': the modalities found are {found}")
        self.modalities = found if modalities is None else sorted(set(modalities))
        for modality in self.modalities:
            check_modality_name(modality)
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        super().__init__(str(base), transform, pre_transform, force_reload)

    @property
    def cache(self) -> Path:
        return self.folder / 'processed' if self.cache_dir is None else self.cache_dir / self.name

    @property
    def files(self) -> list[Path]:
        needed = [self.inter, *(self.folder / f'{modality}_feat.npy' for modality in self.modalities)]
        optional = [*(f'{modality}_mask.npy' for modality in self.modalities), 'items.tsv', 'users.tsv']
        return needed + [self.folder / name for name in optional if (self.folder / name).is_file()]

    def arguments(self) -> dict[str, Any]:
        return {'name': self.name, 'modalities': self.modalities, 'encoding': self.encoding}

    @property
    def raw_dir(self) -> str:
        return str(self.folder)

    @property
    def raw_file_names(self) -> list[str]:
        return [path.name for path in self.files]

    def process(self) -> None:
        data = HeteroData()
        sizes = {name: len(read_matrix(self.folder / f'{name}_feat.npy')) for name in self.modalities}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"the feature files in '{self.folder}' need equally many rows, one per item (got {sizes})")
        data[USER].num_nodes, data[ITEM].num_nodes = 0, sizes[self.modalities[0]]
        _read_interactions(self.inter, data, self.encoding)
        read_ids(self.folder / 'users.tsv', 'userID', data, USER, self.encoding)
        read_ids(self.folder / 'items.tsv', 'itemID', data, ITEM, self.encoding)
        for name in self.modalities:
            mask, has = self.folder / f'{name}_mask.npy', None
            if mask.is_file():
                has = read_mask(mask, data[ITEM].num_nodes)
                data[ITEM][f'has_{name}'] = has
            data[ITEM][f'x_{name}'] = read_features(self.folder / f'{name}_feat.npy', name, has)
        self._check_published(data)
        self.write(data)

    def _check_published(self, data: HeteroData) -> None:
        got = (data[USER].num_nodes, data[ITEM].num_nodes, data[INTERACTS].edge_index.size(1))
        expected = PUBLISHED.get(self.name, got)
        if got != expected:
            warnings.warn(
                f"'{self.folder}' differs from the published set '{self.name}', so results do not compare: it has "
                f'{got} (users, items, interactions) instead of {expected}', stacklevel=2,
            )  # fmt: skip
        for path in self.files:
            if path == self.inter and not {'time', 'rating'} & set(data[INTERACTS].keys()):
                counts = np.bincount(
                    data[INTERACTS].get('split', torch.empty(0, dtype=torch.long)), minlength=3
                ).tolist()
                if counts == SPLITS.get(self.name):
                    continue  # users, items and parts alone, as mirrors have them
            size, prefix = PUBLISHED_FILES.get(f'{self.name}/{path.name}', (0, ''))
            if prefix and (path.stat().st_size != size or not file_digest(path).startswith(prefix)):
                warnings.warn(
                    f"'{path}' differs from the published file, so results do not compare: {path.stat().st_size} bytes "
                    f'instead of {size}, or a sha256 that does not start with {prefix}', stacklevel=2,
                )  # fmt: skip

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.name!r}, modalities={self.modalities})'


def _read_interactions(path: Path, data: HeteroData, encoding: str | None = None) -> None:
    table = read_table(path, ['userID', 'itemID'], plain=True, encoding=encoding, rest=True)
    if len(table) == 0:
        raise ValueError(f"'{path}' needs at least one interaction (got 0)")
    ids = {column: table.numbers(column, integer=True) for column in ('userID', 'itemID')}
    for column, values in ids.items():
        if values.min() < 0:
            raise ValueError(f"line {values.argmin() + 2} of '{path}': '{column}' needs to be at least 0 (got "
                             f'{values.min()})')  # fmt: skip
    user, item = ids.values()
    num_users, num_items = int(user.max()) + 1, data[ITEM].num_nodes
    if item.max() >= num_items:
        raise ValueError(f"line {item.argmax() + 2} of '{path}': 'itemID' needs to be below {num_items}, the number of "
                         f'rows of the features (got {item.max()})')  # fmt: skip
    known = np.unique(user)
    if len(known) != num_users:
        first = int((known != np.arange(len(known))).argmax())
        raise ValueError(f"'userID' of '{path}' needs to be 0 to {num_users - 1} without gaps (got no interactions of "
                         f'{num_users - len(known)} users, first: user {first})')  # fmt: skip
    _, first_of = np.unique(user * num_items + item, return_index=True)
    if len(first_of) != len(user):
        row = int(np.setdiff1d(np.arange(len(user)), first_of)[0])
        raise ValueError(f"'{path}' needs to name each interaction once (got {len(user) - len(first_of)} duplicates, "
                         f'first: user {user[row]}, item {item[row]} in line {row + 2})')  # fmt: skip
    data[USER].num_nodes = num_users
    data[INTERACTS].edge_index = torch.from_numpy(np.stack([user, item]))
    time = 'timestamp' if 'timestamp' in table else 'position'
    for key, column in (('time', time), ('rating', 'rating'), ('split', 'x_label')):
        if column in table:
            values = table.numbers(column, key == 'split', MAX_FLOAT if key == 'rating' else np.inf)
            if key == 'split' and not np.isin(values, (0, 1, 2)).all():
                row = int((~np.isin(values, (0, 1, 2))).argmax())
                raise ValueError(f"line {row + 2} of '{path}': '{column}' needs to be 0, 1 or 2 (got {values[row]})")
            data[INTERACTS][key] = torch.from_numpy(np.array(values, np.float32 if key == 'rating' else None))
