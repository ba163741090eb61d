r"""How many places do new items get, which users get them, and what does it cost the others? Appends a CSV row for each
method and seed. What has rows is not run again.

    python -m benchmarks.quality.studies.new_items --root data --seeds 0 1 2
    python -m benchmarks.quality.studies.new_items --root data --seeds 0 1 2 --dataset movielens

One item in five is new: all its interactions are for test. So are 10 % of the interactions of the known items, by a
random split; another 10 % choose the epoch. The model never sees the new items. They join by ``onboard_items`` and
``encode_new_items``, with ``borrow`` and ``scale``:

- ``no new items``: none join, which is the most that known items can have;
- ``content``: ``borrow=0, scale=1``, as ``model(data)`` has them;
- ``content, scaled``: ``borrow=0`` and the scale found on known items (``new_item_scale``);
- ``borrowing``: ``borrow=1, scale=1``;
- ``borrowing, scaled``: the defaults.

All items compete for the 20 places of each user. ``new_share`` is the share of new items in these,
``share_of_catalogue`` that among all items. ``new_…`` and ``known_…`` are metrics in which only positives of such items
count. ``new_among_new_recall@20`` ranks new items alone.
"""

import argparse
import time
from pathlib import Path

import torch
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.quality import catalogues
from benchmarks.quality.studies.onboard import WEIGHTS, cold_last, first_items
from lirdrec_pyg import (
    Embeddings,
    LIRDRec,
    SoftmaxLIRDRec,
    encode_new_items,
    evaluate,
    fit,
    item_layers,
    new_item_scale,
    onboard_items,
)
from lirdrec_pyg.ranking import top_k
from lirdrec_pyg.transforms import DCT, InteractionGraph, ItemKNNGraph, RandomSplit
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, modalities

ROWS = rows.RESULTS / 'quality' / 'new_items.csv'
MODELS = {'LIRDRec': (LIRDRec, [1.0, 0.0]), 'SoftmaxLIRDRec': (SoftmaxLIRDRec, [0.5, 0.0])}  # and the powers tried
METHODS = {  # borrow, and whether the scale is found
    'content': (0.0, False),
    'content, scaled': (0.0, True),
    'borrowing': (1.0, False),
    'borrowing, scaled': (1.0, True),
}
NONE = 'no new items'


def splits(data: HeteroData, seed: int) -> tuple[list[HeteroData], torch.Tensor, int]:
    r"""Returns training, validation and test of the known items, the interactions of the new ones, which come last, and
    how many are known."""
    bare = HeteroData()
    bare[USER].num_nodes, bare[ITEM].num_nodes = data[USER].num_nodes, data[ITEM].num_nodes
    bare[INTERACTS].edge_index = data[INTERACTS].edge_index
    for name in modalities(data):
        bare[ITEM][f'x_{name}'] = data[ITEM][f'x_{name}']
    (train, *rest), known = cold_last(bare, seed)
    interactions = torch.cat([split[INTERACTS].edge_label_index for split in rest], dim=1)
    del train[INTERACTS].edge_label_index
    return list(RandomSplit(seed=seed)(train)), interactions, known


def run(dataset: str, seed: int, name: str, epochs: int, root: Path) -> list[rows.Row]:
    r"""Returns a row for each method and power."""
    (train, val, test), interactions, known = splits(catalogues.load(dataset, root), seed)
    weights = WEIGHTS if set(modalities(train)) == set(WEIGHTS) else None
    features = {key: train[ITEM][f'x_{key}'][known:] for key in modalities(train)}
    part = InteractionGraph()(ItemKNNGraph(k=10, weights=weights)(DCT()(first_items(train, known))))
    kind, powers = MODELS[name]
    model = kind.from_data(part, seed=seed)
    settings = {'epochs': epochs, 'lr': 1e-3, 'patience': 10, 'seed': seed, 'progress': False}
    best_epoch = fit(model, part, first_items(val, known), **settings).best_epoch
    data, new = onboard_items(part, features)
    is_new = torch.arange(data[ITEM].num_nodes) >= known
    data[INTERACTS].edge_label_index = torch.cat([test[INTERACTS].edge_label_index, interactions], dim=1)
    users = data[INTERACTS].edge_label_index[0].unique()
    out = []
    for power in powers:
        model.set_power(power)
        with torch.no_grad():
            user, item = model(data)
        layers = item_layers(model, data)
        for method, (borrow, found) in {NONE: (0.0, False), **METHODS}.items():
            clock = time.perf_counter()
            scale = new_item_scale(model, data, layers, borrow) if found else 1.0
            seconds = time.perf_counter() - clock
            item[new] = encode_new_items(model, data, new, layers, borrow, scale)
            z = Embeddings(user, item)
            candidates = ~is_new if method == NONE else None
            metrics = evaluate(z, data, k=20, candidates=candidates, groups={'new': is_new, 'known': ~is_new})
            if method == NONE:
                metrics |= dict.fromkeys((f'{of}{name}@20' for of in ('', 'new/') for name in ('recall', 'ndcg')), 0.0)
            among = evaluate(z, data, k=20, metrics=['recall'], candidates=is_new)['recall@20']
            lists = torch.cat([items for _, items in top_k(z, users, 20, data[INTERACTS].edge_index, candidates)])
            row: rows.Row = {'dataset': dataset, 'model': name, 'power': power, 'method': method, 'seed': seed}
            row |= {'new_share': round(float(is_new[lists].double().mean()), 5), 'scale': round(scale, 5)}
            row |= {'share_of_catalogue': round(len(new) / len(is_new), 5)}
            row |= {f'all_{key}' if '/' not in key else key.replace('/', '_'): round(value, 6)
                    for key, value in metrics.items()}  # fmt: skip
            row |= {'new_among_new_recall@20': round(0.0 if method == NONE else among, 6)}
            row |= {'scale_seconds': round(seconds, 3), 'known': known, 'new': len(new), 'best_epoch': best_epoch}
            out.append(row | {'epochs': epochs} | rows.environment())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--dataset', default='scientific', help='one of catalogues.py (default: %(default)s)')
    parser.add_argument('--model', choices=MODELS, default='SoftmaxLIRDRec', help='default: %(default)s')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='one run for each')
    parser.add_argument('--epochs', type=int, default=200, help='at most (default: %(default)s)')
    parser.add_argument('--rows', type=Path, default=ROWS, help='the CSV file to append to')
    args = parser.parse_args()
    for seed in args.seeds:
        if rows.has(args.rows, dataset=args.dataset, model=args.model, seed=seed, epochs=args.epochs):
            continue
        out = run(args.dataset, seed, args.model, args.epochs, args.root)
        rows.append(args.rows, *out)
        shown = ['method', 'power', 'seed', 'new_share', 'scale', 'new_recall@20', 'known_recall@20', 'scale_seconds']
        print(rows.table(out, ['dataset', 'model', *shown]), flush=True)


if __name__ == '__main__':
    main()
