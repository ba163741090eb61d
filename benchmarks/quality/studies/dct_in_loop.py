r"""What does the DCT cost within the loop? Trains LIRDRec for some epochs with the spectrum made once, before training,
and with the spectrum made anew in each step, in turns, and checks that both learn the same. Appends a row for each run
to ``results/quality/dct_in_loop.csv``.

    python -m benchmarks.quality.studies.dct_in_loop --root data --dataset scientific
    python -m benchmarks.quality.studies.dct_in_loop --dataset baby-sized --epochs 1

``baby-sized`` is generated, with users, items and widths of the features as the published data set Baby has them.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.quality import catalogues, jobs
from lirdrec_pyg import fit
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.transforms import InteractionGraph

RESULTS = rows.RESULTS / 'quality' / 'dct_in_loop.csv'
WAYS = {'once': ('LIRDRec', 'dct'), 'in each step': ('DCTInLoop', 'none')}
SIZES = {'baby-sized': {'num_users': 19445, 'num_items': 7050, 'interactions_per_user': 8}}
WIDTHS = {'image': 4096, 'text': 384}


def load(dataset: str, root: Path) -> tuple[HeteroData, HeteroData]:
    r"""Returns the training and validation split, with the item graph."""
    known = dataset not in SIZES
    data = catalogues.load(dataset, root) if known else FakeMultimodal(**SIZES[dataset], widths=WIDTHS, seed=0)[0]
    train, val, _ = catalogues.split(dataset if known else 'fake')(data)
    return catalogues.content(train), val


def run(way: str, train: HeteroData, val: HeteroData, epochs: int) -> tuple[rows.Row, dict[str, Tensor]]:
    r"""Returns how long a run took, on the clock and of the processor, and what it learned."""
    model, transform = WAYS[way]
    train = InteractionGraph()(catalogues.Spectrum(transform)(train))
    built = jobs.build(jobs.job('', model, 0), train)
    clock, cpu = time.perf_counter(), time.process_time()
    result = fit(built, train, val, epochs=epochs, batch_size=2048, seed=0, progress=False)
    seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu
    row: rows.Row = {'way': way, 'epochs': epochs, 'seconds': round(seconds, 2), 'cpu_seconds': round(cpu_seconds, 2)}
    row |= {'loss': result.log[-1]['loss'], 'val_recall@20': result.best_value}
    return row, built.state_dict()


def compare(dataset: str, root: Path, epochs: int, repeats: int) -> list[rows.Row]:
    r"""Returns the rows of both ways in turns. ``largest_difference`` is that of any weight."""
    train, val = load(dataset, root)
    found: list[rows.Row] = []
    for repeat in range(repeats):
        learned: dict[str, Tensor] = {}
        for way in WAYS:
            row, state = run(way, train, val, epochs)
            learned = learned or state
            row['largest_difference'] = max(float((state[name] - x).abs().max()) for name, x in learned.items())
            sizes = {'items': train['item'].num_nodes, 'width': train['item'].spectrum.size(1)}
            found.append({'dataset': dataset, **sizes, 'repeat': repeat} | row | rows.environment())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--dataset', nargs='+', default=['scientific'], help=f'of catalogues.py, or {list(SIZES)}')
    parser.add_argument('--epochs', type=int, default=5, help='of each run (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=3, help='of each way (default: %(default)s)')
    parser.add_argument('--rows', type=Path, default=RESULTS, help='the CSV file to append to')
    args = parser.parse_args()
    torch.set_num_threads(1)
    for dataset in args.dataset:
        found = compare(dataset, args.root, args.epochs, args.repeats)
        rows.append(args.rows, *found)
        print(rows.table(found, ['dataset', 'way', 'repeat', 'seconds', 'cpu_seconds', 'largest_difference']))


if __name__ == '__main__':
    main()
