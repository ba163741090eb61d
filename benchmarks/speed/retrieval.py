r"""Measures what each index of the ``Retriever`` finds of the exact answer, how long it takes for one user and for
batches, how long it takes to build and how large it is, on generated clustered embeddings.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.retrieval --items 100000 1000000
    python -m benchmarks.speed.retrieval --quick

Items are drawn around centres, with norms that vary as those of popular and unpopular items do, users around the same
centres. Each user has seen half of its 100 best items, so that the exclusion has work to do. Times are those of
``recommend``: search, exclusion, exact ranking and the table of raw ids. Recall compares the best 20 with the exact
ones. The vectors themselves, which every ``Retriever`` holds beside its index, are not counted in ``index_mib``.
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
import torch

from benchmarks import rows
from lirdrec_pyg.serving import Retriever
from lirdrec_pyg.typing import Embeddings

RESULTS = rows.RESULTS / 'speed' / 'retrieval.csv'
K = 20


def generate(num_users: int, num_items: int, width: int, seed: int = 0) -> Embeddings:
    r"""Returns embeddings around one centre for 1,000 items."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(max(num_items // 1000, 1), width, generator=generator) / width**0.5

    def draw(count: int) -> torch.Tensor:
        x = centre[torch.randint(len(centre), (count,), generator=generator)]
        return x.add_(torch.randn(count, width, generator=generator), alpha=1 / width**0.5)

    norm = torch.randn(num_items, 1, generator=generator).mul_(0.2).exp_()
    return Embeddings(draw(num_users), draw(num_items).mul_(norm))


def configurations(num_items: int) -> dict[str, list[dict[str, int]]]:
    r"""Returns the indexes with the settings to search them by."""
    lists = 2 ** round(math.log2(4 * num_items**0.5))
    probes = [{'nprobe': nprobe} for nprobe in (8, 32, 128)]
    return {
        'HNSW32': [{'ef_search': ef_search} for ef_search in (64, 256, 512, 1024)],
        f'IVF{lists},Flat': probes,
        f'IVF{lists},SQ8': probes,
        f'IVF{lists},PQ48np': [{'nprobe': 32, 'oversample': oversample} for oversample in (1, 5, 20)],
    }


def measure(retriever: Retriever, exact: pd.DataFrame | None, singles: int, batch_size: int) -> rows.Row:
    r"""Returns recall and times for the users of a retriever."""
    users = list(range(retriever.num_users))
    retriever.recommend(users[:2], K)
    one = [1e3 * s for user in users[:singles] for s in rows.timed(lambda: retriever.recommend([user], K), 1, warmup=0)]  # noqa: B023
    batches = [users[start : start + batch_size] for start in range(0, len(users), batch_size)]
    batch = [1e3 * s for part in batches for s in rows.timed(lambda: retriever.recommend(part, K), 1, warmup=0)]  # noqa: B023
    found = retriever.recommend(users, K)
    assert len(found) == K * len(users)
    recall = 1.0
    if exact is not None:
        recall = len(found.merge(exact, on=['user', 'item'])) / len(exact)
    return {
        'recall@20': round(recall, 4),
        'p50_ms': round(statistics.median(one), 3),
        'p99_ms': round(float(np.percentile(one, 99)), 3),
        'batch_size': batch_size,
        'batch_p50_ms': round(statistics.median(batch), 2),
        'batch_p99_ms': round(float(np.percentile(batch, 99)), 2),
        'batch_users_per_s': round(1e3 * len(users) / sum(batch)),
    }


def index_size(retriever: Retriever) -> int:
    r"""Returns the bytes of the index as it is saved."""
    with tempfile.TemporaryDirectory() as folder:
        retriever.save(folder)
        return next(Path(folder).rglob('index.faiss')).stat().st_size


def run(num_items: int, num_users: int, width: int, batch_size: int, only: list[str] | None) -> list[rows.Row]:
    r"""Returns a row for each index and setting."""
    embeddings = generate(num_users, num_items, width)
    best = Retriever(embeddings).recommend(range(num_users), 100)
    seen = torch.from_numpy(best.loc[best['rank'] % 2 == 1, ['user', 'item']].astype('int64').to_numpy().T.copy())
    retriever = Retriever(embeddings, seen=seen)
    exact = retriever.recommend(range(num_users), K)
    size = {'items': num_items, 'width': width, 'users': num_users}
    built = {'build_s': 0.0, 'build_peak_extra_mib': 0, 'index_mib': 0}
    out = []

    def add(index: str, settings: dict[str, int], built: rows.Row, measured: rows.Row) -> None:
        out.append(size | {'index': index, 'settings': str(settings)} | built | measured | rows.environment())
        print(f'{num_items} {index} {settings}: {built} {measured}', flush=True)

    if not only or 'Flat' in only:
        add('Flat', {}, built, measure(retriever, None, min(num_users, 200), batch_size))
    del retriever
    for index, settings in configurations(num_items).items():
        if only and not any(index.startswith(name) for name in only):
            continue
        clock = time.perf_counter()
        with rows.PeakMemory() as memory:
            retriever = Retriever(embeddings, seen=seen, index=index)
        built = {'build_s': round(time.perf_counter() - clock, 2), 'build_peak_extra_mib': round(memory.extra)}
        built['index_mib'] = round(index_size(retriever) / 2**20, 1)
        for setting in settings:
            retriever.configure(**setting)
            add(index, setting, built, measure(retriever, exact, num_users, batch_size))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--items', type=int, nargs='+', default=[100_000, 1_000_000], help='sizes of the catalogue')
    parser.add_argument('--users', type=int, default=1000, help='users to search for (default: %(default)s)')
    parser.add_argument('--width', type=int, default=192, help='of the embeddings (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=100, help='users in a batch (default: %(default)s)')
    parser.add_argument('--only', nargs='+', help='some of: Flat, HNSW, IVF; prefixes of factory strings')
    parser.add_argument('--quick', action='store_true', help='2,000 items and 50 users; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    parser.add_argument('--plot', type=Path, help='draw recall against latency, as PNG')
    args = parser.parse_args()
    faiss.omp_set_num_threads(torch.get_num_threads())
    if args.quick:
        args.items, args.users, args.width = [2000], 50, 96
    drawn: list[rows.Row] = []
    for num_items in args.items:
        out = run(num_items, args.users, args.width, args.batch_size, args.only)
        shown = [
            'items',
            'index',
            'settings',
            'recall@20',
            'p50_ms',
            'p99_ms',
            'batch_users_per_s',
            'build_s',
            'index_mib',
        ]
        print(rows.table(out, shown))
        if args.rows or not args.quick:
            for row in out:
                rows.append(args.rows or RESULTS, row)
        drawn += out
    if args.plot:
        plot(drawn, args.plot)


def plot(out: list[rows.Row], path: Path) -> None:
    r"""Draws recall against the latency of one user and against the users a second in batches, a line for each index
    and a line of panels for each size of the catalogue."""
    import matplotlib.pyplot as plt

    sizes = sorted({int(row['items']) for row in out})
    figure, axes = plt.subplots(
        len(sizes),
        2,
        figsize=(7.6, 2.7 * len(sizes) + 0.6),
        layout='constrained',
        sharex='col',
        sharey=True,
        squeeze=False,
    )
    kinds = list(dict.fromkeys(str(row['index']) for row in out))
    for line, size in zip(axes, sizes, strict=True):
        for number, kind in enumerate(kinds):
            group = [row for row in out if int(row['items']) == size and row['index'] == kind]
            recall = [float(row['recall@20']) for row in group]
            style: dict[str, Any] = {'marker': 'o', 'markersize': 4, 'color': f'C{number}', 'label': kind}
            line[0].plot([float(row['p50_ms']) for row in group], recall, **style)
            tail = [float(row['p99_ms']) for row in group]
            line[0].plot(tail, recall, linestyle=':', marker='.', markersize=4, color=f'C{number}')
            line[1].plot([float(row['batch_users_per_s']) for row in group], recall, **style)
        line[0].set_ylabel(f'{size:,} items\nrecall@20 of the exact answer')
        for axis in line:
            axis.set_xscale('log')
            axis.grid(alpha=0.3)
    for axis in axes[-1]:
        low, high = axis.get_xlim()
        ticks = [m * 10**e for e in range(-3, 7) for m in (1, 2, 5) if low <= m * 10**e <= high]
        axis.set_xticks(ticks, [f'{tick:,g}' for tick in ticks])
        axis.minorticks_off()
    axes[-1, 0].set_xlabel('← better     ms a user, p50 (dotted: p99)')
    axes[-1, 1].set_xlabel(f'users a second, by {out[0]["batch_size"]}     better →')
    handles = {
        handle.get_label(): handle for line in axes for handle in line[0].get_lines() if handle.get_label() in kinds
    }
    figure.legend(handles.values(), handles.keys(), loc='outside lower center', ncols=len(kinds), fontsize=9)
    figure.suptitle(f'Retriever, {out[0]["width"]} columns, {out[0]["threads"]} thread')
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    main()
