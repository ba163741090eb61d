r"""Lives through a week with a catalogue that changes: trains on what is known on day 0; each day new items and new
users join from their content and first interactions, and items sell out, all without training; in the end the model is
trained on from its checkpoint, on everything, and takes over.

    python examples/daily_catalogue.py                        # generated data, seconds, offline
    python examples/daily_catalogue.py --root data/ml-100k    # MovieLens-100K

An item arrives with its first interaction and so does a user. Day 0 is the first half of all users' arrivals, and
the other half comes evenly on the days after it.
"""

import argparse
import tempfile
import time
from copy import copy
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import Compose

from lirdrec_pyg import LiveModel, SoftmaxLIRDRec, evaluate, fit, load_model
from lirdrec_pyg.datasets import FakeMultimodal, MovieLens100K
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph, RandomSplit
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, modalities

Days = dict[str, Tensor]  # the day on which each user, item and interaction ('edge') arrives


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', help='where to keep MovieLens-100K (default: generated data instead)')
    parser.add_argument('--wheel', help="a zip file with RecBole's ml-100k files (default: ask GroupLens)")
    parser.add_argument('--fake', action='store_true', help='generated data, the default')
    parser.add_argument('--days', type=int, default=7, help='default: %(default)s')
    parser.add_argument('--epochs', type=int, default=50, help='epochs at most (default: %(default)s)')
    parser.add_argument('--index', default='HNSW32', help='of the retriever (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='where to keep checkpoint and retriever (default: nowhere)')
    parser.add_argument('--seed', type=int, default=0, help='of data, weights and sampling (default: %(default)s)')
    args = parser.parse_args()
    if args.days < 1:
        parser.error(f'--days needs to be positive (got {args.days})')
    if args.root and not args.fake:
        data = MovieLens100K(args.root, wheel=args.wheel)[0]
    else:
        data = FakeMultimodal(
            num_users=400, num_items=300, num_blocks=10, num_cold_items=40, noise=0.5, seed=args.seed
        )[0]
        user, item = data[INTERACTS].edge_index
        data[INTERACTS].time = user + 10 * data[INTERACTS].time + torch.where(item >= 260, 7 * (item - 260), 0)
    # Once, so that no training sees what tests another.
    data[INTERACTS].split = RandomSplit(seed=args.seed).assign(data)
    data, day_of = by_arrival(data, args.days)
    with tempfile.TemporaryDirectory() as folder:
        week(data, day_of, args, args.out or Path(folder))


def week(data: HeteroData, day_of: Days, args: argparse.Namespace, folder: Path) -> None:
    r"""Trains, serves the model for a week, and trains again."""
    print('Day 0')
    live = train(until(data, day_of, 0), folder / 'model.pt', args)
    for day in range(1, args.days + 1):
        clock = time.perf_counter()
        new = (day_of[ITEM] == day).nonzero().view(-1)
        items = [data[ITEM].raw_id[i] for i in new.tolist()]
        if items:
            features = {name: data[ITEM][f'x_{name}'][new] for name in modalities(data)}
            live.add_items(features, items, {'title': [data[ITEM].title[i] for i in new.tolist()]})

        edge_index = data[INTERACTS].edge_index[:, day_of['edge'] == day]
        pairs = [(data[USER].raw_id[u], data[ITEM].raw_id[i]) for u, i in edge_index.t().tolist()]
        users = {data[USER].raw_id[u] for u in (day_of[USER] == day).nonzero().view(-1).tolist()}
        first, later = halves(pairs, users)  # of what new users like today
        live.add_interactions(*zip(*first, strict=True))
        seconds = time.perf_counter() - clock
        print(f'Day {day}: {len(items)} items onboarded and {len(users)} users folded in, {seconds:.2f} s')
        report(live, later, items)
        live.add_interactions(*zip(*later, *(pair for pair in pairs if pair[0] not in users), strict=True))

        sold_out = live.retriever.recommend(sorted(users), k=1)['item'].value_counts().index[0]
        live.remove_items([sold_out])
        print(f'  sold out: {sold_out}')
        live.retriever.save(folder / 'retriever', checkpoint=folder / 'model.pt')

    print(f'The week is over: {live}')
    train(until(data, day_of, args.days), folder / 'scratch.pt', args)
    live = train(until(data, day_of, args.days), folder / 'model.pt', args, start=folder / 'model.pt')
    print(f'From now on: {live}')


def train(data: HeteroData, checkpoint: Path, args: argparse.Namespace, start: Path | None = None) -> LiveModel:
    r"""Trains on the training part of the data, from an earlier checkpoint if there is one, and serves all of it."""
    content = Compose([DCT(), ItemKNNGraph(k=10)])(data)
    train, val, test = FixedSplit()(content)
    train = InteractionGraph()(train)
    model = SoftmaxLIRDRec.from_data(train, seed=args.seed)
    if start is not None:
        model = load_model(start, train)  # who was known keeps its vectors, by raw id
    clock = time.perf_counter()
    settings = {'epochs': args.epochs, 'patience': 5, 'seed': args.seed, 'progress': False}
    result = fit(model, train, val, checkpoint=checkpoint, overwrite=True, **settings)
    recall = evaluate(model(train), test, k=20, metrics=['recall'])['recall@20']
    print(
        f'  trained {"from scratch" if start is None else "warm-started"} on {train[USER].num_nodes} users and '
        f'{train[ITEM].num_nodes} items: best epoch {result.best_epoch}, {time.perf_counter() - clock:.1f} s, '
        f'test recall@20 {recall:.4f}'
    )
    return LiveModel(model, InteractionGraph()(content), index=args.index)  # nothing held out


def report(live: LiveModel, later: list[tuple[str, str]], items: list[str]) -> None:
    r"""Prints how well new users are served, and what a new user and a new item go with."""
    liked: dict[str, set[str]] = {}
    for user, item in later:
        liked.setdefault(user, set()).add(item)
    known = live.retriever.recommend(live.data[USER].raw_id, k=20)['item'].isin(items).mean()
    share = len(items) / live.retriever.num_items
    print(f'  these items, {share:.1%} of all, have {known:.1%} of the places of known users')
    if liked:
        table = live.retriever.recommend(list(liked), k=20)
        recall = [len(liked[user] & set(own['item'])) / len(liked[user]) for user, own in table.groupby('user')]
        print(f'  recall@20 of what new users like next: {sum(recall) / len(recall):.4f}')
        print(f'  new user {table["user"].iloc[0]} should like {"; ".join(table["title"][:3])}')
    if items:
        like = live.retriever.similar_items(items[:1], k=3)['title']
        print(f'  new item {items[0]} goes with {"; ".join(like)}')


def halves(pairs: list[tuple[str, str]], users: set[str]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    r"""Returns the first and the second half of the pairs of each of the users; the first has the odd one."""
    own = {user: [pair for pair in pairs if pair[0] == user] for user in sorted(users)}
    cut = {user: (len(own[user]) + 1) // 2 for user in own}
    first, later = [p for u in own for p in own[u][: cut[u]]], [p for u in own for p in own[u][cut[u] :]]
    return first, later


def by_arrival(data: HeteroData, days: int) -> tuple[HeteroData, Days]:
    r"""Sorts users and items by their first interaction; returns the data, and the day on which each arrives."""
    data = copy(data)
    moment = data[INTERACTS].time.double()
    edge_index, firsts = [], {}
    for kind, ids in zip((USER, ITEM), data[INTERACTS].edge_index, strict=True):
        first = torch.full((data[kind].num_nodes,), float('inf'), dtype=torch.double)
        firsts[kind], order = first.scatter_reduce(0, ids, moment, 'amin').sort(stable=True)
        edge_index.append(order.argsort()[ids])
        for key, value in data[kind].items():
            if key != 'num_nodes':
                data[kind][key] = value[order] if isinstance(value, Tensor) else [value[i] for i in order.tolist()]
    data[INTERACTS].edge_index = torch.stack(edge_index)
    start = firsts[USER].quantile(torch.linspace(0.5, 1, days + 1, dtype=torch.double))[:-1]  # of each day from 1 on
    return data, {kind: torch.searchsorted(start, t, right=True) for kind, t in [*firsts.items(), ('edge', moment)]}


def until(data: HeteroData, day_of: Days, day: int) -> HeteroData:
    r"""Returns the users, items and interactions that arrived up to a day."""
    data = copy(data)
    for kind in (USER, ITEM):
        size = int((day_of[kind] <= day).sum())
        for key, value in data[kind].items():
            if key != 'num_nodes':
                data[kind][key] = value[:size]
        data[kind].num_nodes = size
    keep = day_of['edge'] <= day
    for key in list(data[INTERACTS].keys()):
        data[INTERACTS][key] = data[INTERACTS][key][..., keep]
    return data


if __name__ == '__main__':
    main()
