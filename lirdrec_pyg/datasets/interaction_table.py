import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg.datasets import _interactions
from lirdrec_pyg.datasets._interactions import Duplicates, deduplicate, number
from lirdrec_pyg.datasets._tables import MAX_FLOAT, Table, read_table
from lirdrec_pyg.typing import INTERACTS, ITEM, LARGEST, check_mask, check_modality_name

if TYPE_CHECKING:
    import pandas as pd

Input: TypeAlias = 'pd.DataFrame | Table | str | os.PathLike[str]'
Features = Any  # a matrix, or a tuple that starts with a matrix and a bool mask


class InteractionTable:
    r"""Your own data: two tables, one of interactions and one of items, that become a
    :class:`~torch_geometric.data.HeteroData`.

    .. code-block:: python

        table = InteractionTable('orders.csv', 'products.csv', user='customer', item='sku', time='date',
                                 text=['name', 'description'])
        text = encode_texts(table.texts, SentenceTransformerEncoder(), folder='features')
        data = table.to_hetero_data({'text': text})

    Ids are kept as strings, in ``raw_id``. Rows that can't take part are left out, counted in :attr:`report` and named
    in one warning: interactions without a user, an item, a time or a rating, those whose item is not in the catalogue,
    repeated pairs, and catalogue rows without or with a repeated id. Items are numbered in the order of their ids;
    those that nobody has bought yet are part of the data.

    Args:
        interactions (pandas.DataFrame or path): One row an interaction; a path is that of a CSV, TSV or Parquet file,
            the first two plain or packed by gzip, bzip2 or xz.
        items (pandas.DataFrame or path): One row an item.
        user (str, optional): The column of users. (default: ``'user'``)
        item (str or (str, str), optional): The column of items, or its two names in ``interactions`` and ``items``.
            (default: ``'item'``)
        time (str, optional): The column of times: numbers, or dates in ISO 8601 or of pandas, which
            become seconds since 1970.
        rating (str, optional): The column of ratings.
        text (str or sequence of str, optional): The columns of ``items`` that make its text, in this order; the first
            one is the title. (default: none)
        image (str, optional): The column of ``items`` with the paths of images.
        min_rating (float, optional): Only interactions with at least this rating count.
        k_core (int, optional): Remove users and items with fewer interactions than that until there are none. Items
            without any interaction are then left out, too. (default: :obj:`0`)
        duplicates (str, optional): Which of repeated pairs counts: the ``'last'`` or the ``'first'`` by time, or
            ``'error'`` to refuse them. (default: ``'last'``)
        max_unknown (float, optional): The share of interactions whose item ``items`` may lack. (default: :obj:`0.5`)
        separator (str, optional): What is between two fields of a file, *e.g.*, ``';'``. (default: a tab for ``.tsv``,
            else a comma)
        encoding (str, optional): The encoding of the files, *e.g.*, ``'cp1252'``. (default: that of the byte order
            mark, or else UTF-8)

    Attributes:
        report (dict): For each thing found, how many rows and a few examples.
        item_ids (list of str): The raw ids of the items, in the data's order.
        texts (list of str): Their texts, empty where there is none.
        images (list of str or None): The paths of their images.
        data (HeteroData): The data without features.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file or column is missing or not readable (names the line or row), an id may stand for several
            ones, or nothing or too little is left.
    """

    def __init__(
        self,
        interactions: Input,
        items: Input,
        *,
        user: str = 'user',
        item: str | tuple[str, str] = 'item',
        time: str | None = None,
        rating: str | None = None,
        text: str | Sequence[str] = (),
        image: str | None = None,
        min_rating: float | None = None,
        k_core: int = 0,
        duplicates: Duplicates = 'last',
        max_unknown: float = 0.5,
        separator: str | None = None,
        encoding: str | None = None,
    ) -> None:
        import pandas as pd

        if k_core < 0:
            raise ValueError(f"'k_core' needs to be at least 0 (got {k_core})")
        if min_rating is not None and rating is None:
            raise ValueError("'min_rating' needs the name of a column, 'rating' (got None)")
        if not 0 <= max_unknown <= 1:
            raise ValueError(f"'max_unknown' needs to be in [0, 1] (got {max_unknown})")
        fields = [text] if isinstance(text, str) else list(text)
        bought_as, sold_as = (item, item) if isinstance(item, str) else item
        columns = [name for name in (user, bought_as, time, rating) if name is not None]
        table = _read(interactions, 'interactions', columns, separator, encoding)
        catalogue = _read(items, 'items', [sold_as, *fields, *([image] if image else [])], separator, encoding)
        self.report: dict[str, tuple[int, list[str]]] = {}

        ids = catalogue.ids(sold_as)
        self._leave_out('items without an id', ids == '', ids.index)
        repeated = ids.duplicated() & (ids != '')
        self._leave_out('items with an id that came before', repeated, ids)
        listed = ((ids != '') & ~repeated).to_numpy(dtype=bool)
        catalogue, known = catalogue.take(listed), pd.Index(ids[listed])

        users, bought = table.ids(user), table.ids(bought_as)
        unknown = ~bought.isin(known) & (bought != '')
        keep = np.ones(len(table), dtype=bool)
        for what, left_out, examples in [
            ('interactions without a user', users == '', users.index),
            ('interactions without an item', bought == '', users.index),
            ("interactions with an item that 'items' lacks", unknown, bought),
            *((f"interactions without a value of '{name}'", table.missing(name), users.index)
              for name in (time, rating) if name is not None),
        ]:  # fmt: skip
            self._leave_out(what, left_out, examples)
            keep &= ~np.asarray(left_out, dtype=bool)
        lost = int(unknown.sum())
        if lost > max_unknown * len(table):
            raise ValueError(
                f"'max_unknown' is {max_unknown}, and {lost} of {len(table)} interactions have an item that 'items' "
                f'lacks, such as {bought[unknown].iloc[0]!r} (it has {list(known[:3])}, …)'
                f'{_tell_difference(bought[unknown], ids[listed])}'
            )
        users, bought, table = users[keep], bought[keep], table.take(keep)
        times = None if time is None else table.times(time)
        ratings = None if rating is None else table.numbers(rating, largest=MAX_FLOAT)
        user_code, user_ids = pd.factorize(users)
        item_code = known.get_indexer(pd.Index(bought))
        rows = np.arange(len(user_code))
        if min_rating is not None and ratings is not None:
            rows = rows[ratings >= min_rating]
        chosen = deduplicate(user_code[rows], item_code[rows], None if times is None else times[rows], duplicates)
        left = np.ones(len(rows), dtype=bool)
        left[chosen] = False
        again = rows[left]
        pairs = users.iloc[again] + ' ' + bought.iloc[again]
        self._leave_out('interactions that repeat a pair', np.ones(len(again), dtype=bool), pairs)
        rows = rows[chosen]
        rows = rows[_interactions.k_core(user_code[rows], item_code[rows], k_core)]
        if len(rows) == 0:
            raise ValueError(f"no interactions are left of {len(keep)} ('min_rating' {min_rating}, 'k_core' {k_core}; "
                             f'left out: {self._summary() or "none"})')  # fmt: skip

        self.data, order = number(
            user_code[rows],
            item_code[rows],
            list(user_ids),
            list(known),
            None if times is None else times[rows],
            None if ratings is None else ratings[rows],
            cold_items=k_core == 0,
        )
        self.item_ids: list[str] = known[order].tolist()
        parts = [catalogue.texts(name).iloc[order].tolist() for name in fields]
        self.texts: list[str] = [' '.join(filter(None, row)) for row in zip(*parts, strict=True)] or [''] * len(order)
        self.images: list[str | None] = [None] * len(order)
        if image:
            self.images = [path or None for path in catalogue.texts(image).iloc[order]]
        if fields:
            self.data[ITEM].title = parts[0]
        if self.report:
            warnings.warn(f'left out: {self._summary()}', stacklevel=2)

    def to_hetero_data(self, features: Mapping[str, Features]) -> HeteroData:
        r"""Returns the data with the given features.

        Args:
            features (mapping of str to matrix): For each modality its features :math:`(|\mathcal{I}|, C)` in the order
                of :attr:`item_ids`, or a tuple that starts with these and a mask :math:`(|\mathcal{I}|)` of the items
                that have them, such as the functions of :mod:`lirdrec_pyg.features` return. The rows of a
                :class:`~pandas.DataFrame` are those of its index, which holds raw ids; items that it lacks are masked.

        Raises:
            ValueError: If there are no features, or their rows are not those of the items, or not finite.
        """
        if len(features) == 0:
            raise ValueError("'features' needs at least one modality (got none)")
        data = self.data.clone()
        for name, value in features.items():
            check_modality_name(name)
            x, has = (value[0], value[1]) if isinstance(value, tuple) else (value, None)
            x, has = self._align(x, has, name)
            if not isinstance(x, Tensor):
                try:
                    x = torch.from_numpy(np.array(x, dtype=np.float64))
                except (TypeError, ValueError) as error:
                    raise ValueError(
                        f"the features of modality '{name}' need to be a matrix of numbers ({error})"
                    ) from error
            if x.dim() != 2 or x.size(0) != len(self.item_ids):
                raise ValueError(f"the features of modality '{name}' need to be a matrix of {len(self.item_ids)} rows, "
                                 f'one for each item (got shape {tuple(x.shape)})')  # fmt: skip
            bad = ~(x.abs() <= LARGEST).all(dim=1)
            if bad.any():
                row = int(bad.nonzero()[0])
                what = f'values beyond {LARGEST:g}' if x[row].isfinite().all() else 'NaN or Inf'
                raise ValueError(f"the features of modality '{name}' need to be finite (got {what} in row {row}, "
                                 f"item '{self.item_ids[row]}')")  # fmt: skip
            x = x.float()
            if has is not None:
                has = torch.as_tensor(has)
                if has.shape != (x.size(0),):
                    raise ValueError(f"the mask of modality '{name}' needs to be of shape ({x.size(0)},) (got "
                                     f'{tuple(has.shape)})')  # fmt: skip
                has = check_mask(has, x.size(0), f'has_{name}')
                if not has.all():
                    x = x * has.unsqueeze(-1)
                    data[ITEM][f'has_{name}'] = has
            data[ITEM][f'x_{name}'] = x
        return data

    def _align(self, x: Any, has: Any, name: str) -> tuple[Any, Any]:
        r"""Brings features of raw ids into the order of the items."""
        import pandas as pd

        found: Any = None
        out = []
        for part in (x, has):
            if isinstance(part, pd.DataFrame | pd.Series):
                ids = pd.Index(Table(pd.DataFrame({'index': part.index}), 'features').ids('index'))
                at = ids.get_indexer(pd.Index(self.item_ids)) if ids.is_unique else np.full(1, -1)
                if (at < 0).all():
                    raise ValueError(
                        f"the index of the features of modality '{name}' needs to hold the items' raw ids once, as "
                        f'{self.item_ids[0]!r} (got {list(part.index[:3])}, …): where the rows are in the order of '
                        '`item_ids`, give `.to_numpy()`'
                    )
                lacking = at < 0
                found = ~lacking if found is None else found & ~lacking
                part = part.to_numpy()[at]
                part[lacking] = 0
            out.append(part)
        if found is not None and not found.all():
            out[1] = (
                torch.from_numpy(found) if out[1] is None else torch.as_tensor(out[1]).bool() & torch.from_numpy(found)
            )
            warnings.warn(f"{int((~found).sum())} items have no row in the features of modality '{name}': they lack it",
                          stacklevel=3)  # fmt: skip
        return out[0], out[1]

    def _leave_out(self, what: str, rows: Any, examples: Iterable[Any]) -> None:
        mask = np.asarray(rows, dtype=bool)
        if mask.any():
            found = [str(value) for value, left in zip(examples, mask, strict=True) if left]
            self.report[what] = len(found), list(dict.fromkeys(found))[:3]

    def _summary(self) -> str:
        return '; '.join(
            f'{count} {what} ({", ".join(map(repr, some))})' for what, (count, some) in self.report.items()
        )

    def __repr__(self) -> str:
        size = self.data[INTERACTS].edge_index.size(1)
        return (
            f'{self.__class__.__name__}({size} interactions, {self.data["user"].num_nodes} users, '
            f'{len(self.item_ids)} items)'
        )


def _read(table: Input, argument: str, columns: list[str], separator: str | None, encoding: str | None) -> Table:
    import pandas as pd

    if isinstance(table, Table):  # of a dataset that has read it
        return table
    if not isinstance(table, pd.DataFrame):
        return read_table(Path(table).expanduser(), columns, argument=argument, separator=separator, encoding=encoding)
    for column in columns:
        if column not in table:
            raise ValueError(f"'{argument}' lacks the column '{column}' (found {list(table.columns)})")
        if list(table.columns).count(column) > 1:
            raise ValueError(f"'{argument}' needs to have the column '{column}' once (found {list(table.columns)})")
    return Table(table[list(dict.fromkeys(columns))].reset_index(drop=True), argument)


def _tell_difference(unknown: 'pd.Series[str]', known: 'pd.Series[str]') -> str:
    r"""Returns what may be the reason why ids are not known."""
    ways: list[tuple[str, Callable[[str], str]]] = [
        ('in case', str.casefold),
        ("in a '.0' at the end", lambda raw: raw.removesuffix('.0')),
        ('in zeros at the start', lambda raw: raw.lstrip('0')),
    ]
    sample = unknown.drop_duplicates().head(1000)
    for way, alike in ways:
        found = {alike(raw): raw for raw in known}
        for raw in sample:
            if alike(raw) in found:
                return f': ids such as {raw!r} and {found[alike(raw)]!r} differ {way}'
    return ''
