r"""Times how ``AmazonReviews`` builds a catalogue from raw files in the format of 2014, and how much memory that takes:
generates files of the size of Electronics (1.7 million reviews, 63 thousand items that stay and as many that do not;
more than 2 GB on disk), builds the dataset in a process of its own, and appends a CSV row.

    python benchmarks/speed/amazon_parse.py --root runs/amazon_parse
    python benchmarks/speed/amazon_parse.py --root runs/amazon_parse --quick
"""

import argparse
import csv
import gzip
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch_geometric

from lirdrec_pyg.datasets.amazon_reviews import AmazonReviews
from lirdrec_pyg.typing import INTERACTS, ITEM, USER

RESULTS = Path(__file__).parents[1] / 'results' / 'speed' / 'amazon_parse.csv'
NUM_USERS, NUM_ITEMS, NUM_REVIEWS = 192_403, 63_001, 1_700_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, required=True, help='where to write the files; complete ones are kept')
    parser.add_argument('--quick', action='store_true', help='a hundredth of the size, no row')
    parser.add_argument('--rows', type=Path, default=RESULTS, help='the CSV file to append to')
    parser.add_argument('--build', metavar='NAME', help=argparse.SUPPRESS)  # what the process of its own does
    args = parser.parse_args()
    if args.build:
        build(args.root, args.build)
        return

    name, scale = ('Quick', 0.01) if args.quick else ('Electronics', 1.0)
    generate(args.root / '2014' / 'raw', name, scale)
    command = [sys.executable, __file__, '--root', str(args.root), '--build', name]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True, check=False)
    row = found | {
        'machine': f'{platform.machine()} CPU',
        'python': platform.python_version(),
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


def build(root: Path, name: str) -> None:
    r"""Builds the dataset and prints what it took as a line of JSON."""
    clock = time.perf_counter()
    dataset = AmazonReviews(str(root), name, progress=False, force_reload=True)
    seconds = time.perf_counter() - clock
    data = dataset[0]
    sizes = [Path(path).stat().st_size for path in dataset.raw_paths]
    unpacked = [json.loads(Path(f'{path}.size').read_text()) for path in dataset.raw_paths]
    row = {
        'raw_bytes': sum(sizes),
        'unpacked_bytes': sum(unpacked),
        'reviews': dataset.provenance['report']['reviews']['lines'],
        'users': data[USER].num_nodes,
        'items': data[ITEM].num_nodes,
        'interactions': data[INTERACTS].edge_index.size(1),
        'seconds': round(seconds, 1),
        'raw_mb_per_s': round(sum(sizes) / 1e6 / seconds, 1),
        'unpacked_mb_per_s': round(sum(unpacked) / 1e6 / seconds, 1),
        'peak_rss_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(row))


def generate(raw: Path, name: str, scale: float, seed: int = 0) -> None:
    r"""Writes the three raw files as streams, each with its unpacked size beside it."""
    raw.mkdir(parents=True, exist_ok=True)
    num_users, num_items, num_reviews = (round(size * scale) for size in (NUM_USERS, NUM_ITEMS, NUM_REVIEWS))
    rng = np.random.default_rng(seed)
    letters = np.array(list('abcdefghijklmnopqrstuvwxyz'))
    words = [''.join(rng.choice(letters, size=length)) for length in rng.integers(2, 11, size=20_000)]
    text = ' '.join(
        words[i] for i in (rng.random(20_000 + round(2_000_000 * scale)) ** 2.5 * len(words)).astype(int)
    )  # as if by Zipf's law

    def some_text(start: int, length: int) -> str:
        start = start * 7919 % (len(text) - 10_000)
        return text[start : start + length]

    def reviews() -> Iterable[bytes]:
        # Each user and each item five times, the others by a power law, and some pairs thus twice.
        user = np.resize(np.arange(num_users), num_reviews)
        item = np.concatenate([
            np.repeat(np.arange(num_items), 5),
            (rng.random(num_reviews - 5 * num_items) ** 2.2 * num_items).astype(int),
        ])  # fmt: skip
        rng.shuffle(user)
        rng.shuffle(item)
        length = rng.integers(100, 1300, size=num_reviews)
        for n, (u, i) in enumerate(zip(user.tolist(), item.tolist(), strict=True)):
            row = {
                'reviewerID': f'A{u:013d}', 'asin': asin(2 * i), 'reviewerName': some_text(u, 12),
                'helpful': [0, n % 7], 'reviewText': some_text(n, int(length[n])), 'overall': float(1 + n % 5),
                'summary': some_text(n + 5, 30), 'unixReviewTime': 1_300_000_000 + n * 97 % 100_000_000,
                'reviewTime': '07 5, 2013',
            }  # fmt: skip
            yield json.dumps(row).encode() + b'\n'

    def metadata() -> Iterable[bytes]:
        for i in range(2 * num_items):
            related = [asin(i * j % (2 * num_items)) for j in range(1, 61)]
            row = {
                'asin': asin(i), 'title': some_text(i, 60), 'price': 9.99, 'brand': some_text(i, 8),
                'imUrl': f'http://images.example/{asin(i)}.jpg', 'related': {'also_bought': related},
                'salesRank': {'Electronics': i}, 'categories': [['Electronics', some_text(i, 10), some_text(i, 20)]],
                'description': f'<p>{some_text(i + 3, 200 + i % 1500)}</p>',
            }  # fmt: skip
            yield f'{row}\n'.encode()

    def image_features() -> Iterable[bytes]:
        noise = rng.normal(size=8192).astype('<f4')
        for i in range(2 * num_items):
            yield asin(i).encode() + noise[i % 4096 : i % 4096 + 4096].tobytes()

    contents = {
        f'reviews_{name}_5.json.gz': reviews,
        f'meta_{name}.json.gz': metadata,
        f'image_features_{name}.b': image_features,
    }
    for file, lines in contents.items():
        path = raw / file
        if path.is_file():
            continue
        size, temporary = 0, raw / f'{file}.tmp'
        with gzip.open(temporary, 'wb', compresslevel=4) if path.suffix == '.gz' else temporary.open('wb') as stream:
            for line in lines():
                stream.write(line)
                size += len(line)
        (raw / f'{file}.size').write_text(str(size))
        temporary.replace(path)
        print(f'generated {path}: {path.stat().st_size / 1e6:.0f} MB, {size / 1e6:.0f} MB unpacked')


def asin(number: int) -> str:
    return f'B{number:09d}'


if __name__ == '__main__':
    main()
