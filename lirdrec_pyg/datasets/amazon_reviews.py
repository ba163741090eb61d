import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg._io import file_digest, write_bytes
from lirdrec_pyg.datasets._amazon import RELEASES, Lines, read_image_features, read_metadata, read_reviews
from lirdrec_pyg.datasets._common import VERSION, CachedDataset, Transform, find_masks, read_features, read_mask
from lirdrec_pyg.datasets._download import download
from lirdrec_pyg.datasets._interactions import Duplicates, deduplicate, k_core, number
from lirdrec_pyg.typing import ITEM, USER, check_modality_name


class AmazonReviews(CachedDataset):
    r"""A category of the `Amazon reviews <https://amazon-reviews-2023.github.io>`_, from the raw files of the release
    of 2014, 2018 or 2023: reviews are interactions, and the metadata of an item gives its title, text and image URL.

    .. code-block:: python

        data = AmazonReviews('data/amazon', 'baby')[0]  # 2014: has image features
        text = encode_texts(data['item'].text, SentenceTransformerEncoder(), folder='features')
        data = AmazonReviews('data/amazon', 'baby', features={'text': 'features/text_feat.npy'})[0]

    Files are downloaded where they are not there yet, and a broken download goes on where it ended. They are read as
    streams: what takes up memory are the interactions and the items that stay. The published reviews of 2014 and 2018
    are 5-cores themselves. Items are numbered in the order of their ids, which ``features`` follow.

    Beside ``edge_index`` there are ``time`` (seconds since 1970, those of 2023 with their milliseconds) and ``rating``,
    beside ``raw_id`` the lists ``data['item'].title``, ``text`` and ``image_url`` (without HTML; empty, and :obj:`None`
    for a URL, where there is none). There is no split; :mod:`lirdrec_pyg.transforms` has some.

    Args:
        root (str): Where to keep the dataset. ``<root>/<version>/raw`` holds the raw files, named as published; a
            ``.gz`` file may also be there unpacked.
        name (str): ``'baby'`` (not in 2018), ``'sports'``, ``'clothing'``, ``'electronics'``, or any category as
            published, *e.g.*, ``'Toys_and_Games'``.
        version (str, optional): The release, ``'2014'``, ``'2018'`` or ``'2023'``. (default: ``'2014'``)
        min_rating (float, optional): Only reviews with at least this rating count. (default: all)
        k_core (int, optional): Remove users and items with fewer interactions than that until there are none.
            (default: :obj:`5`)
        duplicates (str, optional): Which of the repeated reviews of an item by a user counts: the ``'last'`` or the
            ``'first'`` by time, or ``'error'`` to refuse them. (default: ``'last'``)
        text_fields (sequence of str, optional): Which of ``'title'``, ``'brand'``, ``'categories'``,
            ``'description'``, ``'price'`` and (not in 2014) ``'features'`` make the text, in this order.
        features (mapping of str to path, optional): For each modality an ``.npy`` file :math:`(|\mathcal{I}|, C)` in
            the data's order of items; ``<modality>_mask.npy`` beside it, if there is one, says which items have it.
        image_features (bool, optional): In 2014: whether ``x_image`` are the published features, 4096 numbers an item
            (a file of up to several GB), unless ``features`` has others. (default: :obj:`True`)
        max_malformed (float, optional): The share of malformed lines of a file that is tolerated: they are left out,
            counted and warned of. (default: :obj:`0.01`)
        urls (mapping of str to str, optional): Other addresses, for ``'reviews'``, ``'metadata'`` or ``'images'``.
        checksums (mapping of str to str, optional): For these, the sha256 to expect of a download.
        progress (bool, optional): Whether to show progress bars. (default: :obj:`True`)
        transform (callable, optional): Applied at each access.
        pre_transform (callable, optional): Applied once, before the data is stored.
        force_reload (bool, optional): Whether to process again. (default: :obj:`False`)

    Attributes:
        provenance (dict): Which raw files (URL, size, sha256) and arguments the data was made of, and under
            ``'report'`` what was found in them. ``provenance.json`` beside the processed data has a copy for people.

    Raises:
        ConnectionError: If a raw file is not there and can't be downloaded; says where to put it.
        FileNotFoundError: If a file of ``features`` does not exist.
        ValueError: If a raw file is cut short or has too many malformed lines (names the first ones), or no
            interactions are left.
    """

    def __init__(
        self,
        root: str,
        name: str,
        version: Literal['2014', '2018', '2023'] = '2014',
        *,
        min_rating: float | None = None,
        k_core: int = 5,
        duplicates: Duplicates = 'last',
        text_fields: Sequence[str] = ('title', 'brand', 'categories', 'description'),
        features: Mapping[str, str] | None = None,
        image_features: bool = True,
        max_malformed: float = 0.01,
        urls: Mapping[str, str] | None = None,
        checksums: Mapping[str, str] | None = None,
        progress: bool = True,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
        force_reload: bool = False,
    ) -> None:
        if version not in RELEASES:
            raise ValueError(f"'version' needs to be one of {list(RELEASES)} (got {version!r})")
        self.release = RELEASES[version]
        self.category = self.release.names.get(name, name)
        if re.fullmatch(r'[A-Z]\w*', self.category, re.ASCII) is None:
            raise ValueError(f"'name' needs to be one of {list(self.release.names)} or a category as published in "
                             f"{version}, such as 'Toys_and_Games' (got {name!r})")  # fmt: skip
        if k_core < 0:
            raise ValueError(f"'k_core' needs to be at least 0 (got {k_core})")
        if not 0 <= max_malformed <= 1:
            raise ValueError(f"'max_malformed' needs to be in [0, 1] (got {max_malformed})")
        if isinstance(text_fields, str) or not set(text_fields) <= set(self.release.fields):
            raise ValueError(f"'text_fields' needs to be some of {sorted(self.release.fields)} (got {text_fields!r})")
        self.name, self.version, self.min_rating, self.k_core = name, version, min_rating, k_core
        self.duplicates, self.text_fields, self.max_malformed = duplicates, tuple(text_fields), max_malformed
        self.features = {check_modality_name(key): Path(path).expanduser() for key, path in (features or {}).items()}
        self.masks = find_masks(self.features)
        for modality, path in self.features.items():
            if not path.is_file():
                raise FileNotFoundError(f"no '{path}' (argument 'features', modality '{modality}')")
        kinds = list(self.release.urls)
        if not image_features or 'image' in self.features:
            kinds = [kind for kind in kinds if kind != 'images']
        published = {kind: self.release.urls[kind].format(self.category) for kind in kinds}
        self.file_names = {kind: url.rpartition('/')[2] for kind, url in published.items()}
        self.urls = {kind: (urls or {}).get(kind, url) for kind, url in published.items()}
        self.checksums, self.progress = dict(checksums or {}), progress
        super().__init__(str(Path(root).expanduser()), transform, pre_transform, force_reload)
        self.provenance: dict[str, Any] = self.more['provenance']

    @property
    def raw_dir(self) -> str:
        return str(Path(self.root) / self.version / 'raw')

    @property
    def raw_file_names(self) -> list[str]:
        return [self._raw_path(kind).name for kind in self.file_names]

    def _raw_path(self, kind: str) -> Path:
        path = Path(self.raw_dir) / self.file_names[kind]
        unpacked = path.with_name(path.name.removesuffix('.gz'))
        return unpacked if unpacked.is_file() and not path.is_file() else path

    @property
    def cache(self) -> Path:
        return Path(self.root) / self.version / 'processed'

    @property
    def files(self) -> list[Path]:
        return [*map(Path, self.raw_paths), *self.features.values(), *self.masks.values()]

    @property
    def label(self) -> str:
        return f'{self.category}_'

    def arguments(self) -> dict[str, Any]:
        names = ('version', 'category', 'min_rating', 'k_core', 'duplicates', 'text_fields', 'max_malformed')
        return {name: getattr(self, name) for name in names} | {'features': list(self.features)}

    def download(self) -> None:
        for kind, url in self.urls.items():
            path = self._raw_path(kind)
            if not path.is_file():
                download(url, path, checksum=self.checksums.get(kind), progress=self.progress)

    def process(self) -> None:
        lines = Lines(self._raw_path('reviews'), self.progress)
        reviews = read_reviews(lines, self.release, self.min_rating)
        lines.check(self.max_malformed)
        report: dict[str, Any] = {'reviews': lines.report()}
        chosen = deduplicate(reviews.user, reviews.item, reviews.time, self.duplicates)
        rows = chosen[k_core(reviews.user[chosen], reviews.item[chosen], self.k_core)]
        report['interactions'] = {
            'below min_rating': reviews.low,
            'repeated': len(reviews.user) - len(chosen),
            'outside the k-core': len(chosen) - len(rows),
            'kept': len(rows),
        }
        if len(rows) == 0:
            raise ValueError(f"no interactions are left of {lines.number} lines ('min_rating' {self.min_rating}, "
                             f"'k_core' {self.k_core}; {report['interactions']})")  # fmt: skip
        user_ids, item_ids = reviews.user_ids, reviews.item_ids
        user, item, time, rating = (values[rows] for values in reviews[:4])
        del reviews, chosen, rows
        data, _ = number(user, item, user_ids, item_ids, time, rating)
        del user_ids, item_ids

        position = {raw: row for row, raw in enumerate(data[ITEM].raw_id)}
        lines = Lines(self._raw_path('metadata'), self.progress)
        metadata = read_metadata(lines, self.release, position, self.text_fields)
        lines.check(self.max_malformed)
        data[ITEM].title, data[ITEM].text, data[ITEM].image_url = metadata.title, metadata.text, metadata.image_url
        report['metadata'] = lines.report() | {'repeated': metadata.repeated}
        report['users'] = {'kept': data[USER].num_nodes}
        report['items'] = {
            'kept': len(position),
            'without metadata': int((~metadata.found).sum()),
            'without title': metadata.title.count(''),
            'without text': metadata.text.count(''),
            'without image URL': metadata.image_url.count(None),
        }
        self._add_features(data, position, report)
        provenance = json.dumps(self._provenance(report), indent=2) + '\n'
        self.write(data, provenance=json.loads(provenance))
        write_bytes(Path(self.processed_dir) / 'provenance.json', provenance.encode())

    def _add_features(self, data: HeteroData, position: dict[str, int], report: dict[str, Any]) -> None:
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for modality, path in self.features.items():
            has = torch.ones(len(position), dtype=torch.bool)
            if modality in self.masks:
                has = read_mask(self.masks[modality], len(position))
            found[modality] = read_features(path, modality, has), has
            if len(found[modality][0]) != len(position):
                raise ValueError(f"'{path}' needs {len(position)} rows, one for each item (got "
                                 f'{len(found[modality][0])})')  # fmt: skip
        if 'images' in self.urls:
            path = self._raw_path('images')
            x, has, report['items']['with image features not finite'] = read_image_features(
                path, position, self.progress
            )
            found['image'] = x, has
        for modality, (x, has) in sorted(found.items()):
            data[ITEM][f'x_{modality}'] = x
            report['items'][f'without features of {modality}'] = int((~has).sum())
            if not has.all():
                data[ITEM][f'has_{modality}'] = has

    def _provenance(self, report: dict[str, Any]) -> dict[str, Any]:
        urls = {self._raw_path(kind): url for kind, url in self.urls.items()}
        return {
            'dataset': repr(self),
            'processing': VERSION,
            'arguments': self.arguments() | {'pre_transform': repr(self.pre_transform)},
            'files': [
                {'name': path.name, 'url': urls.get(path), 'bytes': path.stat().st_size, 'sha256': file_digest(path)}
                for path in self.files
            ],
            'report': report,
        }

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.name!r}, version={self.version!r}, min_rating={self.min_rating}, '
            f'k_core={self.k_core})'
        )
