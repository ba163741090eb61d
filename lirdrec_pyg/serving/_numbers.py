from collections.abc import Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor

from lirdrec_pyg.nn.kernels import linear
from lirdrec_pyg.ranking import evaluate
from lirdrec_pyg.serving._cards import neighbors
from lirdrec_pyg.serving._charts import Chart, Series, chart, number, percent, thinned
from lirdrec_pyg.serving._page import Page
from lirdrec_pyg.typing import INTERACTS, ITEM, modalities

NEW = 6  # items without interactions that are shown
POINTS = 150  # of a line at most
METRICS = ('recall', 'ndcg', 'hit')


def facts(page: Page) -> list[tuple[str, str]]:
    edges = page.edges.size(1)
    widths = [f'{name} ({page.data[ITEM][f"x_{name}"].size(1):,})' for name in modalities(page.data)]
    pairs = max(1, page.num_users * page.num_items)
    out = [
        ('Users', f'{page.num_users:,}'),
        ('Items', f'{page.num_items:,}'),
        ('Interactions', f'{edges:,}'),
        ('Density', f'{number(100 * edges / pairs)} %'),
        ('New items', f'{int((page.degree == 0).sum()):,}'),
        ('Content', ' · '.join(widths) or 'none'),
    ]
    return out


def new_items(page: Page) -> dict[str, Any]:
    r"""Returns items without interactions, and where they land in the lists of the users that count."""
    new = page.degree == 0
    count = int(new.sum())
    if page.candidates is not None:
        new = new & page.candidates
    allowed, lists = int(new.sum()), page.lists[page.name]
    out: dict[str, Any] = {'count': count, 'allowed': allowed, 'tiles': [], 'chart': None}
    if allowed == 0 or len(page.counted) == 0:
        return out
    nodes = new.nonzero().view(-1)
    out['slots'] = int(lists.shown[new].sum()) / max(1, int(lists.shown.sum()))
    out['of_items'] = allowed / page.num_candidates
    out['reached'] = int((lists.first[new] <= page.k).sum())
    chosen = nodes[page.drawn(len(nodes), NEW)]
    place = _places(page, chosen)
    middle = place.double().quantile(0.5, dim=0).round().long().tolist()
    near = [row[0] if row else None for row in neighbors(page, page.embeddings.item, chosen.tolist())]
    for column, item in enumerate(chosen.tolist()):
        among, best = int((place[:, column] <= page.k).sum()), int(place[:, column].min())
        text = (
            f'in the list{"s" if among > 1 else ""} of {among:,} user{"s" if among > 1 else ""}'
            if among
            else f'best place {best:,}'
        )
        out['tiles'].append((page.tile(item, note=text, because=near[column]), middle[column]))
    warm = page.degree > 0 if page.candidates is None else (page.degree > 0) & page.candidates
    depth = torch.arange(1, page.depth() + 1)
    series = [
        Series(name, color, depth.tolist(), _reach(lists.first[group], depth))
        for name, color, group in (('new items', 'c4', new), ('other items', 'c5', warm))
        if bool(group.any())
    ]
    out['chart'] = chart(
        'reach',
        'Who is seen at all',
        f'In lists of {page.k}, {percent(out["reached"] / allowed)} of the new items are shown to somebody.',
        series,
        'length of the lists',
        'share of items in any list',
        shares=(False, True),
    )
    return out


def _places(page: Page, items: Tensor) -> Tensor:
    r"""Returns the place of some items in the ranking of each user that counts, from one."""
    z, out = page.embeddings, []
    excluded = None if page.candidates is None else ~page.candidates.to(z.item.device)
    for users in page.counted.to(z.user.device).split(256):
        score = linear(z.user[users], z.item)
        if excluded is not None:
            score.masked_fill_(excluded, float('-inf'))
        row = torch.full((page.num_users,), -1, device=users.device)
        row[users] = torch.arange(len(users), device=users.device)
        edges = page.edges.to(users.device)
        edges = edges[:, row[edges[0]] >= 0]
        score[row[edges[0]], edges[1]] = float('-inf')
        out.append(torch.stack([(score > score[:, [i]]).sum(dim=1) + 1 for i in items.tolist()], dim=1).cpu())
    return torch.cat(out)


def table(page: Page) -> dict[str, Any] | None:
    r"""Returns the metrics of all models, with the best of each column."""
    if len(page.counted) == 0:
        return None
    tenth = max(1, round(page.num_items / 10))
    popular = page.degree.sort(descending=True, stable=True).indices[:tenth]
    rows: dict[str, dict[str, float]] = {}
    for name, z in page.models.items():
        row: dict[str, float] = {}
        if page.split is not None:
            part = copy(page.split)
            counts = torch.isin(page.held_out[0], page.counted)
            label = page.split[INTERACTS].edge_label_index
            part[INTERACTS].edge_label_index = label[:, counts.to(label.device)]
            if 'edge_label' in part[INTERACTS]:
                del part[INTERACTS].edge_label
            row |= evaluate(z, part, page.k, METRICS, candidates=page.candidates)
        lists = page.lists[name]
        row[f'coverage@{page.k}'] = int((lists.first <= page.k).sum()) / page.num_candidates
        row['most popular tenth'] = int(lists.shown[popular].sum()) / max(1, int(lists.shown.sum()))
        rows[name] = row
    columns = list(rows[page.name])
    better = columns[: len(METRICS)] if page.split is not None else []
    best = {column: max(row[column] for row in rows.values()) for column in better}
    return {
        'columns': columns,
        'rows': [
            (name, [(percent(v) if c not in better else f'{v:.4f}', best.get(c) == v)
                    for c, v in row.items()])
            for name, row in rows.items()
        ],
    }  # fmt: skip


def curves(page: Page) -> list[Chart]:
    r"""Returns how much of the catalogue lists cover, and how popular what they hold is."""
    if len(page.counted) == 0:
        return []
    depth = torch.arange(1, page.depth() + 1)
    among = slice(None) if page.candidates is None else page.candidates
    coverage = {name: _reach(lists.first[among], depth) for name, lists in page.lists.items()}
    order = page.degree.sort(descending=True, stable=True).indices
    ends = torch.tensor(thinned(range(page.num_items + 1), 61), dtype=torch.long)

    def share(count: Tensor) -> list[float]:
        total = torch.cat([count.new_zeros(1), count[order].cumsum(0)])[ends]
        return (total.double() / max(1, int(count.sum()))).tolist()  # type: ignore[no-any-return]

    tenth = max(1, round(page.num_items / 10))
    head = int(page.lists[page.name].shown[order[:tenth]].sum()) / max(1, int(page.lists[page.name].shown.sum()))
    x = (ends.double() / page.num_items).tolist()
    colors = {name: f'c{i % 6}' for i, name in enumerate(page.models)}
    found = [
        chart(
            'coverage',
            'How much of the catalogue is shown',
            f'In lists of {page.k}, {page.name} shows {percent(coverage[page.name][page.k - 1])} of the items to '
            'somebody.',
            [Series(name, colors[name], depth.tolist(), y) for name, y in coverage.items()],
            'length of the lists',
            'share of items in any list',
            shares=(False, True),
        ),
        chart(
            'popularity',
            'How popular it is',
            f'The most popular tenth of the items gets {percent(head)} of the places in the lists of {page.name}. '
            'The nearer a line is to that of the interactions, the more lists are like what people choose.',
            [Series(name, colors[name], x, share(lists.shown)) for name, lists in page.lists.items()]
            + [Series('interactions', 'cx', x, share(page.degree))],
            'share of items, the most popular first',
            'share of places in lists',
            shares=(True, True),
        ),
    ]
    return [one for one in found if one is not None]


def _reach(first: Tensor, depth: Tensor) -> list[float]:
    r"""Returns the share of items whose best place is not beyond each depth."""
    places = first.sort().values
    count = torch.searchsorted(places, depth, right=True)
    return (count.double() / max(1, len(first))).tolist()  # type: ignore[no-any-return]


def training(log: Any) -> dict[str, Any] | None:
    r"""Returns the curves of a training run.

    Raises:
        TypeError: If it is no log.
    """
    if log is None:
        return None
    rows, best = getattr(log, 'log', log), getattr(log, 'best_epoch', None)
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) and 'epoch' in row for row in rows):
        raise TypeError(f"'log' needs to be what `fit` returns, or its `log` (got a {type(log).__name__})")
    metrics = [key for key in (rows[0] if rows else {}) if '@' in key][:3]
    charts: list[Chart] = []
    kept = [rows[int(i)] for i in thinned(range(len(rows)), POINTS)]
    for name in ['loss', *metrics]:
        points = [(row['epoch'], float(row[name])) for row in kept if isinstance(row.get(name), (int, float))]
        mark = None
        if name in metrics:
            at = [(row['epoch'], float(row[name])) for row in rows if row['epoch'] == best and name in row]
            mark = (*at[0], f'best: {number(at[0][1])}') if at else None
            points = sorted({*points, *at})
        xs, ys = [x for x, _ in points], [y for _, y in points]
        last = f'It ends at {number(ys[-1])}.' if ys else ''
        summary = last if mark is None else f'The model is that of epoch {mark[0]:,}, with {number(mark[1])}.'
        one = chart(
            f'training-{len(charts)}',
            'Loss in training' if name == 'loss' else f'{name} on the validation split',
            summary,
            [Series(name, 'c0', xs, ys)],
            'epoch',
            name,
            mark=mark,
            from_zero=False,
        )
        if one is not None:
            charts.append(one)
    seconds = sum(float(row.get('seconds') or 0) for row in rows)
    return {'epochs': len(rows), 'best': best, 'seconds': seconds, 'charts': charts}
