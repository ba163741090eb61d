import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg.datasets import _interactions
from lirdrec_pyg.datasets._interactions import Array, Duplicates, deduplicate, number
from lirdrec_pyg.typing import INTERACTS, ITEM

if TYPE_CHECKING:
    import pandas as pd

Table: TypeAlias = 'pd.DataFrame | str | os.PathLike[str]'
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
    in one warning: interactions without a user or an item, those whose item is not in the catalogue, repeated pairs,
    and catalogue rows without or with a repeated id. Items are numbered in the order of their ids; those that nobody
    has bought yet are part of the data.

    Args:
        interactions (pandas.DataFrame or path): One row an interaction; a path is read as CSV, TSV or Parquet by its
            suffix.
        items (pandas.DataFrame or path): One row an item.
        user (str, optional): The column of users. (default: ``'user'``)
        item (str, optional): The column of items, in both tables. (default: ``'item'``)
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

    Attributes:
        report (dict): For each thing found, how many rows and a few examples.
        item_ids (list of str): The raw ids of the items, in the data's order.
        texts (list of str): Their texts, empty where there is none.
        images (list of str or None): The paths of their images.
        data (HeteroData): The data without features.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, a time or rating is not readable (names the row), or nothing is left.
    """

    def __init__(
        self,
        interactions: Table,
        items: Table,
        *,
        user: str = 'user',
        item: str = 'item',
        time: str | None = None,
        rating: str | None = None,
        text: str | Sequence[str] = (),
        image: str | None = None,
        min_rating: float | None = None,
        k_core: int = 0,
        duplicates: Duplicates = 'last',
    ) -> None:
        import pandas as pd

        if k_core < 0:
            raise ValueError(f"'k_core' needs to be at least 0 (got {k_core})")
        if min_rating is not None and rating is None:
            raise ValueError("'min_rating' needs the name of a column, 'rating' (got None)")
        fields = [text] if isinstance(text, str) else list(text)
        columns = [name for name in (user, item, time, rating) if name is not None]
        frame = _read(interactions, 'interactions', columns)
        catalogue = _read(items, 'items', [item, *fields, *([image] if image else [])])
        self.report: dict[str, tuple[int, list[str]]] = {}

        ids = _as_ids(catalogue[item])
        self._leave_out('items without an id', ids == '', catalogue.index)
        repeated = ids.duplicated() & (ids != '')
        self._leave_out('items with an id that came before', repeated, ids)
        catalogue = catalogue[(ids != '') & ~repeated].set_axis(ids[(ids != '') & ~repeated])
        known = pd.Index(catalogue.index)

        users, bought = _as_ids(frame[user]), _as_ids(frame[item])
        no_user, no_item = users == '', bought == ''
        unknown = ~bought.isin(known) & ~no_item
        self._leave_out('interactions without a user', no_user, frame.index)
        self._leave_out('interactions without an item', no_item, frame.index)
        self._leave_out("interactions with an item that 'items' lacks", unknown, bought)
        keep = ~(no_user | no_item | unknown)
        times = None if time is None else _as_times(frame[time][keep], time)
        ratings = None if rating is None else _as_numbers(frame[rating][keep], rating)
        user_code, user_ids = pd.factorize(users[keep])
        item_code = known.get_indexer(pd.Index(bought[keep]))
        rows = np.arange(len(user_code))
        if min_rating is not None and ratings is not None:
            rows = rows[ratings >= min_rating]
        chosen = deduplicate(user_code[rows], item_code[rows], None if times is None else times[rows], duplicates)
        left = np.ones(len(rows), dtype=bool)
        left[chosen] = False
        pairs = users[keep].iloc[rows] + ' ' + bought[keep].iloc[rows]
        self._leave_out('interactions that repeat a pair', pd.Series(left, index=pairs.index), pairs)
        rows = rows[chosen]
        rows = rows[_interactions.k_core(user_code[rows], item_code[rows], k_core)]
        if len(rows) == 0:
            raise ValueError(f"no interactions are left of {len(frame)} ('min_rating' {min_rating}, 'k_core' {k_core}; "
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
        catalogue = catalogue.iloc[order]
        self.item_ids: list[str] = catalogue.index.tolist()
        parts = catalogue[fields].astype(object).where(catalogue[fields].notna(), '').astype(str)
        self.texts: list[str] = [' '.join(filter(None, row)) for row in parts.itertuples(index=False)]
        self.images: list[str | None] = [None] * len(order)
        if image:
            self.images = [str(path) if pd.notna(path) and path != '' else None for path in catalogue[image]]
        if fields:
            self.data[ITEM].title = parts[fields[0]].tolist()
        if self.report:
            warnings.warn(f'left out: {self._summary()}', stacklevel=2)

    def to_hetero_data(self, features: Mapping[str, Features]) -> HeteroData:
        r"""Returns the data with the given features.

        Args:
            features (mapping of str to matrix): For each modality its features :math:`(|\mathcal{I}|, C)` in the order
                of :attr:`item_ids`, or a tuple that starts with these and a mask :math:`(|\mathcal{I}|)` of the items
                that have them, such as the functions of :mod:`lirdrec_pyg.features` return.

        Raises:
            ValueError: If there are no features, or their rows are not those of the items, or not finite.
        """
        if len(features) == 0:
            raise ValueError("'features' needs at least one modality (got none)")
        data = self.data.clone()
        for name, value in features.items():
            x, has = (value[0], value[1]) if isinstance(value, tuple) else (value, None)
            x = torch.as_tensor(np.asarray(x) if not isinstance(x, Tensor) else x, dtype=torch.float32)
            if x.dim() != 2 or x.size(0) != len(self.item_ids):
                raise ValueError(f"the features of modality '{name}' need to be a matrix of {len(self.item_ids)} rows, "
                                 f'one for each item (got shape {tuple(x.shape)})')  # fmt: skip
            bad = ~torch.isfinite(x).all(dim=1)
            if bad.any():
                row = int(bad.nonzero()[0])
                raise ValueError(f"the features of modality '{name}' need to be finite (got NaN or Inf in row {row}, "
                                 f"item '{self.item_ids[row]}')")  # fmt: skip
            if has is not None:
                has = torch.as_tensor(has, dtype=torch.bool)
                if has.shape != (x.size(0),):
                    raise ValueError(f"the mask of modality '{name}' needs to be of shape ({x.size(0)},) (got "
                                     f'{tuple(has.shape)})')  # fmt: skip
                if not has.all():
                    x = x * has.unsqueeze(-1)
                    data[ITEM][f'has_{name}'] = has
            data[ITEM][f'x_{name}'] = x
        return data

    def _leave_out(self, what: str, rows: 'pd.Series[Any]', examples: Iterable[Any]) -> None:
        mask = np.asarray(rows)
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


def _read(table: Table, argument: str, columns: list[str]) -> 'pd.DataFrame':
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        frame = table.reset_index(drop=True)
    else:
        path = Path(table)
        if not path.is_file():
            raise FileNotFoundError(f"no '{path}' (argument '{argument}')")
        if path.suffix in ('.parquet', '.pq'):
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, sep='\t' if path.suffix == '.tsv' else ',', dtype=str, keep_default_na=False)
    for column in columns:
        if column not in frame:
            raise ValueError(f"'{argument}' lacks the column '{column}' (found {list(frame.columns)})")
    return frame


def _as_ids(column: 'pd.Series[Any]') -> 'pd.Series[str]':
    import pandas as pd

    missing = column.isna()
    if pd.api.types.is_float_dtype(column) and (column[~missing] == column[~missing].round()).all():
        column = column.astype('Int64')  # integers beside missing values were read as floats
    return column.astype(str).str.strip().mask(missing, '')


def _as_numbers(column: 'pd.Series[Any]', name: str) -> Array:
    import pandas as pd

    values = pd.to_numeric(column, errors='coerce').to_numpy(dtype=np.float64)
    _refuse(~np.isfinite(values), column, name, 'a number')
    return values


def _as_times(column: 'pd.Series[Any]', name: str) -> Array:
    import pandas as pd

    values = column if pd.api.types.is_datetime64_any_dtype(column) else pd.to_numeric(column, errors='coerce')
    if pd.api.types.is_datetime64_any_dtype(values) or values.isna().all():
        dates = pd.to_datetime(column, errors='coerce', utc=True, format='ISO8601')
        _refuse(dates.isna().to_numpy(), column, name, 'a number or a date')
        return (dates - pd.Timestamp(0, tz='UTC')).dt.total_seconds().to_numpy()
    _refuse(~np.isfinite(values.to_numpy(dtype=np.float64)), column, name, 'a number or a date')
    if pd.api.types.is_float_dtype(values):
        return values.to_numpy(dtype=np.float64)
    _refuse((values > np.iinfo(np.int64).max).to_numpy(), column, name, 'below 2**63')
    return values.to_numpy(dtype=np.int64)


def _refuse(bad: Array, column: 'pd.Series[Any]', name: str, rule: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"'{name}' needs to be {rule} (got {column.iloc[row]!r} in row {column.index[row]})")
