r"""Is onboarding an item that nobody has bought as good as having had it from the start? Appends a CSV row for each
method and seed. What has rows is not run again.

    python -m benchmarks.quality.studies.onboard --root data --seeds 0 1 2
    python -m benchmarks.quality.studies.onboard --items 100000 --new 1000

One item in five is held out. All methods are tested on the interactions of half of these items. The validation metric
is of the other half. No method sees their interactions. A model that never saw the items

- ``onboarded``: takes them in by ``onboard_items``;
- ``onboarded, borrowing``: gives them, too, what their neighbours have of users (``borrow=1``);
- ``same weights, all made anew``: encodes what the whole pipeline makes of all items, with the same weights;
- ``trained on without them``: trains for a few epochs more on the items it knows, and takes them in;
- ``trained on with them``: trains for as many epochs on the item graph of all items, as the next retraining would.

``from the start`` is a model that was trained with these items in the item graph. ``from the start, borrowing`` is that
model with ``borrow=1``. ``new_share`` is the share of new items among the best 20 of all. Where it is larger than their
share of the catalogue, they come at the expense of others.

With --items, a generated catalogue of that size takes in --new items instead. The row says how long that takes and by
how much the embeddings of the others change.
"""

import argparse
import time
from copy import copy
from pathlib import Path

import torch
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.quality import catalogues
from benchmarks.speed.graphs import power_law, with_features
from lirdrec_pyg import Embeddings, LIRDRec, encode_new_items, evaluate, fit, item_layers, onboard_items
from lirdrec_pyg.nn import BPR, SampledSoftmax
from lirdrec_pyg.ranking import top_k
from lirdrec_pyg.transforms import DCT, ColdItemSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, modalities

ROWS = rows.RESULTS / 'quality' / 'onboard.csv'
OBJECTIVES = {'bpr': BPR, 'softmax': SampledSoftmax}
POWERS = {'bpr': 1.0, 'softmax': 0.0}  # of the length of an embedding
WEIGHTS = {'image': 0.1, 'text': 0.9}


def cold_last(data: HeteroData, seed: int) -> tuple[tuple[HeteroData, ...], int]:
    r"""Returns the splits of a cold split, items renumbered so that the cold ones are last, and how many are warm."""
    splits = ColdItemSplit(0.2, seed=seed)(data)
    order = splits[0][ITEM].cold.long().argsort(stable=True)
    rank = order.argsort()
    out = []
    for split in splits:
        split = copy(split)
        for key in ('edge_index', 'edge_label_index'):
            user, item = split[INTERACTS][key]
            split[INTERACTS][key] = torch.stack([user, rank[item]])
        for name in modalities(split):
            split[ITEM][f'x_{name}'] = split[ITEM][f'x_{name}'][order]
        split[ITEM].cold = split[ITEM].cold[order]
        out.append(split)
    return tuple(out), int((~splits[0][ITEM].cold).sum())


def first_items(data: HeteroData, count: int) -> HeteroData:
    r"""Returns a training split with the first items alone."""
    data = copy(data)
    for name in modalities(data):
        data[ITEM][f'x_{name}'] = data[ITEM][f'x_{name}'][:count]
    del data[ITEM].cold
    data[ITEM].num_nodes = count
    return data


def run(dataset: str, seed: int, loss: str, epochs: int, more: int, root: Path) -> list[rows.Row]:
    r"""Returns a row for each method."""
    data = catalogues.load(dataset, root)
    bare = HeteroData()
    bare[USER].num_nodes, bare[ITEM].num_nodes = data[USER].num_nodes, data[ITEM].num_nodes
    bare[INTERACTS].edge_index = data[INTERACTS].edge_index
    for name in modalities(data):
        bare[ITEM][f'x_{name}'] = data[ITEM][f'x_{name}']
    (train, val, test), warm = cold_last(bare, seed)
    weights = WEIGHTS if set(modalities(data)) == set(WEIGHTS) else None
    content = ItemKNNGraph(k=10, weights=weights)

    def prepared(train: HeteroData) -> HeteroData:
        return InteractionGraph()(content(DCT()(train)))

    def trained(train: HeteroData, epochs: int, start: LIRDRec | None = None) -> LIRDRec:
        model = LIRDRec.from_data(train, seed=seed, objective=OBJECTIVES[loss]())
        model.set_power(POWERS[loss])
        if start is not None:
            model.load_state_dict(start.state_dict())
        fit(model, train, epochs=epochs, batch_size=2048, lr=1e-3, seed=seed, progress=False)
        return model

    whole, part = prepared(train), prepared(first_items(train, warm))
    features = {name: train[ITEM][f'x_{name}'][warm:] for name in modalities(train)}
    clock = time.perf_counter()
    onboarded, new = onboard_items(part, features)
    seconds = time.perf_counter() - clock
    first = trained(part, epochs)
    start = trained(whole, epochs)
    methods = {
        'from the start': (start, whole, 0.0),
        'from the start, borrowing': (start, whole, 1.0),
        'onboarded': (first, onboarded, 0.0),
        'onboarded, borrowing': (first, onboarded, 1.0),
        'same weights, all made anew': (first, whole, 0.0),
        'trained on without them': (trained(part, more, first), onboarded, 0.0),
        'trained on with them': (trained(whole, more, first), whole, 0.0),
    }
    with torch.no_grad():
        before = first(part).item
    out = []
    for method, (model, graph, borrow) in methods.items():
        with torch.no_grad():
            user, item = model(graph)
            item[new] = encode_new_items(model, graph, new, borrow=borrow, scale=1)
        row: rows.Row = {'dataset': dataset, 'loss': loss, 'method': method, 'seed': seed, 'new': len(new)}
        for prefix, candidates in [('cold', train[ITEM].cold), ('all', None)]:
            for metric, value in evaluate(Embeddings(user, item), test, k=20, candidates=candidates).items():
                row[f'{prefix}_{metric}'] = round(value, 6)
        metrics = evaluate(Embeddings(user, item), val, k=20, metrics=['recall'], candidates=train[ITEM].cold)
        row['val_cold_recall@20'] = round(metrics['recall@20'], 6)
        best = top_k(
            Embeddings(user, item), test[INTERACTS].edge_label_index[0].unique(), 20, test[INTERACTS].edge_index
        )
        row['new_share'] = round(float(torch.cat([items for _, items in best]).ge(warm).double().mean()), 4)
        change = float((item[:warm] - before).abs().max()) if model is first else float('nan')
        row |= {'seconds': round(seconds if method == 'onboarded' else 0.0, 4), 'largest_change': change}
        out.append(row | {'items': warm, 'epochs': epochs, 'more': more} | rows.environment())
    return out


def run_large(num_items: int, num_new: int, width: int = 384) -> rows.Row:
    r"""Returns the row of a generated catalogue that takes in new items."""
    data = HeteroData()
    data[USER].num_nodes, data[ITEM].num_nodes = num_items, num_items
    data[INTERACTS].edge_index = power_law(num_items, num_items, 10 * num_items)
    data = DCT()(with_features(data, {'text': width}))
    data = InteractionGraph()(ItemKNNGraph(k=10, index='IVF1024,Flat', index_params='nprobe=4')(data))
    model = LIRDRec.from_data(data, seed=0).eval()
    with torch.no_grad():
        before = model(data)
    layers = item_layers(model, data)
    generator = torch.Generator().manual_seed(1)
    features = {'text': data[ITEM].x_text[:num_new] + 0.1 * torch.randn(num_new, width, generator=generator)}
    clock = time.perf_counter()
    data, new = onboard_items(data, features)
    found = encode_new_items(model, data, new, layers, borrow=0, scale=1)
    seconds = time.perf_counter() - clock
    with torch.no_grad():
        after = model(data)
    torch.testing.assert_close(found, after.item[new], rtol=1e-4, atol=1e-5)
    kept = Embeddings(after.user, after.item[: len(before.item)])
    change = max(float((a - b).abs().max()) for a, b in zip(before, kept, strict=True))
    row: rows.Row = {'dataset': 'generated', 'loss': 'bpr', 'method': 'onboarded', 'seed': 0, 'new': num_new}
    row |= {f'{prefix}_{metric}@20': float('nan') for prefix in ('cold', 'all') for metric in ('recall', 'ndcg')}
    row |= {'val_cold_recall@20': float('nan'), 'new_share': float('nan')}
    row |= {'seconds': round(seconds, 3), 'largest_change': change, 'items': num_items, 'epochs': 0, 'more': 0}
    return row | rows.environment()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--dataset', default='scientific', help='one of catalogues.py (default: %(default)s)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4], help='one run for each')
    parser.add_argument('--loss', default='softmax', help='bpr or softmax (default: %(default)s)')
    parser.add_argument('--epochs', type=int, default=20, help='of each model (default: %(default)s)')
    parser.add_argument('--more', type=int, default=5, help='epochs of training on (default: %(default)s)')
    parser.add_argument('--items', type=int, help='onboard into a generated catalogue of that size instead')
    parser.add_argument('--new', type=int, default=1000, help='how many items (default: %(default)s)')
    parser.add_argument('--rows', type=Path, default=ROWS, help='the CSV file to append to')
    args = parser.parse_args()
    shown = ['dataset', 'method', 'seed', 'new', 'cold_recall@20', 'all_recall@20', 'seconds', 'largest_change']
    for seed in [0] if args.items else args.seeds:
        one = {'dataset': args.dataset, 'loss': args.loss, 'seed': seed, 'epochs': args.epochs, 'more': args.more}
        if args.items:
            one = {'dataset': 'generated', 'seed': seed, 'items': args.items, 'new': args.new}
        if rows.has(args.rows, **one):
            continue
        if args.items:
            out = [run_large(args.items, args.new)]
        else:
            out = run(args.dataset, seed, args.loss, args.epochs, args.more, args.root)
        rows.append(args.rows, *out)
        print(rows.table(out, shown), flush=True)


if __name__ == '__main__':
    main()
