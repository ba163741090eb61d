r"""ndcg@20 of each test user of a row, for tests of significance.

There is one file for each dataset: ``users/<dataset>.npz`` beside the rows. It holds one array for each row, named
``experiment/variant/seed/digest``. The digest is that of the row's split, model and settings: a row that was run again
with other settings never takes the metrics of the old one. An array has a value for each user id, ``nan`` where the
user has no test positives.

Several processes may write at the same time.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks import rows
from lirdrec_pyg import Embeddings
from lirdrec_pyg.ranking import top_k
from lirdrec_pyg.typing import INTERACTS

Cells = Mapping[str, Any]  # of a row


def ndcg(embeddings: Embeddings, split: HeteroData, k: int = 20, ranked: int = 50) -> tuple[Tensor, Tensor]:
    r"""Returns the users of a split and ndcg@k of each.

    Args:
        embeddings (Embeddings): The embeddings of all users and items.
        split (HeteroData): The split, whose positives count.
        k (int, optional): How many items of each user count. (default: :obj:`20`)
        ranked (int, optional): How many items are ranked. Where scores tie, the order may depend on it.
            (default: :obj:`50`)
    """
    user, item = split[INTERACTS].edge_label_index
    num_items = len(embeddings.item)
    positives = user * num_items + item
    users, count = user.unique(return_counts=True)
    gain = 1 / torch.arange(2, k + 2, dtype=torch.double).log2()
    found = []
    for of, top in top_k(embeddings, users, ranked, split[INTERACTS].edge_index):
        hits = torch.isin(of.unsqueeze(1) * num_items + top[:, :k], positives)
        found.append((hits * gain).sum(dim=1))
    ideal = gain.cumsum(0)[count.clamp(max=k) - 1]
    return users, (torch.cat(found) / ideal).float()


def path_of(cells: Cells, path: Path) -> Path:
    r"""Returns the file that keeps the metrics of a row, given the file of the rows."""
    return path.parent / 'users' / f'{cells["dataset"]}.npz'


def name_of(cells: Cells) -> str:
    r"""Returns the name of the array of a row."""
    identity = json.dumps({name: str(cells[name]) for name in ('split', 'model', 'settings')})
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    variant = cells['variant'] or cells['model']
    return '/'.join([cells['experiment'] or 'alone', variant, str(cells['seed']), digest])


def names(path: Path) -> set[str]:
    r"""Returns the names of the arrays in a file, none if there is no file."""
    if not path.is_file() or path.stat().st_size == 0:
        return set()
    with np.load(path) as file:
        return set(file.files)


def has(cells: Cells, path: Path) -> bool:
    r"""Returns whether the metrics of a row are kept."""
    return name_of(cells) in names(path_of(cells, path))


def load(cells: Cells, path: Path) -> 'pd.Series[float]':
    r"""Returns the metric of each user that has test positives, by id."""
    with np.load(path_of(cells, path)) as file:
        return pd.Series(file[name_of(cells)].astype(float)).dropna()


def save(cells: Cells, path: Path, users: Tensor, value: Tensor) -> None:
    r"""Keeps the metrics of a row."""
    array = np.full(int(users.max()) + 1, np.nan, dtype=np.float32)
    array[users.numpy()] = value.numpy()
    add(path_of(cells, path), {name_of(cells): array})


def copy(old: Cells, new: Cells, path: Path) -> None:
    r"""Keeps the metrics of a row for another row of the same run, too."""
    with np.load(path_of(old, path)) as file:
        array = file[name_of(old)]
    add(path_of(new, path), {name_of(new): array})


def add(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    r"""Adds arrays to a file, all or none, in place of those of the same names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rows.locked(path):
        known: dict[str, np.ndarray[Any, Any]] = {}
        if names(path):
            with np.load(path) as file:
                known = {name: file[name] for name in file.files}
        data = io.BytesIO()
        np.savez_compressed(data, **dict(sorted({**known, **arrays}.items())))
        rows.replace(path, data.getvalue())
