from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lirdrec_pyg.ranking import ranked
from lirdrec_pyg.serving._charts import number
from lirdrec_pyg.serving._page import Page, Share, Tile, evaluating
from lirdrec_pyg.serving.explain import explain
from lirdrec_pyg.serving.recommend import node_ids
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, modalities, modality_features

HISTORY = 12  # items of a history that are shown
NEIGHBORS = 6  # of an item, by each measure
View = tuple[str, str]  # a part of scores, and the class of its colour


class UserCard(NamedTuple):
    r"""A user with what it chose and what it should choose."""

    raw_id: str
    num_items: int
    num_held_out: int
    history: list[Tile]
    recommended: list[Tile]


class ItemCard(NamedTuple):
    r"""An item with those nearest to it by each measure."""

    item: Tile
    neighbors: list[tuple[str, list[Tile], str]]  # the measure, the items, why there are none


def user_cards(page: Page, users: list[int]) -> tuple[list[UserCard], list[View]]:
    r"""Returns the cards of users, and the views whose shares they show."""
    best = list(_best(page, users))
    pairs = [(user, item) for user, items, _ in best for item in items]
    views, reasons = _why(page, pairs)
    why = iter(reasons)
    cards = []
    for user, items, scores in best:
        own = _history(page, user)
        held_out = set(page.held_out[1][page.held_out[0] == user].tolist())
        recommended = []
        for item, score, (shares, near) in zip(items, scores, why, strict=False):
            because = None if near is None else page.tile(near)
            recommended.append(
                page.tile(item, note=number(score), hit=item in held_out, shares=shares, because=because)
            )
        history = [page.tile(item) for item in own[:HISTORY]]
        cards.append(UserCard(page.raw_id(USER, user), len(own), len(held_out), history, recommended))
    return cards, views


def _why(page: Page, pairs: list[tuple[int, int]]) -> tuple[list[View], list[tuple[tuple[Share, ...], int | None]]]:
    r"""Returns the views, if there are several; and for each pair, what each of them adds to its score, and the own
    item that is nearest."""
    if not pairs:
        return [], []
    user = page.ids(USER, [user for user, _ in pairs])
    item = page.ids(ITEM, [item for _, item in pairs])
    with evaluating(page.model):
        table = explain(page.model, page.data, user, item, nearest=1)
    names = [str(column)[len('from_') :] for column in table if str(column).startswith('from_')]
    views = list(dict.fromkeys(name.removesuffix('_neighbours') for name in names))
    shown = [(name.replace('_', ' '), f'c{i % 6}') for i, name in enumerate(views)] if len(views) > 1 else []
    found = iter(node_ids(page.data, ITEM, [ids[0] for ids in table['because'] if ids]).tolist())
    near = [next(found) if ids else None for ids in table['because']]
    shares: list[tuple[Share, ...]] = []
    for row in table[[f'from_{name}' for name in names]].to_numpy(dtype=float).tolist():
        part = dict.fromkeys(views, 0.0)
        for name, value in zip(names, row, strict=True):
            part[name.removesuffix('_neighbours')] += value
        size = sum(map(abs, part.values())) or 1.0
        shares.append(tuple(Share(*view, value / size) for view, value in zip(shown, part.values(), strict=False)))
    return shown, list(zip(shares, near, strict=True))


def _best(page: Page, users: list[int]) -> Iterator[tuple[int, list[int], list[float]]]:
    r"""Iterates over users with their best items and the scores of these."""
    if not users:
        return
    for batch, score, item in ranked(page.embeddings, torch.tensor(users), page.k, page.edges, page.candidates, 1024):
        for user, scores, items in zip(batch.tolist(), score, item, strict=True):
            keep = scores > float('-inf')
            yield user, items[keep].tolist(), scores[keep].tolist()


def _history(page: Page, user: int) -> list[int]:
    r"""Returns the items of a user, the latest first where times are known."""
    edge = (page.edges[0] == user).nonzero().view(-1)
    time = page.data[INTERACTS].get('time')
    if time is not None:
        edge = edge[time[edge.to(time.device)].argsort(descending=True, stable=True).cpu()]
    return page.edges[1][edge].tolist()  # type: ignore[no-any-return]


def item_cards(page: Page, items: list[int]) -> list[ItemCard]:
    r"""Returns the cards of items."""
    rows: list[list[tuple[str, list[Tile], str]]] = [[] for _ in items]
    for name in modalities(page.data):
        x, mask = modality_features(page.data, name)
        for row, near in zip(rows, neighbors(page, x, items, mask), strict=True):
            row.append((f'By {name}', near, f'This item has no {name}.'))
    for row, near in zip(rows, neighbors(page, page.embeddings.item, items), strict=True):
        row.append(('By the model', near, 'The model knows nothing about this item.'))
    return [ItemCard(page.tile(item), row) for item, row in zip(items, rows, strict=True)]


def neighbors(page: Page, x: Tensor, items: list[int], mask: Tensor | None = None) -> list[list[Tile]]:
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
        out.append([page.tile(other, note=f'{value:.2f}'.replace('-', '−')) for other, value in keep])
    return out
