r"""How the cost of a training step grows: time and peak memory against interactions, items, width and layers, one at a
time around a base, on generated graphs with power-law popularity.

    python -m benchmarks.speed.scaling --plot scaling.png
    python -m benchmarks.speed.scaling --vary items layers
    python -m benchmarks.speed.scaling --quick

Each point is measured once, in a process of its own. ``peak_mib`` is the peak of that process beyond the libraries.
With ``--device cuda`` it is that of the device's memory. A step has 2,048 triplets. Points that would take more than
--max-gib are left out, and named.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.speed.graphs import power_law, with_features
from lirdrec_pyg import BPRSampler, LIRDRec
from lirdrec_pyg.transforms import DCT, InteractionGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, SIMILAR_TO, USER

RESULTS = rows.RESULTS / 'speed' / 'scaling.csv'
BASE = {'interactions': 100_000, 'items': 10_000, 'width': 64, 'layers': 2}
POINTS = {
    'interactions': [10_000, 100_000, 1_000_000, 10_000_000],
    'items': [1_000, 10_000, 100_000, 1_000_000],
    'width': [32, 64, 128, 256],
    'layers': [1, 2, 3, 4],
}
QUICK = {'interactions': [1_000, 4_000], 'items': [100], 'width': [8], 'layers': [1]}
SHOWN = ['varied', 'interactions', 'users', 'items', 'width', 'layers', 'step_ms', 'peak_mib']
FEATURES = 128  # columns


def gib(point: dict[str, int]) -> float:
    r"""Returns about how much a step takes: tables, Adam's moments, gradients and passes."""
    rows_, splits = point['interactions'] // 8 + point['items'], 2
    return (
        rows_ * splits * point['width'] * 4 * 10 + point['items'] * FEATURES * 4 * 12 + point['interactions'] * 80
    ) / 2**30


def prepare(point: dict[str, int]) -> HeteroData:
    r"""Returns the training split: eight interactions a user, one modality, ten similar items each."""
    num_users, num_items = max(point['interactions'] // 8, 1), point['items']
    data = HeteroData()
    data[USER].num_nodes, data[ITEM].num_nodes = num_users, num_items
    data[INTERACTS].edge_index = power_law(num_users, num_items, point['interactions'])
    data = with_features(data, {'text': FEATURES}, rank=32)
    neighbour = torch.randint(num_items, (10 * num_items,), generator=torch.Generator().manual_seed(0))
    data[SIMILAR_TO].edge_index = torch.stack([neighbour, torch.arange(num_items).repeat_interleave(10)])
    data[SIMILAR_TO].edge_weight = torch.full((10 * num_items,), 0.1)
    return InteractionGraph()(DCT()(data))


def measure(point: dict[str, int], steps: int, device: str, profile: str | None) -> rows.Row:
    r"""Returns the median of some steps and the peak of this process, or of the device."""
    start = rows.peak_rss()
    train = prepare(point).to(device)
    model = LIRDRec.from_data(train, seed=0, hidden_channels=point['width'], num_layers=point['layers']).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    sampler = BPRSampler(train[INTERACTS].edge_index, train[USER].num_nodes, train[ITEM].num_nodes, seed=0)
    batch = [index.to(device) for index in next(iter(sampler))]

    def step() -> None:
        optimizer.zero_grad()
        model.loss(train, *batch).backward()
        optimizer.step()

    seconds = statistics.median(rows.timed(step, steps, device))
    peak = rows.peak_rss() - start
    if device.startswith('cuda'):
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    if profile is not None:
        with torch.profiler.profile() as trace:
            step()
        trace.export_chrome_trace(profile)
    return {'users': train[USER].num_nodes, 'step_ms': round(1e3 * seconds, 2), 'peak_mib': round(peak), 'steps': steps}


def child(point: dict[str, int], steps: int, device: str, profile: Path | None) -> rows.Row:
    r"""Measures in another process."""
    task = {'point': point, 'steps': steps, 'device': device, 'profile': profile and str(profile)}
    args = [sys.executable, '-m', 'benchmarks.speed.scaling', '--task', json.dumps(task)]
    result = subprocess.run(args, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f'{point} failed: {result.stderr[-2000:]}')
    return dict(json.loads(result.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--vary', nargs='+', default=list(POINTS), choices=list(POINTS), help='default: all')
    parser.add_argument('--steps', type=int, default=5, help='of each point (default: %(default)s)')
    parser.add_argument('--max-gib', type=float, default=12, help='leaves out points that take more')
    parser.add_argument('--quick', action='store_true', help='one or two small points each; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    parser.add_argument('--plot', type=Path, help='draw time and memory, as PNG')
    parser.add_argument('--profile', type=Path, help='write a trace of a step of the last point, for chrome://tracing')
    parser.add_argument('--device', default='cpu', help='default: %(default)s')
    parser.add_argument('--task', type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        print(json.dumps(measure(**args.task)))
        return
    base = BASE if not args.quick else {name: values[0] for name, values in QUICK.items()}
    out, found = [], {}
    for varied in args.vary:
        for value in (QUICK if args.quick else POINTS)[varied]:
            point = base | {varied: value}
            if gib(point) > args.max_gib:
                print(f'{point}: left out, would take about {gib(point):.0f} GiB')
                continue
            key = tuple(point.values())
            if key not in found:
                found[key] = child(point, 2 if args.quick else args.steps, args.device, args.profile)
            row = {'varied': varied, **point} | found[key]
            out.append(row | rows.call(args) | rows.environment(args.device))
            print(rows.table([row], SHOWN), flush=True)
            if args.rows or not args.quick:
                rows.append(args.rows or RESULTS, out[-1])
    if args.plot:
        plot(out, args.plot)


def plot(out: list[rows.Row], path: Path) -> None:
    r"""Draws time above memory, a column of panels for each quantity."""
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row['varied'] for row in out))
    figure, axes = plt.subplots(
        2,
        len(names),
        figsize=(1.75 * len(names) + 0.6, 4.6),
        layout='constrained',
        sharex='col',
        sharey='row',
        squeeze=False,
    )
    for column, name in enumerate(names):
        group = [row for row in out if row['varied'] == name]
        for axis, key in zip(axes[:, column], ('step_ms', 'peak_mib'), strict=True):
            axis.loglog([int(row[name]) for row in group], [float(row[key]) for row in group], marker='o')
            axis.grid(alpha=0.3)
        if name in ('width', 'layers'):
            axes[1, column].set_xticks(values := [int(row[name]) for row in group], labels=map(str, values))
            axes[1, column].minorticks_off()
        axes[1, column].set_xlabel(name)
    axes[0, 0].set_ylabel('← better     ms a step')
    axes[1, 0].set_ylabel('← better     peak, MiB')
    figure.suptitle(f'A step of 2,048 triplets, {out[0]["threads"]} threads')
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    main()
