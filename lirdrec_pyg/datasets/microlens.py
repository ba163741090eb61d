import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lirdrec_pyg.datasets._common import CachedDataset, Transform, find_masks, read_features, read_mask
from lirdrec_pyg.datasets.interaction_table import InteractionTable
from lirdrec_pyg.typing import ITEM

if TYPE_CHECKING:
    import pandas as pd


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
    ) -> None:
        self.name = name
        self.k_core = k_core
        self.folder = Path(root).expanduser()
        self.features = {modality: Path(path) for modality, path in (features or {}).items()}
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
        return {'name': self.name, 'features': list(self.features), 'k_core': self.k_core, 'covers': covers}

    @property
    def raw_dir(self) -> str:
        return str(self.folder)

    @property
    def raw_file_names(self) -> list[str]:
        return [self.pairs.name, self.titles.name]

    def process(self) -> None:
        import pandas as pd

        interactions = _read_pairs(self.pairs)
        titles = _read_titles(self.titles)
        untitled = set(interactions['item']) - set(titles['item'])
        if untitled:
            more = pd.DataFrame({'item': sorted(untitled), 'title': ''})
            titles = pd.concat([titles, more], ignore_index=True)
        table = InteractionTable(interactions, titles, time='time', text='title', k_core=self.k_core)
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


def _read_titles(path: Path) -> 'pd.DataFrame':
    import pandas as pd

    rows: list[list[str]] = []
    with path.open(encoding='utf-8-sig', newline='') as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                if len(row) > 2:
                    raise ValueError(f"line {reader.line_num} of '{path}' needs 2 fields: item, title, the latter in "
                                     f'quotes if it has a comma (got {len(row)}: {row[:3]})')  # fmt: skip
                if row:
                    rows.append([row[0], *(row[1:] or [''])])
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num} of '{path}' needs to be valid CSV ({error})") from error
    if rows and rows[0][0].lower() in ('item', 'videoid', 'item_id'):
        rows = rows[1:]
    return pd.DataFrame(rows, columns=['item', 'title'], dtype=str)


def _read_pairs(path: Path) -> 'pd.DataFrame':
    import pandas as pd

    if path.suffix == '.csv':
        try:
            frame = pd.read_csv(path, header=None, dtype=str, keep_default_na=False)
        except pd.errors.EmptyDataError as error:
            raise ValueError(f"'{path}' needs at least one interaction (got an empty file)") from error
        if frame.shape[1] != 3:
            raise ValueError(f"'{path}' needs 3 columns: user, item, timestamp (got {frame.shape[1]})")
        frame = frame.set_axis(['user', 'item', 'time'], axis=1)
        first = frame['time'].iloc[0].strip()
        has_header = first.replace('_', '').isalpha() and first.lower() != 'nan'
        return frame.iloc[1:] if has_header else frame
    users: list[str] = []
    items: list[str] = []
    times: list[int] = []
    for line, text in enumerate(path.read_text().splitlines(), start=1):
        user, tab, rest = text.partition('\t')
        bought = rest.split()
        if not (user and tab and bought):
            raise ValueError(f"line {line} of '{path}' needs to be a user, a tab and its items (got {text[:80]!r})")
        users += [user] * len(bought)
        items += bought
        times += range(len(bought))
    return pd.DataFrame({'user': users, 'item': items, 'time': times})
