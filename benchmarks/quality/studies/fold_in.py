r"""Is folding in a user who was not in training as good as training on them? Appends CSV rows for each seed that has
none.

    python -m benchmarks.quality.studies.fold_in --root data --seeds 0 1 2

One user in ten is held out of training altogether. A model trained on the others folds these in from their training
interactions. Their free vectors are none, or the mean of the others'. Another model is trained on all users. All are
tested on the test interactions of the held-out users, and both models on those of the other users.
"""

import argparse
import time
from copy import copy
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.quality import catalogues, jobs
from benchmarks.quality.studies.onboard import OBJECTIVES, POWERS
from lirdrec_pyg import Embeddings, LIRDRec, Popularity, evaluate, fit
from lirdrec_pyg.nn.kernels import normalize
from lirdrec_pyg.serving import fold_in_users, item_layers
from lirdrec_pyg.transforms import InteractionGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, USER

ROWS = rows.RESULTS / 'quality' / 'fold_in.csv'


def of_users(split: HeteroData, keep: Tensor) -> HeteroData:
    r"""Returns a split with the interactions and positives of some users, the others' ids as they were."""
    split = copy(split)
    for key in ('edge_index', 'edge_label_index'):
        split[INTERACTS][key] = split[INTERACTS][key][:, keep[split[INTERACTS][key][0]]]
    return split


def first_users(split: HeteroData, count: int) -> HeteroData:
    r"""Returns a split with the first users alone."""
    split = of_users(split, torch.arange(split[USER].num_nodes) < count)
    split[USER].num_nodes = count
    return split


def last_ones(splits: tuple[HeteroData, ...], share: float, seed: int) -> tuple[tuple[HeteroData, ...], int]:
    r"""Renumbers the users at random, without raw ids. Returns the splits and how many users stay when a share is held
    out."""
    num_users = splits[0][USER].num_nodes
    order = torch.randperm(num_users, generator=torch.Generator().manual_seed(seed))
    out = []
    for split in splits:
        split = copy(split)
        for kind in (USER, ITEM):
            split[kind].pop('raw_id', None)
        for key in ('edge_index', 'edge_label_index'):
            user, item = split[INTERACTS][key]
            split[INTERACTS][key] = torch.stack([order[user], item])
        out.append(split)
    return tuple(out), num_users - round(share * num_users)


def run(dataset: str, seed: int, share: float, loss: str, root: Path) -> list[rows.Row]:
    r"""Returns a row for each method."""
    splits = catalogues.split(dataset)(catalogues.load(dataset, root))
    splits, known = last_ones(splits, share, seed)
    train, val, test = (catalogues.content(splits[0]), *splits[1:])
    held_out = torch.arange(train[USER].num_nodes) >= known
    tests = {'held_out': of_users(test, held_out), 'others': of_users(test, ~held_out)}

    def trained(train: HeteroData, val: HeteroData) -> tuple[LIRDRec, HeteroData, float]:
        clock = time.perf_counter()
        train = InteractionGraph()(train)
        model = LIRDRec.from_data(train, seed=seed, objective=OBJECTIVES[loss]())
        model.set_power(POWERS[loss])
        fit(model, train, val, lr=1e-3, seed=seed, progress=False, **jobs.RELEASED)
        return model, train, time.perf_counter() - clock

    popularity = Popularity.from_data(train)
    results = {'popularity': (popularity(train), 0.0)}
    model, graph, seconds = trained(train, val)
    with torch.no_grad():
        results['trained with them'] = model(graph), seconds
    model, graph, _ = trained(first_users(train, known), first_users(val, known))
    user, item = train[INTERACTS].edge_index
    histories = [item[user == u].tolist() for u in range(known, len(held_out))]
    with torch.no_grad():
        embeddings = model(graph)
    layers = item_layers(model, graph)
    mean = normalize(model.user.detach()).mean(dim=0).expand(len(histories), -1, -1)
    for name, free in [('none', None), ('mean', mean)]:
        clock = time.perf_counter()
        folded = fold_in_users(model, graph, histories, free, layers)
        seconds = time.perf_counter() - clock
        results[f'folded in ({name})'] = Embeddings(torch.cat([embeddings.user, folded]), embeddings.item), seconds

    out = []
    for method, (embeddings, seconds) in results.items():
        row: rows.Row = {'dataset': dataset, 'loss': loss, 'method': method, 'seed': seed, 'held_out': len(histories)}
        for name, split in tests.items():
            metrics = evaluate(embeddings, split, k=20)
            row |= {f'{name}_{metric}': round(value, 6) for metric, value in metrics.items()}
        out.append(row | {'seconds': round(seconds, 4), 'share': share} | rows.environment())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--dataset', default='movielens', help='one of catalogues.py (default: %(default)s)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='one run for each')
    parser.add_argument('--share', type=float, default=0.1, help='of users to hold out (default: %(default)s)')
    parser.add_argument('--loss', default='softmax', help='bpr or softmax (default: %(default)s)')
    parser.add_argument('--rows', type=Path, default=ROWS, help='the CSV file to append to')
    args = parser.parse_args()
    for seed in args.seeds:
        if rows.has(args.rows, dataset=args.dataset, loss=args.loss, seed=seed, share=args.share):
            continue
        out = run(args.dataset, seed, args.share, args.loss, args.root)
        rows.append(args.rows, *out)
        print(
            rows.table(out, ['method', 'seed', 'held_out_recall@20', 'held_out_ndcg@20', 'others_recall@20', 'seconds'])
        )


if __name__ == '__main__':
    main()
