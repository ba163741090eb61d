r"""Trains LIRDRec on a dataset in the folder format of MMRec, such as the published Amazon sets, and prints the test
metrics of the weights that validation chose.

    python examples/lirdrec_amazon.py --root data --name baby
    python examples/lirdrec_amazon.py --root data --name scientific --seeds 0 1 2 --rows results.csv
"""

import argparse
import csv
import fcntl
import json
import platform
import resource
import subprocess
import time
from pathlib import Path

import torch
import torch_geometric
from torch_geometric.transforms import Compose

import lirdrec_pyg
from lirdrec_pyg import LIRDRec, evaluate, fit
from lirdrec_pyg.datasets import MMRecDataset
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph

METRICS = ['recall', 'ndcg', 'precision', 'map', 'coverage', 'popularity']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', required=True, help='the folder that holds <name>/, or that folder itself')
    parser.add_argument('--name', required=True, help='the name of the dataset: the folder holds <name>.inter')
    parser.add_argument('--cache-dir', help='where to keep the processed data (default: inside the dataset folder)')
    parser.add_argument('--hidden-channels', type=int, default=64, help='width of a view (default: %(default)s)')
    parser.add_argument('--num-layers', type=int, default=2, help='layers on the interactions (default: %(default)s)')
    parser.add_argument('--k', type=int, default=10, help='neighbours in the item graph (default: %(default)s)')
    parser.add_argument('--image-weight', type=float, default=0.1, help='of images beside text (default: %(default)s)')
    parser.add_argument('--reg-weight', type=float, default=1e-4, help='L2 penalty (default: %(default)s)')
    parser.add_argument('--lr', type=float, default=1e-4, help='learning rate (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=2048, help='triplets in a step (default: %(default)s)')
    parser.add_argument('--epochs', type=int, default=1000, help='epochs at most (default: %(default)s)')
    parser.add_argument('--patience', type=int, default=20, help='epochs without gain (default: %(default)s)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='one run for each (default: 0)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='default: %(default)s')
    parser.add_argument('--rows', type=Path, help='append a CSV row for each run; a row that exists is not run again')
    args = parser.parse_args()

    folder = Path(args.root) / args.name if (Path(args.root) / args.name).is_dir() else Path(args.root)
    names = {path.name.removesuffix('_feat.npy') for path in folder.glob('*_feat.npy')}
    weights = {'image': args.image_weight, 'text': 1 - args.image_weight} if names == {'image', 'text'} else None
    content = Compose([DCT(), ItemKNNGraph(k=args.k, weights=weights)])
    data = MMRecDataset(args.root, args.name, pre_transform=content, cache_dir=args.cache_dir)[0]
    train, val, test = FixedSplit()(data)
    train = InteractionGraph()(train).to(args.device)

    results = []
    for seed in args.seeds:
        names = ('hidden_channels', 'num_layers', 'k', 'image_weight', 'reg_weight', 'lr', 'batch_size')
        names += ('epochs', 'patience')
        settings = json.dumps({name: getattr(args, name) for name in names})
        row = {'model': 'LIRDRec', 'dataset': args.name, 'split': 'fixed', 'seed': seed, 'settings': settings}
        if args.rows and (known := find_row(args.rows, row)):
            print(f'seed {seed}: found in {args.rows}')
            results.append({key: float(value) for key, value in known.items() if 'test_' in key and value})
            print_metrics(results[-1])
            continue
        clock = time.perf_counter()
        model = LIRDRec.from_data(
            train,
            seed=seed,
            hidden_channels=args.hidden_channels,
            num_layers=args.num_layers,
            reg_weight=args.reg_weight,
        ).to(args.device)
        result = fit(
            model,
            train,
            val,
            epochs=args.epochs,
            batch_size=args.batch_size,
            lr=args.lr,
            patience=args.patience,
            stopping='released',
            seed=seed,
        )
        seconds = time.perf_counter() - clock
        metrics = evaluate(model(train), test, k=[5, 10, 20, 50], metrics=METRICS)
        results.append({f'test_{key}': value for key, value in metrics.items()})
        print(f'seed {seed}: best epoch {result.best_epoch}, {seconds:.0f} s')
        print_metrics(results[-1])
        if args.rows:
            row |= {'best_epoch': result.best_epoch, 'epochs': len(result.log), 'seconds': round(seconds, 1)}
            row |= {'val_recall@20': result.best_value} | results[-1] | environment(args.device)
            append_row(args.rows, row)
    if len(results) > 1:
        for name in results[0]:
            values = torch.tensor([result[name] for result in results if name in result])
            print(f'{name}: {values.mean():.4f} ± {values.std():.4f} ({len(values)} seeds)')


def print_metrics(metrics: dict[str, float]) -> None:
    for name in METRICS:
        values = {key.partition('@')[2]: value for key, value in metrics.items() if key.startswith(f'test_{name}@')}
        print(f'  {name:<10}' + '  '.join(f'@{k} {value:.4f}' for k, value in values.items()))


def environment(device: str) -> dict[str, str]:
    r"""Returns what a reader needs to judge a row: versions, hardware, commit and peak memory."""
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True, check=False)
    return {
        'lirdrec_pyg': lirdrec_pyg.__version__,
        'commit': commit.stdout.strip(),
        'torch': torch.__version__,
        'torch_geometric': torch_geometric.__version__,
        'python': platform.python_version(),
        'device': torch.cuda.get_device_name() if device == 'cuda' else f'{platform.machine()} CPU',
        'threads': str(torch.get_num_threads()),
        'peak_rss_mib': str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024),
    }


def find_row(path: Path, key: dict[str, object]) -> dict[str, str] | None:
    r"""Returns the row of a CSV file that agrees with ``key``, if any."""
    if not path.is_file():
        return None
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    return next((row for row in rows if all(row[name] == str(value) for name, value in key.items())), None)


def append_row(path: Path, row: dict[str, object]) -> None:
    r"""Appends a row to a CSV file, safely beside other processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a+', newline='') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        header = next(csv.reader(file), None)
        if header not in (None, list(row)):
            raise ValueError(f"'{path}' needs to have the columns {list(row)} (got {header})")
        writer = csv.DictWriter(file, fieldnames=list(row))
        if header is None:
            writer.writeheader()
        writer.writerow(row)


if __name__ == '__main__':
    main()
