r"""Times the item graph's search for the k nearest rows: ``exact_knn`` against the straightforward matrix of all
similarities, and approximate FAISS indexes with the recall of what they find.

    python -m benchmarks.speed.knn --items 7050 63001
    python -m benchmarks.speed.knn --items 63001 --only exact --plot knn.png
    python -m benchmarks.speed.knn --quick

Features are generated around centres. Competitors take turns; ``extra_mib`` is the peak beyond the features, of which
each competitor makes a normalised copy. The matrix is left out where it takes more than --max-gib.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.speed.peak import extra_memory
from lirdrec_pyg.transforms import ItemKNNGraph
from lirdrec_pyg.typing import ITEM, SIMILAR_TO

RESULTS = rows.RESULTS / 'speed' / 'knn.csv'
SHOWN = ['competitor', 'items', 'width', 'k', 'seconds', 'recall', 'extra_mib', 'times_faster_than_exact']
Neighbours = np.ndarray[Any, Any]  # an item's neighbours, a set of pairs (item, neighbour) as numbers


def generate(num_items: int, width: int, seed: int = 0) -> HeteroData:
    r"""Returns items with features around one centre for 50 items."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(max(num_items // 50, 1), width, generator=generator)
    x = centre[torch.randint(len(centre), (num_items,), generator=generator)]
    data = HeteroData()
    data[ITEM].x_image = x.add_(torch.randn(num_items, width, generator=generator))
    data[ITEM].num_nodes = num_items
    return data


def matrix(data: HeteroData, k: int) -> Neighbours:
    r"""Returns the neighbours by the matrix of all similarities."""
    x = torch.nn.functional.normalize(data[ITEM].x_image)
    found = (x @ x.t()).topk(k, dim=1).indices
    return pairs(found.flatten(), torch.arange(len(x)).repeat_interleave(k), len(x))


def ours(data: HeteroData, k: int, index: str | None = None) -> Neighbours:
    r"""Returns the neighbours by the library."""
    edge_index = ItemKNNGraph(k, index=index)(data)[SIMILAR_TO].edge_index
    return pairs(edge_index[0], edge_index[1], data[ITEM].num_nodes)


def pairs(neighbour: torch.Tensor, item: torch.Tensor, num_items: int) -> Neighbours:
    return (item * num_items + neighbour).numpy()


def measure(competitors: dict[str, Callable[[], Neighbours]], data: HeteroData, k: int, repeats: int) -> list[rows.Row]:
    r"""Returns a row for each competitor."""
    found: dict[str, Neighbours] = {}
    peaks: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in competitors}

    def first(name: str) -> None:
        clock = time.perf_counter()
        found[name] = competitors[name]()
        seconds[name].append(time.perf_counter() - clock)

    for name in competitors:
        peaks[name] = extra_memory(lambda: first(name))  # noqa: B023
    for _ in range(repeats - 1):
        for name, competitor in competitors.items():
            seconds[name] += rows.timed(competitor, 1, warmup=0)
    exact = found['exact']
    median = {name: statistics.median(values) for name, values in seconds.items()}
    num_items, width = data[ITEM].x_image.shape
    return [
        {'competitor': name, 'items': num_items, 'width': width, 'k': k, 'seconds': round(value, 3)}
        | {'recall': round(len(np.intersect1d(found[name], exact)) / len(exact), 4), 'extra_mib': round(peaks[name])}
        | {'times_faster_than_exact': round(median['exact'] / value, 2), 'repeats': repeats}
        for name, value in median.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--items', type=int, nargs='+', default=[7_050, 63_001], help='sizes of the catalogue')
    parser.add_argument('--width', type=int, default=4096, help='columns of the features (default: %(default)s)')
    parser.add_argument('--k', type=int, default=10, help='default: %(default)s')
    parser.add_argument('--repeats', type=int, default=3, help='of each (default: %(default)s)')
    parser.add_argument('--only', nargs='+', help='some of: exact, matrix, IVF, HNSW; exact always runs')
    parser.add_argument('--max-gib', type=float, default=4, help='leaves out the matrix where it takes more')
    parser.add_argument('--quick', action='store_true', help='500 items; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    parser.add_argument('--plot', type=Path, help='draw seconds against items, as PNG')
    parser.add_argument('--profile', type=Path, help='write a trace of the exact search at the first size')
    args = parser.parse_args()
    if args.quick:
        args.items, args.width, args.repeats = [250, 500], 32, 1
    out = []
    for num_items in args.items:
        data = generate(num_items, args.width)
        lists = 2 ** round(np.log2(2 * num_items**0.5))
        todo: dict[str, Callable[[], Neighbours]] = {'exact': lambda data=data: ours(data, args.k)}  # type: ignore[misc]
        if num_items**2 * 4 <= args.max_gib * 2**30:
            todo['matrix'] = lambda data=data: matrix(data, args.k)  # type: ignore[misc]
        else:
            print(f'{num_items} items: the matrix is left out, it takes {num_items**2 * 4 / 2**30:.1f} GiB')
        for index in (
            f'IVF{lists},Flat',
            f'PCA128,IVF{lists},Flat' if args.width > 128 else f'IVF{lists},SQ8',
            'HNSW32',
        ):
            todo[index] = lambda data=data, index=index: ours(data, args.k, index)  # type: ignore[misc]
        if args.only:
            todo = {name: run for name, run in todo.items() if name == 'exact' or name.startswith(tuple(args.only))}
        if args.profile and num_items == args.items[0]:
            with torch.profiler.profile() as trace:
                todo['exact']()
            trace.export_chrome_trace(str(args.profile))
        found = measure(todo, data, args.k, args.repeats)
        print(rows.table(found, SHOWN), flush=True)
        out += [row | rows.call(args) | rows.environment() for row in found]
    if args.rows or not args.quick:
        for row in out:
            rows.append(args.rows or RESULTS, row)
    if args.plot:
        plot(out, args.plot)


def plot(out: list[rows.Row], path: Path) -> None:
    r"""Draws seconds against items, with the recall where it is below one."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout='constrained')
    kinds = dict.fromkeys(''.join(c for c in row['competitor'] if not c.isdigit()) for row in out)
    for kind in kinds:
        group = [row for row in out if ''.join(c for c in row['competitor'] if not c.isdigit()) == kind]
        axes.loglog([row['items'] for row in group], [row['seconds'] for row in group], marker='o', label=kind)
        for row in group:
            if row['recall'] < 1:
                at = row['items'], row['seconds']
                axes.annotate(f'{row["recall"]:.3f}', at, xytext=(6, 5), textcoords='offset points', size=8)
    axes.margins(x=0.1)
    axes.set_xlabel('items')
    axes.set_ylabel('← better     seconds (numbers: recall)')
    axes.set_title(f'{out[0]["k"]} nearest of all items, {out[0]["width"]} columns, {out[0]["threads"]} threads')
    figure.legend(loc='outside lower center', ncols=4, fontsize=9)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


if __name__ == '__main__':
    main()
