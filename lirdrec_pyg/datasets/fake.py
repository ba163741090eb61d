from collections.abc import Mapping

import torch
from torch_geometric.data import HeteroData, InMemoryDataset

from lirdrec_pyg.typing import INTERACTS, ITEM, TEST, TRAIN, USER, VAL


class FakeMultimodal(InMemoryDataset):
    r"""A checkerboard whose right answer is known: users and items belong to blocks (``data['user'].block``,
    ``data['item'].block``), users interact only with items of their own block, and the features of an item are the
    centre of its block plus noise. A model that works ranks the held-out items of a user's block above all others.

    Each user has one item for validation, one for test and the rest for training (``split``). Cold items, the last
    ones, occur in test only. Nothing is read from or written to disk.

    Args:
        num_users (int, optional): The number of users. (default: :obj:`64`)
        num_items (int, optional): The number of items, cold ones included. (default: :obj:`48`)
        num_blocks (int, optional): The number of blocks. (default: :obj:`2`)
        interactions_per_user (int, optional): The number of warm items of each user. (default: :obj:`8`)
        channels (mapping of str to int, optional): The width of each modality. (default: image 16, text 8)
        noise (float, optional): The standard deviation of the noise around centres of unit variance.
            (default: :obj:`0.1`)
        num_cold_items (int, optional): The number of cold items, each met by one user a block. (default: :obj:`0`)
        missing (mapping of str to float, optional): The share of items that lack a modality. (default: none)
        seed (int, optional): The seed of all draws. (default: :obj:`0`)
    """

    def __init__(
        self,
        num_users: int = 64,
        num_items: int = 48,
        num_blocks: int = 2,
        interactions_per_user: int = 8,
        channels: Mapping[str, int] | None = None,
        noise: float = 0.1,
        num_cold_items: int = 0,
        missing: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.args = {
            'num_users': num_users,
            'num_items': num_items,
            'num_blocks': num_blocks,
            'interactions_per_user': interactions_per_user,
            'channels': dict(channels or {'image': 16, 'text': 8}),
            'noise': noise,
            'num_cold_items': num_cold_items,
            'missing': dict(missing or {}),
            'seed': seed,
        }
        self.data, self.slices = self.collate([self._generate(**self.args)])  # type: ignore[arg-type]

    @staticmethod
    def _generate(
        num_users: int,
        num_items: int,
        num_blocks: int,
        interactions_per_user: int,
        channels: dict[str, int],
        noise: float,
        num_cold_items: int,
        missing: dict[str, float],
        seed: int,
    ) -> HeteroData:
        num_warm = num_items - num_cold_items
        if not 3 <= interactions_per_user <= num_warm // num_blocks:
            raise ValueError(
                f"'interactions_per_user' needs to be in [3, {num_warm // num_blocks}], the warm items of a block (got "
                f'{interactions_per_user})'
            )
        for name, share in missing.items():
            if name not in channels or not 0 <= share < 1:
                raise ValueError(f"'missing' needs shares in [0, 1) of {list(channels)} (got {share} for '{name}')")
        generator = torch.Generator().manual_seed(seed)
        data = HeteroData()
        user_block, item_block = torch.arange(num_users) % num_blocks, torch.arange(num_items) % num_blocks
        data[USER].num_nodes, data[USER].block = num_users, user_block
        data[ITEM].num_nodes, data[ITEM].block = num_items, item_block
        data[USER].raw_id = [f'user-{i}' for i in range(num_users)]
        data[ITEM].raw_id = [f'item-{i}' for i in range(num_items)]
        data[ITEM].title = [f'Item {i} of block {i % num_blocks}' for i in range(num_items)]
        for name, width in channels.items():
            centres = torch.randn(num_blocks, width, generator=generator)
            x = centres[item_block] + noise * torch.randn(num_items, width, generator=generator)
            if name in missing:
                has = torch.rand(num_items, generator=generator) >= missing[name]
                data[ITEM][f'has_{name}'] = has
                x[~has] = 0
            data[ITEM][f'x_{name}'] = x

        # Each user draws from the warm items of its block; the first two drawn are held out.
        score = torch.rand(num_users, num_warm, generator=generator)
        score[user_block[:, None] != item_block[None, :num_warm]] = -1
        item = score.topk(interactions_per_user, dim=1).indices
        user = torch.arange(num_users).unsqueeze(1).expand_as(item)
        split = torch.full_like(item, TRAIN)
        split[:, 0], split[:, 1] = TEST, VAL
        cold = torch.arange(num_warm, num_items)
        fan = torch.randint(num_users // num_blocks, (num_cold_items,), generator=generator)
        data[INTERACTS].edge_index = torch.stack(
            [torch.cat([user.flatten(), fan * num_blocks + item_block[cold]]), torch.cat([item.flatten(), cold])]
        )
        data[INTERACTS].split = torch.cat([split.flatten(), torch.full_like(cold, TEST)])
        data[INTERACTS].time = torch.cat([(TEST + 1 - split).flatten().neg(), torch.zeros_like(cold)])
        return data

    def __repr__(self) -> str:
        args = ', '.join(f'{key}={value!r}' for key, value in self.args.items())
        return f'{self.__class__.__name__}({args})'
