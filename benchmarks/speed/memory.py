r"""How much memory training takes at the size of a published dataset, from the features on, and how long an epoch is.

    python -m benchmarks.speed.memory --size baby
    python -m benchmarks.speed.memory --size elec --precision bf16 --steps 8
    python -m benchmarks.speed.memory --quick --plot memory.png

Features are random: made, transformed and connected in this process, whose peak counts. With --steps, an epoch is that
many steps, and its time is extrapolated from their median. --profile traces one more step, after all is measured.
"""

import argparse
import statistics
import time
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks import rows
from benchmarks.speed.graphs import interactions
from lirdrec_pyg import BPRSampler, Callback, LIRDRec, Trainer, evaluate, fit
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, SIMILAR_TO, USER

RESULTS = rows.RESULTS / 'speed' / 'memory.csv'


class Steps(Callback):
    r"""Takes the time of each step, and ends training after some."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.marks = [time.perf_counter()]

    def on_step(self, trainer: Trainer) -> None:
        self.marks.append(time.perf_counter())
        if self.limit is not None and trainer.step >= self.limit:
            trainer.stop()


def peak() -> float:
    r"""Returns the highest resident memory of the process so far, in GiB."""
    return rows.peak_rss() / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', default='baby', help='baby, sports, clothing or elec (default: %(default)s)')
    parser.add_argument('--precision', default='fp32', help='fp32 or bf16 (default: %(default)s)')
    parser.add_argument('--steps', type=int, help='of an epoch (default: a whole one, and a validation)')
    parser.add_argument('--quick', action='store_true', help='a hundredth of the size; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    parser.add_argument('--plot', type=Path, help='draw the peak after each stage, as PNG')
    parser.add_argument('--profile', type=Path, help='write a trace of a step with its memory, for chrome://tracing')
    args = parser.parse_args()
    start = peak()
    data, _ = interactions(args.size, None, scale=0.01 if args.quick else 1.0)
    num_items = data[ITEM].num_nodes
    generator = torch.Generator().manual_seed(0)
    for name, width in {'image': 4096, 'text': 384}.items():
        data[ITEM][f'x_{name}'] = torch.randn(num_items, width if not args.quick else 16, generator=generator)
    neighbour = torch.randint(num_items, (num_items, 10), generator=generator)  # the time of kNN is measured elsewhere
    data[SIMILAR_TO].edge_index = torch.stack([neighbour.flatten(), torch.arange(num_items).repeat_interleave(10)])
    data[SIMILAR_TO].edge_weight = torch.full((10 * num_items,), 0.1)
    features = sum(value.nbytes for key, value in data[ITEM].items() if key.startswith('x_')) / 2**30
    train, val, _ = FixedSplit()(DCT()(data))
    train = InteractionGraph()(train)
    before = peak()
    model = LIRDRec.from_data(train, seed=0)
    steps = len(BPRSampler(train[INTERACTS].edge_index, train[USER].num_nodes, num_items))
    clock = Steps(args.steps)
    fit(model, train, epochs=1, batch_size=2048, precision=args.precision, callbacks=[clock], progress=False)
    training = peak()
    seconds = [b - a for a, b in pairwise(clock.marks)][1:] or [clock.marks[-1] - clock.marks[0]]
    step = statistics.median(seconds)
    began = time.perf_counter()
    with torch.no_grad():
        evaluate(model(train), val, k=20, metrics=['recall'])
    row: rows.Row = {'size': args.size if not args.quick else 'quick', 'precision': args.precision}
    row |= {'users': train[USER].num_nodes, 'items': num_items, 'interactions': train[INTERACTS].edge_index.size(1)}
    row |= {'features_gib': round(features, 3), 'imports_gib': round(start, 3), 'before_training_gib': round(before, 3)}
    row |= {'training_gib': round(training, 3), 'with_validation_gib': round(peak(), 3)}
    row |= {'steps_timed': len(seconds), 'step_s': round(step, 4), 'steps_an_epoch': steps}
    row |= {'epoch_s': round(step * steps, 1), 'validation_s': round(time.perf_counter() - began, 2)}
    for name, value in row.items():
        print(f'{name:<22}{value}')
    if args.rows or not args.quick:
        rows.append(args.rows or RESULTS, row | rows.call(args) | rows.environment())
    if args.plot:
        plot(row, args.plot)
    if args.profile:
        with torch.profiler.profile(profile_memory=True) as trace:
            fit(model, train, epochs=1, batch_size=2048, precision=args.precision, callbacks=[Steps(1)], progress=False)
        trace.export_chrome_trace(str(args.profile))


def plot(row: rows.Row, path: Path) -> None:
    r"""Draws the peak after each stage."""
    import matplotlib.pyplot as plt

    stages = {'imports': 'libraries', 'before_training': 'features, spectrum and graph'}
    stages |= {'training': 'training', 'with_validation': 'validation'}
    figure, axes = plt.subplots(figsize=(6.5, 2.4), layout='constrained')
    bars = axes.barh(list(stages.values()), [row[f'{stage}_gib'] for stage in stages])
    axes.bar_label(bars, fmt='%.2f', padding=2)
    axes.axvline(row['features_gib'], color='black', linestyle=':', label='the features alone')
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel('highest resident memory up to there, GiB')
    axes.set_title(f"LIRDRec at {row['size']}'s size, {row['precision']}")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    main()
