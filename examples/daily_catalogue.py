r"""Lives through a week with a catalogue that changes: trains on what is known on day 0; each day new items are
onboarded from their content, new users are folded in from their first interactions, and both get recommendations,
all without training; in the end a model warm-started from the checkpoint is trained on everything.

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
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import Compose

from lirdrec_pyg import LIRDRec, Recommender, evaluate, fit, load_model
from lirdrec_pyg.datasets import FakeMultimodal, MovieLens100K
from lirdrec_pyg.nn import SampledSoftmax
from lirdrec_pyg.serving import Retriever, encode_new_items, fold_in_users, item_layers, onboard_items
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph, RandomSplit
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, modalities

K = 10  # neighbours in the item graph


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
        live(data, day_of, args, args.out or Path(folder))


def by_arrival(data: HeteroData, days: int) -> tuple[HeteroData, dict[str, Tensor]]:
    r"""Sorts users and items by their first interaction; returns the data, and the day on which each user, item and
    interaction (``'edge'``) arrives."""
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


def until(data: HeteroData, day_of: dict[str, Tensor], day: int) -> HeteroData:
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


def train_on(data: HeteroData, checkpoint: Path, args: Any, start: Path | None = None) -> Recommender:
    r"""Trains on the training part of the data, from an earlier checkpoint if there is one."""
    train, val, test = FixedSplit()(Compose([DCT(), ItemKNNGraph(K)])(data))
    train = InteractionGraph()(train)
    if start is None:
        model: Recommender = LIRDRec.from_data(train, seed=args.seed, objective=SampledSoftmax())
        model.set_power(0)  # scores are cosines, which serve new items better
    else:
        model = load_model(start, train)  # who was known keeps its vectors, by raw id
    clock = time.perf_counter()
    settings = {'epochs': args.epochs, 'patience': 5, 'seed': args.seed, 'progress': False}
    result = fit(model, train, val, checkpoint=checkpoint, overwrite=True, **settings)
    recall = evaluate(model(train), test, k=20, metrics=['recall'])['recall@20']
    how = 'from scratch' if start is None else 'warm-started'
    print(
        f'  trained {how} on {train[USER].num_nodes} users and {train[ITEM].num_nodes} items: best epoch '
        f'{result.best_epoch}, {time.perf_counter() - clock:.1f} s, test recall@20 {recall:.4f}'
    )
    return model


def live(data: HeteroData, day_of: dict[str, Tensor], args: Any, folder: Path) -> None:
    r"""Serves the model of day 0 for the whole week, then trains again."""
    print('Day 0')
    model = train_on(until(data, day_of, 0), folder / 'model.pt', args)
    today = InteractionGraph()(Compose([DCT(), ItemKNNGraph(K)])(until(data, day_of, 0)))  # nothing held out
    retriever = Retriever(model(today), seen=today, index=args.index)
    layers = item_layers(model, today)
    print(f'  serving {retriever}')

    for day in range(1, args.days + 1):
        clock = time.perf_counter()
        new = (day_of[ITEM] == day).nonzero().view(-1)
        items = [data[ITEM].raw_id[i] for i in new.tolist()]
        if len(new) > 0:
            features = {name: data[ITEM][f'x_{name}'][new] for name in modalities(data)}
            today, nodes = onboard_items(today, features, items, [data[ITEM].title[i] for i in new.tolist()], k=K)
            layers = item_layers(model, today, layers)
            retriever.add_items(encode_new_items(model, today, nodes, layers), items)
        onboarded = time.perf_counter()

        edge_index = data[INTERACTS].edge_index[:, day_of['edge'] == day]
        pairs = {data[USER].raw_id[u]: edge_index[1, edge_index[0] == u] for u in edge_index[0].unique().tolist()}
        pairs = {user: [data[ITEM].raw_id[i] for i in own.tolist()] for user, own in pairs.items()}
        users = [data[USER].raw_id[u] for u in (day_of[USER] == day).nonzero().view(-1).tolist()]
        first = {user: pairs[user][: (len(pairs[user]) + 1) // 2] for user in users}  # the rest is what they like next
        retriever.add_users(fold_in_users(model, today, list(first.values()), layers=layers), users)
        see(retriever, first)
        folded = time.perf_counter()
        print(
            f'Day {day}: {len(items)} items onboarded in {onboarded - clock:.2f} s, '
            f'{len(users)} users folded in {folded - onboarded:.2f} s'
        )
        report(retriever, {user: set(pairs[user]) - set(first[user]) for user in users}, items, today)
        see(retriever, pairs)
        retriever.save(folder / 'retriever', checkpoint=folder / 'model.pt')

    print(f'The week is over: {Retriever.load(folder / "retriever", checkpoint=folder / "model.pt")}')
    train_on(until(data, day_of, args.days), folder / 'scratch.pt', args)
    train_on(until(data, day_of, args.days), folder / 'model.pt', args, start=folder / 'model.pt')


def see(retriever: Retriever, pairs: dict[str, list[str]]) -> None:
    r"""Notes what users have seen."""
    users = [user for user, own in pairs.items() for _ in own]
    retriever.add_seen(users, [item for own in pairs.values() for item in own])


def report(retriever: Retriever, liked_next: dict[str, set[str]], new_items: list[str], data: HeteroData) -> None:
    r"""Prints how well new users are served, and what a new user and a new item go with."""
    liked_next = {user: own for user, own in liked_next.items() if own}
    table = retriever.recommend(list(liked_next), k=20)
    recall = [len(liked_next[user] & set(own['item'])) / len(liked_next[user]) for user, own in table.groupby('user')]
    titles = dict(zip(data[ITEM].raw_id, data[ITEM].title, strict=True))
    if recall:
        print(f'  recall@20 of what new users like next: {sum(recall) / len(recall):.4f}')
        own = table[table['rank'] <= 3].iloc[-3:]
        print(f'  new user {own["user"].iloc[0]} should like {"; ".join(titles[item] for item in own["item"])}')
    if new_items:
        like = retriever.similar_items(new_items[:1], k=3)['similar']
        print(f'  new item {titles[new_items[0]]} goes with {"; ".join(titles[item] for item in like)}')


if __name__ == '__main__':
    main()
