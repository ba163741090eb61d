r"""What do features cost, and what are they worth? Makes the features of one catalogue in several ways, and trains
SoftmaxLIRDRec on each, untuned. Appends a row for each way and seed to ``results/quality/feature_cost.csv``.

    python -m benchmarks.quality.studies.feature_cost --root data --dataset hm_week

The ways, each alone and MiniLM with the images:

- ``TF-IDF``: the words of the texts, the most frequent ones;
- ``LSA``: 128 components of these (latent semantic analysis);
- ``MiniLM``: the texts by a sentence encoder;
- ``image``: the photos by EfficientNet-Lite0.

``items_per_s`` is of the processor, on one thread, with reading and decoding: of some items of the catalogue where an
encoder makes them, which the trained model then takes from where they are kept, and of all where it does not.
Multimodal language models, which the paper takes, can be had for no set here: ``caption_images`` and any text encoder
are the route.
"""

import argparse
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.quality import catalogues, jobs
from lirdrec_pyg import calibrate, evaluate, fit
from lirdrec_pyg.transforms import InteractionGraph
from lirdrec_pyg.typing import ITEM, modalities

RESULTS = rows.RESULTS / 'quality' / 'feature_cost.csv'
WORDS, WIDTH, FEW = 2048, 128, 32
FEATURES: dict[str, tuple[str, ...]] = {  # what is made
    'TF-IDF': ('TF-IDF',),
    'LSA': ('LSA',),
    'MiniLM': ('MiniLM',),
    'image': ('image',),
    'MiniLM, image': ('MiniLM', 'image'),
}


def tf_idf(texts: list[str], words: int = WORDS) -> Tensor:
    r"""Returns the TF-IDF of the most frequent words of texts, in rows of length one."""
    documents = [Counter(re.findall(r'\w+', text.lower())) for text in texts]
    frequency = Counter(word for document in documents for word in document)
    common = sorted(frequency, key=lambda word: (-frequency[word], word))[:words]
    place = {word: column for column, word in enumerate(common)}
    x = np.zeros((len(texts), len(common)), dtype=np.float32)
    for row, document in enumerate(documents):
        for word, count in document.items():
            if word in place:
                x[row, place[word]] = count * (np.log((1 + len(texts)) / (1 + frequency[word])) + 1)
    return torch.nn.functional.normalize(torch.from_numpy(x))


def texts_of(dataset: str, root: Path) -> list[str]:
    r"""Returns the texts of a catalogue, in the order of its items."""
    if dataset == 'fake':
        return [f'thing {item % 7} of kind {item % 2}' for item in range(120)]
    items = pd.read_csv(root / dataset / 'items.tsv', sep='\t', dtype=str, keep_default_na=False, quoting=3)
    return items['text'].tolist()


def timed(make: Callable[[], Tensor]) -> tuple[Tensor, float]:
    r"""Returns what a function makes, and the processor's seconds."""
    clock = time.process_time()
    made = make()
    return made, time.process_time() - clock


def made(kind: str, data: HeteroData, texts: list[str], images: Path, some: int) -> tuple[Tensor, int, float]:
    r"""Returns the features of all items, of how many they were made just now, and in how many seconds."""
    if kind == 'TF-IDF':
        x, seconds = timed(lambda: tf_idf(texts))
        return x, len(texts), seconds
    if kind == 'LSA':
        width = min(WIDTH, len(set(texts)) // 2)
        x, seconds = timed(lambda: torch.from_numpy(catalogues.latent_words(texts, width)))
        return x, len(texts), seconds
    x = data[ITEM]['x_text' if kind == 'MiniLM' else 'x_image']
    if not images.is_dir():  # generated data has no files
        return x, 0, float('nan')
    # The encoder is loaded in both: the difference is what more items take.
    drawn = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))[: FEW + some].tolist()
    seconds = encoding(kind, drawn, texts, images) - encoding(kind, drawn[:FEW], texts, images)
    return x, some, seconds


def encoding(kind: str, items: list[int], texts: list[str], images: Path) -> float:
    r"""Returns the seconds in which an encoder is loaded and encodes some items."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == 'MiniLM':
            return timed(lambda: catalogues.encoded([texts[item] for item in items], Path(folder))[0])[1]
        paths = [f'{item}.jpg' for item in items]
        return timed(lambda: catalogues.encoded_images(paths, images, Path(folder))[0])[1]


def with_features(data: HeteroData, found: dict[str, Tensor]) -> HeteroData:
    r"""Returns data with these features alone."""
    data = copy(data)
    for name in modalities(data):
        data[ITEM].pop(f'x_{name}')
        data[ITEM].pop(f'has_{name}', None)
    for kind, x in found.items():
        data[ITEM]['x_image' if kind == 'image' else 'x_text'] = x
    return data


def measure(data: HeteroData, dataset: str, seed: int, epochs: int) -> rows.Row:
    r"""Returns the metrics of a model that is trained on the features of the data."""
    train, val, test = catalogues.split(dataset)(data)
    names = modalities(data)
    train = catalogues.content(train, weights=dict.fromkeys(names, 1 / len(names)), seed=seed)
    train = InteractionGraph()(train)
    model = jobs.build(jobs.job(dataset, 'SoftmaxLIRDRec', seed, {'model': {'learn_temperature': True}}), train)
    clock = time.process_time()
    settings = {'epochs': epochs, 'batch_size': None, 'monitor': 'ndcg@20', 'precision': 'bf16'}
    result = fit(model, train, val, seed=seed, progress=False, **settings)
    calibrate(model, train, val)
    row: rows.Row = {'best_epoch': result.best_epoch, 'epochs': len(result.log)}
    row['cpu_seconds'] = round(time.process_time() - clock, 1)
    for split, of in (('val', val), ('test', test)):
        found = evaluate(model.encode(train), of, k=20, metrics=['recall', 'ndcg'])
        row |= {f'{split}_{metric}': round(value, 6) for metric, value in found.items()}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--dataset', default='hm_week', help='one of catalogues.py with texts and images')
    parser.add_argument('--features', nargs='+', default=list(FEATURES), choices=list(FEATURES), help='default: all')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='one run for each')
    parser.add_argument('--some', type=int, default=128, help='items to time an encoder on (default: %(default)s)')
    parser.add_argument('--epochs', type=int, default=1000, help='at most (default: %(default)s)')
    parser.add_argument('--rows', type=Path, default=RESULTS, help='the CSV file to append to')
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, texts = catalogues.load(args.dataset, args.root), texts_of(args.dataset, args.root)
    known: dict[str, tuple[Tensor, int, float]] = {}
    for seed in args.seeds:
        for name in args.features:
            if rows.has(args.rows, dataset=args.dataset, features=name, seed=seed):
                continue
            for kind in FEATURES[name]:
                if kind not in known:
                    known[kind] = made(kind, data, texts, args.root / args.dataset / 'images', args.some)
            found = {kind: known[kind][0] for kind in FEATURES[name]}
            each = sum(seconds / max(number, 1) for _, number, seconds in (known[kind] for kind in FEATURES[name]))
            row: rows.Row = {'dataset': args.dataset, 'features': name, 'seed': seed}
            row |= {'width': sum(x.size(1) for x in found.values()), 'items_per_s': round(1 / each, 1)}
            row |= measure(with_features(data, found), args.dataset, seed, args.epochs)
            rows.append(args.rows, row | rows.environment())
            print(f'{args.dataset}, {name}, seed {seed}: {row["items_per_s"]} items a second, test ndcg@20 '
                  f'{row["test_ndcg@20"]:.4f}', flush=True)  # fmt: skip


if __name__ == '__main__':
    main()
