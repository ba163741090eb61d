r"""Graphs and data for the speed benchmarks: real ``.inter`` files, or generated ones with power-law popularity."""

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg.typing import INTERACTS, ITEM, USER

SIZES = {  # users, items, interactions, of which the share in training
    'baby': (19_445, 7_050, 160_792),
    'sports': (35_598, 18_357, 296_337),
    'clothing': (39_387, 23_033, 278_677),
    'elec': (192_403, 63_001, 1_689_188),
}


def power_law(num_users: int, num_items: int, size: int, seed: int = 0) -> Tensor:
    r"""Returns about ``size`` distinct pairs (user, item); each user has one at least, and few items have most."""
    generator = torch.Generator().manual_seed(seed)
    draws = round(1.09 * size)
    user = torch.randint(num_users, (max(draws - num_users, 0),), generator=generator)
    user = torch.cat([torch.arange(num_users), user])
    item = (torch.rand(user.numel(), generator=generator) ** 2.2 * num_items).long()
    key = (user * num_items + item).unique()
    if key.numel() > size:
        key = key[torch.randperm(key.numel(), generator=generator)[:size].sort().values]
    return torch.stack([key // num_items, key % num_items])


def interactions(name: str, root: Path | None, seed: int = 0, scale: float = 1.0) -> tuple[HeteroData, str]:
    r"""Returns the interactions of a dataset with their split, of ``<root>/<name>.inter`` where that is, and their
    source."""
    data = HeteroData()
    path = root / f'{name}.inter' if root is not None else None
    if path is not None and path.is_file():
        frame = pd.read_csv(path, sep='\t')
        data[INTERACTS].edge_index = torch.from_numpy(frame[['userID', 'itemID']].to_numpy().T.copy())
        data[INTERACTS].split = torch.from_numpy(frame['x_label'].to_numpy())
        num_users, num_items = (int(row.max()) + 1 for row in data[INTERACTS].edge_index)
    else:
        num_users, num_items, size = (max(60, round(value * scale)) for value in SIZES[name])
        data[INTERACTS].edge_index = power_law(num_users, num_items, size, seed)
        draw = torch.rand(data[INTERACTS].edge_index.size(1), generator=torch.Generator().manual_seed(seed + 1))
        data[INTERACTS].split = (draw > 0.743).long() + (draw > 0.868).long()
    data[USER].num_nodes, data[ITEM].num_nodes = num_users, num_items
    return data, 'generated' if path is None or not path.is_file() else path.name


def with_features(data: HeteroData, widths: dict[str, int], seed: int = 0, rank: int = 256) -> HeteroData:
    r"""Adds features whose spectrum decays as that of real ones does: a signal of some rank, and noise."""
    generator = torch.Generator().manual_seed(seed)
    num_items = data[ITEM].num_nodes
    for name, width in widths.items():
        factors = torch.randn(num_items, min(rank, width), generator=generator)
        mixing = torch.randn(min(rank, width), width, generator=generator) / rank**0.5
        x = factors @ mixing
        data[ITEM][f'x_{name}'] = x.add_(torch.randn(num_items, width, generator=generator), alpha=0.1)
    return data
