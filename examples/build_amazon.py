r"""Builds a catalogue from the raw files of an Amazon release, which are downloaded if they are not there yet, and
writes it as a folder in the format of MMRec, ready for training.

    python examples/build_amazon.py --root data/amazon --name baby --out data
    python examples/build_amazon.py --root data/amazon --name Toys_and_Games --version 2018 --min-rating 4 --out data
    python examples/build_amazon.py --root data/fake --name baby --version 2023 --fake --out data/fake

The folder holds the interactions with their split and, in items.tsv, title, text and image URL of each item. Only the
release of 2014 comes with features (of images). Put others, computed in the order of items.tsv, into the folder as
<modality>_feat.npy, or pass them with --features. With --fake, small raw files of the release are generated first
where there are none, so nothing is downloaded.
"""

import argparse
import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from lirdrec_pyg.datasets import AmazonReviews, save_mmrec
from lirdrec_pyg.transforms import LeaveLastOut, RandomSplit, TemporalSplit
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, modalities, modality_features

SPLITS = {
    'random': lambda seed: RandomSplit(seed=seed),
    'last': lambda seed: LeaveLastOut(),
    'time': lambda seed: TemporalSplit(),
}
FILES = {
    '2014': ('reviews_{}_5.json.gz', 'meta_{}.json.gz'),
    '2018': ('{}_5.json.gz', 'meta_{}.json.gz'),
    '2023': ('{}.jsonl.gz', 'meta_{}.jsonl.gz'),
}

EVERY = """Automotive Books CDs_and_Vinyl Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music
Electronics
Grocery_and_Gourmet_Food Home_and_Kitchen Kindle_Store Movies_and_TV Musical_Instruments Office_Products
Patio_Lawn_and_Garden Pet_Supplies Sports_and_Outdoors Tools_and_Home_Improvement Toys_and_Games Video_Games"""
CATEGORIES = {  # as published; 2014 and 2018 with at least five reviews of each user and item
    '2014': f'{EVERY} Amazon_Instant_Video Apps_for_Android Baby Beauty Health_and_Personal_Care'.split(),
    '2018': f"""{EVERY} All_Beauty AMAZON_FASHION Appliances Arts_Crafts_and_Sewing Gift_Cards Industrial_and_Scientific
    Luxury_Beauty Magazine_Subscriptions Prime_Pantry Software""".split(),
    '2023': f"""{EVERY} All_Beauty Amazon_Fashion Appliances Arts_Crafts_and_Sewing Baby_Products
    Beauty_and_Personal_Care Gift_Cards Handmade_Products Health_and_Household Health_and_Personal_Care
    Industrial_and_Scientific Magazine_Subscriptions Software Subscription_Boxes Unknown""".split(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', required=True, help='the raw files are in <root>/<version>/raw')
    parser.add_argument('--name', required=True, help='baby, sports, clothing, electronics, or a published category')
    parser.add_argument('--version', choices=list(FILES), default='2014', help='the release (default: %(default)s)')
    parser.add_argument('--k-core', type=int, default=5, help='fewest interactions of users, items (default: 5)')
    parser.add_argument('--min-rating', type=float, help='only reviews with at least this rating (default: all)')
    parser.add_argument('--split', choices=list(SPLITS), default='random', help='8:1:1 of each user at random, the '
                        'last two items of each, or 8:1:1 at two points of time (default: %(default)s)')  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='of the random split (default: %(default)s)')
    parser.add_argument('--no-image-features', action='store_true', help='do without the published ones of 2014')
    parser.add_argument('--features', nargs='+', default=[], metavar='MODALITY=PATH', help='.npy files, a row an item')
    parser.add_argument('--out', required=True, help='the folder in which to write the folder <name>')
    parser.add_argument('--fake', action='store_true', help='generate small raw files first; no network is needed')
    args = parser.parse_args()

    folder = Path(args.out).expanduser() / args.name  # what is refused, is refused before anything is written
    if folder.exists():
        parser.error(f"'{folder}' is there already: remove it, or pass another '--out'")
    for text in args.features:
        if '=' not in text:
            parser.error(f"'--features' needs to be of the form MODALITY=PATH (got {text!r})")
    known = {**category_names(args.version), **{name: name for name in CATEGORIES[args.version]}}
    if args.name not in known:
        others = [version for version in FILES if args.name in {*category_names(version), *CATEGORIES[version]}]
        parser.error(
            f"the release of {args.version} has no category '{args.name}' (it has {', '.join(sorted(known))})"
            + (f'; those of {" and ".join(others)} have' if others else '')
        )
    dataset = (FakeReviews if args.fake else AmazonReviews)(
        args.root,
        args.name,
        args.version,
        min_rating=args.min_rating,
        k_core=args.k_core,
        features=dict(text.split('=', 1) for text in args.features),
        image_features=not args.no_image_features,
    )
    data = dataset[0]
    data[INTERACTS].split = SPLITS[args.split](args.seed).assign(data)
    print(f'\n{dataset}')
    print_report(dataset.provenance['report'])
    size = data[INTERACTS].edge_index.size(1)
    parts = data[INTERACTS].split.bincount(minlength=3).tolist()
    print(f'\n{data[USER].num_nodes} users, {data[ITEM].num_nodes} items, {size} interactions')
    print(f'for training, validation and test: {parts}')
    for modality in modalities(data):
        x, has = modality_features(data, modality)
        print(f'features of {modality}: {x.size(1)} numbers, {x.size(0) if has is None else int(has.sum())} items')
    example = next((i for i, text in enumerate(data[ITEM].text) if text), 0)
    print(f'for example, {data[ITEM].raw_id[example]}: {data[ITEM].text[example][:200]}')
    folder = save_mmrec(data, args.out, args.name)
    print(f'\nwritten: {folder}')
    if 'text' not in modalities(data):
        fake = '--fake ' if args.fake else ''
        print('next, the features of the texts:')
        print(f'    python examples/extract_features.py {fake}--items {folder}/items.tsv --out {folder}')
    print('then:')
    print(f'    python examples/lirdrec_amazon.py --root {args.out} --name {args.name}')


def category_names(version: str) -> dict[str, str]:
    r"""Returns the categories of the published benchmarks by their short names."""
    names = {'sports': 'Sports_and_Outdoors', 'clothing': 'Clothing_Shoes_and_Jewelry', 'electronics': 'Electronics'}
    baby = {'2014': 'Baby', '2023': 'Baby_Products'}
    return names | ({'baby': baby[version]} if version in baby else {})


class FakeReviews(AmazonReviews):
    r"""Reviews whose raw files are generated where there are none, once all arguments are found to be right."""

    def download(self) -> None:
        if found := [path for path in self.raw_paths if Path(path).is_file()]:
            raise FileExistsError(f'generated files are not mixed with others (found {found}): pass another --root')
        write_fake(Path(self.root), self.name, self.version)
        super().download()


def print_report(report: dict[str, Any], indent: int = 2) -> None:
    for key, value in report.items():
        if value == {}:
            continue
        if isinstance(value, dict):
            print(f'{" " * indent}{key}')
            print_report(value, indent + 2)
        else:
            print(f'{" " * indent}{key:<{44 - indent}}{value}')


def write_fake(root: Path, name: str, version: str, num_users: int = 100, num_items: int = 80, seed: int = 0) -> None:
    r"""Writes raw files of a release in its own format."""
    rng = random.Random(seed)
    category = category_names(version).get(name, name)
    raw = root / version / 'raw'
    raw.mkdir(parents=True, exist_ok=True)
    items = [f'B{i:09d}' for i in range(num_items)]
    reviews, metadata = [], []
    for user in range(num_users):
        for item in rng.sample(items, rng.randint(6, 14)):
            stars, time = float(rng.randint(1, 5)), rng.randint(1_300_000_000, 1_400_000_000)
            if version == '2023':
                row = {'user_id': f'AE{user:04d}', 'parent_asin': item, 'rating': stars, 'timestamp': 1000 * time}
            else:
                row = {'reviewerID': f'A{user:04d}', 'asin': item, 'overall': stars, 'unixReviewTime': time}
            reviews.append(json.dumps(row).encode())
    for i, item in enumerate(items):
        kind, colour = ('bear', 'ball', 'cup')[i % 3], rng.choice(('red', 'green', 'blue'))
        title, text = f'{colour.title()} {kind}', f'<p>A {colour} {kind} &amp; its box.</p>'
        if version == '2014':
            row = {'asin': item, 'title': title, 'description': text, 'price': 1.5, 'categories': [['Toys', kind]]}
            metadata.append(repr(row | {'imUrl': f'http://images.example/{item}.jpg'}).encode())
        elif version == '2018':
            row = {'category': ['Toys', kind], 'description': [text], 'title': title, 'price': '$1.50', 'asin': item}
            metadata.append(json.dumps(row | {'imageURL': [f'https://images.example/{item}.jpg']}).encode())
        else:
            row = {'title': title, 'description': [text], 'store': 'Acme', 'parent_asin': item}
            row |= {'categories': ['Toys', kind], 'images': [{'large': f'https://images.example/{item}.jpg'}]}
            metadata.append(json.dumps(row).encode())
    contents = {
        file.format(category): gzip.compress(b'\n'.join(lines) + b'\n', mtime=0)
        for file, lines in zip(FILES[version], (reviews, [*metadata, metadata[0]]), strict=True)
    }
    if version == '2014':
        x = np.random.default_rng(seed).normal(size=(num_items - 2, 4096)).astype('<f4')  # two items have no image
        records = (item.encode() + row.tobytes() for item, row in zip(items, x, strict=False))
        contents[f'image_features_{category}.b'] = b''.join(records)
    for file, content in contents.items():
        if not (raw / file).is_file():
            (raw / file).write_bytes(content)


if __name__ == '__main__':
    main()
