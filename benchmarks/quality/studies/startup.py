r"""How long does each model take to start up, with and without item IDs? Appends a row for each run to
``results/quality/startup.csv``: the epochs, and the processor's seconds, until validation ndcg@20 first reaches 90 %,
95 % and all of the best that the run itself ever reaches.

    python -m benchmarks.quality.studies.startup --root data --dataset scientific movielens

All models train in batches of 2,048 at the same learning rate, untuned. Training waits for 40 epochs, more than ``fit``
does by default: some models dip after an early peak, and a share of that peak would tell nothing. Seconds are those of
training and validation; loading and the item graph are not counted. They are of the processor: what others on the
machine do counts little. LIRDRec and its relatives train in half precision.

    python -m benchmarks.quality.studies.startup --curves

With ``--curves``, nothing is trained: it prints the same of the runs of ``studies.gradient_bias``, in which each model
has content and IDs, or one of them. Their curves are of validation recall@20 and end in epoch 40, so that the best is
that of 40 epochs.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import rows
from benchmarks.quality import jobs
from benchmarks.quality.studies import gradient_bias
from lirdrec_pyg import evaluate, fit
from lirdrec_pyg.training import Callback, Trainer

RESULTS = rows.RESULTS / 'quality' / 'startup.csv'
METRIC = 'ndcg@20'
SHARES = (0.9, 0.95, 1.0)
PATIENCE = 40
HALF = {'precision': 'bf16'}
ALONE = {'own': False, 'shared': False, 'item_ids': True, 'hidden_channels': 192}
VARIANTS: dict[str, tuple[str, str, jobs.Settings]] = {  # what tells items apart, the model, its settings
    'LIRDRec': ('content', 'LIRDRec', {'fit': HALF}),
    'LIRDRec and item IDs': ('both', 'Ablated', {'model': {'item_ids': True}, 'fit': HALF}),
    'item IDs alone': ('IDs', 'Ablated', {'model': ALONE, 'fit': HALF}),
    'SoftmaxLIRDRec': ('content', 'SoftmaxLIRDRec', {'fit': HALF}),
    'item IDs alone, softmax': ('IDs', 'Ablated', {'model': {**ALONE, 'loss': 'softmax', 'scoring': 0.5}, 'fit': HALF}),
    'LightGCN': ('IDs', 'LightGCN', {}),
    'BPRMF': ('IDs', 'BPRMF', {}),
    'FREEDOM': ('both', 'FREEDOM', {}),
    'MGCN': ('both', 'PublishedMGCN', {}),
}


class Clock(Callback):
    r"""Notes the seconds that the processor took until the end of each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_start(self, trainer: Trainer) -> None:
        self.start = time.process_time()

    def on_epoch(self, trainer: Trainer, row: dict[str, float]) -> None:
        self.seconds.append(time.process_time() - self.start)


def reached(curve: Sequence[float], share: float) -> int:
    r"""Returns the epoch, counted from one, in which a curve first reaches a share of its highest value."""
    best = max(curve)
    return next(epoch for epoch, value in enumerate(curve, start=1) if value >= share * best)


def measure(dataset: str, variant: str, seed: int, root: Path, lr: float = 1e-3, epochs: int = 1000) -> rows.Row:
    r"""Returns the row of one run."""
    items, model, settings = VARIANTS[variant]
    job = jobs.job(dataset, model, seed, settings, 'startup', variant)
    train, val, test = jobs.splits(job, root, test=True)
    built, clock = jobs.build(job, train), Clock()
    result = fit(built, train, val, epochs=epochs, batch_size=2048, lr=lr, patience=PATIENCE, monitor=METRIC, seed=seed,
                 progress=False, callbacks=[clock], **settings.get('fit', {}))  # fmt: skip
    curve = [row[METRIC] for row in result.log]
    row: rows.Row = {'dataset': dataset, 'variant': variant, 'seed': seed, 'items': items, 'lr': lr}
    row |= {'epochs': len(curve), f'val_{METRIC}': round(max(curve), 6)}
    row[f'test_{METRIC}'] = round(evaluate(built.encode(train), test, k=20, metrics=['ndcg'])[METRIC], 6)
    for share in SHARES:
        epoch = reached(curve, share)
        row |= {f'epochs_to_{share:.0%}': epoch, f'cpu_seconds_to_{share:.0%}': round(clock.seconds[epoch - 1], 2)}
    row['cpu_seconds'] = round(clock.seconds[-1], 2)
    return row | rows.environment()


def of_curves(path: Path) -> list[rows.Row]:
    r"""Returns the mean and the standard deviation over seeds of the epochs to each share, for each model and what it
    has to tell items apart."""
    found: dict[tuple[str, str, str], list[list[float]]] = {}
    for row in rows.read(path):
        if row['quantity'] == 'recall':
            curve = [float(row[str(epoch)]) for epoch in range(1, gradient_bias.EPOCHS + 1) if row[str(epoch)] != '']
            cells = row['dataset'], row['model'], row['parts']
            found.setdefault(cells, []).append([max(curve), *(reached(curve, share) for share in SHARES)])
    out: list[rows.Row] = []
    for (dataset, model, parts), values in sorted(found.items()):
        best, *epochs = zip(*values, strict=True)
        row = {'dataset': dataset, 'model': model, 'items': parts, 'seeds': len(values)}
        row['best recall@20'] = told(best, 4)
        out.append(row | {f'{share:.0%}': told(each, 1) for share, each in zip(SHARES, epochs, strict=True)})
    return out


def told(values: Sequence[float], digits: int) -> str:
    r"""Returns a mean with its standard deviation."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f'{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--dataset', nargs='+', default=['scientific', 'movielens'], help='of catalogues.py')
    parser.add_argument('--variant', nargs='+', default=list(VARIANTS), choices=list(VARIANTS), help='default: all')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='one run of each for each')
    parser.add_argument('--lr', type=float, default=1e-3, help='of all (default: %(default)s)')
    parser.add_argument('--epochs', type=int, default=1000, help='at most (default: %(default)s)')
    parser.add_argument('--rows', type=Path, default=RESULTS, help='the CSV file to append to')
    parser.add_argument('--curves', action='store_true', help='print what curves that are there tell')
    args = parser.parse_args()
    if args.curves:
        found = of_curves(gradient_bias.curves_of(gradient_bias.RUNS))
        print(rows.table(found, list(found[0])))
        return
    for seed in args.seeds:
        for dataset in args.dataset:
            for variant in args.variant:
                if rows.has(args.rows, dataset=dataset, variant=variant, seed=seed, lr=args.lr):
                    continue
                row = measure(dataset, variant, seed, args.root, args.lr, args.epochs)
                rows.append(args.rows, row)
                took = ', '.join(f'{row[f"epochs_to_{share:.0%}"]} epochs to {share:.0%}' for share in SHARES)
                print(f'{dataset}, {variant}, seed {seed}: {took} of {row[f"val_{METRIC}"]:.4f}', flush=True)


if __name__ == '__main__':
    main()
