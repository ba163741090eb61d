import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.utils import degree

from lirdrec_pyg._io import write_bytes
from lirdrec_pyg.nn.kernels import linear
from lirdrec_pyg.nn.models.content_knn import ContentKNN
from lirdrec_pyg.nn.models.popularity import Popularity
from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.ranking import evaluate, ranked
from lirdrec_pyg.serving._charts import Chart, Series, chart, number, percent, thinned
from lirdrec_pyg.serving._pictures import Images, Pictures
from lirdrec_pyg.serving.explain import explain
from lirdrec_pyg.serving.recommend import node_ids
from lirdrec_pyg.typing import (
    INTERACTS,
    ITEM,
    USER,
    Embeddings,
    check,
    check_count,
    check_embeddings,
    check_mask,
    modalities,
    modality_features,
)

if TYPE_CHECKING:
    from jinja2 import Template

SHOWN = 100  # users or items at most
HISTORY = 12  # items of a history that are shown
NEIGHBORS = 6  # of an item, by each measure
NEW = 6  # items without interactions that are shown
PICTURES = 600  # thumbnails at most: 5 MB or so
TITLE = 160  # characters of a title at most
DEPTH = 50  # of the lists that curves are drawn of
POINTS = 150  # of a line at most
METRICS = ('recall', 'ndcg', 'hit')
Ids = Sequence[str] | Sequence[int]


class Share(NamedTuple):
    r"""What a part adds to a score, of the sum of all parts' sizes."""

    name: str
    color: str
    share: float

    @property
    def text(self) -> str:
        return f'{100 * self.share:.0f}'.replace('-', '−')


class Tile(NamedTuple):
    r"""An item as the page shows it."""

    raw_id: str
    title: str
    picture: str | None
    users: int
    note: str = ''
    hit: bool = False
    shares: tuple[Share, ...] = ()
    because: Any = None  # the tile that it is near


class UserCard(NamedTuple):
    raw_id: str
    num_items: int
    num_held_out: int
    history: list[Tile]
    recommended: list[Tile]


class ItemCard(NamedTuple):
    item: Tile
    neighbors: list[tuple[str, list[Tile], str]]  # the measure, the items, why there are none


class Lists(NamedTuple):
    r"""What a model puts before the users that count."""

    first: Tensor  # the best place of each item in any list, from one
    shown: Tensor  # how often each item is among the first k


@torch.no_grad()
def report(
    model: Recommender,
    data: HeteroData,
    path: str | os.PathLike[str] = 'report.html',
    *,
    split: HeteroData | None = None,
    users: Ids | int = 6,
    items: Ids | int = 6,
    k: int = 10,
    images: Images | None = None,
    log: Any = None,
    compare: Mapping[str, Recommender] | None = None,
    candidates: Tensor | None = None,
    max_users: int | None = 10_000,
    title: str = 'Recommendations to look at',
    seed: int = 0,
) -> Path:
    r"""Writes one HTML page to look at what a model recommends: users with what they like and what they should like,
    items with their neighbours, new items, the training run, and metrics beside two simple models.

    .. code-block:: python

        result = fit(model, train, val)
        report(model, train, 'report.html', split=test, log=result, images='pictures')

    The page needs no other file and no network, so it can be sent to somebody. Equal input gives equal bytes. It takes
    100 to 400 KB, and some 8 KB more a picture; there are at most 600 pictures.

    Args:
        model (Recommender): The trained model.
        data (HeteroData): The training split, which the model is called on.
        path (path, optional): Where to write. A file that is there is replaced. (default: ``'report.html'``)
        split (HeteroData, optional): The validation or test split. It gives the metrics, and marks what users did
            choose. (default: neither)
        users (sequence or int, optional): The raw ids of the users to show, or how many to draw by ``seed``, at most
            100. (default: :obj:`6`)
        items (sequence or int, optional): The same for the items whose neighbours are shown. (default: :obj:`6`)
        k (int, optional): The number of items recommended to each user, at most 50. (default: :obj:`10`)
        images (path, mapping or callable, optional): The pictures of the items: a folder that holds
            ``<raw id>.jpg`` (or ``.png``, ``.webp`` …), a mapping of raw ids to paths, or a function that gives the
            path for a raw id or :obj:`None`. It needs ``pillow``. (default: none, tiles show titles alone)
        log (FitResult or list of dict, optional): What :func:`~lirdrec_pyg.fit` returned, or its ``log``.
        compare (mapping of str to Recommender, optional): Other trained models by name, for the metrics and curves.
            Popularity and content kNN are always among them, the latter where items have content.
        candidates (Tensor, optional): The items that may be recommended, a bool mask :math:`(|\mathcal{I}|)`.
            (default: all)
        max_users (int, optional): How many users metrics and curves count; of more, so many are drawn by ``seed``.
            :obj:`None` counts all. (default: :obj:`10_000`)
        title (str, optional): The title of the page.
        seed (int, optional): The seed of what is drawn. (default: :obj:`0`)

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: If ``images`` is a folder that is not there.
        ImportError: If there are images, but no ``pillow``.
        TypeError: If there is no model, or ``images`` or ``log`` is something else.
        ValueError: If a number is out of range, an id is unknown, or an argument does not fit the data.
    """
    if not isinstance(model, Recommender):
        raise TypeError(f"'model' needs to be a Recommender: give the model itself (got a {type(model).__name__})")
    data = check(data)
    page = _Page(model, data, split, k, images, compare, candidates, max_users, seed)
    shown_users, shown_items = page.chosen(USER, users), page.chosen(ITEM, items)
    training = _training(log)
    context = {
        'title': _clean(title),
        'model': page.name,
        'settings': repr(model),
        'facts': page.facts(),
        'k': page.k,
        'users': page.user_cards(shown_users),
        'users_drawn': isinstance(users, int),
        'items': page.item_cards(shown_items),
        'items_drawn': isinstance(items, int),
        'parts': page.views,
        'new': page.new_items(),
        'table': page.table(),
        'curves': page.curves(),
        'counted': len(page.counted),
        'of_users': page.num_countable,
        'split': split is not None,
        'training': training,
        'pictures': page.pictures,
        'seed': seed,
    }
    html = template().render(context)
    page.pictures.warn()
    path = Path(path)
    write_bytes(path, html.encode('utf-8', 'replace'))
    return path


def template() -> 'Template':
    r"""Returns the template of the page, which escapes all that it is given."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ImportError("'jinja2' is needed for this: pip install jinja2") from error

    source = files('lirdrec_pyg.serving').joinpath('report.html.jinja').read_text('utf-8')
    env = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters |= {'grouped': lambda value: f'{value:,}', 'number': number}
    return env.from_string(source)


class _Page:
    r"""What the page shows, found out part by part."""

    def __init__(
        self,
        model: Recommender,
        data: HeteroData,
        split: HeteroData | None,
        k: int,
        images: Images | None,
        compare: Mapping[str, Recommender] | None,
        candidates: Tensor | None,
        max_users: int | None,
        seed: int,
    ) -> None:
        self.data = data
        self.num_users, self.num_items = data[USER].num_nodes, data[ITEM].num_nodes
        self.candidates = None if candidates is None else check_mask(candidates, self.num_items, 'candidates').cpu()
        num_candidates = self.num_items if self.candidates is None else int(self.candidates.sum())
        self.k = check_count(k, min(DEPTH, num_candidates))
        self.num_candidates = num_candidates
        self.seed = seed
        self.edges = data[INTERACTS].edge_index.cpu()
        self.degree = degree(self.edges[1], self.num_items, dtype=torch.long)
        self.split = None
        if split is not None:
            self.split = check(split, 'split', labels=True)
            for kind, size in ((USER, self.num_users), (ITEM, self.num_items)):
                if self.split[kind].num_nodes != size:
                    raise ValueError(f"'split' needs to have {size} {kind}s (got {self.split[kind].num_nodes})")
        self.held_out = torch.empty(2, 0, dtype=torch.long)
        if self.split is not None:
            self.held_out = self.split[INTERACTS].edge_label_index.cpu()

        self.model = model
        self.name, models = beside(model, data, compare or {})
        self.models = {name: encoded(one, data) for name, one in models.items()}
        self.embeddings = self.models[self.name]

        countable = self.held_out[0].unique() if split is not None else self.edges[0].unique()
        if self.candidates is not None and split is not None:
            countable = self.held_out[0][self.candidates[self.held_out[1]]].unique()
        self.num_countable = len(countable)
        if max_users is not None and check_count(max_users, max(self.num_users, max_users), 'max_users') < len(
            countable
        ):
            countable = countable[self._drawn(len(countable), max_users)]
        self.counted = countable
        self.lists = {name: self._lists(z) for name, z in self.models.items()}
        self.pictures = Pictures(images, PICTURES)
        self.views: list[tuple[str, str]] = []  # the parts of a score and their colours

    # What is chosen ---------------------------------------------------------------------------------------------------

    def _drawn(self, size: int, count: int) -> Tensor:
        r"""Returns so many of the numbers below ``size``, in their order."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(size, generator=generator)[:count].sort().values

    def chosen(self, kind: str, ids: Ids | int) -> list[int]:
        r"""Returns the nodes of raw ids, or some that are drawn."""
        argument = f'{kind}s'
        if isinstance(ids, int):
            if not 0 <= ids <= SHOWN:
                raise ValueError(f"'{argument}' needs to be ids, or a number in [0, {SHOWN}] (got {ids})")
            pool = self.edges[0].unique() if kind == USER else (self.degree > 0).nonzero().view(-1)
            if kind == USER and self.split is not None and self.held_out.size(1) > 0:
                both = pool[torch.isin(pool, self.held_out[0])]
                pool = both if len(both) >= ids else pool
            return pool[self._drawn(len(pool), ids)].tolist()  # type: ignore[no-any-return]
        if len(ids) > SHOWN:
            raise ValueError(f"'{argument}' needs to be at most {SHOWN} ids (got {len(ids)})")
        nodes = node_ids(self.data, kind, ids).tolist()
        return list(dict.fromkeys(nodes))

    def raw_id(self, kind: str, node: int) -> str:
        raw = self.data[kind].get('raw_id')
        return str(node) if raw is None else _clean(raw[node])

    def tile(self, item: int, **more: Any) -> Tile:
        raw, titles = self.data[ITEM].get('raw_id'), self.data[ITEM].get('title')
        raw_id = self.raw_id(ITEM, item)
        name = '' if titles is None or titles[item] is None else _clean(titles[item])
        picture = self.pictures.name(str(item if raw is None else raw[item]))
        return Tile(raw_id, name or f'Item {raw_id}', picture, int(self.degree[item]), **more)

    # Users ------------------------------------------------------------------------------------------------------------

    def user_cards(self, users: list[int]) -> list[UserCard]:
        best = list(self._best(users))
        pairs = [(user, item) for user, items, _ in best for item in items]
        why = iter(self._why(pairs))
        cards = []
        for user, items, scores in best:
            own = self._history(user)
            held_out = set(self.held_out[1][self.held_out[0] == user].tolist())
            recommended = []
            for item, score, (shares, near) in zip(items, scores, why, strict=False):
                because = None if near is None else self.tile(near)
                recommended.append(
                    self.tile(item, note=number(score), hit=item in held_out, shares=shares, because=because)
                )
            history = [self.tile(item) for item in own[:HISTORY]]
            cards.append(UserCard(self.raw_id(USER, user), len(own), len(held_out), history, recommended))
        return cards

    def _why(self, pairs: list[tuple[int, int]]) -> list[tuple[tuple[Share, ...], int | None]]:
        r"""Returns what each view adds to the scores of pairs, and the own item that is nearest."""
        if not pairs:
            return []
        user = self._ids(USER, [user for user, _ in pairs])
        item = self._ids(ITEM, [item for _, item in pairs])
        with _evaluating(self.model):
            table = explain(self.model, self.data, user, item, nearest=1)
        names = [str(column)[len('from_') :] for column in table if str(column).startswith('from_')]
        views = list(dict.fromkeys(name.removesuffix('_neighbours') for name in names))
        if len(views) > 1:
            self.views = [(name.replace('_', ' '), f'c{i % 6}') for i, name in enumerate(views)]
        found = iter(node_ids(self.data, ITEM, [ids[0] for ids in table['because'] if ids]).tolist())
        near = [next(found) if ids else None for ids in table['because']]
        shares: list[tuple[Share, ...]] = []
        for row in table[[f'from_{name}' for name in names]].to_numpy(dtype=float).tolist():
            part = dict.fromkeys(views, 0.0)
            for name, value in zip(names, row, strict=True):
                part[name.removesuffix('_neighbours')] += value
            size = sum(map(abs, part.values())) or 1.0
            shares.append(
                tuple(Share(*view, value / size) for view, value in zip(self.views, part.values(), strict=False))
            )
        return list(zip(shares, near, strict=True))

    def _ids(self, kind: str, nodes: Sequence[int]) -> list[Any]:
        raw = self.data[kind].get('raw_id')
        return list(nodes) if raw is None else [raw[node] for node in nodes]

    def _best(self, users: list[int]) -> Iterator[tuple[int, list[int], list[float]]]:
        if not users:
            return
        for batch, score, item in ranked(
            self.embeddings, torch.tensor(users), self.k, self.edges, self.candidates, 1024
        ):
            for user, scores, items in zip(batch.tolist(), score, item, strict=True):
                keep = scores > float('-inf')
                yield user, items[keep].tolist(), scores[keep].tolist()

    def _history(self, user: int) -> list[int]:
        r"""Returns the items of a user, the latest first where times are known."""
        edge = (self.edges[0] == user).nonzero().view(-1)
        time = self.data[INTERACTS].get('time')
        if time is not None:
            edge = edge[time[edge.to(time.device)].argsort(descending=True, stable=True).cpu()]
        return self.edges[1][edge].tolist()  # type: ignore[no-any-return]

    # Items ------------------------------------------------------------------------------------------------------------

    def item_cards(self, items: list[int]) -> list[ItemCard]:
        rows: list[list[tuple[str, list[Tile], str]]] = [[] for _ in items]
        for name in modalities(self.data):
            x, mask = modality_features(self.data, name)
            for row, near in zip(rows, self._neighbors(x, items, mask), strict=True):
                row.append((f'By {name}', near, f'This item has no {name}.'))
        for row, near in zip(rows, self._neighbors(self.embeddings.item, items), strict=True):
            row.append(('By the model', near, 'The model knows nothing about this item.'))
        return [ItemCard(self.tile(item), row) for item, row in zip(items, rows, strict=True)]

    def _neighbors(self, x: Tensor, items: list[int], mask: Tensor | None = None) -> list[list[Tile]]:
        r"""Returns the items of largest cosine to each of some."""
        index = torch.tensor(items, dtype=torch.long, device=x.device)
        own = F.normalize(x[index].float(), dim=-1)
        cosine = torch.cat([own @ F.normalize(part.float(), dim=-1).t() for part in x.split(8192)], dim=1).cpu()
        known = torch.cat([(part != 0).any(dim=1) for part in x.split(8192)]).cpu()
        known = known if mask is None else known & mask.cpu()
        cosine[:, ~known] = float('-inf')
        cosine[torch.arange(len(items)), items] = float('-inf')
        out = []
        for item, row in zip(items, cosine, strict=True):
            best = row.sort(descending=True, stable=True)
            pairs = zip(best.indices[:NEIGHBORS].tolist(), best.values[:NEIGHBORS].tolist(), strict=True)
            keep = [(other, value) for other, value in pairs if value > float('-inf') and known[item]]
            out.append([self.tile(other, note=f'{value:.2f}'.replace('-', '−')) for other, value in keep])
        return out

    # New items --------------------------------------------------------------------------------------------------------

    def new_items(self) -> dict[str, Any]:
        r"""Returns items without interactions, and where they land in the lists of the users that count."""
        new = self.degree == 0
        count = int(new.sum())
        if self.candidates is not None:
            new = new & self.candidates
        allowed, lists = int(new.sum()), self.lists[self.name]
        out: dict[str, Any] = {'count': count, 'allowed': allowed, 'tiles': [], 'chart': None}
        if allowed == 0 or len(self.counted) == 0:
            return out
        nodes = new.nonzero().view(-1)
        out['slots'] = int(lists.shown[new].sum()) / max(1, int(lists.shown.sum()))
        out['of_items'] = allowed / self.num_candidates
        out['reached'] = int((lists.first[new] <= self.k).sum())
        chosen = nodes[self._drawn(len(nodes), NEW)]
        place = self._places(chosen)
        middle = place.double().quantile(0.5, dim=0).round().long().tolist()
        near = [row[0] if row else None for row in self._neighbors(self.embeddings.item, chosen.tolist())]
        for column, item in enumerate(chosen.tolist()):
            among, best = int((place[:, column] <= self.k).sum()), int(place[:, column].min())
            text = f'in {among:,} list{"s" if among > 1 else ""} of {self.k}' if among else f'best place {best:,}'
            out['tiles'].append((self.tile(item, note=text, because=near[column]), middle[column]))
        warm = self.degree > 0 if self.candidates is None else (self.degree > 0) & self.candidates
        depth = torch.arange(1, self._depth() + 1)
        series = [
            Series(name, color, depth.tolist(), _reach(lists.first[group], depth))
            for name, color, group in (('new items', 'c4', new), ('other items', 'c5', warm))
            if bool(group.any())
        ]
        out['chart'] = chart(
            'reach',
            'Who is seen at all',
            f'In lists of {self.k}, {percent(out["reached"] / allowed)} of the new items are shown to somebody.',
            series,
            'length of the lists',
            'share of items in any list',
            shares=(False, True),
        )
        return out

    def _places(self, items: Tensor) -> Tensor:
        r"""Returns the place of some items in the ranking of each user that counts, from one."""
        z, out = self.embeddings, []
        excluded = None if self.candidates is None else ~self.candidates.to(z.item.device)
        for users in self.counted.to(z.user.device).split(256):
            score = linear(z.user[users], z.item)
            if excluded is not None:
                score.masked_fill_(excluded, float('-inf'))
            row = torch.full((self.num_users,), -1, device=users.device)
            row[users] = torch.arange(len(users), device=users.device)
            edges = self.edges.to(users.device)
            edges = edges[:, row[edges[0]] >= 0]
            score[row[edges[0]], edges[1]] = float('-inf')
            out.append(torch.stack([(score > score[:, [i]]).sum(dim=1) + 1 for i in items.tolist()], dim=1).cpu())
        return torch.cat(out)

    # Numbers ----------------------------------------------------------------------------------------------------------

    def facts(self) -> list[tuple[str, str]]:
        edges = self.edges.size(1)
        widths = [f'{name} ({self.data[ITEM][f"x_{name}"].size(1):,})' for name in modalities(self.data)]
        pairs = max(1, self.num_users * self.num_items)
        out = [
            ('Users', f'{self.num_users:,}'),
            ('Items', f'{self.num_items:,}'),
            ('Interactions', f'{edges:,}'),
            ('Density', f'{number(100 * edges / pairs)} %'),
            ('New items', f'{int((self.degree == 0).sum()):,}'),
            ('Content', ' · '.join(widths) or 'none'),
        ]
        return out

    def _depth(self) -> int:
        return min(self.num_candidates, max(DEPTH, self.k))

    def _lists(self, z: Embeddings) -> Lists:
        first = torch.full((self.num_items,), self.num_items + 1, dtype=torch.long)
        shown = torch.zeros(self.num_items, dtype=torch.long)
        place = torch.arange(1, self._depth() + 1)
        for _, score, item in ranked(z, self.counted, self._depth(), self.edges, self.candidates, 1024):
            keep, item = (score > float('-inf')).cpu(), item.cpu()
            first.scatter_reduce_(0, item[keep], place.expand_as(item)[keep], 'amin')
            top = item[:, : self.k][keep[:, : self.k]]
            shown.scatter_add_(0, top, torch.ones_like(top))
        return Lists(first, shown)

    def table(self) -> dict[str, Any] | None:
        r"""Returns the metrics of all models, with the best of each column."""
        if len(self.counted) == 0:
            return None
        tenth = max(1, round(self.num_items / 10))
        popular = self.degree.sort(descending=True, stable=True).indices[:tenth]
        rows: dict[str, dict[str, float]] = {}
        for name, z in self.models.items():
            row: dict[str, float] = {}
            if self.split is not None:
                part = copy(self.split)
                counts = torch.isin(self.held_out[0], self.counted)
                label = self.split[INTERACTS].edge_label_index
                part[INTERACTS].edge_label_index = label[:, counts.to(label.device)]
                if 'edge_label' in part[INTERACTS]:
                    del part[INTERACTS].edge_label
                row |= evaluate(z, part, self.k, METRICS, candidates=self.candidates)
            lists = self.lists[name]
            row[f'coverage@{self.k}'] = int((lists.first <= self.k).sum()) / self.num_candidates
            row['most popular tenth'] = int(lists.shown[popular].sum()) / max(1, int(lists.shown.sum()))
            rows[name] = row
        columns = list(rows[self.name])
        better = columns[: len(METRICS)] if self.split is not None else []
        best = {column: max(row[column] for row in rows.values()) for column in better}
        return {
            'columns': columns,
            'rows': [
                (name, [(percent(v) if c not in better else f'{v:.4f}', best.get(c) == v)
                        for c, v in row.items()])
                for name, row in rows.items()
            ],
        }  # fmt: skip

    def curves(self) -> list[Chart]:
        r"""Returns how much of the catalogue lists cover, and how popular what they hold is."""
        if len(self.counted) == 0:
            return []
        depth = torch.arange(1, self._depth() + 1)
        among = slice(None) if self.candidates is None else self.candidates
        coverage = {name: _reach(lists.first[among], depth) for name, lists in self.lists.items()}
        order = self.degree.sort(descending=True, stable=True).indices
        ends = torch.tensor(thinned(range(self.num_items + 1), 61), dtype=torch.long)

        def share(count: Tensor) -> list[float]:
            total = torch.cat([count.new_zeros(1), count[order].cumsum(0)])[ends]
            return (total.double() / max(1, int(count.sum()))).tolist()  # type: ignore[no-any-return]

        tenth = max(1, round(self.num_items / 10))
        head = int(self.lists[self.name].shown[order[:tenth]].sum()) / max(1, int(self.lists[self.name].shown.sum()))
        x = (ends.double() / self.num_items).tolist()
        colors = {name: f'c{i % 6}' for i, name in enumerate(self.models)}
        found = [
            chart(
                'coverage',
                'How much of the catalogue is shown',
                f'In lists of {self.k}, {self.name} shows {percent(coverage[self.name][self.k - 1])} of the items to '
                'somebody.',
                [Series(name, colors[name], depth.tolist(), y) for name, y in coverage.items()],
                'length of the lists',
                'share of items in any list',
                shares=(False, True),
            ),
            chart(
                'popularity',
                'How popular it is',
                f'The most popular tenth of the items gets {percent(head)} of the places in the lists of {self.name}. '
                'The nearer a line is to that of the interactions, the more lists are like what people choose.',
                [Series(name, colors[name], x, share(lists.shown)) for name, lists in self.lists.items()]
                + [Series('interactions', 'cx', x, share(self.degree))],
                'share of items, the most popular first',
                'share of places in lists',
                shares=(True, True),
            ),
        ]
        return [one for one in found if one is not None]


def beside(
    model: Recommender, data: HeteroData, compare: Mapping[str, Recommender]
) -> tuple[str, dict[str, Recommender]]:
    r"""Returns the name of a model, and all models by name: this one first, then those given, then simple ones.

    Raises:
        TypeError: If one is no model.
        ValueError: If another one has the name of the model.
    """
    for name, other in compare.items():
        if not isinstance(other, Recommender):
            raise TypeError(f"'compare' needs to hold models (got a {type(other).__name__} for '{name}')")
    own = next((name for name, other in compare.items() if other is model), type(model).__name__)
    if compare.get(own, model) is not model:
        raise ValueError(f"'compare' needs another name than that of the model (got '{own}')")
    models = {own: model, **{name: other for name, other in compare.items() if other is not model}}
    kinds = {type(one) for one in models.values()}
    if Popularity not in kinds:
        models.setdefault('Popularity', Popularity())
    if ContentKNN not in kinds and modalities(data):
        models.setdefault('Content kNN', ContentKNN())
    return own, models


@contextmanager
def _evaluating(model: Recommender) -> Iterator[None]:
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


def encoded(model: Recommender, data: HeteroData) -> Embeddings:
    r"""Returns the embeddings of a model, without dropout, on the CPU."""
    with _evaluating(model):
        z = check_embeddings(model(data), data)
    return Embeddings(z.user.detach().cpu(), z.item.detach().cpu())


def _reach(first: Tensor, depth: Tensor) -> list[float]:
    r"""Returns the share of items whose best place is not beyond each depth."""
    places = first.sort().values
    count = torch.searchsorted(places, depth, right=True)
    return (count.double() / max(1, len(first))).tolist()  # type: ignore[no-any-return]


def _training(log: Any) -> dict[str, Any] | None:
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


def _clean(text: Any) -> str:
    r"""Returns text without control characters and lone surrogates, cut where it is too long."""
    text = ''.join(' ' if unicodedata.category(one) in ('Cc', 'Cs') else one for one in str(text)[: 4 * TITLE])
    text = ' '.join(text.split())
    return text if len(text) <= TITLE else text[: TITLE - 1].rstrip() + '…'
