r"""The default that needs no tuning."""

import time
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any, NamedTuple

import torch
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn import ContentKNN, LIRDRec, Popularity, SampledSoftmax, SoftmaxLIRDRec
from lirdrec_pyg.ranking import calibrate, evaluate
from lirdrec_pyg.training import Callback, FitResult, Trainer, default_batch_size, fit
from lirdrec_pyg.transforms import DCT, CollaborativeFeatures, InteractionGraph, ItemKNNGraph, RecentItems
from lirdrec_pyg.typing import (
    INTERACTS,
    ITEM,
    REV_INTERACTS,
    SIMILAR_TO,
    USER,
    Embeddings,
    check,
    modalities,
)

LIST = 20  # the cut-off of ndcg
NEIGHBORS = 10  # of an item in the item graph
NUM_NEGATIVES = 4096  # at least, from which the softmax over more items is estimated
SCORES = 2**27  # of a step, up to which there are more of them
NUM_RECENT = 10  # items of a sequential model
NUM_COMPONENTS = 64  # of the collaborative features
SHARES = (0.1, 0.5, 0.9)  # of the first of two modalities in the item graph
FIRST_LOOK = 5  # the epoch from which on a trial may be given up
MARGIN = 0.03  # by which something has to be better to count


class AutofitResult(NamedTuple):
    r"""What :func:`autofit` returns. Printed, it says what was chosen and why.

    Args:
        model (LIRDRec): The trained and calibrated model, in ``eval`` mode.
        train (HeteroData): The training split as the model reads it: with spectrum, item graph and adjacency.
        fit (FitResult): The training of the model.
        values (dict): Validation ndcg@20 of popularity, content kNN and the trained models; with fewer items, of all
            of them.
        chosen (dict): What was chosen, by name.
        warnings (list of str): What to look at.
        seconds (float): How long all of it took.
    """

    model: LIRDRec
    train: HeteroData
    fit: FitResult
    values: dict[str, float]
    chosen: dict[str, Any]
    warnings: list[str]
    seconds: float

    @torch.no_grad()
    def embeddings(self) -> Embeddings:
        r"""Returns the embeddings of all users and items, ``model(train)``."""
        return self.model(self.train)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        width, best = max(map(len, self.values)), max(self.values.values())
        lines = ['validation ndcg']
        lines += [f'  {name:<{width}}  {value:.4f}{" *" * (value == best)}' for name, value in self.values.items()]
        lines += ['chosen']
        lines += [f'  {name:<{width}}  {_shown(value)}' for name, value in self.chosen.items()]
        lines += [f'best epoch {self.fit.best_epoch} of {len(self.fit.log)}, {self.seconds:.0f} s in all']
        return '\n'.join(lines + [f'warning: {warning}' for warning in self.warnings])

    def __repr__(self) -> str:
        return str(self)


def autofit(
    train: HeteroData, val: HeteroData, *, seed: int = 0, minutes: float | None = None, progress: bool = True
) -> AutofitResult:
    r"""Trains a :class:`~lirdrec_pyg.nn.LIRDRec` and decides on the validation split what is usually tuned by hand.

    .. code-block:: python

        from lirdrec_pyg import evaluate

        result = autofit(train, val, progress=False)
        print(result)
        print(evaluate(result.embeddings(), test))

    - The *item graph* mixes the modalities as the best content kNN does. A graph that the split has stays.
    - The *temperature* of the softmax is trained. A second model has a fixed one, and reads *collaborative features*
      beside the content (:class:`~lirdrec_pyg.transforms.CollaborativeFeatures`): dense data asks for these.
    - Where validation is later than training, the second model reads a user's *recent items* instead. The two are
      compared without the latest interactions of the users, as many as validation holds out, since the test asks for
      what comes after those.
    - *How many items* the softmax is estimated from follows from the batch: a step computes some :math:`2^{27}` scores,
      but those of 4,096 items at least. Up to 12,000 items and 150,000 interactions, these are all.
    - *How much an item's length counts* is chosen after training (:func:`~lirdrec_pyg.calibrate`).

    The second model is given up once it is behind.

    Batch size, learning rate and the end of training are the defaults of :func:`~lirdrec_pyg.fit`. There is no ID
    embedding of items. The test split is not needed. All of it takes at most twice the time of training one model.

    Args:
        train (HeteroData): The training split.
        val (HeteroData): The validation split.
        seed (int, optional): The seed of weights and training. (default: :obj:`0`)
        minutes (float, optional): End training after so many minutes, but not before the first epoch is over. The
            result then depends on the speed of the machine. (default: no limit)
        progress (bool, optional): Show progress bars. (default: :obj:`True`)

    Returns:
        The model with its data, and a report; see :class:`AutofitResult`.

    Raises:
        ValueError: If the splits do not fit each other, the items have no features, or ``minutes`` is not positive.
    """
    clock = time.monotonic()
    if minutes is not None and not minutes > 0:
        raise ValueError(f"'minutes' needs to be positive (got {minutes})")
    deadline = _Deadline(None if minutes is None else clock + 60 * minutes)
    train, val = check(train, 'train', unique=True), check(val, 'val', labels=True)
    if not modalities(train):
        raise ValueError("'train' needs features of items, `data['item'].x_<modality>` (got none)")
    k = min(LIST, train[ITEM].num_nodes)
    metric = f'ndcg@{k}'

    def validated(model: Any) -> float:
        return evaluate(model(train), val, k=k, metrics=['ndcg'])[metric]

    values = {'popularity': validated(Popularity())}
    mixes = [(validated(ContentKNN(mix)), mix) for mix in _mixes(modalities(train))]
    values['content kNN'], mix = max(mixes, key=lambda entry: entry[0])
    given = SIMILAR_TO in train.edge_types
    if not given:
        if values['content kNN'] < max((1 + MARGIN) * mixes[0][0], values['popularity']):  # no better than equal ones
            mix = mixes[0][1]
        neighbors = min(NEIGHBORS, max(1, train[ITEM].num_nodes // 4))  # few where there are few items
        train = ItemKNNGraph(neighbors, weights=mix)(_without_adjacency(train))

    gap = _gap(train, val)
    number = max(NUM_NEGATIVES, SCORES // default_batch_size(train))
    learned = SampledSoftmax(num_negatives=number, learn_temperature=True)
    plans = [_Plan('content', _finished(train), {'objective': learned})]
    if gap > 0:
        data = _finished(RecentItems(NUM_RECENT)(train))
        plans += [_Plan('recent items', data, {'objective': learned, 'recent_items': NUM_RECENT})]
    elif (rank := min(NUM_COMPONENTS, train[ITEM].num_nodes - 1, train[USER].num_nodes - 1)) > 0:
        data = _finished(CollaborativeFeatures(rank)(train))
        plans += [_Plan('collaborative features', data, {'objective': SampledSoftmax(num_negatives=number)})]

    trials: list[tuple[float, _Plan, LIRDRec, FitResult]] = []
    for plan in plans:
        if deadline.reached:
            break
        model: LIRDRec = SoftmaxLIRDRec.from_data(plan.data, seed=seed, **plan.kwargs)
        watch: list[Callback] = [deadline, *(_Race(result, metric) for _, _, _, result in trials)]
        result = fit(model, plan.data, val, monitor=metric, seed=seed, callbacks=watch, progress=progress)
        values[plan.name] = max(calibrate(model, plan.data, val, metric=metric).values())
        value = values[plan.name]
        if gap > 0:
            with torch.no_grad():
                value = evaluate(model(_earlier(plan.data, gap)), val, k=k, metrics=['ndcg'])[metric]
            values[f'{plan.name}, without the latest'] = value
        trials.append((value, plan, model, result))
    _, plan, model, result = max(trials, key=lambda trial: trial[0])
    train, objective = plan.data, model.objective
    assert isinstance(objective, SampledSoftmax)
    chosen = {
        'model': plan.name,
        'temperature': round(objective.temperature, 3),
        'power': model.number('power'),
        'item graph': 'as given' if given else mix,
    }
    warnings = list(_warnings(values, result, minutes if deadline.reached else None))
    return AutofitResult(model, train, result, values, chosen, warnings, time.monotonic() - clock)


class _Deadline(Callback):
    r"""Ends a run when the time is over."""

    def __init__(self, moment: float | None) -> None:
        self.moment, self.reached = moment, False

    def on_step(self, trainer: Trainer) -> None:
        if trainer.epoch > 1:
            self._look(trainer)

    def on_epoch(self, trainer: Trainer, row: dict[str, float]) -> None:
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        if self.moment is not None and time.monotonic() >= self.moment:
            self.reached = True
            trainer.stop()


class _Race(Callback):
    r"""Ends a run that is behind another one, or no better at its age."""

    def __init__(self, other: FitResult, metric: str) -> None:
        self.values, self.metric = [row[metric] for row in other.log], metric

    def on_epoch(self, trainer: Trainer, row: dict[str, float]) -> None:
        epoch = trainer.epoch
        best = max(self.values[:epoch], default=0.0)
        behind = epoch >= FIRST_LOOK and trainer.best_value < (1 - MARGIN) * best
        if behind or (epoch >= len(self.values) and trainer.best_value <= best):
            trainer.stop()


def _mixes(names: list[str]) -> Iterator[dict[str, float]]:
    r"""Yields weights of the modalities in the item graph."""
    yield dict.fromkeys(names, 1 / len(names))
    if len(names) == 2:
        yield from ({names[0]: share, names[1]: round(1 - share, 3)} for share in SHARES if share != 0.5)
    if len(names) > 1:
        yield from ({name: float(name == only) for name in names} for only in names)


class _Plan(NamedTuple):
    r"""A model to try: its name, its data and its arguments."""

    name: str
    data: HeteroData
    kwargs: dict[str, Any]


def _finished(train: HeteroData) -> HeteroData:
    r"""Adds spectrum and adjacency, which are made last."""
    return InteractionGraph()(_without_adjacency(DCT()(train)))


def _without_adjacency(train: HeteroData) -> HeteroData:
    r"""Leaves out the adjacency, which lacks the item graph."""
    train = copy(train)
    if REV_INTERACTS in train.edge_types:
        del train[REV_INTERACTS]
    return train


def _gap(train: HeteroData, val: HeteroData) -> int:
    r"""Returns how many interactions of a user validation holds out, if they are later than those of training."""
    time, later = train[INTERACTS].get('time'), val[INTERACTS].get('edge_label_time')
    if time is None or later is None:
        return 0
    last = torch.full((train[USER].num_nodes,), float('-inf'), dtype=torch.double, device=time.device)
    last.scatter_reduce_(0, train[INTERACTS].edge_index[0], time.double(), 'amax')
    user = val[INTERACTS].edge_label_index[0]
    ahead = later.double() - last[user]
    if (ahead >= 0).double().mean() < 0.9 or (ahead > 0).double().mean() < 0.5:  # some times may be equal, such as days
        return 0
    return max(1, round(user.numel() / user.unique().numel()))


def _earlier(train: HeteroData, gap: int) -> HeteroData:
    r"""Returns the data as it was before the latest interactions of each user, who keeps at least one."""
    user, time = train[INTERACTS].edge_index[0], train[INTERACTS].time
    order = torch.argsort(time, stable=True).flip(0)
    order = order[torch.argsort(user[order], stable=True)]  # by user, the latest first
    count = user.bincount(minlength=train[USER].num_nodes)
    rank = torch.arange(user.numel(), device=user.device) - (count.cumsum(0) - count)[user[order]]
    kept = order[rank >= (count - 1).clamp(min=0, max=gap)[user[order]]].sort().values
    out = _without_adjacency(train)
    store = out[INTERACTS]
    for key in set(store.keys()) - {'edge_index', 'time'}:
        del store[key]
    store.edge_index, store.time = store.edge_index[:, kept], time[kept]
    if 'recent_items' in out[USER]:
        out = RecentItems(out[USER].recent_items.size(1))(out)
    return InteractionGraph()(out)


def _warnings(values: Mapping[str, float], result: FitResult, minutes: float | None) -> Iterator[str]:
    popularity, content = values['popularity'], values['content kNN']
    best = max(value for name, value in values.items() if name not in ('popularity', 'content kNN'))
    if content < popularity:
        yield (
            f'content tells little of what users choose: content kNN reaches {content:.4f}, popularity '
            f'{popularity:.4f}. A model with item IDs, such as LightGCN, may be better here'
        )
    if best <= max(popularity, content):
        yield f'training did not pay: {best:.4f}, popularity {popularity:.4f}, content kNN {content:.4f}'
    if minutes is not None:
        yield f'the {minutes:g} minutes were over after {len(result.log)} epochs: more may be better'
    elif result.best_epoch == len(result.log):
        yield 'the last epoch was the best: more epochs may be better'


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ', '.join(f'{name} {share:g}' for name, share in value.items())
    return str(value)
