from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch_geometric.data import HeteroData, InMemoryDataset

from lirdrec_pyg.typing import INTERACTS, ITEM, TEST, TRAIN, USER, VAL, NodeList


class FakeMultimodal(InMemoryDataset):
    r"""A checkerboard whose right answer is known: user u and item i belong to the blocks u and i modulo ``num_blocks``
    (``data['user'].block``, ``data['item'].block``), users interact only with items of their own block, and the
    features of an item are the centroid of its block plus noise. A model that works ranks the items of a user's block
    above all others.

    Each user's last warm item is for test, the one before for validation, the others for training (``split``; ``time``
    is the place among the user's interactions). Each warm item is in training at least once, if the users' interactions
    suffice. Cold items, the last ones, occur in test only, each with up to four users of its block. Nothing is read
    from or written to disk.

    .. code-block:: python

        data = FakeMultimodal(num_users=100, num_items=80, num_cold_items=5, missing={'image': 0.1})[0]
        print(data['item'].x_image.shape, data['item'].has_image.sum())

    Args:
        num_users (int, optional): The number of users. (default: :obj:`64`)
        num_items (int, optional): The number of items, cold ones included. (default: :obj:`48`)
        num_blocks (int, optional): The number of blocks. (default: :obj:`2`)
        interactions_per_user (int, optional): The number of warm items of each user. (default: :obj:`8`)
        widths (mapping of str to int, optional): The width of each modality. (default: image 16, text 8)
        noise (float, optional): The standard deviation of the noise around centroids of unit variance.
            (default: :obj:`0.1`)
        num_cold_items (int, optional): The number of cold items. (default: :obj:`0`)
        missing (mapping of str to float, optional): The share of items that lack a modality: their features are zero
            and ``has_<modality>`` is false. (default: none)
        seed (int, optional): The seed of all draws. (default: :obj:`0`)
        transform (callable, optional): Applied at each access. (default: :obj:`None`)

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        num_users: int = 64,
        num_items: int = 48,
        num_blocks: int = 2,
        interactions_per_user: int = 8,
        widths: Mapping[str, int] | None = None,
        noise: float = 0.1,
        num_cold_items: int = 0,
        missing: Mapping[str, float] | None = None,
        seed: int = 0,
        transform: Callable[[HeteroData], HeteroData] | None = None,
    ) -> None:
        super().__init__(transform=transform)
        self.num_users = num_users
        self.num_items = num_items
        self.num_blocks = num_blocks
        self.interactions_per_user = interactions_per_user
        self.widths = {'image': 16, 'text': 8} if widths is None else dict(sorted(widths.items()))
        self.noise = noise
        self.num_cold_items = num_cold_items
        self.missing = dict(sorted((missing or {}).items()))
        self.seed = seed
        self._check()
        self.data, self.slices = self.collate([self._generate()])

    def _check(self) -> None:
        if not 1 <= self.num_blocks <= self.num_users:
            raise ValueError(f"'num_blocks' needs to be in [1, {self.num_users}], the users (got {self.num_blocks})")
        if self.num_cold_items < 0:
            raise ValueError(f"'num_cold_items' needs to be at least 0 (got {self.num_cold_items})")
        most = (self.num_items - self.num_cold_items) // self.num_blocks
        if not 3 <= self.interactions_per_user <= most:
            raise ValueError(
                f"'interactions_per_user' needs to be in [3, {most}], the warm items of a block (got "
                f'{self.interactions_per_user})'
            )
        if not self.widths or min(self.widths.values()) < 1:
            raise ValueError(f"'widths' needs one or more modalities of width 1 or more (got {self.widths})")
        if self.noise < 0:
            raise ValueError(f"'noise' needs to be at least 0 (got {self.noise})")
        for name, share in self.missing.items():
            if name not in self.widths or not 0 <= share <= 1:
                raise ValueError(
                    f"'missing' needs shares in [0, 1] of modalities in {list(self.widths)} (got {share} of '{name}')"
                )

    def _generate(self) -> HeteroData:
        generator = torch.Generator().manual_seed(self.seed)
        data = HeteroData()
        for node_type, size in ((USER, self.num_users), (ITEM, self.num_items)):
            data[node_type].num_nodes = size
            data[node_type].block = torch.arange(size) % self.num_blocks
            data[node_type].raw_id = NodeList(f'{node_type}-{i}' for i in range(size))
        data[ITEM].title = NodeList(f'item {i} (block {i % self.num_blocks})' for i in range(self.num_items))

        edge_index, split, time = self._interactions(data[USER].block, data[ITEM].block, generator)
        data[INTERACTS].edge_index, data[INTERACTS].split, data[INTERACTS].time = edge_index, split, time

        for name, width in self.widths.items():
            centroid = torch.randn(self.num_blocks, width, generator=generator)
            noise = torch.randn(self.num_items, width, generator=generator)
            x = centroid[data[ITEM].block] + self.noise * noise
            if name in self.missing:
                lacking = torch.randperm(self.num_items, generator=generator)
                lacking = lacking[: round(self.missing[name] * self.num_items)]
                x[lacking] = 0
                data[ITEM][f'has_{name}'] = torch.ones(self.num_items, dtype=torch.bool).index_fill(0, lacking, False)
            data[ITEM][f'x_{name}'] = x
        return data

    def _interactions(
        self, user_block: Tensor, item_block: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        size, num_warm = self.interactions_per_user, self.num_items - self.num_cold_items
        # Users draw without replacement in their block; items they have to train on go round the users of the block.
        score = torch.rand(self.num_users, num_warm, generator=generator)
        score[user_block[:, None] != item_block[None, :num_warm]] = -1
        for block in range(self.num_blocks):
            users = (user_block == block).nonzero().flatten()
            items = (item_block[:num_warm] == block).nonzero().flatten()
            items = items[torch.randperm(items.numel(), generator=generator)]
            share = min(size - 2, -(-items.numel() // users.numel()))
            turn = torch.arange(users.numel() * share) % items.numel()
            score[users.repeat_interleave(share), items[turn]] += 1
        item = score.topk(size, dim=1).indices  # [U, size]
        user = torch.arange(self.num_users).unsqueeze(1).expand_as(item)
        time = torch.arange(size).expand_as(item)
        split = torch.full_like(item, TRAIN)
        split[:, -2], split[:, -1] = VAL, TEST

        cold = torch.arange(num_warm, self.num_items)
        score = torch.rand(self.num_users, cold.numel(), generator=generator)
        score[user_block[:, None] != item_block[None, cold]] = -1
        cold_user = score.topk(min(4, self.num_users // self.num_blocks), dim=0).indices  # [4, num_cold_items]

        edge_index = torch.stack(
            [
                torch.cat([user.flatten(), cold_user.flatten()]),
                torch.cat([item.flatten(), cold.expand_as(cold_user).flatten()]),
            ]
        )
        split = torch.cat([split.flatten(), torch.full((cold_user.numel(),), TEST)])
        time = torch.cat([time.flatten(), torch.full((cold_user.numel(),), size)])
        order = torch.argsort(edge_index[0], stable=True)
        return edge_index[:, order], split[order], time[order]

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(num_users={self.num_users}, num_items={self.num_items}, '
            f'num_blocks={self.num_blocks}, interactions_per_user={self.interactions_per_user}, '
            f'widths={self.widths}, noise={self.noise}, num_cold_items={self.num_cold_items}, '
            f'missing={self.missing}, seed={self.seed})'
        )
