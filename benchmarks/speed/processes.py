r"""What more processes are worth: triplets a second with one and with two, one thread each, on the whole graph and on
mini-batches.

    python -m benchmarks.speed.processes
    python -m benchmarks.speed.processes --items 1000000 --interactions 10000000 --only sampled
    python -m benchmarks.speed.processes --quick

The runs with one and two processes take turns. On the whole graph each process encodes all of it, whatever its share
of the triplets is. On mini-batches each samples for itself.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.speed.graphs import power_law, with_features
from lirdrec_pyg import Callback, LazyAdam, LIRDRec, MiniBatches, Trainer
from lirdrec_pyg.transforms import DCT, InteractionGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, SIMILAR_TO, USER

RESULTS = rows.RESULTS / 'speed' / 'processes.csv'


class Steps(Callback):
    r"""Takes the time of each step, and ends training after some."""

    def __init__(self, limit: int) -> None:
        self.limit, self.marks = limit, [time.perf_counter()]

    def on_step(self, trainer: Trainer) -> None:
        self.marks.append(time.perf_counter())
        if trainer.step >= self.limit:
            trainer.stop()


def graph(args: argparse.Namespace) -> HeteroData:
    r"""Returns a training split with a random item graph of ten neighbours."""
    data = HeteroData()
    data[USER].num_nodes, data[ITEM].num_nodes = args.interactions // 10, args.items
    data[INTERACTS].edge_index = power_law(args.interactions // 10, args.items, args.interactions)
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(args.items).repeat_interleave(10)
    data[SIMILAR_TO].edge_index = torch.stack([torch.randint(args.items, target.shape, generator=generator), target])
    data[SIMILAR_TO].edge_weight = torch.full(target.shape, 0.1)
    return InteractionGraph()(DCT()(with_features(data, {'text': args.columns})))


def work(args: argparse.Namespace) -> None:
    r"""Trains some steps in this process, one of several or the only one, and writes what it found."""
    torch.set_num_threads(1)
    train, steps = graph(args), Steps(args.steps + 2)
    sampled = args.worker == 'sampled'
    model = LIRDRec.from_data(train, seed=0, hidden_channels=args.hidden_channels, sparse=sampled)
    if sampled:
        loader = MiniBatches(train, args.num_neighbors, batch_size=args.batch_size)
        trainer = Trainer(
            model, train, loader=loader, optimizer=lambda p: LazyAdam(p, lr=1e-3, fused=True), callbacks=[steps]
        )
    else:
        trainer = Trainer(model, train, batch_size=args.batch_size, callbacks=[steps])
    steps.marks = [time.perf_counter()]
    trainer.fit(1)
    seconds = [b - a for a, b in zip(steps.marks[2:], steps.marks[3:], strict=False)]
    if trainer.is_first_process:
        Path(args.out).write_text(json.dumps({'step_s': statistics.median(seconds)}))


def start(args: argparse.Namespace, kind: str, processes: int) -> float:
    r"""Returns the median seconds of a step."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'out.json'
        command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes)]
        command = command if processes > 1 else [sys.executable]
        command += ['-m', 'benchmarks.speed.processes', '--worker', kind, '--out', str(out), '--steps', str(args.steps)]
        for name in ('items', 'interactions', 'columns', 'hidden_channels', 'batch_size'):
            command += [f'--{name.replace("_", "-")}', str(getattr(args, name))]
        command += ['--num-neighbors', *map(str, args.num_neighbors)]
        subprocess.run(command, env={**os.environ, 'OMP_NUM_THREADS': '1'}, check=True)
        return float(json.loads(out.read_text())['step_s'])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--items', type=int, default=100_000, help='default: %(default)s')
    parser.add_argument('--interactions', type=int, default=1_000_000, help='default: %(default)s')
    parser.add_argument('--columns', type=int, default=128, help='of the features (default: %(default)s)')
    parser.add_argument('--hidden-channels', type=int, default=64, help='default: %(default)s')
    parser.add_argument('--batch-size', type=int, default=2048, help='default: %(default)s')
    parser.add_argument('--num-neighbors', type=int, nargs='+', default=[4, 2, 0], help='at each hop')
    parser.add_argument('--steps', type=int, default=20, help='steps timed, after two (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=3, help='of each, in turn (default: %(default)s)')
    parser.add_argument('--only', nargs='+', choices=['whole', 'sampled'], default=['whole', 'sampled'])
    parser.add_argument('--quick', action='store_true', help='2,000 items; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    parser.add_argument('--worker', choices=['whole', 'sampled'], help=argparse.SUPPRESS)
    parser.add_argument('--out', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    if args.quick:
        args.items, args.interactions, args.columns, args.steps, args.repeats = 2000, 20_000, 16, 3, 1
    out = []
    for kind in args.only:
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(args.repeats):
            for processes, found in seconds.items():
                found.append(start(args, kind, processes))
        # On the whole graph a batch is shared; sampled, each process has one.
        speed = {
            n: args.batch_size * (n if kind == 'sampled' else 1) / statistics.median(s) for n, s in seconds.items()
        }
        for processes in seconds:
            row: rows.Row = {'kind': kind, 'processes': processes, 'items': args.items}
            row |= {'interactions': args.interactions, 'columns': args.columns, 'batch_size': args.batch_size}
            row |= {'num_neighbors': str(args.num_neighbors) if kind == 'sampled' else '', 'repeats': args.repeats}
            row |= {'step_s': round(statistics.median(seconds[processes]), 4)}
            row |= {'triplets_a_second': round(speed[processes]), 'times_one': round(speed[processes] / speed[1], 2)}
            out.append(row | rows.call(args) | rows.environment() | {'threads': 1})
    print(rows.table(out, ['kind', 'processes', 'step_s', 'triplets_a_second', 'times_one']))
    if args.rows or not args.quick:
        rows.append(args.rows or RESULTS, *out)


if __name__ == '__main__':
    main()
