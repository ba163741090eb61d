import torch
from torch import Tensor
from torch.nn import Linear, Module, Parameter

from lirdrec_pyg.nn.kernels import normalize


class RecentItemsEncoder(Module):
    r"""Adds a user's latest items to its embedding. This is ours, not the paper's.

    .. math::
        \mathbf{q} = \mathrm{normalize}(\mathbf{u}) + \mathbf{W} \sum_{j=1}^{n} w_j \, \mathrm{normalize}(\mathbf{i}_j),
        \quad w_j = \frac{\exp(\theta_j)}{\sum_{j'} \exp(\theta_{j'})}

    Position :math:`j = 1` is the latest item. A user with fewer than :math:`n` items has fewer terms. Both
    :math:`\mathbf{W}` and :math:`\boldsymbol{\theta}` are learned.

    .. code-block:: python

        recent = RecentItems(5)(train)['user'].recent_items
        encoder = RecentItemsEncoder(channels=24, length=5)
        print(encoder(embeddings.user, embeddings.item, recent).shape)  # (64, 24)

    Args:
        channels (int): The width :math:`D` of the embeddings.
        length (int): The number of items :math:`n`.
        init (float, optional): :math:`\mathbf{W}` starts as this multiple of the identity. (default: :obj:`2.0`)
        decay (float, optional): At the start, each item weighs this much of the next later one: with 0.6 the weights
            are as 1, 0.6, 0.36, … from the latest on. (default: :obj:`0.6`)

    Shapes:
        - **input:** users :math:`(N, D)`, all items :math:`(|\mathcal{I}|, D)` and the latest items of each user
          :math:`(N, n)`: ids of items, or :obj:`-1` where there are no more
        - **output:** :math:`(N, D)`
    """

    def __init__(self, channels: int, length: int, init: float = 2.0, decay: float = 0.6) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"'length' needs to be at least 1 (got {length})")
        if not 0 < decay <= 1:
            raise ValueError(f"'decay' needs to be in (0, 1] (got {decay})")
        self.channels = channels
        self.length = length
        self.init = init
        self.decay = decay
        self.lin = Linear(channels, channels, bias=False)
        self.theta = Parameter(torch.empty(length))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        torch.nn.init.eye_(self.lin.weight).mul_(self.init)
        self.theta.copy_(torch.arange(self.length) * torch.tensor(self.decay).log())

    def forward(self, user: Tensor, item: Tensor, recent: Tensor) -> Tensor:
        item = normalize(item)
        # Some users at a time: the items of all users at once would take n times the memory of the embeddings.
        size = recent.size(0) if torch.is_grad_enabled() else 4096
        parts = [self._pool(item, part) for part in recent.split(size)]
        return normalize(user) + self.lin(torch.cat(parts))

    def _pool(self, item: Tensor, recent: Tensor) -> Tensor:
        known = recent >= 0
        weight = self.theta.masked_fill(~known, float('-inf')).softmax(dim=1).masked_fill(~known, 0)  # [N, n]
        rows = item.index_select(0, recent.clamp(min=0).flatten()).view(*recent.shape, -1)  # [N, n, D]
        return (weight.unsqueeze(1) @ rows).squeeze(1)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.channels}, length={self.length})'
