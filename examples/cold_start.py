r"""How are items served that training never saw? One item in five is left out with all its interactions: half of these
items choose the epoch, the others test. Items are ranked among the cold ones alone, and among all.

LIRDRec (by BPR, or by the softmax over cosines), content kNN and popularity take a cold item as it comes. In VBPR and
FREEDOM it also has an ID row that was not trained (in FREEDOM only by way of its neighbours), and the variants are what
to do with that row: leave it (untrained), set it to zero, to the mean of the trained ones, or (projected, FREEDOM) to
the projection of its features. With zero, VBPR scores a cold item by its content alone, and FREEDOM by its neighbours
in the item graph. That graph is that of the nearest items in content (knn), left out (none), or shuffled: the
neighbours of each item are given to another one, the wrong graph that the paper warns of.

    python examples/cold_start.py --quick
    python examples/cold_start.py --root data --dataset scientific --rows cold.csv --plot cold.png
    python examples/cold_start.py --root data --dataset movielens --model LIRDRec ContentKNN --seed 0 1 --rows cold.csv
    python examples/cold_start.py --root folders --dataset hm_week --rows cold.csv
    python examples/cold_start.py --rows cold.csv --plot-only --plot cold.png

A dataset that is none of scientific, movielens and fake is a folder of the MMRec format in the root.
"""

import argparse
import csv
import fcntl
import json
import statistics
import time
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import HeteroData

import lirdrec_pyg
from lirdrec_pyg import Callback, Embeddings, LIRDRec, Popularity, Recommender, Trainer, evaluate, fit
from lirdrec_pyg.datasets import FakeMultimodal, MMRecDataset, MovieLens100K
from lirdrec_pyg.nn import FREEDOM, VBPR, ContentKNN, SampledSoftmax
from lirdrec_pyg.transforms import DCT, ColdItemSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import ITEM, SIMILAR_TO, modalities

MODELS = {
    'LIRDRec': LIRDRec,
    'LIRDRec-softmax': LIRDRec,
    'ContentKNN': ContentKNN,
    'VBPR': VBPR,
    'FREEDOM': FREEDOM,
    'Popularity': Popularity,
}
VARIANTS = [  # model, item graph, what an untrained row becomes
    ('LIRDRec', 'knn', ''),
    ('LIRDRec', 'none', ''),
    ('LIRDRec', 'shuffled', ''),
    ('LIRDRec-softmax', 'knn', ''),
    ('LIRDRec-softmax', 'none', ''),
    ('LIRDRec-softmax', 'shuffled', ''),
    ('ContentKNN', '', ''),
    ('VBPR', '', 'zero'),
    ('VBPR', '', 'mean'),
    ('VBPR', '', 'untrained'),
    ('FREEDOM', 'knn', 'zero'),
    ('FREEDOM', 'knn', 'mean'),
    ('FREEDOM', 'knn', 'untrained'),
    ('FREEDOM', 'knn', 'projected'),
    ('FREEDOM', 'none', 'projected'),
    ('FREEDOM', 'none', 'untrained'),
    ('FREEDOM', 'shuffled', 'zero'),
    ('Popularity', '', ''),
]
METRICS = ['cold_recall@20', 'cold_ndcg@20', 'all_recall@20', 'all_ndcg@20']
KEYS = ['dataset', 'model', 'item_graph', 'id_rows', 'seed', 'settings']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='holds the folders of the datasets')
    parser.add_argument('--cache-dir', help='where to keep the processed data (default: inside the dataset folder)')
    parser.add_argument('--dataset', nargs='+', default=['scientific'], help='(default: scientific)')
    parser.add_argument('--model', nargs='+', default=list(MODELS), choices=list(MODELS), help='(default: all)')
    parser.add_argument('--seed', type=int, nargs='+', default=[0, 1, 2, 3, 4], help='of split and weights (0 to 4)')
    parser.add_argument('--ratio', type=float, default=0.2, help='the share of items left out (default: %(default)s)')
    parser.add_argument('--lr', type=float, default=1e-3, help='learning rate (default: %(default)s)')
    parser.add_argument('--epochs', type=int, default=300, help='epochs at most (default: %(default)s)')
    parser.add_argument('--patience', type=int, default=20, help='epochs without gain (default: %(default)s)')
    parser.add_argument('--hidden-channels', type=int, default=64, help='(default: %(default)s)')
    parser.add_argument('--rows', type=Path, help='a CSV file with a row for each variant and seed; none is run twice')
    parser.add_argument('--plot', type=Path, help='FILE.png: draw the rows of --rows')
    parser.add_argument('--plot-only', action='store_true', help='run nothing, print and draw what --rows has')
    parser.add_argument('--quick', action='store_true', help='three epochs on a small generated dataset')
    args = parser.parse_args()
    if args.quick:
        args.dataset, args.seed, args.epochs, args.hidden_channels = ['fake'], [0, 1], 3, 8
    if (args.plot or args.plot_only) and not args.rows:
        parser.error('--plot and --plot-only read --rows: name the file')

    rows = read(args.rows) if args.rows else []
    if not args.plot_only:
        settings = {name: getattr(args, name) for name in ('ratio', 'lr', 'epochs', 'patience', 'hidden_channels')}
        for dataset in args.dataset:
            data = load(dataset, args.root, args.cache_dir)
            for seed in args.seed:
                for model, graph, ids in VARIANTS:
                    if model not in args.model:
                        continue
                    key = dict(zip(KEYS, [dataset, model, graph, ids, str(seed), json.dumps(settings)], strict=True))
                    if any(all(row[name] == value for name, value in key.items()) for row in rows):
                        continue
                    row = key | run(data, model, graph, ids, seed, settings)
                    rows.append({name: str(value) for name, value in row.items()})
                    if args.rows:
                        append(args.rows, row)
                    shown = '  '.join(f'{name} {row[name]:.4f}' for name in METRICS)
                    print(f'{label(row)}, seed {seed}: {shown}', flush=True)
    table(rows)
    if args.plot:
        plot(rows, args.plot)


def load(dataset: str, root: Path, cache_dir: str | None) -> HeteroData:
    if dataset == 'scientific':
        data = MMRecDataset(str(root / 'amazon_scientific_2018'), 'scientific', cache_dir=cache_dir)[0]
    elif dataset == 'movielens':
        data = MovieLens100K(str(root / 'ml-100k'))[0]
    elif dataset == 'fake':
        data = FakeMultimodal(num_users=200, num_items=240, seed=0)[0]
    else:
        data = MMRecDataset(str(root), dataset, cache_dir=cache_dir)[0]
    return DCT()(data)


def run(data: HeteroData, name: str, graph: str, ids: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    r"""Trains one variant, keeps the epoch that is best on the validation items, and returns its test metrics."""
    train, val, test = ColdItemSplit(settings['ratio'], seed=seed)(data)
    weights = {'image': 0.1, 'text': 0.9} if set(modalities(data)) == {'image', 'text'} else None
    if graph in ('knn', 'shuffled'):
        train = ItemKNNGraph(k=10, weights=weights)(train)
    if graph == 'shuffled':
        train = shuffled(train, seed)
    train = InteractionGraph()(train)

    kwargs: dict[str, Any] = {}
    if name not in ('ContentKNN', 'Popularity'):
        kwargs['hidden_channels'] = settings['hidden_channels']
    if name == 'LIRDRec-softmax':
        kwargs['objective'] = SampledSoftmax()
    if name in ('LIRDRec', 'LIRDRec-softmax', 'FREEDOM'):
        kwargs['num_item_layers'] = int(graph != 'none')
    if name == 'ContentKNN':
        kwargs['weights'] = weights
    model = MODELS[name].from_data(train, seed=seed, **kwargs)
    if name == 'LIRDRec-softmax':
        model.set_power(0)  # scored by cosines
    clock = time.perf_counter()
    best = BestOnColdItems(train, val, ids, settings['patience'])
    rate = {'batch_size': 2048, 'lr': settings['lr']}
    fit(model, train, epochs=settings['epochs'], seed=seed, callbacks=[best], progress=False, **rate)
    if best.epoch:
        model.load_state_dict(best.state)
    embeddings = encode(model.eval(), train, ids)
    if name == 'Popularity':
        embeddings = untied(embeddings, seed)

    row: dict[str, Any] = {'cold_items': int(train[ITEM].cold.sum()), 'best_epoch': best.epoch}
    row |= {'seconds': round(time.perf_counter() - clock, 1), 'val_cold_recall@20': best.value if best.epoch else ''}
    for prefix, candidates in [('cold', train[ITEM].cold), ('all', None)]:
        found = evaluate(embeddings, test, k=20, candidates=candidates)
        row |= {f'{prefix}_{metric}': round(value, 6) for metric, value in found.items()}
    versions = {'lirdrec_pyg': lirdrec_pyg.__version__, 'torch': torch.__version__}
    return row | versions | {'threads': torch.get_num_threads()}


def shuffled(data: HeteroData, seed: int) -> HeteroData:
    r"""Gives the neighbours of each item in the item graph to another one."""
    data = copy(data)
    perm = torch.randperm(data[ITEM].num_nodes, generator=torch.Generator().manual_seed(seed))
    neighbour, target = data[SIMILAR_TO].edge_index
    data[SIMILAR_TO].edge_index = torch.stack([neighbour, perm[target]])
    return data


def untied(embeddings: Embeddings, seed: int) -> Embeddings:
    r"""Puts items of equal score in a random order of each user's own: no cold item has any popularity."""
    generator = torch.Generator().manual_seed(seed)
    noise = [1e-3 * torch.randn(len(z), 32, generator=generator) for z in embeddings]
    return Embeddings(*(torch.cat(pair, dim=1) for pair in zip(embeddings, noise, strict=True)))


@torch.no_grad()
def encode(model: Recommender, train: HeteroData, ids: str) -> Embeddings:
    r"""Returns the embeddings, for which the ID rows of cold items are what ``ids`` says."""
    if ids in ('', 'untrained'):
        return model(train)
    cold, table = train[ITEM].cold, model.get_parameter('item')
    trained = table.detach().clone()
    if ids == 'zero':
        table[cold] = 0
    elif ids == 'mean':
        table[cold] = trained[~cold].mean(dim=0)
    else:
        projected = [model.get_submodule(f'projections.{m}')(train[ITEM][f'x_{m}'][cold]) for m in modalities(train)]
        table[cold] = torch.stack(projected).mean(dim=0)
    out = model(train)
    table.copy_(trained)
    return out


class BestOnColdItems(Callback):
    r"""Keeps the weights with the best recall of the validation items among all cold ones, and ends training when it
    no longer grows. Any positive of the validation split is a cold item, and among all items models with IDs find next
    to none of them."""

    def __init__(self, train: HeteroData, val: HeteroData, ids: str, patience: int) -> None:
        self.train, self.val, self.ids, self.patience = train, val, ids, patience
        self.epoch, self.value = 0, float('-inf')
        self.state: dict[str, torch.Tensor] = {}

    def on_epoch(self, trainer: Trainer, row: dict[str, float]) -> None:
        embeddings = encode(trainer.model.eval(), self.train, self.ids)
        cold = self.train[ITEM].cold
        value = evaluate(embeddings, self.val, k=20, metrics=['recall'], candidates=cold)['recall@20']
        if value > self.value:
            self.epoch, self.value = trainer.epoch, value
            self.state = {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}
        elif trainer.epoch - self.epoch > self.patience:
            trainer.stop()


def read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, Any]) -> None:
    r"""Appends a row, safely beside other processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a+', newline='') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        header = next(csv.reader(file), None)
        if header not in (None, list(row)):
            raise ValueError(f"'{path}' needs to have the columns {list(row)} (got {header})")
        writer = csv.DictWriter(file, fieldnames=list(row))
        if header is None:
            writer.writeheader()
        writer.writerow(row)


def label(row: dict[str, Any]) -> str:
    graph = {'': '', 'none': 'no item graph'}.get(row['item_graph'], f'{row["item_graph"]} graph')
    ids = f'{row["id_rows"]} IDs' if row['id_rows'] else ''
    return ', '.join(filter(None, [row['model'], graph, ids]))


def grouped(rows: list[dict[str, str]]) -> dict[str, dict[str, list[dict[str, str]]]]:
    r"""Returns the rows by dataset and variant."""
    out: dict[str, dict[str, list[dict[str, str]]]] = {}
    for row in rows:
        out.setdefault(row['dataset'], {}).setdefault(label(row), []).append(row)
    return out


def chance(rows: list[dict[str, str]]) -> float:
    r"""Returns the recall@20 of a random order of the cold items."""
    return statistics.mean(min(1.0, 20 / int(row['cold_items'])) for row in rows)


def table(rows: list[dict[str, str]]) -> None:
    r"""Prints mean and standard deviation over the seeds."""
    for dataset, variants in grouped(rows).items():
        print(f'\n{dataset}, {len({row["seed"] for group in variants.values() for row in group})} seeds')
        print(f'{"":<38}' + ''.join(f'{name:>18}' for name in METRICS))
        for name, group in variants.items():
            cells = []
            for metric in METRICS:
                values = [float(row[metric]) for row in group]
                spread = f' ± {statistics.stdev(values):.4f}' if len(values) > 1 else ''
                cells.append(f'{statistics.mean(values):.4f}{spread}')
            print(f'{name:<38}' + ''.join(f'{cell:>18}' for cell in cells))
        print(f'{"chance":<38}{chance([row for group in variants.values() for row in group]):>18.4f}')


def plot(rows: list[dict[str, str]], path: Path) -> None:
    r"""Draws a bar for each variant: recall among cold items and among all."""
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use('Agg')
    datasets = grouped(rows)
    height = max(len(variants) for variants in datasets.values())
    figure, axes = plt.subplots(len(datasets), 2, figsize=(12, (1.2 + 0.32 * height) * len(datasets)), squeeze=False)
    for line, (dataset, variants) in zip(axes, datasets.items(), strict=True):
        colors = [f'C{list(MODELS).index(name.partition(",")[0])}' for name in variants]
        panels = [('cold_recall@20', 'among cold items'), ('all_recall@20', 'among all items')]
        for axis, (metric, title) in zip(line, panels, strict=True):
            values = [[float(row[metric]) for row in group] for group in variants.values()]
            errors = [statistics.stdev(group) if len(group) > 1 else 0.0 for group in values]
            axis.barh(range(len(values)), list(map(statistics.mean, values)), xerr=errors, color=colors, capsize=2)
            axis.set(title=f'{dataset}: cold items {title}', xlabel='test recall@20')
            axis.set_yticks(range(len(values)), list(variants) if axis is line[0] else [''] * len(values))
            axis.invert_yaxis()
            axis.grid(alpha=0.3, axis='x')
        line[0].axvline(chance([row for group in variants.values() for row in group]), color='black', linestyle=':')
        line[0].text(0.99, 0.02, 'dotted: chance', transform=line[0].transAxes, ha='right', fontsize=8)
    seeds = len({row['seed'] for row in rows})
    figure.suptitle(
        'One item in five never seen in training' + (f'; mean ± sd over {seeds} seeds' if seeds > 1 else '')
    )
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.stem}.tmp{path.suffix}')
    figure.savefig(temporary, dpi=120)
    temporary.replace(path)
    print(f'wrote {path}')


if __name__ == '__main__':
    main()
