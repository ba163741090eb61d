r"""How long a ``Retriever`` takes to change: items that leave, come and change, a search before and after, a save of
what changed, on generated clustered embeddings.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.living
    python -m benchmarks.speed.living --quick

The changes are of ``--changed`` items drawn at random. ``recommend`` is timed for one user at a time, of the same users
before and after; ``p50_ratio`` is the one over the other. Each ``round`` is a row: the second finds places that the
first has left.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import torch

from benchmarks import rows
from benchmarks.speed.retrieval import generate
from lirdrec_pyg.serving import Retriever

RESULTS = rows.RESULTS / 'speed' / 'living.csv'
K = 20


def seconds(change: Callable[[], Any]) -> float:
    clock = time.perf_counter()
    change()
    return time.perf_counter() - clock


def p50(retriever: Retriever, searches: int) -> float:
    r"""Returns the median milliseconds of a recommendation for one user."""
    retriever.recommend([0, 1], K)
    return statistics.median(1e3 * seconds(lambda: retriever.recommend([user], K)) for user in range(searches))  # noqa: B023


def run(index: str, args: argparse.Namespace) -> list[rows.Row]:
    r"""Returns a row for each round of changes."""
    generator = torch.Generator().manual_seed(0)
    embeddings = generate(args.users, args.items, args.width)
    pairs = torch.stack([torch.arange(args.users).repeat_interleave(50), torch.randint(args.items, (50 * args.users,))])
    settings = {'nprobe': args.nprobe} if index.startswith('IVF') else {}
    clock, out = time.perf_counter(), []
    retriever = Retriever(embeddings, pairs, index=index, **settings)
    build = time.perf_counter() - clock
    del embeddings
    ids = list(range(args.items))
    with tempfile.TemporaryDirectory() as folder:
        whole = seconds(lambda: retriever.save(folder))
        for number in range(args.rounds):
            before = p50(retriever, args.searches)
            order = torch.randperm(len(ids), generator=generator)
            gone = {ids[i] for i in order[: args.changed].tolist()}
            changed = [ids[i] for i in order[args.changed : 2 * args.changed].tolist()]
            new = list(range((number + 1) * args.items * 2, (number + 1) * args.items * 2 + args.changed))
            x, y = generate(args.changed, args.changed, args.width, seed=number + 1)
            row: rows.Row = {'index': index, 'items': args.items, 'width': args.width, 'users': args.users}
            row |= {'changed': args.changed, 'round': number + 1, 'build_s': round(build, 2)}
            with rows.PeakMemory() as memory:
                row['remove_s'] = round(seconds(lambda: retriever.remove_items(list(gone))), 3)  # noqa: B023
                row['add_s'] = round(seconds(lambda: retriever.add_items(x, new)), 3)  # noqa: B023
                row['update_s'] = round(seconds(lambda: retriever.update_items(y, changed)), 3)  # noqa: B023
            row['remove_and_add_s'] = round(row['remove_s'] + row['add_s'], 3)
            after = p50(retriever, args.searches)
            row |= {'change_peak_extra_mib': round(memory.extra), 'p50_ms_before': round(before, 3)}
            row |= {'p50_ms_after': round(after, 3), 'p50_ratio': round(after / before, 3)}
            row |= {
                'save_whole_s': round(whole, 2),
                'save_changes_s': round(seconds(lambda: retriever.save(folder)), 2),
            }
            row['load_s'] = round(seconds(lambda: Retriever.load(folder)), 2)
            ids = [raw for raw in ids if raw not in gone] + new
            assert retriever.num_items == args.items
            out.append(row | rows.call(args) | rows.environment())
            print(out[-1], flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--items', type=int, default=1_000_000, help='default: %(default)s')
    parser.add_argument('--users', type=int, default=10_000, help='default: %(default)s')
    parser.add_argument('--width', type=int, default=192, help='of the embeddings (default: %(default)s)')
    parser.add_argument('--changed', type=int, default=10_000, help='items a change (default: %(default)s)')
    parser.add_argument('--indexes', nargs='+', default=['Flat', 'IVF4096,Flat'], help='default: %(default)s')
    parser.add_argument('--nprobe', type=int, default=32, help='lists that IVF scans (default: %(default)s)')
    parser.add_argument('--searches', type=int, default=200, help='timed recommendations (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=2, help='default: %(default)s')
    parser.add_argument('--quick', action='store_true', help='2,000 items; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    args = parser.parse_args()
    faiss.omp_set_num_threads(torch.get_num_threads())
    if args.quick:
        args.items, args.users, args.width, args.changed = 2000, 50, 16, 20
        args.indexes, args.searches = ['Flat', 'IVF16,Flat', 'HNSW16'], 10
        args.rounds = 1
    shown = ['index', 'round', 'remove_s', 'add_s', 'update_s', 'p50_ms_before', 'p50_ms_after']
    shown += ['save_whole_s', 'save_changes_s', 'load_s']
    for index in args.indexes:
        out = run(index, args)
        print(rows.table(out, shown))
        if args.rows or not args.quick:
            rows.append(args.rows or RESULTS, *out)


if __name__ == '__main__':
    main()
