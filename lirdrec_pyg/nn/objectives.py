r"""What training minimises. Any model takes any objective."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from lirdrec_pyg.nn.kernels import normalize, on_host, sampled_softmax_loss, softmax_loss
from lirdrec_pyg.nn.part import Part

Rows = Callable[[Tensor], Tensor]


class Batch:
    r"""A batch of triplets as an objective sees it: ids, and the embeddings to score them by.

    Embeddings are made when they are asked for, and once, so that an objective pays for what it uses.

    .. code-block:: python

        class Mean(Objective):
            def forward(self, batch: Batch) -> Tensor:
                users, row = batch.distinct_users()
                items = batch.items(batch.pos)
                if row is not None:
                    users = users[row]
                return -(users * items).sum(dim=-1).mean() + batch.items(batch.seen().nonzero().view(-1)).mean()

        print(fit(LIRDRec.from_data(train, seed=0, objective=Mean()), train, val, epochs=2))

    Args:
        user (Tensor): Users :math:`(B)`.
        pos (Tensor): An item that each user interacted with :math:`(B)`.
        neg (Tensor): An item that each user did not interact with :math:`(B)`.
        users (callable): Returns the embeddings :math:`(N, D)` of given users :math:`(N)`.
        items (callable): Returns the embeddings :math:`(N, D)` of given items :math:`(N)`.
        seen (callable, optional): Returns which items have training interactions, bool :math:`(|\mathcal{I}|)`.
            (default: unknown, as on a sampled sub-graph)
        num_seen (int, optional): Of how many items ``seen`` tells a sample. (default: it tells them all)
        by_interaction (bool, optional): Whether a user's embedding depends on the interaction, as in a sequential
            model. (default: :obj:`False`)
    """

    def __init__(
        self,
        user: Tensor,
        pos: Tensor,
        neg: Tensor,
        users: Rows,
        items: Rows,
        seen: Callable[[], Tensor] | None = None,
        by_interaction: bool = False,
        num_seen: int | None = None,
    ) -> None:
        self.user, self.pos, self.neg = user, pos, neg
        self.num_seen = num_seen
        self._users, self._items, self._seen = users, items, seen
        self.by_interaction = by_interaction
        self._made: dict[str, Any] = {}

    def users(self) -> Tensor:
        r"""Returns the embedding of each user of the batch, :math:`(B, D)`."""
        return self._once('users', lambda: self._users(self.user))

    def distinct_users(self) -> tuple[Tensor, Tensor | None]:
        r"""Returns each user of the batch once, :math:`(N, D)`, and the row of each triplet's user, :math:`(B)`.

        Where this saves nothing, it returns the users of all triplets, and :obj:`None`: in a sequential model, and on
        a GPU, which would have to wait for their number.
        """
        if self.by_interaction or not on_host(self.user):
            return self.users(), None

        def make() -> tuple[Tensor, Tensor]:
            user, index = self.user.unique(return_inverse=True)
            return self._users(user), index

        return self._once('distinct', make)

    def triplets(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the embeddings of users, positives and negatives, :math:`(B, D)` each."""

        def make() -> tuple[Tensor, Tensor, Tensor]:
            pos, neg = self._items(torch.cat([self.pos, self.neg])).chunk(2)
            return self.users(), pos, neg

        return self._once('triplets', make)

    def items(self, index: Tensor) -> Tensor:
        r"""Returns the embeddings of the given items :math:`(N)`, :math:`(N, D)`."""
        return self._items(index)

    def seen(self) -> Tensor:
        r"""Returns which items can be negatives: bool :math:`(|\mathcal{I}|)`. They are those with training
        interactions, or on a sampled sub-graph the candidates drawn from them.

        Raises:
            ValueError: On a sampled sub-graph without candidates.
        """
        if self._seen is None:
            raise ValueError(
                "'num_negatives' needs to be 'batch' on a sampled sub-graph without candidates: give the loader "
                '`num_candidates` (got none)'
            )
        return self._seen()

    def with_items(self, items: Rows) -> Self:
        r"""Returns the same batch with other embeddings of items, such as the projections of a modality."""
        out = type(self)(
            self.user, self.pos, self.neg, self._users, items, self._seen, self.by_interaction, self.num_seen
        )
        out._made = {name: value for name, value in self._made.items() if name in ('users', 'distinct')}
        return out

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]


class Objective(Part, ABC):
    r"""What training minimises, a function of the embeddings of a batch.

    A new one is a class with :meth:`forward`:

    .. code-block:: python

        class Hinge(Objective):
            def __init__(self, margin: float = 1.0) -> None:
                super().__init__()
                self.margin = margin

            def forward(self, batch: Batch) -> Tensor:
                user, pos, neg = batch.triplets()
                return (self.margin - (user * (pos - neg)).sum(dim=-1)).clamp(min=0).mean()

        model = LIRDRec.from_data(train, objective=Hinge(margin=0.5))
    """

    generator: torch.Generator | None = None  # of a training run, for what is drawn
    fit_defaults: dict[str, float] = {}  # what suits the objective in place of the model's own

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        r"""Returns the loss of a batch, a scalar."""


class BPR(Objective):
    r"""The Bayesian personalised ranking of the `"BPR: Bayesian Personalized Ranking from Implicit Feedback"
    <https://arxiv.org/abs/1205.2618>`_ paper: a user's positive should score above its negative.

    .. math::
        \mathcal{L} = \frac{1}{B} \sum_{(u, i, j)} \mathrm{softplus}(s_{uj} - s_{ui})

    .. code-block:: python

        model = LIRDRec.from_data(train, seed=0, objective=BPR())
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, batch: Batch) -> Tensor:
        user, pos, neg = batch.triplets()
        return bpr_loss((user * pos).sum(dim=-1), (user * neg).sum(dim=-1))


class SampledSoftmax(Objective):
    r"""The softmax over cosines of the `"On the Effectiveness of Sampled Softmax Loss for Item Recommendation"
    <https://arxiv.org/abs/2201.02327>`_ paper: a positive should score above all candidates. It needs far fewer epochs
    than :class:`BPR`.

    .. math::
        \mathcal{L} = -\frac{1}{B} \sum_{(u, i)} \log \frac{\exp(\cos(\mathbf{u}, \mathbf{i}) / \tau)}
        {\sum_{j \in \mathcal{C}} \exp(\cos(\mathbf{u}, \mathbf{j}) / \tau)}

    Items without training interactions are never candidates: that would teach the model to avoid what is new. The
    length of an embedding does not enter. How much it counts in the scores is chosen after training
    (:meth:`~lirdrec_pyg.nn.Recommender.set_power`, :func:`~lirdrec_pyg.calibrate`).

    With ``num_negatives``, the sum over all candidates is estimated from uniform ones, which the whole batch shares
    (:func:`~lirdrec_pyg.nn.kernels.sampled_softmax_loss`). So a step does not grow with the catalogue.

    .. code-block:: python

        objective = SampledSoftmax(temperature=0.1, num_negatives=4096, learn_temperature=True)
        model = LIRDRec.from_data(train, seed=0, objective=objective)

    Args:
        temperature (float, optional): :math:`\tau`, or where it starts. The more items there are, the lower it should
            be. (default: :obj:`0.2`)
        num_negatives (int or str, optional): The number of items to estimate the sum from; where there are not more of
            them, all take part. ``'batch'`` takes the positives of the batch for all candidates. (default: all items)
        learn_temperature (bool, optional): Whether :math:`\tau` is trained, too. (default: :obj:`False`)
    """

    fit_defaults = {'lr': 1e-3, 'patience': 10}

    def __init__(
        self,
        temperature: float = 0.2,
        num_negatives: int | Literal['batch'] | None = None,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"'temperature' needs to be positive (got {temperature})")
        if not (num_negatives in (None, 'batch') or (isinstance(num_negatives, int) and num_negatives > 0)):
            raise ValueError(f"'num_negatives' needs to be positive, 'batch' or None (got {num_negatives!r})")
        self.num_negatives = num_negatives
        self.log_scale: Parameter | None = None
        self._temperature = temperature
        if learn_temperature:
            self.log_scale = Parameter(torch.tensor(-math.log(temperature)))

    @property
    def temperature(self) -> float:
        r""":math:`\tau`, as it is now."""
        return self._temperature if self.log_scale is None else math.exp(-float(self.log_scale.detach()))

    def forward(self, batch: Batch) -> Tensor:
        user, index = batch.distinct_users()
        user, temperature = normalize(user), self._temperature
        if self.log_scale is not None:  # in the users, so that its gradient comes by itself
            user, temperature = user * self.log_scale.exp(), 1.0
        if isinstance(self.num_negatives, int) or (self.num_negatives is None and batch.num_seen is not None):
            drawn = self._draw(batch)
            if drawn is not None:
                return self._estimate(batch, user, index, drawn, temperature)
        items, target, mask = self.candidates(batch)
        item = normalize(batch.items(items))
        return softmax_loss(user, item, target, temperature, index=index, candidates=mask)

    def candidates(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        r"""Returns the items of the softmax, where among them the positives are, and which of them take part."""
        pos = batch.pos
        if self.num_negatives == 'batch':
            if on_host(pos):
                return *pos.unique(return_inverse=True), None
            order = pos.sort().values  # each in place, with its share of the times that it is there
            count = torch.searchsorted(order, pos, right=True) - torch.searchsorted(order, pos)
            return pos, torch.arange(pos.numel(), device=pos.device), 1 / count
        seen = batch.seen().index_fill(0, pos, True)
        if not on_host(pos):  # all in place, without waiting for their number
            return torch.arange(seen.numel(), device=pos.device), pos, seen
        return seen.nonzero().view(-1), (seen.cumsum(0) - 1)[pos], None

    def _draw(self, batch: Batch) -> 'Drawn | None':
        r"""Draws the items from which to estimate the sum. Returns nothing where all items take part."""
        seen, limit = batch.seen(), self.num_negatives
        if not isinstance(limit, int):
            limit = seen.numel()
        if limit >= seen.numel() and batch.num_seen is None and not on_host(seen):
            return None
        drawn = draw(batch, limit, self.generator)
        return None if drawn.mask is None and drawn.items.numel() >= drawn.number else drawn

    @staticmethod
    def _estimate(batch: Batch, user: Tensor, index: Tensor | None, drawn: 'Drawn', temperature: float) -> Tensor:
        pos, target = batch.pos, None
        if on_host(pos):
            pos, target = pos.unique(return_inverse=True)
            hit = torch.isin(pos, drawn.items)[target]
        else:  # without a sort, whose size it would wait for
            hit = torch.zeros_like(batch.seen()).index_fill_(0, drawn.items, True).index_select(0, pos)
        item = normalize(batch.items(torch.cat([pos, drawn.items])))
        positive, negative = item[: len(pos)], item[len(pos) :]
        positive = positive if target is None else positive.index_select(0, target)
        return sampled_softmax_loss(
            user, positive, negative, hit, drawn.number, temperature, index=index, candidates=drawn.mask
        )


class Drawn(NamedTuple):
    r"""Items drawn, out of how many, and which of them count (by default all)."""

    items: Tensor
    number: int | Tensor
    mask: Tensor | None = None


def draw(batch: Batch, limit: int, generator: torch.Generator | None = None) -> Drawn:
    r"""Draws distinct items, uniformly from those with training interactions that the batch knows, or takes all of them
    where there are not more than :obj:`limit`."""
    seen = batch.seen()
    if batch.num_seen is None and not on_host(seen):  # how many there are stays on the device
        items = random_items(seen, min(limit, seen.numel()), generator)
        return Drawn(items, seen.sum(), seen.index_select(0, items))
    items = seen.nonzero().view(-1)
    number = items.numel() if batch.num_seen is None else batch.num_seen
    if limit < items.numel():
        items = items[torch.randperm(items.numel(), device=seen.device, generator=generator)[:limit]]
    return Drawn(items, number)


def random_items(seen: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    r"""Returns distinct items, uniformly drawn from those of a mask, without waiting for their number. Where there are
    fewer, others follow.

    Shapes:
        - **seen:** :math:`(|\mathcal{I}|)`
        - **output:** :math:`(N)`
    """
    key = torch.rand(seen.numel(), device=seen.device, generator=generator)
    return key.masked_fill_(~seen, 2).topk(size, largest=False, sorted=False).indices


def bpr_loss(pos_score: Tensor, neg_score: Tensor) -> Tensor:
    r"""Returns :math:`\frac{1}{B} \sum \mathrm{softplus}(s^- - s^+)`, see :class:`BPR`.

    Shapes:
        - **pos_score**, **neg_score:** :math:`(B)`
        - **output:** a scalar
    """
    return F.softplus(neg_score - pos_score).mean()


def squared_norm(*rows: Tensor) -> Tensor:
    r"""Returns the penalty on a batch of the ID-based models, :math:`\frac{1}{2B} \sum_x \Vert \mathbf{X}
    \Vert_F^2`, where :math:`B` is the number of rows of the first :math:`\mathbf{X}`."""
    return sum((x.square().sum() for x in rows[1:]), rows[0].square().sum()) / (2 * len(rows[0]))
