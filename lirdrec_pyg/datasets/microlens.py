from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import HeteroData

from lirdrec_pyg.datasets._common import (
    CachedDataset,
    cache_key,
    is_anonymous,
    make_folder,
    read_features,
    read_npy,
    save,
)
from lirdrec_pyg.datasets.interaction_table import InteractionTable
from lirdrec_pyg.typing import ITEM


class MicroLens(CachedDataset):
    r"""A short-video dataset from the `"A Content-Driven Micro-Video Recommendation Dataset at Scale"
    <https://arxiv.org/abs/2309.15379>`_ paper, in its published files.

    The folder ``root`` holds:

    * ``<name>_pairs.csv`` (``user,item,timestamp``, or ``userID,videoID,timestamp``) or ``<name>_pairs.tsv`` (a user, a
      tab, and its videos in chronological order, separated by spaces: their positions are the times);
    * ``<name>_titles.csv``: ``item,title``, with or without that header. Videos without a title have an empty one;
    * optionally ``<name>_covers/<item>.jpg``, whose paths become ``data['item'].image``.

    The files carry no features: compute them (:mod:`lirdrec_pyg.features`) of ``data['item'].title`` and
    ``data['item'].image``, and pass the files that this writes as ``features``.

    Args:
        root (str): The folder of the files.
        name (str, optional): The start of their names. (default: ``'MicroLens-50k'``)
        features (mapping of str to path, optional): For each modality an ``.npy`` file :math:`(|\mathcal{I}|, C)` in
            the data's order of items; ``<modality>_mask.npy`` beside it, if there is one, says which items have it.
        k_core (int, optional): The least number of interactions of a user and an item. (default: :obj:`0`)
        transform (callable, optional): Applied at each access.
        pre_transform (callable, optional): Applied once, before the data is stored.
        force_reload (bool, optional): Whether to process again. (default: :obj:`False`)
        cache_dir (str, optional): Where to store the processed data. (default: ``<root>/processed``)

    Raises:
        FileNotFoundError: If a file is missing; names it.
        ValueError: If a line is not of the form above; names it.
    """

    def __init__(
        self,
        root: str,
        name: str = 'MicroLens-50k',
        features: Mapping[str, str] | None = None,
        k_core: int = 0,
        transform: Callable[[HeteroData], HeteroData] | None = None,
        pre_transform: Callable[[HeteroData], HeteroData] | None = None,
        force_reload: bool = False,
        cache_dir: str | None = None,
    ) -> None:
        self.name = name
        self.k_core = k_core
        self.folder = Path(root).expanduser()
        self.features = {modality: Path(path) for modality, path in (features or {}).items()}
        pairs = [self.folder / f'{name}_pairs.{suffix}' for suffix in ('csv', 'tsv')]
        self.pairs = next((path for path in pairs if path.is_file()), pairs[1])
        self.titles = self.folder / f'{name}_titles.csv'
        self.masks = {key: path.with_name(f'{key}_mask.npy') for key, path in self.features.items()}
        self.masks = {key: path for key, path in self.masks.items() if path.is_file()}
        self.files = [self.pairs, self.titles, *self.features.values(), *self.masks.values()]
        for path in self.files:
            if not path.is_file():
                raise FileNotFoundError(f"no '{path}': '{root}' needs to hold '{name}_pairs.tsv' (or .csv) and "
                                        f"'{name}_titles.csv'")  # fmt: skip
        cache = self.folder / 'processed' if cache_dir is None else Path(cache_dir).expanduser() / name
        self._processed_dir = cache / cache_key(self.files, name, list(self.features), k_core, pre_transform)
        make_folder(self._processed_dir)
        super().__init__(str(root), transform, pre_transform, force_reload=force_reload or is_anonymous(pre_transform))
        self.load(self.processed_paths[0])

    @property
    def raw_dir(self) -> str:
        return str(self.folder)

    @property
    def raw_file_names(self) -> list[str]:
        return [self.pairs.name, self.titles.name]

    @property
    def processed_dir(self) -> str:
        return str(self._processed_dir)

    @property
    def processed_file_names(self) -> str:
        return 'data.pt'

    def process(self) -> None:
        interactions = _read_pairs(self.pairs)
        titles = pd.read_csv(self.titles, header=None, names=['item', 'title'], dtype=str, keep_default_na=False)
        if len(titles) and titles['item'].iloc[0].lower() in ('item', 'videoid', 'item_id'):
            titles = titles.iloc[1:]
        untitled = set(interactions['item']) - set(titles['item'])
        if untitled:
            more = pd.DataFrame({'item': sorted(untitled), 'title': ''})
            titles = pd.concat([titles, more], ignore_index=True)
        table = InteractionTable(interactions, titles, time='time', text='title', k_core=self.k_core)
        features = {}
        for modality, path in self.features.items():
            has = None
            if modality in self.masks:
                has = torch.from_numpy(np.array(read_npy(self.masks[modality])))
            x = read_features(path, modality, has)
            features[modality] = x if has is None else (x, has)
        data = table.to_hetero_data(features) if features else table.data
        covers = self.folder / f'{self.name}_covers'
        if covers.is_dir():
            found = {path.stem: str(path) for path in sorted(covers.iterdir())}
            data[ITEM].image = [found.get(raw) for raw in table.item_ids]
        save(self, data)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.name})'


def _read_pairs(path: Path) -> pd.DataFrame:
    if path.suffix == '.csv':
        frame = pd.read_csv(path, header=None, dtype=str, keep_default_na=False)
        if frame.shape[1] != 3:
            raise ValueError(f"'{path}' needs 3 columns: user, item, timestamp (got {frame.shape[1]})")
        frame = frame.set_axis(['user', 'item', 'time'], axis=1)
        return frame.iloc[1:] if not frame['time'].iloc[0].isdigit() else frame
    users: list[str] = []
    items: list[str] = []
    times: list[int] = []
    for line, text in enumerate(path.read_text().splitlines(), start=1):
        user, tab, history = text.partition('\t')
        bought = history.split()
        if not (user and tab and bought):
            raise ValueError(f"line {line} of '{path}' needs to be a user, a tab and its items (got {text[:80]!r})")
        users += [user] * len(bought)
        items += bought
        times += range(len(bought))
    return pd.DataFrame({'user': users, 'item': items, 'time': times})
