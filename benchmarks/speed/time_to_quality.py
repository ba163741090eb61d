r"""Time to quality: the seconds of training and validation until validation recall@20 first reaches shares of the best
that BPR in the straightforward implementation (``straightforward.py``) ever reaches, on a folder of the MMRec format.

    python -m benchmarks.speed.time_to_quality --root data/amazon_scientific_2018 --name scientific
    python -m benchmarks.speed.time_to_quality --quick

Each competitor trains until it stops by itself. Loading data, features and the item graph are not counted: all share
them. ``inf`` means never reached.
"""

import argparse
import math
import time
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.quality import jobs
from benchmarks.speed.straightforward import StraightforwardTrainer
from lirdrec_pyg import LIRDRec, SoftmaxLIRDRec, fit
from lirdrec_pyg.datasets import FakeMultimodal, MMRecDataset
from lirdrec_pyg.nn import SampledSoftmax
from lirdrec_pyg.transforms import DCT, PCA, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS

RESULTS = rows.RESULTS / 'speed' / 'time_to_quality.csv'
SHARES = [0.9, 0.95, 1.0]
HALF = {'precision': 'bf16'}
Curve = list[tuple[float, float]]  # seconds so far, recall


def straightforward(
    train: HeteroData, val: HeteroData, seed: int, epochs: int, patience: int = 20, device: str = 'cpu'
) -> Curve:
    r"""Trains the straightforward implementation until it stops."""
    trainer = StraightforwardTrainer(LIRDRec.from_data(train, seed=seed), train, val, device=device)
    trainer.random.seed(seed)
    curve: Curve = []
    seconds, best, best_epoch = 0.0, -1.0, 0
    for epoch in range(1, epochs + 1):
        clock = time.perf_counter()
        trainer.epoch(epoch)
        recall = trainer.validate()
        seconds += time.perf_counter() - clock
        curve.append((seconds, recall))
        if recall > best:
            best, best_epoch = recall, epoch
        if epoch - best_epoch > patience:
            break
    return curve


def ours(
    train: HeteroData,
    val: HeteroData,
    seed: int,
    epochs: int,
    fitting: dict[str, Any],
    cls: Any = LIRDRec,
    **kwargs: Any,
) -> Curve:
    r"""Trains ours until it stops."""
    model = cls.from_data(train, seed=seed, **kwargs).to(train[INTERACTS].edge_index.device)
    result = fit(model, train, val, epochs=epochs, seed=seed, progress=False, **(jobs.RELEASED | fitting))
    curve: Curve = []
    seconds = 0.0
    for row in result.log:
        seconds += row['seconds']
        curve.append((seconds, row['recall@20']))
    return curve


def reached(curve: Curve, value: float) -> float:
    r"""Returns the seconds until a curve first has a value."""
    return next((seconds for seconds, recall in curve if recall >= value), math.inf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', help='the folder of the dataset')
    parser.add_argument('--name', default='scientific', help='its name (default: %(default)s)')
    parser.add_argument('--cache-dir', help='where to keep the processed data, if the folder is read-only')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='one run of each for each')
    parser.add_argument('--epochs', type=int, default=1000, help='at most')
    parser.add_argument('--only', nargs='+', help='beside the straightforward one, those whose names start with these')
    parser.add_argument('--components', type=int, default=128, help='of the compressed one (default: %(default)s)')
    parser.add_argument('--device', default='cpu', help='default: %(default)s')
    parser.add_argument('--quick', action='store_true', help='a small generated dataset; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    parser.add_argument('--plot', type=Path, help='draw the curves, as PNG')
    parser.add_argument('--profile', type=Path, help='write a trace of three epochs of the last competitor')
    args = parser.parse_args()
    if args.quick:
        data, name, epochs, components = FakeMultimodal(num_users=200, num_items=100)[0], 'fake', 3, 4
    elif args.root is None:
        parser.error('--root is needed, or --quick')
    else:
        data = MMRecDataset(args.root, args.name, cache_dir=args.cache_dir)[0]
        name, epochs, components = args.name, args.epochs, args.components
    _, val, _ = FixedSplit()(data)

    def training(k: int, image: float, components: int | None = None) -> HeteroData:
        content = ItemKNNGraph(k=k, weights={'image': image, 'text': 1 - image})(data)
        return InteractionGraph()(FixedSplit()(DCT()(content if components is None else PCA(components)(content)))[0])

    paper = training(10, 0.1)
    ours_paper, preset, small = (
        train.to(args.device) for train in (copy(paper), training(5, 0.3), training(5, 0.3, components))
    )

    in_batch = SampledSoftmax(num_negatives='batch')
    out, curves = [], {}
    for seed in args.seeds[: 1 if args.quick else None]:
        runs = {
            'straightforward': lambda seed=seed: straightforward(paper, val, seed, epochs, device=args.device),
            'LIRDRec, fp32': lambda seed=seed: ours(ours_paper, val, seed, epochs, {}),
            'LIRDRec, bf16': lambda seed=seed: ours(ours_paper, val, seed, epochs, HALF),
            'LIRDRec, bf16, lr 1e-3': lambda seed=seed: ours(ours_paper, val, seed, epochs, {**HALF, 'lr': 1e-3}),
            'SoftmaxLIRDRec, fp32': lambda seed=seed: ours(preset, val, seed, epochs, {}, SoftmaxLIRDRec),
            'SoftmaxLIRDRec, bf16': lambda seed=seed: ours(preset, val, seed, epochs, HALF, SoftmaxLIRDRec),
            f'SoftmaxLIRDRec, bf16, r={components}': lambda seed=seed: ours(
                small, val, seed, epochs, HALF, SoftmaxLIRDRec
            ),
            'SoftmaxLIRDRec, bf16, no dropout, lr 2e-3, batch negatives': lambda seed=seed: ours(
                preset, val, seed, epochs, {**HALF, 'lr': 2e-3}, SoftmaxLIRDRec, objective=in_batch, dropout=0.0
            ),
        }
        if args.only is not None:
            runs = {name: run for name, run in runs.items() if name.startswith(('straightforward', *args.only))}
        target = math.nan
        for competitor, start in runs.items():
            curve = curves[competitor, seed] = start()
            best = max(recall for _, recall in curve)
            if competitor.startswith('straightforward'):
                target = best
            base = curves['straightforward', seed]
            row: rows.Row = {'competitor': competitor, 'dataset': name, 'seed': seed, 'epochs': len(curve)}
            row |= {'best_val_recall@20': round(best, 5), 'seconds_in_all': round(curve[-1][0], 2)}
            row['seconds_an_epoch'] = round(curve[-1][0] / len(curve), 4)
            for share in SHARES:
                row[f'seconds_to_{share:.0%}'] = round(reached(curve, share * target), 2)
            ratio = reached(base, target) / reached(curve, target)
            row['times_faster_to_100%'] = round(ratio, 2)
            out.append(row | rows.call(args, seed) | rows.environment(args.device))
            print(rows.table(out[-1:], list(row)), flush=True)
            if args.rows or not args.quick:
                rows.append(args.rows or RESULTS, out[-1])
    if args.profile:
        with torch.profiler.profile() as trace:
            ours(small, val, args.seeds[0], 3, HALF, SoftmaxLIRDRec)
        trace.export_chrome_trace(str(args.profile))
    if args.plot:
        plot({name: curve for (name, seed), curve in curves.items() if seed == args.seeds[0]}, args.plot)


def plot(curves: dict[str, Curve], path: Path) -> None:
    r"""Draws recall against time."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout='constrained')
    for name, curve in curves.items():
        axes.plot([seconds for seconds, _ in curve], [recall for _, recall in curve], label=name)
    axes.set_xscale('log')
    axes.set_xlabel('seconds of training and validation')
    axes.set_ylabel('validation recall@20')
    axes.set_title('Time to quality')
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


if __name__ == '__main__':
    main()
