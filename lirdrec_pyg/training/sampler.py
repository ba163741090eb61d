r"""Training triplets: every training pair once per epoch, each with a negative item."""

from collections.abc import Iterator

import torch
from torch import Tensor


class BPRSampler:
    r"""Batches of (user, positive, negative) for BPR, as from the `"BPR: Bayesian Personalized Ranking from Implicit
    Feedback" <https://arxiv.org/abs/1205.2618>`_ paper.

    Iterating over it is one epoch: all training pairs in a fresh order, the last partial batch included. A negative is
    uniform over the items seen in training without the user's own ones, the distribution that rejecting the user's
    positives gives. It is drawn without rejection: among the user's :math:`n` allowed items, the :math:`r`-th is

    .. math::
        r + |\{ j : p_j - j \le r \}|, \quad r \sim \{ 0, \dots, n - 1 \},

    with the user's own items :math:`p_0 < p_1 < \dots` as positions among the seen ones: one binary search each.

    All randomness of an epoch is drawn when its iteration starts, from the sampler's own generator on the CPU: the
    sequence depends on the set of pairs and :obj:`seed` alone, not on the pairs' order. The state is that of the next
    epoch from then on; restoring it resumes exactly at an epoch's start.

    .. code-block:: python

        sampler = BPRSampler(train['user', 'interacts', 'item'].edge_index, num_users=64, num_items=48, batch_size=128)
        for user, pos, neg in sampler:  # one epoch
            print(len(user), sampler.sample_negatives(user).shape)

    Args:
        edge_index (torch.Tensor): The training pairs (user, item).
        num_users (int): The number of users.
        num_items (int): The number of items.
        batch_size (int): The number of triplets per batch. (default: :obj:`2048`)
        seed (int): The seed of the sampler's own generator. (default: :obj:`0`)

    Shapes:
        - **edge_index:** :math:`(2, |\mathcal{E}|)`
        - **output:** three int64 tensors :math:`(B)` on the CPU per batch

    Raises:
        ValueError: If there are no pairs, a pair is out of range, the batch size is below 1, or a user has interacted
            with every seen item, so that there is no negative.
    """

    def __init__(
        self, edge_index: Tensor, num_users: int, num_items: int, batch_size: int = 2048, seed: int = 0
    ) -> None:
        if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.size(1) == 0:
            raise ValueError(f"'edge_index' needs to be [2, E] with at least one pair (got {list(edge_index.shape)})")
        if batch_size < 1:
            raise ValueError(f"'batch_size' needs to be at least 1 (got {batch_size})")
        edge_index = edge_index.detach().to('cpu', torch.long)
        self.user: Tensor = edge_index[0].contiguous()
        self.pos: Tensor = edge_index[1].contiguous()
        for name, index, size in (('users', self.user, num_users), ('items', self.pos, num_items)):
            low, high = int(index.min()), int(index.max())
            if low < 0 or high >= size:
                raise ValueError(
                    f"{name} of 'edge_index' need to be in [0, {size - 1}] (got {low if low < 0 else high})"
                )
        self.num_users, self.num_items = num_users, num_items
        self.batch_size, self.seed = batch_size, seed
        self.generator = torch.Generator().manual_seed(seed)

        self._seen, position = self.pos.unique(return_inverse=True)
        num_seen = self._seen.numel()
        key = (self.user * num_seen + position).sort().values  # by user, then by position
        self.user, self.pos = key // num_seen, self._seen[key % num_seen]
        owned = key.unique_consecutive()
        owner = owned // num_seen
        count = torch.bincount(owner, minlength=num_users)
        if int(count.max()) == num_seen:
            raise ValueError(
                f"'edge_index' needs to leave each user a negative (got user {int(count.argmax())} with all {num_seen} "
                'items seen in training)'
            )
        self._num_allowed = num_seen - count  # [U]
        self._start = count.cumsum(0) - count  # [U]
        self._gap = owned - (torch.arange(owned.numel()) - self._start[owner])  # user * num_seen + p_j - j, sorted

    def sample_negatives(self, user: Tensor) -> Tensor:
        r"""Returns a negative item for each of the users :obj:`user` of shape ``[N]``."""
        allowed = self._num_allowed[user]
        r = (torch.rand(user.numel(), generator=self.generator, dtype=torch.double) * allowed).long()
        skip = torch.searchsorted(self._gap, user * self._seen.numel() + r, right=True) - self._start[user]
        return self._seen[r + skip]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        perm = torch.randperm(self.user.numel(), generator=self.generator)
        neg = self.sample_negatives(self.user)  # before shuffling: sorted users make the search several times faster
        parts = [part[perm].split(self.batch_size) for part in (self.user, self.pos, neg)]
        return zip(*parts, strict=True)

    def __len__(self) -> int:
        return -(-self.user.numel() // self.batch_size)

    def state_dict(self) -> dict[str, Tensor]:
        r"""Returns the state of the generator, from which the next epoch is drawn."""
        return {'generator': self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        r"""Restores what :meth:`state_dict` returned.

        Raises:
            ValueError: If the state has other keys.
        """
        if set(state_dict) != {'generator'}:
            raise ValueError(f"'state_dict' needs the key 'generator' alone (got {sorted(state_dict)})")
        self.generator.set_state(state_dict['generator'].cpu())

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(num_pairs={self.user.numel()}, num_users={self.num_users}, '
            f'num_items={self.num_items}, batch_size={self.batch_size}, seed={self.seed})'
        )
