r"""From features on disk to a trained and tested model, at the size of Amazon Electronics: compression, item graph,
training, test, a row each, on a generated catalogue with planted tastes.

    python -m benchmarks.speed.electronics
    python -m benchmarks.speed.electronics --scale 0.02 --folder /tmp/small
    python -m benchmarks.speed.electronics --curve
    python -m benchmarks.speed.electronics --quick

Each stage is a process of its own, so that its peak is its own. What is done stays in --folder, and is not done again
by a call with the same arguments: an interrupted run goes on, training from its last epoch. ``--stages`` runs some
alone, ``--again`` repeats them. Generating is no part of the total.

``straightforward`` trains that implementation for --straightforward-steps steps and ranks for some users, and
extrapolates to the epochs that ours took; its item graph is not counted.

With ``--curve``, sizes go from 10⁴ to 3 · 10⁶ training interactions. (10⁷ of them have 1.5 million users, whose vectors
and activations take more than 24 GiB on the whole graph.) Of training, --steps steps are then measured, and of ranking,
some users. ``seconds`` is extrapolated from these to --epochs epochs, each with a validation. Compression and the item
graph are run as a whole.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.speed.straightforward import StraightforwardTrainer
from lirdrec_pyg import LIRDRec, Recommender, SoftmaxLIRDRec, evaluate, fit, load_model
from lirdrec_pyg.nn import SampledSoftmax
from lirdrec_pyg.training import Callback, MappedFeatures, Trainer
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.transforms.item_knn_graph import exact_knn
from lirdrec_pyg.typing import INTERACTS, ITEM, SIMILAR_TO, USER

RESULTS = rows.RESULTS / 'speed' / 'electronics.csv'
SIZES = {'users': 192_403, 'items': 63_001, 'train': 1_254_441, 'val': 211_296, 'test': 223_451}
MODALITIES = ('image', 'text')
WEIGHTS = {'image': 0.1, 'text': 0.9}  # of the item graph
CURVE = [10_000, 100_000, 1_000_000, 3_000_000]
STAGES = ['generate', 'compress', 'graph', 'train', 'test', 'straightforward']
COUNTED = STAGES[1:5]
OWN = {  # the arguments of each
    'generate': ['scale', 'widths'],
    'compress': ['components'],
    'graph': ['exact_items', 'small_graph', 'graph_recall'],
    'train': ['model', 'negatives', 'val_users', 'epochs', 'steps', 'batch_size'],
    'test': [],
    'straightforward': ['straightforward_steps'],
}
RANK, BLOCK = 256, 8192
SHOWN = ['interactions', 'stage', 'seconds', 'minutes', 'peak_gib', 'told']
Told = dict[str, Any]


def sizes(scale: float) -> dict[str, int]:
    r"""Returns the numbers of users, items and interactions."""
    return {name: max(round(value * scale), 60) for name, value in SIZES.items()}


def files(args: argparse.Namespace, folder: str = '') -> dict[str, Path]:
    r"""Returns where the features are: the generated ones, or in the folder of the compressed ones where these are."""
    out = {name: args.folder / f'{name}_feat.npy' for name in MODALITIES}
    small = {name: args.folder / folder / f'{name}_feat.npy' for name in MODALITIES}
    return {name: small[name] if small[name].is_file() else path for name, path in out.items()}


# Data ----------------------------------------------------------------------------------------------------------------


def planted(size: dict[str, int], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns distinct pairs (user, item), the split of each, and the cluster of each item.

    An item belongs to one of the clusters, of about 40. A user likes four of them, and takes four items in five from
    these. Both popularity and activity are long-tailed. Each user has five interactions at least, of which one is in
    training.
    """
    num_users, num_items, total = size['users'], size['items'], size['train'] + size['val'] + size['test']
    cluster = (torch.rand(num_items, generator=generator) ** 1.5 * max(num_items // 40, 4)).long().sort().values
    popular = torch.rand(num_items, generator=generator).clamp_min(1e-4) ** -0.7
    until = popular.double().cumsum(0)
    first = torch.searchsorted(cluster, torch.arange(int(cluster.max()) + 2))
    edge = torch.cat([until.new_zeros(1), until])[first]  # of the clusters

    tail = torch.rand(num_users, generator=generator).clamp_min(1e-3) ** -0.6 - 1
    extra = max(total - 5 * num_users, 0) * 1.1
    degree = 5 + (tail * extra / tail.sum()).round().long()
    user = torch.arange(num_users).repeat_interleave(2 * degree + 2)
    likes = torch.randint(int(cluster.max()) + 1, (num_users, 4), generator=generator)
    at = likes[user, torch.randint(4, user.shape, generator=generator)]
    draw = torch.rand(user.shape, generator=generator, dtype=torch.double)
    item = edge[at] + draw * (edge[at + 1] - edge[at])
    anywhere = torch.rand(user.shape, generator=generator) < 0.2
    item[anywhere] = draw[anywhere] * until[-1]
    item = torch.searchsorted(until, item).clamp_max(num_items - 1)

    key = (user * num_items + item).unique()
    key = key[torch.randperm(len(key), generator=generator)]
    key = key[(key // num_items).argsort(stable=True)]
    user = key // num_items
    count = user.bincount(minlength=num_users)
    rank = torch.arange(len(key)) - (count.cumsum(0) - count)[user]
    key, rank = key[rank < degree[user]], rank[rank < degree[user]]
    spare = (rank >= 5).nonzero().view(-1)
    gone = spare[torch.randperm(len(spare), generator=generator)[: max(len(key) - total, 0)]]
    kept = torch.ones(len(key), dtype=torch.bool)
    kept[gone] = False
    key, rank = key[kept], rank[kept]

    split = torch.zeros(len(key), dtype=torch.long)
    free = (rank > 0).nonzero().view(-1)
    free = free[torch.randperm(len(free), generator=generator)]
    split[free[: size['val']]] = 1
    split[free[size['val'] : size['val'] + size['test']]] = 2
    return torch.stack([key // num_items, key % num_items]), split, cluster


def generate(args: argparse.Namespace) -> Told:
    r"""Writes the interactions, and features that show noisily of which cluster an item is. Their spectrum decays as a
    power of the rank, over white noise."""
    size, generator = sizes(args.scale), torch.Generator().manual_seed(0)
    edge_index, split, cluster = planted(size, generator)
    place = torch.randperm(size['items'], generator=generator)  # so that ids say nothing
    edge_index[1] = place[edge_index[1]]
    save(args.folder / 'interactions.pt', (edge_index, split, [size['users'], size['items']]))
    cluster = cluster[place.argsort()]
    decay = torch.arange(1, RANK + 1) ** -0.35
    centre = torch.randn(int(cluster.max()) + 1, RANK, generator=generator)
    for name, width in zip(MODALITIES, args.widths, strict=True):
        mixing = torch.randn(RANK, width, generator=generator) / RANK**0.5
        shift = torch.randn(width, generator=generator)
        out = np.lib.format.open_memmap(
            args.folder / f'{name}_feat.npy', mode='w+', dtype=np.float32, shape=(size['items'], width)
        )
        for start in range(0, size['items'], BLOCK):
            rows_ = cluster[start : start + BLOCK]
            latent = (centre[rows_] + torch.randn(len(rows_), RANK, generator=generator)) * decay
            noise = torch.randn(len(rows_), width, generator=generator)
            out[start : start + len(rows_)] = (latent @ mixing + 0.05 * noise + shift).numpy()
        out.flush()
        del out
    degree = edge_index[0].bincount()
    told = {name: int((split == number).sum()) for number, name in enumerate(('train', 'val', 'test'))}
    return told | {'median_degree': int(degree.median()), 'largest_degree': int(degree.max())}


def save(path: Path, value: Any) -> None:
    r"""Writes a value, whole or not at all."""
    temporary = path.with_suffix('.tmp')
    torch.save(value, temporary)
    temporary.replace(path)


def load(args: argparse.Namespace, folder: str | None) -> HeteroData:
    r"""Returns the data, with the features of a folder, and the item graph where there is one."""
    data = HeteroData()
    edge_index, split, (num_users, num_items) = torch.load(args.folder / 'interactions.pt')
    data[USER].num_nodes, data[ITEM].num_nodes = num_users, num_items
    data[INTERACTS].edge_index, data[INTERACTS].split = edge_index, split
    for name, path in files(args, folder).items() if folder is not None else ():
        data[ITEM][f'x_{name}'] = torch.from_numpy(np.load(path))
    if (args.folder / 'graph.pt').is_file():
        data[SIMILAR_TO].edge_index, data[SIMILAR_TO].edge_weight = torch.load(args.folder / 'graph.pt')
    return data


def splits(args: argparse.Namespace, folder: str = 'small') -> tuple[HeteroData, HeteroData, HeteroData]:
    r"""Returns the splits, ready to train on."""
    train, val, test = FixedSplit()(DCT()(load(args, folder)))
    return InteractionGraph()(train), val, test


def some_users(split: HeteroData, count: int) -> HeteroData:
    r"""Returns a split with the positives of some of its users, always the same."""
    label = split[INTERACTS].edge_label_index
    held = label[0].unique()
    drawn = held[torch.randperm(len(held), generator=torch.Generator().manual_seed(0))[:count]]
    split = copy(split)
    split[INTERACTS].edge_label_index = label[:, torch.isin(label[0], drawn)]
    return split


# Stages --------------------------------------------------------------------------------------------------------------


def compress(args: argparse.Namespace) -> Told:
    r"""Compresses the features, from file to file."""
    features = MappedFeatures(files(args), sizes(args.scale)['items'])
    if args.components == 'none':
        return {'widths': features.in_channels}
    count: Any = args.components if args.components == 'auto' else json.loads(args.components)
    return {'widths': features.compress(args.folder / 'small', count).in_channels}


def graph(args: argparse.Namespace) -> Told:
    r"""Connects the items: exactly by the whole features, or for very many by the compressed ones and an index."""
    exact = sizes(args.scale)['items'] <= args.exact_items
    index = None if exact else f'IVF{2 ** round(np.log2(sizes(args.scale)["items"]) / 2 + 1)},Flat'
    data = load(args, '' if exact and not args.small_graph else 'small')
    found = ItemKNNGraph(k=10, weights=WEIGHTS, index=index, index_params=None if exact else 'nprobe=8')(data)
    save(args.folder / 'graph.pt', (found[SIMILAR_TO].edge_index, found[SIMILAR_TO].edge_weight))
    return {'how': 'exact' if exact else index, 'edges': found[SIMILAR_TO].edge_index.size(1)}


def graph_recall(args: argparse.Namespace, count: int = 500) -> Told:
    r"""Returns which share of the neighbours of some items by the whole features are also those by the compressed."""
    out: Told = {}
    for name, path in files(args).items():
        small = files(args, 'small')[name]
        if small != path:
            some = np.random.default_rng(0).permutation(sizes(args.scale)['items'])[:count]
            one, other = (exact_knn(np.load(file), 10, rows=some) for file in (path, small))
            hits = sum(len(np.intersect1d(a, b)) for a, b in zip(one, other, strict=True))
            out[f'{name}_recall'] = round(hits / one.size, 4)
    return out


def build(args: argparse.Namespace, train: HeteroData) -> Recommender:
    if args.model == 'LIRDRec':
        return LIRDRec.from_data(train, seed=0)
    return SoftmaxLIRDRec.from_data(train, seed=0, objective=SampledSoftmax(0.1, num_negatives=args.negatives))


class Steps(Callback):
    r"""Times steps, and ends the run after some of them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.clocks: list[float] = []

    def on_step(self, trainer: Trainer) -> None:
        self.clocks.append(time.perf_counter())
        if len(self.clocks) > self.count + 1:
            trainer.stop()

    @property
    def seconds(self) -> float:
        return statistics.median(b - a for a, b in itertools.pairwise(self.clocks))


class Tell(Callback):
    r"""Prints each epoch."""

    def on_epoch(self, trainer: Trainer, row: dict[str, float]) -> None:
        print('  ' + ', '.join(f'{name} {value:.4g}' for name, value in row.items()), flush=True)


def train(args: argparse.Namespace) -> Told:
    r"""Trains until the best validation epoch, or measures some steps."""
    start = time.perf_counter()
    split, val, _ = splits(args)
    prepared = time.perf_counter() - start
    model = build(args, split)
    precision: Any = 'fp32' if 'no bf16' in rows.cpu() else 'bf16'
    told: Told = {'model': args.model, 'precision': precision, 'val_users': args.val_users}
    if args.steps:
        return told | measured(args, model, split, val, precision, prepared)
    path = args.folder / 'run.pt'
    result = fit(
        model,
        split,
        some_users(val, args.val_users),
        epochs=args.epochs,
        batch_size=args.batch_size,
        precision=precision,
        checkpoint=path,
        resume=path.exists(),
        callbacks=[Tell()],
        progress=False,
    )
    spent = list(itertools.accumulate(row['seconds'] for row in result.log))
    told |= {'best_epoch': result.best_epoch, 'epochs': len(spent), 'to_best_s': round(spent[result.best_epoch - 1], 1)}
    told |= {
        'val': round(result.best_value, 5),
        'epoch_s': round(statistics.median(r['seconds'] for r in result.log), 2),
    }
    return told | {'seconds': prepared + spent[-1]}


def measured(
    args: argparse.Namespace, model: Recommender, split: HeteroData, val: HeteroData, precision: Any, prepared: float
) -> Told:
    r"""Extrapolates training with its validations from some steps and some users."""
    steps = Steps(args.steps)
    trainer = Trainer(model, split, batch_size=args.batch_size, precision=precision, callbacks=[steps])
    trainer.fit(1 + args.steps)  # an epoch may have fewer steps
    loader: Any = trainer.loader
    ranking = rank_seconds(model, split, val, args.val_users)
    epoch = steps.seconds * len(loader) + ranking
    told = {'steps': args.steps, 'step_s': round(steps.seconds, 4), 'steps_an_epoch': len(loader)}
    told |= {'validation_s': round(ranking, 2), 'epochs': args.epochs, 'epoch_s': round(epoch, 2)}
    save(args.folder / 'model.pt', model.state_dict())
    return told | {'seconds': prepared + args.epochs * epoch}


def rank_seconds(model: Recommender, train: HeteroData, split: HeteroData, users: int) -> float:
    r"""Returns the seconds in which some users are ranked for, or all where there are fewer."""
    clock = time.perf_counter()
    with torch.no_grad():
        evaluate(model(train), some_users(split, users), k=20, metrics=['recall'])
    return time.perf_counter() - clock


def test(args: argparse.Namespace) -> Told:
    r"""Tests the trained model: for all users of the test split, or of a curve for some, from which it extrapolates."""
    split, _, held = splits(args)
    if args.steps:
        model = build(args, split)
        model.load_state_dict(torch.load(args.folder / 'model.pt'))
        users = len(held[INTERACTS].edge_label_index[0].unique())
        share = min(args.val_users / users, 1)
        return {'users': users, 'seconds': rank_seconds(model.eval(), split, held, args.val_users) / share}
    model = load_model(args.folder / 'run.pt')
    with torch.no_grad():
        found = evaluate(model(split), held, k=[10, 20], metrics=['recall', 'ndcg'])
    return {name: round(value, 5) for name, value in found.items()}


def straightforward(args: argparse.Namespace) -> Told:
    r"""Extrapolates the straightforward implementation on the whole features from some of its steps."""
    split, val, _ = splits(args, folder='')
    model = LIRDRec.from_data(split, seed=0)
    trainer = StraightforwardTrainer(model, split, some_users(val, args.val_users), batch=2048)
    del model
    clock = time.perf_counter()
    batches = trainer.triplets()
    drawing = time.perf_counter() - clock
    seconds = rows.timed(lambda: trainer.epoch(1, batches[:1]), args.straightforward_steps)
    clock = time.perf_counter()
    trainer.validate()
    epoch = drawing + statistics.median(seconds) * len(batches) + time.perf_counter() - clock
    ours = rows_of(args, 'train')
    told = {'steps': args.straightforward_steps, 'step_s': round(statistics.median(seconds), 3)}
    told |= {'steps_an_epoch': len(batches), 'epoch_s': round(epoch, 1), 'epochs': ours['epochs']}
    return told | {'val_users': args.val_users, 'seconds': epoch * ours['epochs']}


RUN: dict[str, Callable[[argparse.Namespace], Told]] = {
    'generate': generate,
    'compress': compress,
    'graph': graph,
    'train': train,
    'test': test,
    'straightforward': straightforward,
}


# Running -------------------------------------------------------------------------------------------------------------


def settings(args: argparse.Namespace, stage: str) -> Told:
    r"""Returns the arguments that the result of a stage depends on: its own, and those of the stages before."""
    names = [name for before in STAGES[: STAGES.index(stage) + 1] for name in OWN[before]]
    return {name: getattr(args, name) for name in names}


def rows_of(args: argparse.Namespace, stage: str) -> Told:
    r"""Returns what is known of a finished stage."""
    path = args.folder / f'{stage}.json'
    if not path.is_file():
        raise FileNotFoundError(f"'{stage}' was not run yet in '{args.folder}'")
    return dict(json.loads(path.read_text()))


def run_stage(args: argparse.Namespace, stage: str) -> None:
    r"""Runs a stage in this process, and writes what it tells."""
    clock = time.perf_counter()
    told = RUN[stage](args)
    told = {'seconds': time.perf_counter() - clock} | told
    told |= {'stage': stage, 'settings': settings(args, stage), 'peak_gib': round(rows.peak_rss() / 1024, 2)}
    if stage == 'graph' and args.graph_recall:
        told |= graph_recall(args)
    told |= rows.environment()
    rows.replace(args.folder / f'{stage}.json', json.dumps(told).encode())


def run(args: argparse.Namespace) -> list[rows.Row]:
    r"""Runs the stages that are not done yet, and returns the rows of the new ones."""
    args.folder.mkdir(parents=True, exist_ok=True)
    out: list[rows.Row] = []
    for stage in args.stages:
        path = args.folder / f'{stage}.json'
        if path.is_file() and rows_of(args, stage)['settings'] == settings(args, stage) and not args.again:
            print(f'{stage}: done before', flush=True)
            continue
        if stage == 'train' and (args.again or path.is_file()):
            (args.folder / 'run.pt').unlink(missing_ok=True)  # of another run
        print(f'{stage} …', flush=True)
        if args.quick:
            run_stage(args, stage)
        else:
            task = json.dumps(
                {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items()} | {'task': stage}
            )
            subprocess.run([sys.executable, '-m', 'benchmarks.speed.electronics', '--task', task], check=True)
        out.append(row(args, rows_of(args, stage)))
        print(rows.table(out[-1:], SHOWN), flush=True)
        if args.rows or not args.quick:
            rows.append(args.rows or RESULTS, out[-1])
    total = [rows_of(args, stage) for stage in COUNTED if (args.folder / f'{stage}.json').is_file()]
    seconds, peak = sum(told['seconds'] for told in total), max((told['peak_gib'] for told in total), default=0)
    print(f'{", ".join(told["stage"] for told in total)}: {seconds / 60:.1f} min, peak {peak:.2f} GiB', flush=True)
    return out


def row(args: argparse.Namespace, told: Told) -> rows.Row:
    r"""Returns the row of a stage. What it has to tell beside time and memory stays together in one cell."""
    own = ('stage', 'seconds', 'peak_gib', 'settings', *rows.environment())
    out = {'interactions': sizes(args.scale)['train'], 'users': sizes(args.scale)['users']}
    out |= {'items': sizes(args.scale)['items'], 'stage': told['stage'], 'seconds': round(told['seconds'], 2)}
    out |= {'minutes': round(told['seconds'] / 60, 2), 'peak_gib': told['peak_gib'], 'measured': bool(args.steps)}
    out |= {'told': json.dumps({name: value for name, value in told.items() if name not in own})}
    return (
        out | {name: told[name] for name in rows.environment()} | {'seed': 0, 'arguments': json.dumps(told['settings'])}
    )


def curve(args: argparse.Namespace) -> Iterator[argparse.Namespace]:
    r"""Yields the arguments of each size."""
    for size in CURVE if not args.quick else CURVE[:1]:
        stages = [stage for stage in args.stages if stage != 'straightforward']
        own = {'scale': size / SIZES['train'], 'folder': args.folder / str(size), 'stages': stages}
        yield argparse.Namespace(**vars(args) | own | {'steps': args.steps or 5, 'epochs': min(args.epochs, 20)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--scale', type=float, default=1.0, help='of all numbers (default: %(default)s)')
    parser.add_argument(
        '--widths', type=int, nargs=2, default=[4096, 384], help='of image and text (default: %(default)s)'
    )
    parser.add_argument('--folder', type=Path, default=Path('data/electronics'), help='default: %(default)s')
    parser.add_argument('--stages', nargs='+', default=STAGES, choices=STAGES, help='default: all')
    parser.add_argument('--again', action='store_true', help='run stages that are done, too')
    parser.add_argument('--model', default='SoftmaxLIRDRec', choices=['SoftmaxLIRDRec', 'LIRDRec'])
    parser.add_argument('--negatives', type=int, default=4096, help='of the softmax (default: %(default)s)')
    parser.add_argument('--components', default='auto', help="of `PCA`, or 'none' (default: %(default)s)")
    parser.add_argument('--exact-items', type=int, default=100_000, help='up to which the item graph is exact')
    parser.add_argument('--small-graph', action='store_true', help='make the item graph of the compressed features')
    parser.add_argument('--graph-recall', action='store_true', help='what the compressed features would find of it')
    parser.add_argument('--val-users', type=int, default=10_000, help='that choose the epoch (default: %(default)s)')
    parser.add_argument('--epochs', type=int, default=200, help='at most (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, help='of training (default: that of `fit`)')
    parser.add_argument('--steps', type=int, help='measure so many steps in place of training')
    parser.add_argument('--straightforward-steps', type=int, default=3, help='default: %(default)s')
    parser.add_argument('--curve', action='store_true', help='measure 10⁴ to 3 · 10⁶ interactions, for the figure')
    parser.add_argument('--quick', action='store_true', help='a few hundred users; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    parser.add_argument('--plot', type=Path, help='draw the minutes of all rows of the file, as PNG')
    parser.add_argument('--task', type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        known = argparse.Namespace(**args.task)
        known.folder = Path(known.folder)
        run_stage(known, known.task)
        return
    if args.quick:
        args.scale, args.epochs, args.val_users, args.negatives, args.widths = 0.002, 2, 50, 64, [512, 160]
    for one in curve(args) if args.curve else [args]:
        run(one)
    if args.plot:
        plot(rows.read(args.rows or RESULTS), args.plot)


def plot(out: list[rows.Row], path: Path) -> None:
    r"""Draws the minutes of each stage and of their sum, and the peak, against the number of interactions."""
    import matplotlib.pyplot as plt

    names = {
        'compress': 'compression',
        'graph': 'item graph',
        'train': 'training',
        'test': 'test',
    }
    out = [row for row in out if json.loads(row['arguments']).get('batch_size') is None]
    last = {(row['measured'], int(row['interactions']), row['stage']): row for row in out}  # the newest of each
    points = sorted({key[1] for key in last if key[0] == 'True'})
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), layout='constrained')
    stages = {stage: [(x, last['True', x, stage]) for x in points if ('True', x, stage) in last] for stage in names}
    for number, (stage, label) in enumerate(names.items()):
        xs = [x for x, _ in stages[stage]]
        style: dict[str, Any] = {'marker': 'o', 'color': f'C{number}'}
        axes[0].loglog(xs, [float(row['seconds']) / 60 for _, row in stages[stage]], label=label, **style)
        axes[1].loglog(xs, [float(row['peak_gib']) for _, row in stages[stage]], **style)
    whole = [x for x in points if all(('True', x, stage) in last for stage in names)]
    total = [sum(float(last['True', x, stage]['seconds']) for stage in names) / 60 for x in whole]
    axes[0].loglog(whole, total, marker='o', color='black', label='all')
    done = {x for measured, x, _ in last if measured == 'False'}
    for x in sorted(x for x in done if all(('False', x, stage) in last for stage in names)):
        minutes = sum(float(last['False', x, stage]['seconds']) for stage in names) / 60
        axes[0].loglog([x], [minutes], marker='*', color='black', markersize=12, linestyle='', label='run as a whole')
    axes[0].axhline(60, color='black', linestyle=':')
    axes[1].axhline(8, color='black', linestyle=':')
    axes[0].set_ylabel('minutes')
    axes[1].set_ylabel('peak memory of the stage, GiB')
    for axis in axes:
        axis.set_xlabel('interactions in training')
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc='outside lower center', ncols=6, fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    main()
