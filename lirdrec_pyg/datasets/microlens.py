from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lirdrec_pyg.datasets._common import CachedDataset, Transform, find_masks, read_features, read_mask
from lirdrec_pyg.datasets._tables import Table, read_table, read_text, shorten
from lirdrec_pyg.datasets.interaction_table import InteractionTable
from lirdrec_pyg.typing import ITEM, check_modality_name


class MicroLens(CachedDataset):
    r"""A short-video dataset from the `"A Content-Driven Micro-Video Recommendation Dataset at Scale"
    <https://arxiv.org/abs/2309.15379>`_ paper, in its published files.

    The folder ``root`` holds:

    * ``<name>_pairs.csv`` (``user,item,timestamp``, or ``userID,videoID,timestamp``) or ``<name>_pairs.tsv`` (a user, a
      tab, and its videos in chronological order, separated by spaces: their positions are the times);
    * ``<name>_titles.csv``: ``item,title``, with or without that header; titles with a comma are quoted. Videos without
      a title have an empty one;
    * optionally ``<name>_covers/<item>.jpg``, whose paths become ``data['item'].image``.

    The files carry no features: compute them (:mod:`lirdrec_pyg.features`) of ``data['item'].title`` and
    ``data['item'].image``, and pass the files that this writes as ``features``.

    .. code-block:: python

        data = MicroLens('data/microlens_50k')[0]
        train, val, test = LeaveLastOut()(data)

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
        encoding (str, optional): The encoding of the tables. (default: that of the byte order mark, or else UTF-8)

    Raises:
        FileNotFoundError: If a file is missing; names it.
        ValueError: If a line is not of the form above; names it.
    """

    place = "pass 'cache_dir'"

    def __init__(
        self,
        root: str,
        name: str = 'MicroLens-50k',
        features: Mapping[str, str] | None = None,
        k_core: int = 0,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
        force_reload: bool = False,
        cache_dir: str | None = None,
        encoding: str | None = None,
    ) -> None:
        self.name, self.encoding = name, encoding
        self.k_core = k_core
        self.folder = Path(root).expanduser()
        self.features = {check_modality_name(name): Path(path).expanduser() for name, path in (features or {}).items()}
        pairs = [self.folder / f'{name}_pairs.{suffix}' for suffix in ('csv', 'tsv')]
        self.pairs = next((path for path in pairs if path.is_file()), pairs[1])
        self.titles = self.folder / f'{name}_titles.csv'
        self.masks = find_masks(self.features)
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        for path in self.files:
            if not path.is_file():
                raise FileNotFoundError(f"no '{path}': '{root}' needs to hold '{name}_pairs.tsv' (or .csv) and "
                                        f"'{name}_titles.csv'")  # fmt: skip
        covers = self.folder / f'{name}_covers'
        self.covers = sorted(covers.iterdir()) if covers.is_dir() else None
        super().__init__(str(root), transform, pre_transform, force_reload)

    @property
    def cache(self) -> Path:
        return self.folder / 'processed' if self.cache_dir is None else self.cache_dir / self.name

    @property
    def files(self) -> list[Path]:
        return [self.pairs, self.titles, *self.features.values(), *self.masks.values()]

    def arguments(self) -> dict[str, Any]:
        covers = None if self.covers is None else [path.name for path in self.covers]
        return {
            'name': self.name,
            'features': list(self.features),
            'k_core': self.k_core,
            'covers': covers,
            'encoding': self.encoding,
        }

    @property
    def raw_dir(self) -> str:
        return str(self.folder)

    @property
    def raw_file_names(self) -> list[str]:
        return [self.pairs.name, self.titles.name]

    def process(self) -> None:
        import pandas as pd

        interactions = _read_pairs(self.pairs, self.encoding)
        titles = _read_titles(self.titles, self.encoding)
        untitled = set(interactions.ids('item')) - set(titles.ids('item')) - {''}
        more = pd.DataFrame({'item': sorted(untitled), 'title': ''})
        videos = pd.concat([titles.frame, more], ignore_index=True)
        table = InteractionTable(interactions, videos, time='time', text='title', k_core=self.k_core)
        features = {}
        for modality, path in self.features.items():
            has = read_mask(self.masks[modality], len(table.item_ids)) if modality in self.masks else None
            x = read_features(path, modality, has)
            features[modality] = x if has is None else (x, has)
        data = table.to_hetero_data(features) if features else table.data
        if self.covers is not None:
            found = {path.stem: str(path) for path in self.covers}
            data[ITEM].image = [found.get(raw) for raw in table.item_ids]
        self.write(data)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.name})'


def _read_titles(path: Path, encoding: str | None) -> Table:
    table = read_table(path, names=['item', 'title'], least=1, separator=',', encoding=encoding)
    has_header = len(table) > 0 and table.frame['item'].iloc[0].lower() in ('item', 'videoid', 'item_id')
    return table.take(np.arange(len(table)) > 0) if has_header else table


def _read_pairs(path: Path, encoding: str | None) -> Table:
    if path.suffix == '.csv':
        table = read_table(path, names=['user', 'item', 'time'], encoding=encoding)
        if len(table) == 0:
            raise ValueError(f"'{path}' needs at least one interaction (got an empty file)")
        first = table.frame['time'].iloc[0].strip()
        has_header = first.replace('_', '').isalpha() and first.lower() != 'nan'
        return table.take(np.arange(len(table)) > 0) if has_header else table
    import pandas as pd

    users: list[str] = []
    items: list[str] = []
    times: list[int] = []
    lines: list[int] = []
    for line, text in enumerate(read_text(path, encoding).decode().rstrip('\n').split('\n'), start=1):
        user, tab, rest = text.partition('\t')
        bought = rest.split()
        if not (user and tab and bought):
            raise ValueError(f"line {line} of '{path}' needs to be a user, a tab and its items (got {shorten(text)})")
        users += [user] * len(bought)
        items += bought
        times += range(len(bought))
        lines += [line] * len(bought)
    frame = pd.DataFrame({'user': users, 'item': items, 'time': times})
    return Table(frame, str(path), np.array(lines))
