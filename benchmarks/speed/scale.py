r"""A catalogue that outgrows full-graph training: from features in a file to the item graph, an epoch of mini-batches
and the embeddings of everything, on a generated catalogue with power-law popularity.

    python -m benchmarks.speed.scale --items 1000000 --interactions 10000000
    python -m benchmarks.speed.scale --items 100000 --interactions 1000000 --steps 50
    python -m benchmarks.speed.scale --whole-graph
    python -m benchmarks.speed.scale --quick

An epoch is extrapolated from the median of --steps steps. ``knn_recall`` is that of 500 items. The peak is that of the
whole process, and counts what it has read of the file.

``--whole-graph`` adds a row of training on the whole graph in the same run, in as many steps as `fit` takes by default.
Of these, --whole-steps are timed. Its ``num_neighbors`` are ``all``. What was done once is in both rows.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.speed.electronics import Steps
from benchmarks.speed.graphs import power_law
from lirdrec_pyg import LazyAdam, LIRDRec, MappedFeatures, MiniBatches
from lirdrec_pyg.training import Trainer
from lirdrec_pyg.transforms import DCT, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.transforms.item_knn_graph import exact_knn
from lirdrec_pyg.typing import INTERACTS, ITEM, SIMILAR_TO, USER

RESULTS = rows.RESULTS / 'speed' / 'scale.csv'


@contextmanager
def phase(row: rows.Row, name: str) -> Iterator[None]:
    r"""Writes the seconds of a phase, and the peak so far."""
    clock = time.perf_counter()
    yield
    row[f'{name}_s'] = round(time.perf_counter() - clock, 2)
    row[f'{name}_peak_gib'] = round(rows.peak_rss() / 1024, 2)
    print(f'{name:<12}{row[f"{name}_s"]:>10} s{row[f"{name}_peak_gib"]:>10} GiB so far', flush=True)


def write_features(path: Path, num_items: int, width: int, seed: int = 0, block: int = 65536) -> None:
    r"""Writes features around one centre for 100 items, block by block."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(max(num_items // 100, 1), width, generator=generator)
    out = np.lib.format.open_memmap(path, mode='w+', dtype=np.float16, shape=(num_items, width))
    for start in range(0, num_items, block):
        size = min(block, num_items - start)
        x = centre[torch.randint(len(centre), (size,), generator=generator)]
        out[start : start + size] = x.add_(torch.randn(size, width, generator=generator), alpha=0.7).numpy()
    out.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--items', type=int, default=1_000_000, help='default: %(default)s')
    parser.add_argument('--interactions', type=int, default=10_000_000, help='default: %(default)s')
    parser.add_argument('--users', type=int, help='default: a tenth of the interactions')
    parser.add_argument('--columns', type=int, default=128, help='of the features (default: %(default)s)')
    parser.add_argument('--hidden-channels', type=int, default=64, help='default: %(default)s')
    parser.add_argument('--num-neighbors', type=int, nargs='+', default=[4, 2, 0], help='at each hop')
    parser.add_argument('--rescale', action='store_true', help='count sampled neighbours as all')
    parser.add_argument('--index', default='IVF2048,Flat', help='of the item graph (default: %(default)s)')
    parser.add_argument('--index-params', default='nprobe=4', help='how to search it (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=20, help='steps timed, after two (default: %(default)s)')
    parser.add_argument('--whole-graph', action='store_true', help='train on the whole graph, too')
    parser.add_argument('--whole-steps', type=int, default=3, help='of these timed, after one (default: %(default)s)')
    parser.add_argument('--folder', type=Path, help='where the features go (default: a temporary folder)')
    parser.add_argument('--quick', action='store_true', help='2,000 items; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    parser.add_argument('--plot', type=Path, help='draw time and memory of all rows of the file, as PNG')
    args = parser.parse_args()
    if args.quick:
        args.items, args.interactions, args.steps, args.index, args.columns = 2000, 20_000, 2, 'IVF16,Flat', 16
    if args.plot and importlib.util.find_spec('matplotlib') is None:
        parser.error("--plot needs matplotlib: pip install 'lirdrec-pyg[plots]'")
    num_users = args.users or args.interactions // 10
    print(needs(args.items, num_users, args.interactions, args.columns, args.hidden_channels), flush=True)
    row: rows.Row = {'items': args.items, 'users': num_users, 'interactions': args.interactions}
    row |= {'columns': args.columns, 'hidden_channels': args.hidden_channels}
    row |= {'num_neighbors': str(args.num_neighbors), 'index': args.index, 'index_params': args.index_params}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / 'text_feat.npy'
        data = HeteroData()
        data[USER].num_nodes, data[ITEM].num_nodes = num_users, args.items
        with phase(row, 'generate'):
            write_features(path, args.items, args.columns)
            data[INTERACTS].edge_index = power_law(num_users, args.items, args.interactions)
        with phase(row, 'knn'):
            data[ITEM].x_text = torch.from_numpy(np.load(path)).float()
            data = ItemKNNGraph(k=10, index=args.index, index_params=args.index_params)(data)
        some = torch.randperm(args.items, generator=torch.Generator().manual_seed(0))[:500].sort().values
        exact = exact_knn(data[ITEM].x_text.numpy(), 10, rows=some.numpy())
        neighbour, target = data[SIMILAR_TO].edge_index
        at = torch.searchsorted(target, some)
        hits = sum(
            len(np.intersect1d(neighbour[start : start + 10].numpy(), near))
            for start, near in zip(at.tolist(), exact, strict=True)
        )
        row['knn_recall'] = round(hits / exact.size, 4)
        del data[ITEM].x_text
        with phase(row, 'graph'):
            train = InteractionGraph()(data)
            features = MappedFeatures({'text': path}, args.items)
            batches = MiniBatches(train, args.num_neighbors, features=features, rescale=args.rescale)
        model = LIRDRec(
            num_users, features.in_channels, args.hidden_channels, num_layers=len(args.num_neighbors) - 1, sparse=True
        )
        optimizer = LazyAdam(model.parameters(), lr=1e-3, fused=True)
        torch.manual_seed(0)
        seconds, sizes, stream = [], [], iter(batches)
        with phase(row, 'training'):
            for _ in range(args.steps + 2):
                clock = time.perf_counter()
                batch, *triplets = next(stream)
                optimizer.zero_grad()
                model.loss(batch, *triplets).backward()
                optimizer.step()
                seconds.append(time.perf_counter() - clock)
                sizes.append((batch[USER].num_nodes, batch[ITEM].num_nodes, batch[INTERACTS].edge_index.size(1)))
        step = statistics.median(seconds[2:])
        names = ('users_a_step', 'items_a_step', 'interactions_a_step')
        row |= {
            name: round(statistics.mean(column)) for name, column in zip(names, zip(*sizes, strict=True), strict=True)
        }
        row |= {'steps': args.steps, 'step_s': round(step, 4), 'steps_an_epoch': len(batches)}
        row['epoch_s'] = round(step * len(batches), 1)
        with phase(row, 'inference'):
            model.eval()
            embeddings = batches.encode(model)
        assert len(embeddings.item) == args.items
        out = [row]
        del model, optimizer, embeddings, stream, batches
        if args.whole_graph:
            train[ITEM].x_text = torch.from_numpy(np.load(path)).float()
            out.append(row | whole_graph(DCT()(train), args))
    for one in out:
        for name, value in one.items():
            print(f'{name:<22}{value}')
        if args.rows or not args.quick:
            rows.append(args.rows or RESULTS, one | rows.environment())
    if args.plot:
        plot(rows.read(args.rows or RESULTS), args.plot)


def whole_graph(train: HeteroData, args: argparse.Namespace) -> rows.Row:
    r"""Returns what steps on the whole graph take, and the embeddings of everything."""
    found: rows.Row = {'num_neighbors': 'all', 'users_a_step': train[USER].num_nodes}
    found |= {'items_a_step': args.items, 'interactions_a_step': train[INTERACTS].edge_index.size(1)}
    steps = Steps(args.whole_steps)
    model = LIRDRec.from_data(
        train, seed=0, hidden_channels=args.hidden_channels, num_layers=len(args.num_neighbors) - 1
    )
    trainer = Trainer(model, train, batch_size=None, lr=1e-3, callbacks=[steps])
    with phase(found, 'training'):
        trainer.fit(args.whole_steps + 2)  # an epoch may have one step
    loader: Any = trainer.loader
    found |= {'steps': args.whole_steps, 'step_s': round(steps.seconds, 4), 'steps_an_epoch': len(loader)}
    found['epoch_s'] = round(steps.seconds * len(loader), 1)
    with phase(found, 'inference'), torch.no_grad():
        model.eval()(train)
    return found


def needs(items: int, users: int, interactions: int, columns: int, channels: int) -> str:
    r"""Says what a run takes: the features on disk; and in memory the features of the item graph, the edges in both
    directions, and the users' vectors with both moments of Adam."""
    memory = 4 * items * columns + 40 * (interactions + 10 * items) + 3 * 4 * users * 2 * channels
    size = f'{items:,} items, {users:,} users, {interactions:,} interactions'
    peak = 0.6 + 3.3 * memory / 2**30  # as the rows have it
    return f'{size}: takes {2 * items * columns / 2**30:.2f} GiB of disk and about {peak:.1f} GiB of memory'


def plot(out: list[rows.Row], path: Path) -> None:
    r"""Draws the time of each phase and the peak memory up to it, against the size of the catalogue."""
    import matplotlib.pyplot as plt

    last = {(row['num_neighbors'] == 'all', int(row['items'])): row for row in out}  # the newest of each
    items = sorted({items for _, items in last})
    phases = {
        'item graph': ('knn', 'knn', False),
        'adjacency': ('graph', 'graph', False),
        'epoch of mini-batches': ('epoch', 'training', False),
        'epoch on the whole graph': ('epoch', 'training', True),
        'inference of everything': ('inference', 'inference', False),
    }
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 4.2), layout='constrained')
    for number, (label, (phase, peak, whole)) in enumerate(phases.items()):
        style: dict[str, Any] = {'marker': 'o', 'color': f'C{number}'}
        own = [last[whole, size] for size in items if (whole, size) in last]
        sizes = [int(row['items']) for row in own]
        axes[0].loglog(sizes, [float(row[f'{phase}_s']) for row in own], label=label, **style)
        axes[1].loglog(sizes, [float(row[f'{peak}_peak_gib']) for row in own], **style)
    out = [last[key] for key in sorted(last, key=lambda key: key[1]) if not key[0]]
    axes[1].axhline(16, color='black', linestyle=':')
    axes[1].annotate('16 GiB', (items[0], 16), xytext=(0, 3), textcoords='offset points', fontsize=8)
    axes[0].set_ylabel('← better     seconds')
    axes[1].set_ylabel('← better     peak memory so far, GiB')
    ticks = [f'{int(row["items"]):,}\n{int(row["interactions"]):,}' for row in out]
    for axis in axes:
        axis.set_xticks(items, ticks)
        axis.minorticks_off()
        axis.set_xlabel('items, and interactions')
        axis.grid(alpha=0.3)
    axes[1].set_yticks(gib := [0.5, 1, 2, 4, 8, 16], labels=map(str, gib))
    figure.legend(loc='outside lower center', ncols=3, fontsize=9)
    figure.suptitle(f'{out[0]["columns"]} feature columns, {out[0]["threads"]} thread')
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    main()
