r"""Splits of the interactions into training, validation and test: one :class:`HeteroData` in, three out."""

import copy
import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from lirdrec_pyg._segments import ranks
from lirdrec_pyg.typing import INTERACTS, ITEM, REV_INTERACTS, TEST, TRAIN, USER, VAL, check

Splits = tuple[HeteroData, HeteroData, HeteroData]


class _Split(BaseTransform):
    r"""What all splits share: they differ only in :meth:`assign`, which gives each interaction its part."""

    def assign(self, data: HeteroData) -> Tensor:
        r"""Returns the part of each interaction, ``[E]``: 0 = training, 1 = validation, 2 = test."""
        raise NotImplementedError

    def forward(self, data: HeteroData) -> Splits:
        r"""Returns ``(train, val, test)``; :obj:`data` stays as it is."""
        data = check(data, unique=True)
        _refuse_what_is_split(data)
        part = self.assign(data)

        store = data[INTERACTS]
        mask = part == TRAIN
        shared = {
            key: _select(value, mask, data.__cat_dim__(key, value, store))
            for key, value in store.items()
            if store.is_edge_attr(key) and key != 'split'
        }
        train_edge_index = shared['edge_index']

        splits: list[HeteroData] = []
        for value, name in ((TRAIN, 'train'), (VAL, 'val'), (TEST, 'test')):
            label = train_edge_index if value == TRAIN else store.edge_index[:, part == value]
            if label.size(1) == 0:
                raise ValueError(f"the '{name}' split needs at least one interaction (got 0 of {part.numel()})")
            split = copy.copy(data)  # new stores, the same tensors
            split[INTERACTS].update(shared)
            split[INTERACTS].pop('split', None)
            split[INTERACTS].edge_label_index = label
            if 'time' in shared and value != TRAIN:
                split[INTERACTS].edge_label_time = _select(store.time, part == value, 0)
            splits.append(split)
        return splits[0], splits[1], splits[2]

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}()'


class FixedSplit(_Split):
    r"""The split that comes with the data: ``split [E]`` of the interactions, 0 = train, 1 = validation, 2 = test.

    As all transforms of this module, it takes one :class:`~torch_geometric.data.HeteroData` and returns three,
    ``(train, val, test)``, which share all content tensors. In **all three**, ``edge_index`` (with ``time``, ``rating``
    and any other value per edge) holds the *training* interactions only, and ``edge_label_index`` the positives of the
    split itself. So the graph never sees what it has to predict. The test split knows nothing of the validation
    positives; to mask them at test, too, takes the validation split. Splitting comes before
    :class:`~lirdrec_pyg.transforms.InteractionGraph`.

    .. code-block:: python

        train, val, test = FixedSplit()(data)
        print(train['user', 'interacts', 'item'].edge_index.shape)
        print(test['user', 'interacts', 'item'].edge_label_index.shape)  # what is held out for test

    Shapes:
        - **edge_index:** :math:`(2, |\mathcal{E}_{\textrm{train}}|)` in all three splits
        - **edge_label_index:** :math:`(2, P)` with the :math:`P` positives of the split
        - **edge_label_time:** :math:`(P)`, their times in validation and test, where interactions have ``time``

    Raises:
        ValueError: If there is no ``split``, it holds other values, or a split is empty. For all of these transforms,
            if the data is already split, has an adjacency, or holds an interaction twice.
    """

    def assign(self, data: HeteroData) -> Tensor:
        split = _per_edge(data, 'split', self)
        unknown = (split != TRAIN) & (split != VAL) & (split != TEST)
        if bool(unknown.any()):
            raise ValueError(f"'split' needs to be 0, 1 or 2 (got {split[unknown][0].item()})")
        return split


class RandomSplit(_Split):
    r"""A random split per user, with the counts of MMRec's 8:1:1 split.

    Of a user's :math:`n` interactions, :math:`\lfloor n (r_{\textrm{val}} + r_{\textrm{test}}) \rfloor` are held out,
    but at least two. Validation gets its share of them, rounded down but at least one, and test the others.
    A user with fewer than three interactions stays in training wholly, so each user keeps at least one for training.
    See :class:`FixedSplit` for what is returned.

    .. code-block:: python

        train, val, test = RandomSplit(ratios=(0.8, 0.1, 0.1), seed=0)(data)

    Args:
        ratios (tuple[float, float, float]): The shares of training, validation and test. (default: ``(0.8, 0.1, 0.1)``)
        seed (int): The seed of the split's own generator. (default: :obj:`0`)

    Raises:
        ValueError: If the ratios are not three positive numbers that sum to 1, or one of the three parts is empty.
    """

    def __init__(self, ratios: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> None:
        self.ratios = _check_ratios(ratios)
        self.seed = seed

    def assign(self, data: HeteroData) -> Tensor:
        user = data[INTERACTS].edge_index[0]
        perm = torch.randperm(user.numel(), generator=torch.Generator().manual_seed(self.seed)).to(user.device)
        rank, count = ranks(user, perm)

        _, val, test = self.ratios
        held_out = _floor(count * (val + test)).clamp(min=2)
        num_val = _floor(held_out * (val / (val + test))).clamp(min=1)
        start_val, start_test = count - held_out, count - held_out + num_val
        return ((rank >= start_val).long() + (rank >= start_test).long()) * (count >= 3)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(ratios={self.ratios}, seed={self.seed})'


class LeaveLastOut(_Split):
    r"""The last interactions of each user by ``time`` are for test, those just before them for validation.

    Interactions of a user at the same time count in their order in ``edge_index``. A user with fewer than
    ``num_val + num_test + 1`` interactions stays in training wholly. See :class:`FixedSplit` for what is returned.

    .. code-block:: python

        train, val, test = LeaveLastOut()(data)  # data['user', 'interacts', 'item'].time says what came last

    Args:
        num_val (int): The number of a user's interactions for validation. (default: :obj:`1`)
        num_test (int): The number of a user's interactions for test. (default: :obj:`1`)

    Raises:
        ValueError: If a number is below 1, there is no ``time``, or one of the three parts is empty.
    """

    def __init__(self, num_val: int = 1, num_test: int = 1) -> None:
        for name, value in (('num_val', num_val), ('num_test', num_test)):
            if operator.index(value) < 1:
                raise ValueError(f"'{name}' needs to be at least 1 (got {value})")
        self.num_val = operator.index(num_val)
        self.num_test = operator.index(num_test)

    def assign(self, data: HeteroData) -> Tensor:
        order = torch.argsort(time_of(data, self), stable=True)
        rank, count = ranks(data[INTERACTS].edge_index[0], order)
        from_end = count - rank  # 1 = the user's last interaction
        held_out = (from_end <= self.num_val + self.num_test).long() + (from_end <= self.num_test).long()
        return held_out * (count > self.num_val + self.num_test)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(num_val={self.num_val}, num_test={self.num_test})'


class TemporalSplit(_Split):
    r"""A split at two points of global ``time``: train on the past, validate and test on what came later.

    The points are the quantiles of ``time`` that the ratios ask for. Interactions at the very time of a point all
    belong to its later side, so no moment is on both. A user or an item may be without training interactions.
    See :class:`FixedSplit` for what is returned.

    .. code-block:: python

        train, val, test = TemporalSplit(ratios=(0.7, 0.1, 0.2))(data)

    Args:
        ratios (tuple[float, float, float]): The shares of training, validation and test. (default: ``(0.8, 0.1, 0.1)``)

    Raises:
        ValueError: If the ratios are not three positive numbers that sum to 1, there is no ``time``, or one of the
            three parts is empty.
    """

    def __init__(self, ratios: Sequence[float] = (0.8, 0.1, 0.1)) -> None:
        self.ratios = _check_ratios(ratios)

    def assign(self, data: HeteroData) -> Tensor:
        time = time_of(data, self)
        if time.numel() == 0:
            return time.long()
        cut = _floor(torch.tensor([self.ratios[0], self.ratios[0] + self.ratios[1]], dtype=torch.double) * time.numel())
        start = time.sort().values[cut.clamp(max=time.numel() - 1).to(time.device)]  # of validation and of test
        return (time >= start[0]).long() + (time >= start[1]).long()

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(ratios={self.ratios})'


class ColdItemSplit(_Split):
    r"""A random share of the items is held out with all their interactions, half of them for validation, half for test.

    No item of one part is in another one. Items are drawn from those that have interactions, and an odd one goes to
    test. A user may be without training interactions. All three get ``data['item'].cold``, which is :obj:`True` for the
    held-out items. See :class:`FixedSplit` for the rest.

    .. code-block:: python

        train, val, test = ColdItemSplit(ratio=0.2)(data)
        print(train['item'].cold.sum())  # items without a training interaction

    Args:
        ratio (float): The share of items to hold out, validation and test together. (default: :obj:`0.2`)
        seed (int): The seed of the split's own generator. (default: :obj:`0`)

    Shapes:
        - **cold:** :math:`(|\mathcal{I}|)`, bool

    Raises:
        ValueError: If the ratio is not between 0 and 1, or one of the three parts is empty.
    """

    def __init__(self, ratio: float = 0.2, seed: int = 0) -> None:
        if not 0 < ratio < 1:
            raise ValueError(f"'ratio' needs to be in (0, 1) (got {ratio})")
        self.ratio = ratio
        self.seed = seed

    def assign(self, data: HeteroData) -> Tensor:
        item, index = data[INTERACTS].edge_index[1].unique(return_inverse=True)
        perm = torch.randperm(item.numel(), generator=torch.Generator().manual_seed(self.seed)).to(item.device)
        num_cold = round(self.ratio * item.numel())
        part = torch.full_like(item, TRAIN)
        part[perm[:num_cold]] = TEST
        part[perm[: num_cold // 2]] = VAL
        return part[index]

    def forward(self, data: HeteroData) -> Splits:
        splits = super().forward(data)
        held_out = torch.cat([split[INTERACTS].edge_label_index[1] for split in splits[1:]])
        cold = torch.zeros(splits[0][ITEM].num_nodes, dtype=torch.bool, device=held_out.device)
        cold[held_out] = True
        for split in splits:
            split[ITEM].cold = cold
        return splits

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(ratio={self.ratio}, seed={self.seed})'


def _refuse_what_is_split(data: HeteroData) -> None:
    store = data[INTERACTS]
    if 'edge_label_index' in store:
        raise ValueError("'data' needs to be unsplit (got 'edge_label_index' from an earlier split)")
    if REV_INTERACTS in data.edge_types or 'adj_t' in store:
        raise ValueError(
            "'data' needs to be split before 'InteractionGraph' (got a graph of all interactions): split first"
        )
    for where, key, made_by in [
        (data[ITEM], 'x_collaborative', 'CollaborativeFeatures'),
        (data[USER], 'recent_items', 'RecentItems'),
        (store, 'recent_items', 'RecentItems'),
    ]:
        if key in where:
            raise ValueError(f"'data' needs to be split before '{made_by}' (got its '{key}' of all interactions)")


def _check_ratios(ratios: Sequence[float]) -> tuple[float, float, float]:
    if len(ratios) != 3 or not all(ratio > 0 for ratio in ratios):
        raise ValueError(f"'ratios' needs to be three positive numbers (got {tuple(ratios)})")
    if not math.isclose(sum(ratios), 1.0, abs_tol=1e-6):
        raise ValueError(f"'ratios' needs to sum to 1 (got {tuple(ratios)})")
    return ratios[0], ratios[1], ratios[2]


def _per_edge(data: HeteroData, key: str, transform: BaseTransform) -> Tensor:
    if key not in data[INTERACTS]:
        raise ValueError(
            f"'{transform.__class__.__name__}' needs '{key}' of the interactions (got {list(data[INTERACTS])})"
        )
    value, num_edges = torch.as_tensor(data[INTERACTS][key]), data[INTERACTS].edge_index.size(1)
    if tuple(value.shape) != (num_edges,):
        raise ValueError(f"'{key}' needs one value per interaction, [{num_edges}] (got {list(value.shape)})")
    return value


def time_of(data: HeteroData, transform: BaseTransform) -> Tensor:
    r"""Returns the time of each interaction, which the given transform needs."""
    time = _per_edge(data, 'time', transform)
    if not bool(time.isfinite().all()):
        raise ValueError(f"'time' needs to be finite (got {time[~time.isfinite()][0].item()})")
    return time


def _floor(value: Tensor) -> Tensor:
    return (value.double() + 1e-6).floor().long()  # 0.7 + 0.2 of 10 is 9, whatever the rounding


def _select(value: Any, mask: Tensor, dim: int) -> Any:
    if isinstance(value, Tensor):
        return value.index_select(dim, mask.nonzero().view(-1))
    return [entry for entry, keep in zip(value, mask.tolist(), strict=True) if keep]
