r"""Times one training epoch plus one validation of LIRDRec at the size of the Baby dataset, on generated interactions
and features (or the interactions of a real ``.inter`` file), and appends a CSV row.

    python benchmarks/speed/train_epoch.py
    python benchmarks/speed/train_epoch.py --quick
"""

import argparse
import csv
import platform
import resource
import statistics
import subprocess
import time
from pathlib import Path

import pandas as pd
import torch
import torch_geometric
from torch_geometric.data import HeteroData
from torch_geometric.transforms import Compose

from lirdrec_pyg import Callback, LIRDRec, fit
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, USER

RESULTS = Path(__file__).parent / 'results' / 'train_epoch.csv'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--inter', type=Path, help='an .inter file (default: power-law interactions at Baby size)')
    parser.add_argument('--epochs', type=int, default=3, help='epochs timed, after one to warm up')
    parser.add_argument('--layout', default='csr', help='of the adjacency (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='a hundredth of the size, no row')
    parser.add_argument('--rows', type=Path, default=RESULTS, help='the CSV file to append to')
    args = parser.parse_args()

    data = baby_sized(scale=0.01 if args.quick else 1.0, path=args.inter)
    data = Compose([DCT(), ItemKNNGraph(k=10, weights={'image': 0.1, 'text': 0.9})])(data)
    train, val, _ = FixedSplit()(data)
    train = InteractionGraph(args.layout)(train)
    model = LIRDRec.from_data(train, seed=0)

    seconds = []

    class Clock(Callback):
        def on_epoch(self, model, row):  # type: ignore[no-untyped-def]
            seconds.append(row['seconds'])

    clock = time.perf_counter()
    fit(model, train, val, epochs=1 + args.epochs, callbacks=[Clock()], progress=False)
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True, check=False)
    row = {
        'users': data[USER].num_nodes,
        'items': data[ITEM].num_nodes,
        'train_interactions': train[INTERACTS].edge_index.size(1),
        'widths': '4096+384' if not args.quick else '40+16',
        'interactions': args.inter.name if args.inter else 'generated',
        'layout': args.layout,
        'precision': 'fp32',
        'epoch_and_validation_s': round(statistics.median(seconds[1:]), 3),
        'epochs_timed': args.epochs,
        'total_s': round(time.perf_counter() - clock, 1),
        'threads': torch.get_num_threads(),
        'peak_rss_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        'machine': f'{platform.machine()} CPU',
        'torch': torch.__version__,
        'torch_geometric': torch_geometric.__version__,
        'commit': commit.stdout.strip(),
    }
    for key, value in row.items():
        print(f'{key:<24}{value}')
    if not args.quick:
        new = not args.rows.is_file()
        args.rows.parent.mkdir(parents=True, exist_ok=True)
        with args.rows.open('a', newline='') as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def baby_sized(scale: float, path: Path | None, seed: int = 0) -> HeteroData:
    r"""Returns data of Baby's size: 19,445 users, 7,050 items, 4,096 + 384 features, 161 thousand interactions."""
    generator = torch.Generator().manual_seed(seed)
    data = HeteroData()
    if path is not None:
        frame = pd.read_csv(path, sep='\t')
        data[INTERACTS].edge_index = torch.from_numpy(frame[['userID', 'itemID']].to_numpy().T.copy())
        data[INTERACTS].split = torch.from_numpy(frame['x_label'].to_numpy())
    else:
        num_users, num_items, size = round(19_445 * scale), round(7_050 * scale), round(175_000 * scale)
        user = torch.cat([torch.arange(num_users), torch.randint(num_users, (size - num_users,), generator=generator)])
        item = (torch.rand(size, generator=generator) ** 2.2 * num_items).long()
        key = (user * num_items + item).unique()
        data[INTERACTS].edge_index = torch.stack([key // num_items, key % num_items])
        draw = torch.rand(key.numel(), generator=generator)
        data[INTERACTS].split = (draw > 0.737).long() + (draw > 0.866).long()
    data[USER].num_nodes, data[ITEM].num_nodes = (int(row.max()) + 1 for row in data[INTERACTS].edge_index)
    for name, width in [('image', 4096), ('text', 384)]:
        width = width if scale == 1 else max(16, round(width * scale))
        data[ITEM][f'x_{name}'] = torch.randn(data[ITEM].num_nodes, width, generator=generator)
    return data


if __name__ == '__main__':
    main()
