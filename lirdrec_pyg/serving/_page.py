import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.utils import degree

from lirdrec_pyg.nn.models.content_knn import ContentKNN
from lirdrec_pyg.nn.models.popularity import Popularity
from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.ranking import ranked
from lirdrec_pyg.serving._pictures import Images, Pictures
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
)

SHOWN = 100  # users or items at most
PICTURES = 600  # thumbnails at most: 5 MB or so
TITLE = 160  # characters of a title at most
DEPTH = 50  # of the lists that curves are drawn of
Ids = Sequence[str] | Sequence[int]


class Share(NamedTuple):
    r"""What a part adds to a score, of the sum of all parts' sizes."""

    name: str
    color: str
    share: float

    @property
    def text(self) -> str:
        return f'{round(100 * self.share)}'.replace('-', '−')


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


class Lists(NamedTuple):
    r"""What a model puts before the users that count."""

    first: Tensor  # the best place of each item in any list, from one
    shown: Tensor  # how often each item is among the first k


class Page:
    r"""What the page is made of: the data, the models, and the lists that these make. Its arguments are those of
    :func:`~lirdrec_pyg.serving.report`."""

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
            countable = countable[self.drawn(len(countable), max_users)]
        self.counted = countable
        self.lists = {name: self._lists(z) for name, z in self.models.items()}
        self.pictures = Pictures(images, PICTURES)

    def drawn(self, size: int, count: int) -> Tensor:
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
            return pool[self.drawn(len(pool), ids)].tolist()  # type: ignore[no-any-return]
        if len(ids) > SHOWN:
            raise ValueError(f"'{argument}' needs to be at most {SHOWN} ids (got {len(ids)})")
        nodes = node_ids(self.data, kind, ids).tolist()
        return list(dict.fromkeys(nodes))

    def raw_id(self, kind: str, node: int) -> str:
        raw = self.data[kind].get('raw_id')
        return str(node) if raw is None else clean(raw[node])

    def tile(self, item: int, **more: Any) -> Tile:
        raw, titles = self.data[ITEM].get('raw_id'), self.data[ITEM].get('title')
        raw_id = self.raw_id(ITEM, item)
        name = '' if titles is None or titles[item] is None else clean(titles[item])
        picture = self.pictures.name(str(item if raw is None else raw[item]))
        return Tile(raw_id, name or f'Item {raw_id}', picture, int(self.degree[item]), **more)

    def ids(self, kind: str, nodes: Sequence[int]) -> list[Any]:
        raw = self.data[kind].get('raw_id')
        return list(nodes) if raw is None else [raw[node] for node in nodes]

    def depth(self) -> int:
        return min(self.num_candidates, max(DEPTH, self.k))

    def _lists(self, z: Embeddings) -> Lists:
        first = torch.full((self.num_items,), self.num_items + 1, dtype=torch.long)
        shown = torch.zeros(self.num_items, dtype=torch.long)
        place = torch.arange(1, self.depth() + 1)
        for _, score, item in ranked(z, self.counted, self.depth(), self.edges, self.candidates, 1024):
            keep, item = (score > float('-inf')).cpu(), item.cpu()
            first.scatter_reduce_(0, item[keep], place.expand_as(item)[keep], 'amin')
            top = item[:, : self.k][keep[:, : self.k]]
            shown.scatter_add_(0, top, torch.ones_like(top))
        return Lists(first, shown)


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
def evaluating(model: Recommender) -> Iterator[None]:
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


def encoded(model: Recommender, data: HeteroData) -> Embeddings:
    r"""Returns the embeddings of a model, without dropout, on the CPU."""
    with evaluating(model):
        z = check_embeddings(model(data), data)
    return Embeddings(z.user.detach().cpu(), z.item.detach().cpu())


def clean(text: Any) -> str:
    r"""Returns text without control characters and lone surrogates, cut where it is too long."""
    text = ''.join(' ' if unicodedata.category(one) in ('Cc', 'Cs') else one for one in str(text)[: 4 * TITLE])
    text = ' '.join(text.split())
    return text if len(text) <= TITLE else text[: TITLE - 1].rstrip() + '…'
