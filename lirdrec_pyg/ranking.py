r"""Ranks all items, and says how good that is."""

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.metrics import (
    LinkPredAveragePopularity,
    LinkPredCoverage,
    LinkPredDiversity,
    LinkPredHitRatio,
    LinkPredMAP,
    LinkPredMetricCollection,
    LinkPredMRR,
    LinkPredNDCG,
    LinkPredPersonalization,
    LinkPredPrecision,
    LinkPredRecall,
)

from lirdrec_pyg._segments import pointers, take_rows
from lirdrec_pyg.nn.kernels import linear
from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.typing import (
    INTERACTS,
    ITEM,
    USER,
    Embeddings,
    check,
    check_count,
    check_embeddings,
    check_mask,
    check_nodes,
    check_pairs,
)

METRICS: dict[str, Any] = {
    'recall': LinkPredRecall,
    'ndcg': LinkPredNDCG,
    'precision': LinkPredPrecision,
    'map': LinkPredMAP,
    'hit': LinkPredHitRatio,
    'mrr': LinkPredMRR,
    'coverage': LinkPredCoverage,
}
Key = TypeVar('Key')
NO_ITEM = -1  # at the end of a list with few items


class Diversity(LinkPredDiversity):
    r"""PyG's diversity, of lists that may be shorter: the share of the pairs of items of a list that are of two
    categories. Lists without a pair do not count.

    .. code-block:: python

        category = torch.arange(48) % 3
        print(evaluate(embeddings, test, k=10, metrics=['diversity'], categories=category))
        metric = Diversity(10, category)  # which that makes
    """

    def update(self, pred_index_mat: Tensor, *args: Any) -> None:
        top = pred_index_mat[:, : self.k]
        real, category = top != NO_ITEM, self.category[top]
        same = category.unsqueeze(-1) == category.unsqueeze(-2)
        same &= real.unsqueeze(-1) & real.unsqueeze(-2)
        count = real.sum(dim=-1)
        pairs = count * (count - 1)
        some = pairs > 0
        self.accum += (1 - (same.sum(dim=(-1, -2)) - count)[some] / pairs[some]).sum()
        self.total += some.sum()

    def compute(self) -> Tensor:
        return self.accum / self.total


class Personalization(LinkPredPersonalization):
    r"""PyG's personalization over all pairs of users, of lists that may be shorter,

    .. math::
        1 - \binom{|\mathcal{U}|}{2}^{-1} \sum_{u < v} \frac{|\mathcal{L}_u \cap \mathcal{L}_v|}
        {\sqrt{|\mathcal{L}_u| |\mathcal{L}_v|}}
        = 1 - \frac{\sum_i \big( (\sum_{u: i \in \mathcal{L}_u} |\mathcal{L}_u|^{-1/2})^2 -
        \sum_{u: i \in \mathcal{L}_u} |\mathcal{L}_u|^{-1} \big)}{|\mathcal{U}| (|\mathcal{U}| - 1)}

    PyG's class goes over the pairs, and so over those of the first 4,096 users alone. The sum over items takes linear
    time.

    .. code-block:: python

        print(evaluate(embeddings, test, k=10, metrics=['personalization']))
        metric = Personalization(10, num_items=48)  # which that makes
    """

    def __init__(self, k: int, num_items: int) -> None:
        super().__init__(k)
        self.register_buffer('weight', torch.zeros(num_items, dtype=torch.double), persistent=False)
        self.register_buffer('own', torch.zeros((), dtype=torch.double), persistent=False)

    def update(self, pred_index_mat: Tensor, *args: Any) -> None:
        top = pred_index_mat[:, : self.k]
        real = top != NO_ITEM
        count = real.sum(dim=-1, keepdim=True)
        self.weight.index_add_(0, top[real], count.double().rsqrt().expand_as(top)[real])
        self.own += (count > 0).sum()  # an item of a list adds one part in as many as there are
        self.total += top.size(0)

    def compute(self) -> Tensor:
        pairs = self.total * (self.total - 1)
        alike = (self.weight.square().sum() - self.own) / pairs
        return (1 - alike).masked_fill(pairs == 0, float('nan'))  # rounding may have left something of one list


class AveragePopularity(LinkPredAveragePopularity):
    r"""PyG's average popularity, of lists that may be shorter. Empty ones do not count.

    .. code-block:: python

        print(evaluate(embeddings, test, k=10, metrics=['popularity']))
        metric = AveragePopularity(10, torch.ones(48))  # which that makes
    """

    def update(self, pred_index_mat: Tensor, *args: Any) -> None:
        top = pred_index_mat[:, : self.k]
        real = top != NO_ITEM
        count = real.sum(dim=-1)
        total = (self.popularity[top] * real).sum(dim=-1)
        self.accum += (total[count > 0] / count[count > 0]).sum()
        self.total += (count > 0).sum()

    def compute(self) -> Tensor:
        return self.accum / self.total


LISTS: dict[str, Any] = {  # what is recommended, whether it was right or not
    'diversity': Diversity,
    'personalization': Personalization,
    'popularity': AveragePopularity,
}


class _Metrics(dict[Key, float]):
    r"""Metrics by name or power, which print with four digits."""

    def __repr__(self) -> str:
        return '{' + ', '.join(f'{name!r}: {value:.4f}' for name, value in self.items()) + '}'


@torch.no_grad()
def evaluate(
    embeddings: Embeddings,
    split: HeteroData,
    k: int | Sequence[int] = (10, 20),
    metrics: Sequence[str] = ('recall', 'ndcg'),
    also_exclude: HeteroData | None = None,
    candidates: Tensor | None = None,
    groups: Mapping[str, Tensor] | None = None,
    batch_size: int = 1024,
    categories: Tensor | None = None,
) -> dict[str, float]:
    r"""Ranks all items for every user of a split and returns the mean of PyG's link prediction metrics over users.

    Every user with at least one positive (``edge_label_index`` of the split) gets all items ranked, except for its own
    training interactions (``edge_index``). Validation positives stay candidates at test, as in the released
    implementation, unless given to ``also_exclude``. Scores are made for ``batch_size`` users at a time, never for all.

    .. code-block:: python

        print(evaluate(embeddings, test, k=[5, 10], metrics=['recall', 'ndcg', 'coverage']))

    Args:
        embeddings (Embeddings): The embeddings of all users and items.
        split (HeteroData): The validation or test split.
        k (int or sequence of int, optional): The cut-offs. (default: :obj:`(10, 20)`)
        metrics (sequence of str, optional): Any of ``'recall'``, ``'ndcg'``, ``'precision'``, ``'map'``, ``'hit'`` and
            ``'mrr'``. And of what is recommended, right or not: ``'coverage'`` (the share of all items that any user
            gets), ``'popularity'`` (the mean number of training interactions of a recommended item),
            ``'personalization'`` (how little two users' lists have in common, the mean over all pairs of users) and
            ``'diversity'`` (the share of the pairs of items of a list that are of two categories). Where a user has
            less than :math:`k` items left to rank, its list is as long as these are many.
            (default: :obj:`('recall', 'ndcg')`)
        also_exclude (HeteroData, optional): A split whose positives are not candidates either, *e.g.*, the validation
            split at test. (default: :obj:`None`)
        candidates (Tensor, optional): The items to rank, a bool mask :math:`(|\mathcal{I}|)`; positives among the
            others do not count. (default: all)
        groups (mapping of str to Tensor, optional): Named bool masks :math:`(|\mathcal{I}|)`, *e.g.*, of warm and cold
            items. Each adds metrics (``'cold/recall@20'``) in which only positives of that group count, and users that
            have one, while all candidates still compete. Those of what is recommended are of these users' lists.
            (default: :obj:`None`)
        batch_size (int, optional): The number of users scored at once. (default: :obj:`1024`)
        categories (Tensor, optional): The category of each item :math:`(|\mathcal{I}|)`, integers from zero on.
            ``'diversity'`` needs it. (default: :obj:`None`)

    Returns:
        The metrics by name, *e.g.*, ``{'recall@10': 0.1134, 'recall@20': 0.1920, …}``, a dict that prints with four
        digits; ``nan`` where a group has no users, and for personalization where it has one.

    Raises:
        ValueError: If ``k`` is out of range, a metric is unknown, a mask is not of all items, the split has no
            positives, or the embeddings do not fit the split or may have scores that are not finite. If
            ``'diversity'`` has no categories or ``k`` is one, or there are categories without it.
    """
    split = check(split, 'split', labels=True)
    embeddings = check_embeddings(embeddings, split)
    ks = [k] if isinstance(k, (int, np.integer)) else k
    num_items = split[ITEM].num_nodes
    candidates = None if candidates is None else check_mask(candidates, num_items, 'candidates')
    groups = {name: check_mask(mask, num_items, 'groups') for name, mask in (groups or {}).items()}
    limit = num_items if candidates is None else int(candidates.sum())
    ks = [check_count(value, limit) for value in ks]
    if len(ks) == 0 or len(metrics) == 0:
        raise ValueError(f"'k' and 'metrics' need to name at least one (got {ks} and {list(metrics)})")
    for name in metrics:
        if name not in METRICS and name not in LISTS:
            raise ValueError(f"'metrics' needs to be of {[*METRICS, *LISTS]} (got '{name}')")
    categories = _check_categories(categories, num_items, ks, metrics)

    device = embeddings.item.device
    label = split[INTERACTS].edge_label_index.to(device)
    if candidates is not None:
        candidates = candidates.to(device)
        label = label[:, candidates[label[1]]]
    if label.numel() == 0:
        raise ValueError("'split' needs at least one positive to evaluate (got none)")
    seen = split[INTERACTS].edge_index.to(device)
    if also_exclude is not None:
        others = check(also_exclude, 'also_exclude', labels=True)[INTERACTS].edge_label_index
        others = check_pairs(others, (split[USER].num_nodes, num_items), 'also_exclude')
        seen = torch.cat([seen, others.to(device)], dim=1)

    labels = {'': label}
    for name, mask in groups.items():
        labels[f'{name}/'] = label[:, mask.to(device)[label[1]]]
    of_lists = {
        'coverage': num_items,
        'personalization': num_items,
        'popularity': torch.bincount(split[INTERACTS].edge_index[1], minlength=num_items).float(),
        'diversity': categories,
    }
    kinds = [[m for m in metrics if m in METRICS and m != 'coverage'], ['coverage'], list(LISTS)]
    collections = {
        (prefix, kind): LinkPredMetricCollection({
            f'{name}@{value}': (METRICS | LISTS)[name](value, *([of_lists[name]] if name in of_lists else []))
            for name in names if name in metrics
            for value in ks
        }).to(device)
        for prefix in labels
        for kind, names in enumerate(kinds) if any(name in metrics for name in names)
    }  # fmt: skip

    users = label[0].unique()
    for user, score, top in ranked(embeddings, users, max(ks), seen, candidates, batch_size):
        # Excluded items, which fill up the list of a user with few others, are no hits but would count as recommended.
        real = score > float('-inf')
        shown = top, torch.where(real, top, top[:, :1]), top.masked_fill(~real, NO_ITEM)
        for prefix, group in labels.items():
            part = group[:, (group[0] >= user[0]) & (group[0] <= user[-1])]  # users are sorted
            if part.numel() == 0:
                continue
            own = torch.isin(user, part[0]) if prefix else slice(None)  # users without one in the group do not count
            part = torch.stack([torch.searchsorted(user[own], part[0].contiguous()), part[1]])
            for (of, kind), collection in collections.items():
                if of == prefix:
                    collection.update(shown[kind][own], part)  # finds the hits once for all metrics
    found = {
        f'{prefix}{name}': float(value) if labels[prefix].numel() > 0 else float('nan')
        for (prefix, _), collection in collections.items()
        for name, value in collection.compute().items()
    }
    return _Metrics(
        {name: found[name] for name in (f'{p}{m}@{value}' for p in labels for m in metrics for value in ks)}
    )


def _check_categories(
    categories: Tensor | None, num_items: int, ks: Sequence[int], metrics: Sequence[str]
) -> Tensor | None:
    if ('diversity' in metrics) != (categories is not None):
        raise ValueError(
            "'categories' need to be there for 'diversity', and for that alone: the category of each item (got "
            f"{'none' if categories is None else 'some'} and 'metrics' {list(metrics)})"
        )
    if categories is None:
        return None
    if min(ks) < 2:
        raise ValueError(f"'k' needs to be at least 2 for 'diversity', which is of pairs of items (got {min(ks)})")
    categories = check_nodes(categories, torch.iinfo(torch.long).max, 'categories')
    if len(categories) != num_items:
        raise ValueError(f"'categories' need to be of {num_items} items (got {len(categories)})")
    return categories


@torch.no_grad()
def calibrate(
    model: Recommender,
    data: HeteroData,
    val: HeteroData,
    powers: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    metric: str = 'ndcg@20',
) -> dict[float, float]:
    r"""Chooses how much an item's length counts in the scores of a trained model, on the validation split.

    The model is called once. Its embeddings are scaled by each power
    (:meth:`~lirdrec_pyg.typing.Embeddings.scaled`), and that with the best metric becomes the model's
    (:meth:`~lirdrec_pyg.nn.Recommender.set_power`). Of equally good ones it is that nearest to the model's own, then
    the smallest.

    .. code-block:: python

        print(calibrate(model, train, val, metric='ndcg@10'))  # the metric of each power; the model keeps the best

    Args:
        model (Recommender): The trained model, which gets the power chosen.
        data (HeteroData): What the model encodes: the training split, with ``InteractionGraph()`` applied.
        val (HeteroData): The validation split.
        powers (sequence of float, optional): The powers to choose from.
            (default: :obj:`(0.0, 0.25, 0.5, 0.75, 1.0)`)
        metric (str, optional): The metric that decides, ``'<metric>@<k>'``. (default: ``'ndcg@20'``)

    Returns:
        The metric of each power.

    Raises:
        ValueError: If there is no power to choose from or one is negative, or the metric is unknown.
    """
    name, _, k = metric.partition('@')
    if name not in METRICS or not k.isdigit():
        raise ValueError(f"'metric' needs to be of the form 'ndcg@20', one of {list(METRICS)} (got '{metric}')")
    if len(powers) == 0:
        raise ValueError(f"'powers' need to be at least one number (got {powers})")
    own, training = model.number('power'), model.training
    try:
        model.eval().set_power(1.0)
        embeddings: Embeddings = model(data)
    finally:
        model.train(training).set_power(own)
    values = _Metrics({
        float(power): evaluate(embeddings.scaled(power), val, k=int(k), metrics=[name])[metric] for power in powers
    })  # fmt: skip
    best = max(values.values())
    model.set_power(min((abs(power - own), power) for power, value in values.items() if value == best)[1])
    return values


def top_k(
    embeddings: Embeddings,
    users: Tensor,
    k: int,
    seen: Tensor | None = None,
    candidates: Tensor | None = None,
    batch_size: int = 1024,
) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Iterates over batches of users with their best items, best first; ties go to no particular item.

    .. code-block:: python

        seen = train['user', 'interacts', 'item'].edge_index
        for user, item in top_k(embeddings, torch.arange(64), k=5, seen=seen):
            print(user.shape, item.shape)

    Args:
        embeddings (Embeddings): The embeddings of all users and items.
        users (Tensor): The users to rank for :math:`(N)`.
        k (int): The number of items.
        seen (Tensor, optional): Pairs :math:`(2, |\mathcal{E}|)` not to be ranked, such as training interactions.
        candidates (Tensor, optional): The items to rank, a bool mask :math:`(|\mathcal{I}|)`.
        batch_size (int, optional): The number of users scored at once. (default: :obj:`1024`)

    Shapes:
        - **output:** users :math:`(B)` and items :math:`(B, k)`. A user with less than :math:`k` items left to rank
          gets excluded ones at the end.

    Raises:
        ValueError: If ``k`` is out of range, or users, pairs or the mask do not fit the embeddings.
    """
    embeddings = check_embeddings(embeddings)
    num_users, num_items = len(embeddings.user), len(embeddings.item)
    k = check_count(k, num_items)
    users = check_nodes(users, num_users, 'users')
    seen = None if seen is None else check_pairs(seen, (num_users, num_items), 'seen')
    candidates = None if candidates is None else check_mask(candidates, num_items, 'candidates')
    batches = ranked(embeddings, users, k, seen, candidates, batch_size)
    return ((user, item) for user, _, item in batches)


def ranked(
    embeddings: Embeddings,
    users: Tensor,
    k: int,
    seen: Tensor | None,
    candidates: Tensor | None,
    batch_size: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    r"""Returns what :func:`top_k` does, with the scores in between: minus infinity of what is excluded, and only that.

    All that is given needs to be checked before.

    .. code-block:: python

        for user, score, item in ranked(embeddings, torch.arange(64), 5, None, None, 1024):
            print(user.shape, score.shape, item.shape)
    """
    if operator.index(batch_size) < 1:
        raise ValueError(f"'batch_size' needs to be positive (got {batch_size})")
    user_emb, item_emb = embeddings.user.detach(), embeddings.item.detach()
    device = item_emb.device
    pairs = torch.empty(2, 0, dtype=torch.long, device=device) if seen is None else seen.to(device)
    rowptr = pointers(pairs[0], user_emb.size(0))
    col = pairs[1][pairs[0].argsort(stable=True)]
    excluded = None if candidates is None else ~candidates.to(device)

    def rank(user: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        score = linear(user_emb.index_select(0, user), item_emb)
        if excluded is not None:
            score.masked_fill_(excluded, float('-inf'))
        part, own = take_rows(rowptr, col, user)
        score[torch.repeat_interleave(part.diff()), own] = float('-inf')
        return user, *best_of_rows(score, k)

    return map(rank, users.to(device).split(batch_size))


def best_of_rows(score: Tensor, k: int) -> tuple[Tensor, Tensor]:
    r"""Returns the :obj:`k` best scores of each row, best first, and their columns; ties go to no particular column.

    It is ``topk``, which on CPU takes up to three times longer on all of many columns than, first, on the best of each
    of :math:`m` groups of columns and, then, on the :math:`k` best groups, with :math:`m = \sqrt{kN}` for about as
    many columns in both.

    .. code-block:: python

        score, column = best_of_rows(torch.randn(3, 100), k=5)

    Shapes:
        - **score:** :math:`(B, N)`
        - **output:** :math:`(B, k)`, twice
    """
    num_columns = score.size(1)
    m = math.isqrt(k * num_columns)
    if score.device.type != 'cpu' or m <= 8 * k:
        value, index = score.topk(k, dim=1)
        return value, index
    size = num_columns // m
    grouped, rest = score[:, : size * m].unflatten(1, (size, m)), score[:, size * m :]  # column j is of group j % m
    group = grouped.amax(dim=1).topk(k, dim=1, sorted=False).indices
    part = grouped.gather(2, group.unsqueeze(1).expand(-1, size, -1)).flatten(1)
    value, index = torch.cat([part, rest], dim=1).topk(k, dim=1)
    column = index // k * m + group.gather(1, index % k)
    return value, torch.where(index < size * k, column, index + size * (m - k))
