r"""What happens to damaged files, odd inputs, races, kills and full disks: python -m benchmarks.reliability

Each kind makes cases from a seed. A case is noticed if it ends in an error of this project, which is a plain
``ValueError``, ``TypeError`` or ``OSError`` with a message, or if what comes out is right all the same. It is unnoticed
if something else comes out. An error of another class, as of a library below, is counted apart as bare."""

import argparse
import contextlib
import csv
import gzip
import io
import json
import os
import random
import resource
import shutil
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import HeteroData
from torch_geometric.transforms import Compose

from benchmarks.report import tables
from benchmarks.rows import HERE, RESULTS, environment, replace
from lirdrec_pyg import Embeddings, LIRDRec, Retriever, evaluate, fit, load_model, onboard_items, recommend
from lirdrec_pyg.datasets import FakeMultimodal, InteractionTable, MMRecDataset
from lirdrec_pyg.features import caption_images, encode_images, encode_texts
from lirdrec_pyg.ranking import top_k
from lirdrec_pyg.serving import encode_new_items, fold_in_users, item_layers
from lirdrec_pyg.training import MappedFeatures
from lirdrec_pyg.transforms import (
    DCT,
    PCA,
    CollaborativeFeatures,
    FixedSplit,
    InteractionGraph,
    ItemKNNGraph,
    RandomSplit,
    RecentItems,
)
from lirdrec_pyg.typing import INTERACTS, ITEM, USER

PAGE = HERE.parent / 'docs' / 'reliability.md'
ROWS = RESULTS / 'reliability.csv'
SECONDS = 20  # after which a case hangs


class Case(NamedTuple):
    r"""One thing to try.

    Args:
        name (str): What it is.
        run (callable): Does it; returns what comes out.
        right (callable): Whether what came out is right.
    """

    name: str
    run: Callable[[], Any]
    right: Callable[[Any], bool]


class Kind(NamedTuple):
    r"""Cases of one kind.

    Args:
        title (str): What happens in them.
        cases (callable): Makes them, in a folder and from a seed.
        count (int): How many there are.
        may_refuse (bool, optional): Whether an error is an answer.
    """

    title: str
    cases: Callable[[Path, random.Random, int], Iterator[Case]]
    count: int
    may_refuse: bool = True


def judge(case: Case, may_refuse: bool = True) -> tuple[str, str]:
    r"""Returns ``'right'``, ``'noticed'``, ``'unnoticed'`` or ``'bare'``, and what came out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            result = case.run()
    except (Exception, SystemExit) as error:
        builtin = isinstance(error, OSError) and type(error).__module__ == 'builtins'
        own = (type(error) in (ValueError, TypeError) or builtin) and str(error) != ''
        outcome = ('noticed' if may_refuse else 'unnoticed') if own else 'bare'
        return outcome, f'{type(error).__name__}: {error}'
    return ('right', '') if case.right(result) else ('unnoticed', str(result))


def never(result: Any) -> bool:
    return False


# Files ---------------------------------------------------------------------------------------------------------------


class Folder:
    r"""A folder whose content can be put back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = {file.relative_to(path): file.read_bytes() for file in sorted(path.rglob('*')) if file.is_file()}

    def restore(self) -> None:
        for file in [file for file in self.path.rglob('*') if file.is_file()]:
            if file.relative_to(self.path) not in self.files:
                file.unlink()
        for name, content in self.files.items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.is_file() or file.read_bytes() != content:
                file.write_bytes(content)


def damaged(rng: random.Random, content: bytes, others: list[bytes]) -> tuple[str, bytes]:
    r"""Returns content with one flipped bit, cut off, longer, or of another file."""
    way = rng.choices(['flipped', 'cut', 'longer', 'another'], [8, 3, 1, 1])[0]
    if way == 'flipped' and content:
        at = rng.randrange(len(content))
        return f'{way} at {at}', content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    if way == 'cut' and content:
        at = rng.randrange(len(content))
        return f'{way} at {at}', content[:at]
    if way == 'another':
        return way, rng.choice([b'', b'{}', b'[]', b'null', bytes(100), *others])
    return 'longer', content + rng.randbytes(rng.randint(1, 9))


def damages(
    folder: Path, load: Callable[[], Any], rng: random.Random, count: int, only: Callable[[Path], bool] = lambda _: True
) -> Iterator[Case]:
    r"""Yields cases that damage one file of a folder and load it, which needs to give what the whole folder does."""
    whole = Folder(folder)
    names = [name for name in whole.files if only(name)]
    expected = load()
    for number in range(count):
        whole.restore()
        name = names[number % len(names)]
        how, content = damaged(rng, whole.files[name], list(whole.files.values()))
        if content == whole.files[name]:
            continue
        (folder / name).write_bytes(content)
        yield Case(f'{name} {how}', load, lambda found: same(found, expected))
    whole.restore()


def same(x: Any, y: Any) -> bool:
    if isinstance(x, torch.Tensor):
        return isinstance(y, torch.Tensor) and x.dtype == y.dtype and torch.equal(x, y)
    if isinstance(x, Mapping):
        return isinstance(y, Mapping) and x.keys() == y.keys() and all(same(x[key], y[key]) for key in x)
    if isinstance(x, list | tuple):
        return len(x) == len(y) and all(map(same, x, y))
    return bool(x == y)


def checkpoints(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    train, val = splits()[:2]
    model = LIRDRec.from_data(train, seed=0, hidden_channels=4)
    fit(model, train, val, epochs=2, checkpoint=folder / 'model.pt', progress=False)

    def load() -> Any:
        return dict(load_model(folder / 'model.pt').state_dict())

    def resume() -> Any:
        again = LIRDRec.from_data(train, seed=0, hidden_channels=4)
        fit(again, train, val, epochs=3, checkpoint=folder / 'model.pt', resume=True, progress=False)
        return dict(again.state_dict())

    few = count // 10  # trains
    yield from damages(folder, load, rng, count - few)
    yield from damages(folder, resume, rng, few)


def caches(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    raw = folder / 'toy'
    raw.mkdir()
    lines = [f'{u}\t{i}\t{(u + i) % 3}' for u in range(20) for i in range(12) if (u * 7 + i * 5) % 4]
    (raw / 'toy.inter').write_text('\n'.join(['userID\titemID\tx_label', *lines]) + '\n')
    np.save(raw / 'text_feat.npy', np.random.default_rng(0).normal(size=(12, 3)))

    def load() -> Any:
        return MMRecDataset(str(folder), 'toy')[0].to_dict()

    load()
    yield from damages(folder, load, rng, count, lambda name: 'processed' in str(name))


def retrievers(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    emb = embeddings()
    retriever = Retriever(emb, splits()[0], index='HNSW8', ef_search=20)
    retriever.save(folder)
    users = splits()[0][USER].raw_id[:5]

    def load() -> Any:
        found = Retriever.load(folder)
        return found.recommend(users, 5).to_numpy().tolist(), found.settings, found.checkpoint, found.index

    yield from damages(folder, load, rng, count)


class Encoder:
    r"""Encodes texts by their characters; gives up after some calls."""

    name, settings = 'characters', {'version': 1}

    def __init__(self, calls: float = float('inf')) -> None:
        self.calls = calls

    def __call__(self, batch: list[Any]) -> Any:
        if self.calls <= 0:
            raise KeyboardInterrupt
        self.calls -= 1
        return torch.tensor([[float(ord(char)) for char in f'{text}    '[:4]] for text in batch])


TEXTS = [None if i % 7 == 3 else f'{i:04d} text' for i in range(40)]


def encode(folder: Path, calls: float = float('inf')) -> Any:
    out = encode_texts(TEXTS, Encoder(calls), folder, batch_size=4, shard_size=8, progress=False)
    return out.x, out.has


def features(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    encode(folder)
    yield from damages(folder, lambda: encode(folder), rng, count)


def pieces(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    with contextlib.suppress(KeyboardInterrupt):
        encode(folder, calls=8)
    begun = Folder(folder)

    def go_on() -> Any:
        begun_again = encode(folder)
        begun.path.mkdir(exist_ok=True)
        return begun_again

    yield from damages(folder, go_on, rng, count, lambda name: name in begun.files)


def captions(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    from PIL import Image

    (folder / 'images').mkdir()
    paths = [folder / 'images' / f'{i}.png' for i in range(6)]
    for i, path in enumerate(paths):
        Image.new('RGB', (4, 4), (10 * i + 10, 0, 0)).save(path)

    def caption() -> Any:
        return caption_images(paths, Captioner(), folder / 'out', progress=False).texts

    caption()
    yield from damages(folder, caption, rng, count, lambda name: 'out' in name.parts)


class Captioner:
    name, settings = 'red', {'prompt': 'How red?'}

    def __call__(self, images: list[Any]) -> list[str]:
        return [f'red {image.getpixel((0, 0))[0]}' for image in images]


# Values --------------------------------------------------------------------------------------------------------------


def splits() -> tuple[HeteroData, HeteroData, HeteroData]:
    data = Compose([DCT(), ItemKNNGraph(k=4)])(FakeMultimodal(missing={'image': 0.2}, seed=1)[0])
    train, val, test = FixedSplit()(data)
    return InteractionGraph()(train), val, test


def embeddings() -> Embeddings:
    generator = torch.Generator().manual_seed(0)
    return Embeddings(*(torch.randn(n, 4, generator=generator) for n in (64, 48)))


def values(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    train, val, _ = splits()
    model = LIRDRec.from_data(train, seed=0, hidden_channels=4).eval()
    plain = FakeMultimodal(missing={'image': 0.2}, seed=1)[0]
    new = {'image': torch.ones(2, 16), 'text': torch.ones(2, 8)}
    onboarding = {'raw_id': ['a', 'b'], 'title': ['', '']}
    more, ids = onboard_items(train, new, **onboarding)
    layers, free = item_layers(model, train), torch.zeros(1, model.num_views, 4)
    np.save(folder / 'x.npy', np.zeros((60, 3), dtype=np.float32))
    mapped = MappedFeatures({'text': folder / 'x.npy'}, 48)
    emb = embeddings()
    retriever = Retriever(emb, train)
    content = {'DCT': DCT(), 'PCA': PCA(3), 'ItemKNNGraph': ItemKNNGraph(3)}
    whole: dict[str, Callable[[HeteroData], Any]] = {
        **content,
        'RandomSplit': RandomSplit(),
        'FixedSplit': FixedSplit(),
        'CollaborativeFeatures': CollaborativeFeatures(4),
        'RecentItems': RecentItems(3),
        'InteractionGraph': InteractionGraph(),
        'recommend': lambda data: recommend(emb, data, ['user-3']),
        'Retriever': lambda data: Retriever(emb, data),
        'onboard_items': lambda data: onboard_items(data, new, **onboarding),
    }
    odd_numbers = [float('nan'), float('inf'), float('-inf'), 1e39, -3e38]
    odd_ids = [-1, -(2**40), 48, 64, 2**31, 2**62]
    odd_counts = [0, -1, 10**9, 2.5, '3', None, float('nan')]

    def with_value(x: torch.Tensor, value: float, row: int | None = None) -> torch.Tensor:
        x = x.clone().double() if isinstance(value, float) else x.clone()
        place = tuple(rng.randrange(size) for size in x.shape)
        x[place if row is None else (row, *place[1:])] = value
        return x

    def features_case() -> Case:
        name, value, key = rng.choice([*whole]), rng.choice(odd_numbers), rng.choice(['x_image', 'x_text'])
        data = plain.clone()
        data[ITEM][key] = with_value(data[ITEM][key], value)
        return Case(f'{name}: {value} in {key}', lambda: whole[name](data), never)

    def mask_case() -> Case:
        name, value = rng.choice([*whole]), rng.choice([2, -1, 7])
        data = plain.clone()
        data[ITEM].has_image = with_value(data[ITEM].has_image.long(), value)
        return Case(f'{name}: {value} in has_image', lambda: whole[name](data), never)

    def edges_case() -> Case:
        name, row, value = rng.choice([n for n in whole if n not in content]), rng.randrange(2), rng.choice(odd_ids)
        value = 64 if row == 0 and value == 48 else value
        data = plain.clone()
        data[INTERACTS].edge_index = with_value(data[INTERACTS].edge_index, value, row)
        return Case(f'{name}: {value} in edge_index', lambda: whole[name](data), never)

    def labels_case() -> Case:
        row, value = rng.randrange(2), rng.choice(odd_ids)
        value = 64 if row == 0 and value == 48 else value
        split = val.clone()
        split[INTERACTS].edge_label_index = with_value(split[INTERACTS].edge_label_index, value, row)
        uses = [lambda: evaluate(emb, split), lambda: evaluate(emb, val, also_exclude=split)]
        return Case(f'evaluate: {value} in edge_label_index', rng.choice(uses), never)

    def seen_case() -> Case:
        row, value = rng.randrange(2), rng.choice(odd_ids)
        value = 64 if row == 0 and value == 48 else value
        pairs = with_value(train[INTERACTS].edge_index, value, row)
        uses = [lambda: Retriever(emb, pairs), lambda: list(top_k(emb, torch.arange(3), 5, pairs))]
        return Case(f'seen: {value}', rng.choice(uses), never)

    def ids_case() -> Case:
        value = rng.choice([*odd_ids, 0.9, float('nan'), True])
        uses = {
            'top_k': lambda: list(top_k(emb, torch.tensor([value]), 5)),
            'recommend': lambda: recommend(emb, train, [value]),
            'Retriever': lambda: retriever.recommend([value]),
            'similar_items': lambda: retriever.similar_items([value]),
            'add_seen': lambda: retriever.add_seen([value], ['item-1']),
            'fold_in_users': lambda: fold_in_users(model, train, [[value]]),
        }
        if value != 48 or isinstance(value, bool):
            uses['encode_new_items'] = lambda: encode_new_items(model, more, torch.tensor([value]))
        uses['MappedFeatures'] = lambda: mapped.rows(torch.tensor([value]))
        if value == 48:
            del uses['top_k']
        name = rng.choice([*uses])
        return Case(f'{name}: id {value}', uses[name], never)

    def count_case() -> Case:
        value = rng.choice(odd_counts)
        uses = {
            'top_k': lambda: top_k(emb, torch.arange(3), value),
            'evaluate': lambda: evaluate(emb, val, value),
            'recommend': lambda: recommend(emb, train, ['user-1'], value),
            'Retriever': lambda: retriever.recommend(['user-1'], value),
            'ItemKNNGraph': lambda: ItemKNNGraph(value)(plain),
            'onboard_items': lambda: onboard_items(train, new, **onboarding | {'k': value}),
            'CollaborativeFeatures': lambda: CollaborativeFeatures(value)(train),
            'PCA': lambda: PCA(value)(plain) if value != 10**9 else PCA(0),
            'RecentItems': lambda: RecentItems(value if value != 10**9 else 0)(plain),
        }
        name = rng.choice([*uses])
        return Case(f'{name}: k {value}', uses[name], never)

    def embeddings_case() -> Case:
        value, kind = rng.choice([*odd_numbers, -1e30]), rng.randrange(2)
        bad = [x.clone() for x in emb]
        bad[kind] = with_value(bad[kind], value) if value != -1e30 else bad[kind] * value
        bad[1 - kind] = bad[1 - kind].double() if value != -1e30 else bad[1 - kind] * 1e30
        pair = Embeddings(*bad)
        uses = {
            'top_k': lambda: list(top_k(pair, torch.arange(3), 5)),
            'evaluate': lambda: evaluate(pair, val),
            'recommend': lambda: recommend(pair, train, ['user-1']),
            'Retriever': lambda: Retriever(pair),
            'add': lambda: retriever.add_items(with_value(torch.ones(1, 4), value if value != -1e30 else 1e33), ['x']),
        }
        name = rng.choice([*uses])
        return Case(f'{name}: {value} in embeddings', uses[name], never)

    def serving_case() -> Case:
        value = rng.choice(odd_numbers)
        weights = {'text': abs(value) if value == value else value}
        uses = {
            'free': lambda: fold_in_users(model, train, [['item-1']], free=with_value(free, value)),
            'layers': lambda: fold_in_users(model, train, [['item-1']], layers=with_value(layers, value)),
            'layers of new items': lambda: encode_new_items(model, more, ids, with_value(layers, value)),
            'weights': lambda: ItemKNNGraph(3, {'image': 1.0, **weights})(plain),
            'weights of new items': lambda: onboard_items(train, new, **onboarding, weights={'image': 1.0, **weights}),
            'features of new items': lambda: onboard_items(
                train, {**new, 'text': with_value(new['text'], value)}, **onboarding
            ),
        }
        if abs(value) == 3e38:  # a weight that single precision can hold
            del uses['weights'], uses['weights of new items']
        name = rng.choice([*uses])
        return Case(f'{name}: {value}', uses[name], never)

    def index_case() -> Case:
        text = rng.choice(['nonsense', '', 'IVF9999,Flat', 'PQ7', 'LSH', 'IDMap,Flat', 'PCA99,Flat', '\0'])
        uses = [lambda: Retriever(emb, index=text), lambda: ItemKNNGraph(3, index=text)(plain)]
        return Case(f'index {text!r}', rng.choice(uses), never)

    makers = [
        features_case,
        mask_case,
        edges_case,
        labels_case,
        seen_case,
        ids_case,
        count_case,
        embeddings_case,
        serving_case,
        index_case,
    ]
    for number in range(count):
        yield makers[number % len(makers)]()


# Tables, texts and images --------------------------------------------------------------------------------------------


def dialects(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    people, things = ['ann', 'bob', 'Zoë', 'José', '007', '7'], ['kiwi', 'crème', 'Äpfel', '12', '0012']
    rows = [(user, item, str(n)) for n, (user, item) in enumerate((u, i) for u in people for i in things) if n % 4]
    items = pd.DataFrame({'item': things})

    def pairs(table: InteractionTable) -> set[tuple[str, str, int]]:
        store, data = table.data[INTERACTS], table.data
        return {
            (data[USER].raw_id[u], data[ITEM].raw_id[i], t)
            for (u, i), t in zip(store.edge_index.t().tolist(), store.time.tolist(), strict=True)
        }

    expected = {(user, item, int(when)) for user, item, when in rows}
    for number in range(count):
        separator, encoding = rng.choice([',', ';', '\t', '|']), rng.choice(['utf-8', 'utf-8-sig', 'utf-16', 'cp1252'])
        end, suffix = rng.choice(['\n', '\r\n']), rng.choice(['.csv', '.tsv', '.TSV', '.csv.gz', '.tsv.gz', '.parquet'])
        damage = rng.choice(['', '', '', 'trailing', 'ragged', 'quote', 'twice', 'empty', 'cut', 'blank', 'plain'])
        file = io.StringIO()
        writer = csv.writer(file, delimiter=separator, lineterminator=end, quoting=rng.choice([0, 1]))
        names = ['user', 'item', 'item'] if damage == 'twice' else ['user', 'item', 'time']
        lines: list[Any] = [names, *rows]
        at = rng.randrange(1, len(lines))
        if damage == 'trailing':
            lines[1:] = [(*line, '') for line in lines[1:]]
        elif damage == 'ragged':
            lines[at] = (*lines[at], 'more') if rng.random() < 0.5 else lines[at][:2]
        elif damage == 'blank':
            lines.insert(at, [])
        writer.writerows(lines)
        text = file.getvalue()
        if damage == 'quote':
            place = text.index(lines[at][0], 20)
            text = text[:place] + '"' + text[place:]
        content = b'' if damage == 'empty' else text.encode(encoding)
        if suffix.endswith('gz') and damage != 'plain':
            content = gzip.compress(content)
        if damage == 'cut':
            content = content[: rng.randrange(len(content))]
        path = folder / f'{number}{suffix}'
        path.write_bytes(content)
        arguments: dict[str, Any] = {}
        if rng.random() < 0.5:
            arguments['separator'] = separator
        if rng.random() < 0.5:
            arguments['encoding'] = encoding

        def load(path: Path = path, arguments: dict[str, Any] = arguments) -> Any:
            return pairs(InteractionTable(path, items, time='time', **arguments))

        # A file that is cut off between two lines, or whose last time is, is a shorter file.
        part = damage == 'cut' and not suffix.endswith('gz')

        def right(found: Any, part: bool = part) -> bool:
            return found == expected or (part and len(found - expected) <= 1 and len(found) < len(expected))

        yield Case(f'{path.name} {separator!r} {encoding} {damage} {sorted(arguments)}', load, right)
        path.unlink()


def ids(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    r"""Ids and texts in the types that Parquet and JSON give them: nobody merges, nothing is renamed."""
    for _ in range(count):
        way = rng.choice(['int64', 'nullable', 'float', 'float32', 'mixed', 'list', 'words'])
        base = rng.choice([1, 2**24, 2**31, 2**53, 2**60])
        numbers = [base + n for n in range(6)]
        users: Any = {
            'int64': lambda numbers=numbers: pd.array(numbers, dtype='int64'),
            'nullable': lambda numbers=numbers: pd.array([*numbers[:5], None], dtype='Int64'),
            'float': lambda numbers=numbers: np.array(numbers, dtype=float),
            'float32': lambda numbers=numbers: np.array(numbers, dtype=np.float32),
            'mixed': lambda numbers=numbers: [*numbers[:5], float(numbers[0])],
        }.get(way, lambda numbers=numbers: numbers)()
        wanted = 5 if way in ('nullable', 'mixed') else 6
        path = folder / 'orders.parquet'
        frame = pd.DataFrame({'user': users, 'item': ['a', 'b'] * 3})
        stored = way != 'mixed' and rng.random() < 0.7
        if stored:
            frame.to_parquet(path)
        texts = {'list': [['red', 'kettle'], []], 'words': [float('nan'), True]}.get(way, ['red', ''])
        catalogue = pd.DataFrame({'item': ['a', 'b'], 'name': texts})

        def load(orders: Any = path if stored else frame, catalogue: pd.DataFrame = catalogue) -> Any:
            table = InteractionTable(orders, catalogue, text='name')
            return table.data[USER].raw_id, table.texts

        def right(found: Any, numbers: list[int] = numbers, wanted: int = wanted) -> bool:
            names, texts = found
            return set(names) == {str(n) for n in numbers[:wanted]} and not set(''.join(texts)) & set('[]\'"')

        yield Case(f'{way} from {base}, {"Parquet" if stored else "frame"}', load, right)


def corners(images: list[Any]) -> Any:
    r"""Encodes images by the colours of their corners."""
    out = []
    for image in images:
        x = np.asarray(image, dtype=np.float32)
        h, w = max(1, x.shape[0] // 2), max(1, x.shape[1] // 2)
        out.append(np.concatenate([x[:h, :w].mean((0, 1)), x[:h, w:].mean((0, 1)), x[h:, :w].mean((0, 1))]))
    return np.nan_to_num(np.stack(out))


def pictures(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    from PIL import Image

    ways = ['png', 'bmp', 'tiff', 'webp', 'exif', 'alpha', 'palette', 'float', '16 bits', 'eps', 'bytes', 'fifo', 'cut']
    for number in range(count):
        way, path = ways[number % len(ways)], folder / f'{number}.img'
        array = np.zeros((8, 12, 3), dtype=np.uint8)
        for rows, cols in [(slice(4), slice(6)), (slice(4), slice(6, 12)), (slice(4, 8), slice(6))]:
            array[rows, cols] = [rng.randrange(256) for _ in range(3)]
        image, grey = Image.fromarray(array), array[..., 0]
        wanted = corners([image])[0]
        if way in ('png', 'bmp', 'tiff', 'webp'):
            image.save(path, way, **({'lossless': True} if way == 'webp' else {}))
        elif way == 'exif':
            turn = rng.randrange(2, 9)
            turned = [2, 3, 4, 5, 8, 7, 6]  # the orientation that undoes each
            back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # of PIL's Transpose, for the picture that is stored
            exif = Image.Exif()
            exif[0x0112] = turn
            inverse = {0: 0, 1: 1, 2: 4, 3: 3, 4: 2, 5: 5, 6: 6}
            stored = image.transpose(Image.Transpose(inverse[back[turn]])) if turned else image
            stored.save(path, 'png', exif=exif)
        elif way == 'alpha':
            alpha = np.full((8, 12, 1), 255, dtype=np.uint8)
            alpha[4:, 6:] = 0
            hidden = np.concatenate([array, alpha], axis=2)
            hidden[4:, 6:, :3] = rng.randrange(256)
            Image.fromarray(hidden).save(path, 'png')
        elif way == 'palette':
            image.quantize(16).save(path, 'png')
            wanted = corners([image.quantize(16).convert('RGB')])[0]
        elif way == 'float':
            Image.fromarray(grey.astype(np.float32) / 255).save(path, 'tiff')
            wanted = corners([Image.fromarray(grey).convert('RGB')])[0]
        elif way == '16 bits':
            Image.fromarray(grey.astype(np.uint16) * 257).save(path, 'png')
            wanted = corners([Image.fromarray(grey).convert('RGB')])[0]
        elif way == 'eps':
            path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nquit\n')
        elif way == 'bytes':
            path.write_bytes(rng.choice([b'', rng.randbytes(2000), b'GIF89a' + rng.randbytes(50), bytes(1000)]))
        elif way == 'fifo':
            os.mkfifo(path)
        elif way == 'cut':
            image.save(path, 'png')
            path.write_bytes(path.read_bytes()[: rng.randrange(60)])
        there = way not in ('eps', 'bytes', 'fifo', 'cut')
        Image.new('RGB', (8, 8), (9, 9, 9)).save(folder / 'other.png')

        def encode(path: Path = path) -> Any:
            out = within(5, lambda: encode_images([path, folder / 'other.png'], corners, folder, progress=False,
                                                        resume=False))  # fmt: skip
            return bool(out.has[0]), out.x[0].numpy()

        def right(found: Any, there: bool = there, wanted: Any = wanted) -> bool:
            return (found[0] and np.abs(found[1] - wanted).max() < 3) if there else not found[0]

        yield Case(f'{way} {number}', encode, right)
        path.unlink()


# Two at once, kills, and no room -------------------------------------------------------------------------------------


def within(seconds: float, work: Callable[[], Any]) -> Any:
    r"""Returns what some work does, unless it takes too long."""

    def give_up(*_: Any) -> None:
        raise SystemExit(f'hangs for more than {seconds} s')

    if threading.current_thread() is not threading.main_thread():
        return work()
    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return work()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fork(work: Callable[[], int]) -> int:
    r"""Does some work in another process, whose exit status it returns; gives the id of the process."""
    pid = os.fork()
    if pid == 0:
        status = 9
        try:
            with open(os.devnull, 'w') as null:
                os.dup2(null.fileno(), 2)
                torch.set_num_threads(1)  # makes PyTorch's pool anew, for which threads would race
                status = work()
        finally:
            os._exit(status)
    return pid


def wait(pid: int) -> int:
    r"""Returns the exit status of a process; minus the signal if one ended it."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise SystemExit(f'hangs for more than {SECONDS} s')


class Writer(NamedTuple):
    r"""Something that is written over and over: in two versions, each of which can be told when it is read."""

    write: Callable[[Path, int], Any]
    read: Callable[[Path], int]  # the version; raises if it is neither


def write_retriever(folder: Path, version: int) -> None:
    Retriever(Embeddings(torch.full((3, 4), float(version)), torch.ones(2000 + version, 4))).save(folder / 'shop')


def read_retriever(folder: Path) -> int:
    found = Retriever.load(folder / 'shop')
    if set(found.recommend([0], 1)['score']) != {4.0 * (found.num_items - 2000)}:
        raise AssertionError('users and items are of different saves')
    return found.num_items - 2000


def write_checkpoint(folder: Path, version: int) -> None:
    train = splits()[0]
    model = LIRDRec.from_data(train, seed=version, hidden_channels=4)
    fit(model, train, epochs=1, checkpoint=folder / 'model.pt', overwrite=True, progress=False, seed=version, lr=1e-9)


def read_checkpoint(folder: Path) -> int:
    found = load_model(folder / 'model.pt')
    for version in (1, 2):
        own = LIRDRec.from_data(splits()[0], seed=version, hidden_channels=4)
        if torch.allclose(found.user, own.user, atol=1e-5):
            return version
    raise AssertionError('weights of neither')


class Versioned(Encoder):
    def __init__(self, version: int) -> None:
        super().__init__()
        self.settings = {'version': version}

    def __call__(self, batch: list[Any]) -> Any:
        return super().__call__(batch) * self.settings['version']


def write_features(folder: Path, version: int) -> None:
    encode_texts(TEXTS, Versioned(version), folder / 'text', batch_size=4, shard_size=8, progress=False)


def read_features(folder: Path) -> int:
    manifest = json.loads((folder / 'text' / 'text_manifest.json').read_text())
    x = np.load(folder / 'text' / 'text_feat.npy')
    version = int(manifest['version'])
    out = encode_texts(TEXTS, Versioned(version), folder / 'text', batch_size=4, shard_size=8, progress=False)
    if out.x[1].tolist() != [48.0 * version] * 3 + [49.0 * version]:
        raise AssertionError('features of another encoder')
    return version if x.shape == (40, 4) else 0


WRITERS = {
    'retriever': Writer(write_retriever, read_retriever),
    'checkpoint': Writer(write_checkpoint, read_checkpoint),
    'features': Writer(write_features, read_features),
}


def ends_well(work: Callable[[], Any]) -> int:
    r"""Returns 0 if it works, 3 if it ends in an error that says what was not written, and 4 in another error."""
    try:
        work()
    except Exception as error:
        own = type(error) in (ValueError, TypeError) or isinstance(error, OSError)
        return 3 if own and str(error) else 4
    return 0


def races(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    r"""Two processes write to one place while this one reads."""
    for number in range(count):
        name = [*WRITERS][number % len(WRITERS)]
        own = folder / f'{number}'
        own.mkdir()

        def race(writer: Writer = WRITERS[name], own: Path = own, name: str = name) -> Any:
            writer.write(own, 1)
            runs = [fork(lambda version=version: ends_well(lambda: writer.write(own, version))) for version in (1, 2)]
            if name != 'features':  # where a reader would write
                for _ in range(3):
                    writer.read(own)
            statuses = [wait(run) for run in runs]
            left = [path.name for path in own.rglob('*') if path.name.endswith('.tmp')]
            return statuses, writer.read(own), left

        def right(found: Any) -> bool:
            statuses, version, left = found
            return set(statuses) <= {0, 3} and 0 in statuses and version in (1, 2) and not left

        yield Case(f'two write a {name}', race, right)
        shutil.rmtree(own)


def threads(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    r"""Eight threads search a retriever while one adds to it, in another process, which may crash."""
    for number in range(count):
        index = ['Flat', 'HNSW8', 'IVF4,Flat'][number % 3]
        seed = rng.randrange(2**31)

        log = folder / f'{number}.txt'

        def serve(index: str = index, seed: int = seed, log: Path = log) -> int:
            generator = torch.Generator().manual_seed(seed)
            retriever = Retriever(Embeddings(*(torch.randn(n, 8, generator=generator) for n in (5, 1000))), index=index)
            wrong: list[Any] = []
            done = threading.Event()

            def search() -> None:
                try:
                    while not done.is_set():
                        found = retriever.recommend([1, 2], 5)
                        if found['rank'].tolist() != [1, 2, 3, 4, 5] * 2:
                            wrong.append(found)
                except BaseException:
                    wrong.append(traceback.format_exc())

            workers = [threading.Thread(target=search) for _ in range(8)]
            for worker in workers:
                worker.start()
            for start in range(1000, 1100, 10):
                retriever.add_items(torch.randn(10, 8, generator=generator), list(range(start, start + 10)))
                retriever.add_seen([1], [start])
            done.set()
            for worker in workers:
                worker.join()
            log.write_text('\n'.join(map(str, wrong)))
            return 4 if wrong else 0

        def both(serve: Callable[[], int] = serve, log: Path = log) -> Any:
            return wait(fork(serve)), log.read_text() if log.is_file() else None

        yield Case(f'8 readers and a writer, {index}', both, lambda found: found == (0, ''))


def kills(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    r"""A process is killed while it writes. What is there is whole, and what it left goes with the next write."""
    for number in range(count):
        name = [*WRITERS][number % len(WRITERS)]
        own, delay = folder / f'{number}', rng.random() * 0.1
        own.mkdir()

        def kill(writer: Writer = WRITERS[name], own: Path = own, delay: float = delay) -> Any:
            writer.write(own, 1)
            clean = len([*own.rglob('*')])

            def keep_on() -> int:
                while True:
                    for version in (2, 1):
                        writer.write(own, version)

            run = fork(keep_on)
            time.sleep(delay)
            os.kill(run, signal.SIGKILL)
            status = wait(run)
            version = writer.read(own)
            for again in (2, 1):
                writer.write(own, again)
            return status, version, writer.read(own), len([*own.rglob('*')]) - clean

        def right(found: Any, name: str = name) -> bool:
            status, version, after, more = found
            return status == -signal.SIGKILL and version in (1, 2) and after == 1 and more <= 6 * (name == 'retriever')

        yield Case(f'killed while writing a {name} after {delay:.3f} s', kill, right)
        shutil.rmtree(own)


def full(folder: Path, rng: random.Random, count: int) -> Iterator[Case]:
    r"""There is no room after some bytes. What was there is whole, and the error says what was not written."""
    for number in range(count):
        name = [*WRITERS][number % len(WRITERS)]
        own = folder / f'{number}'
        own.mkdir()
        share = rng.random()

        def fill(writer: Writer = WRITERS[name], own: Path = own, share: float = share) -> Any:
            writer.write(own, 1)
            largest = max(file.stat().st_size for file in own.rglob('*') if file.is_file())

            def write() -> int:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * largest), resource.RLIM_INFINITY))
                try:
                    writer.write(own, 2)
                except OSError as error:
                    return 3 if 'was not written, and what was there is whole' in str(error) else 4
                return 0

            return wait(fork(write)), writer.read(own)

        yield Case(
            f'no room for a {name} after {share:.2f} of it', fill, lambda found: found in [(3, 1), (3, 2), (0, 2)]
        )
        shutil.rmtree(own)


KINDS = {
    'checkpoints': Kind('a checkpoint is damaged', checkpoints, 3000),
    'caches': Kind('the cache of a dataset is damaged', caches, 2000),
    'retrievers': Kind('a saved retriever is damaged', retrievers, 2500),
    'features': Kind('features, their mask or manifest are damaged', features, 1500),
    'pieces': Kind('pieces of unfinished features are damaged', pieces, 1500),
    'captions': Kind('captions or their manifest are damaged', captions, 500),
    'values': Kind('a value that does not exist is given', values, 3000),
    'tables': Kind('a table is of another dialect, or damaged', dialects, 1500),
    'ids': Kind('ids and texts are of other types', ids, 300),
    'pictures': Kind('an image is stored in another way, or is none', pictures, 390),
    'races': Kind('two processes write to one place', races, 60, may_refuse=False),
    'threads': Kind('threads search while one adds', threads, 30, may_refuse=False),
    'kills': Kind('a process is killed while it writes', kills, 90, may_refuse=False),
    'full': Kind('the disk is full', full, 90, may_refuse=False),
}


def run(name: str, count: int | None = None, seed: int = 0) -> tuple[Counter[str], list[str]]:
    r"""Tries the cases of a kind; returns how many were noticed, right, unnoticed and bare, and a line for each of the
    last two."""
    kind, found, lines = KINDS[name], Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        for case in kind.cases(Path(folder), random.Random(f'{name} {seed}'), kind.count if count is None else count):
            outcome, what = judge(case, kind.may_refuse)
            found[outcome] += 1
            if outcome in ('unnoticed', 'bare'):
                lines.append(f'{outcome}: {case.name}: {what[-300:]}')
    return found, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kind', nargs='+', choices=[*KINDS], default=[*KINDS])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--count', type=int, help='cases of each kind (default: as in the table)')
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in args.kind:
        start = time.perf_counter()
        found, lines = run(name, args.count, args.seed)
        print(f'{name}: {dict(found)} in {time.perf_counter() - start:.0f} s', *lines[:5], sep='\n    ', flush=True)
        counts = {key: str(found[key]) for key in ('right', 'noticed', 'bare', 'unnoticed')}
        rows.append(
            {'kind': name, 'what': KINDS[name].title, 'seed': str(args.seed), 'tried': str(found.total()), **counts}
        )
    if args.count is not None or len(rows) < len(KINDS):
        return
    with ROWS.open('w', newline='') as file:
        columns = [{**row, **environment()} for row in rows]
        writer = csv.DictWriter(file, [*columns[0]], lineterminator='\n')
        writer.writeheader()
        writer.writerows(columns)
    replace(PAGE, tables.render(PAGE.read_text()).encode())


if __name__ == '__main__':
    main()
