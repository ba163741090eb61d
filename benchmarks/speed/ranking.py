r"""Times full ranking with all metrics, ``evaluate``, and how much memory it takes, for a quarter, half and all of the
users, against a straightforward implementation: scores in batches, seen items masked by an index that a Python loop
makes, top-k, and a hit test row by row in Python.

    python -m benchmarks.speed.ranking --root data/graphs
    python -m benchmarks.speed.ranking --sizes elec --repeats 1 --plot ranking.png
    python -m benchmarks.speed.ranking --quick

Embeddings are random; both have to return the same metrics, which is checked first. ``extra_mib`` is the peak beyond
the embeddings and the split, ``times_faster`` the ratio of the medians of the two, which take turns.
"""

import argparse
import statistics
from collections.abc import Callable
from copy import copy
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.speed.graphs import SIZES, interactions
from benchmarks.speed.peak import extra_memory
from lirdrec_pyg import Embeddings, evaluate
from lirdrec_pyg.ranking import METRICS
from lirdrec_pyg.transforms import FixedSplit
from lirdrec_pyg.typing import INTERACTS, ITEM, USER

RESULTS = rows.RESULTS / 'speed' / 'ranking.csv'
SHARES = [0.25, 0.5, 1.0]  # of the users
Ranker = Callable[[Embeddings, HeteroData, int], dict[str, float]]


@torch.no_grad()
def straightforward(embeddings: Embeddings, split: HeteroData, k: int, batch_size: int = 4096) -> dict[str, float]:
    r"""Ranks batch by batch and tests each row's items for hits in Python."""
    seen: dict[int, list[int]] = {}
    for user, item in split[INTERACTS].edge_index.t().tolist():
        seen.setdefault(user, []).append(item)
    truth: dict[int, list[int]] = {}
    for user, item in split[INTERACTS].edge_label_index.t().tolist():
        truth.setdefault(user, []).append(item)
    users, best = sorted(truth), []
    for start in range(0, len(users), batch_size):
        block = users[start : start + batch_size]
        score = embeddings.user[block] @ embeddings.item.t()
        row = [row for row, user in enumerate(block) for _ in seen.get(user, ())]
        score[row, [item for user in block for item in seen.get(user, ())]] = float('-inf')
        best.append(score.topk(k, dim=1).indices.cpu().numpy())
    top = np.concatenate(best)
    hits = np.array([[item in truth[user] for item in line] for user, line in zip(users, top, strict=True)])
    count, rank = np.array([len(truth[user]) for user in users]), np.arange(1, k + 1)
    gain = 1 / np.log2(rank + 1)
    ideal = np.minimum(count, k)
    values = {
        'recall': hits.sum(axis=1) / count,
        'ndcg': (hits * gain).sum(axis=1) / gain.cumsum()[ideal - 1],
        'precision': hits.mean(axis=1),
        'map': (hits * hits.cumsum(axis=1) / rank).sum(axis=1) / ideal,
        'hit': hits.any(axis=1),
        'mrr': (hits / rank).max(axis=1),
        'coverage': np.bincount(top.flatten(), minlength=len(embeddings.item)) > 0,
    }
    return {f'{name}@{k}': float(value.mean()) for name, value in values.items()}


def ours(embeddings: Embeddings, split: HeteroData, k: int) -> dict[str, float]:
    return evaluate(embeddings, split, k, list(METRICS))


RANKERS: dict[str, Ranker] = {'evaluate': ours, 'straightforward': straightforward}


def share_of(split: HeteroData, share: float) -> HeteroData:
    r"""Returns the split of the first users."""
    out = copy(split)
    label = split[INTERACTS].edge_label_index
    out[INTERACTS].edge_label_index = label[:, label[0] < share * split[USER].num_nodes]
    return out


def measure(embeddings: Embeddings, split: HeteroData, k: int, repeats: int, device: str) -> list[rows.Row]:
    r"""Returns a row for each implementation, after a check that both find the same."""
    found: dict[str, dict[str, float]] = {}
    peaks: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in RANKERS}

    def once(name: str) -> None:
        seconds[name] += rows.timed(
            lambda: found.update({name: RANKERS[name](embeddings, split, k)}), 1, device, warmup=0
        )

    for name in RANKERS:
        peaks[name] = extra_memory(lambda: once(name), device)  # noqa: B023
    for key, value in found['evaluate'].items():
        np.testing.assert_allclose(value, found['straightforward'][key], rtol=1e-3, atol=1e-5, err_msg=key)
    for _ in range(repeats - 1):
        for name in RANKERS:
            once(name)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    users, (items, width) = len(split[INTERACTS].edge_label_index[0].unique()), embeddings.item.size()
    return [
        {'implementation': name, 'users': users, 'items': items, 'width': width, 'k': k, 'metrics': len(METRICS)}
        | {'seconds': round(value, 4), 'us_per_user': round(1e6 * value / users, 2)}
        | {'gflops': round(2 * users * items * width / value / 1e9, 1), 'extra_mib': round(peaks[name])}
        | {'times_faster': round(median['straightforward'] / value, 2), 'repeats': repeats}
        for name, value in median.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, help='a folder with <size>.inter (default: generated interactions)')
    parser.add_argument('--sizes', nargs='+', default=['baby', 'elec'], help=f'some of {", ".join(SIZES)}')
    parser.add_argument('--width', type=int, default=192, help='of the embeddings (default: %(default)s)')
    parser.add_argument('--k', type=int, default=50, help='default: %(default)s')
    parser.add_argument('--repeats', type=int, default=3, help='of each (default: %(default)s)')
    parser.add_argument('--device', default='cpu', help='default: %(default)s')
    parser.add_argument('--quick', action='store_true', help='a hundredth of the size; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    parser.add_argument('--plot', type=Path, help='draw seconds against users, as PNG')
    parser.add_argument('--profile', type=Path, help='write a trace of `evaluate` at the first size')
    args = parser.parse_args()
    out = []
    for size in args.sizes:
        data, source = interactions(size, args.root, scale=0.01 if args.quick else 1.0)
        test = FixedSplit()(data)[2].to(args.device)
        generator = torch.Generator().manual_seed(0)
        user = torch.randn(data[USER].num_nodes, args.width, generator=generator)
        item = torch.randn(data[ITEM].num_nodes, args.width, generator=generator)
        embeddings = Embeddings(user.to(args.device), item.to(args.device))
        if args.profile and size == args.sizes[0]:
            with torch.profiler.profile() as trace:
                ours(embeddings, test, args.k)
            trace.export_chrome_trace(str(args.profile))
        for share in SHARES:
            found = measure(embeddings, share_of(test, share), args.k, args.repeats, args.device)
            print(rows.table(found, list(found[0])), flush=True)
            named = {'size': size if not args.quick else f'quick {size}', 'interactions': source, 'share': share}
            out += [named | row | rows.call(args) | rows.environment(args.device) for row in found]
    if args.rows or not args.quick:
        for row in out:
            rows.append(args.rows or RESULTS, row)
    if args.plot:
        plot(out, args.plot)


def plot(out: list[rows.Row], path: Path) -> None:
    r"""Draws seconds against users."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 4.4), layout='constrained')
    for size, implementation in dict.fromkeys((row['size'], row['implementation']) for row in out):
        points = [
            (row['users'], row['seconds'])
            for row in out
            if (row['size'], row['implementation']) == (size, implementation)
        ]
        axes.loglog(*zip(*points, strict=True), marker='o', label=f'{implementation}, {size}')
    axes.set_xlabel('users')
    axes.set_ylabel('← better     seconds')
    axes.set_title(f'Full ranking, k = {out[0]["k"]}, {out[0]["threads"]} threads')
    figure.legend(loc='outside lower center', ncols=2, fontsize=9)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


if __name__ == '__main__':
    main()
