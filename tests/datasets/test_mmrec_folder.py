import gzip
import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from lirdrec_pyg.datasets import FakeMultimodal, MMRecDataset
from lirdrec_pyg.datasets.amazon_reviews import AmazonReviews
from lirdrec_pyg.datasets.mmrec_folder import save_mmrec
from lirdrec_pyg.transforms import FixedSplit
from lirdrec_pyg.typing import INTERACTS, modalities

ITEMS = ['B000000001', 'B000000002', 'B000000003']


@pytest.fixture
def root(tmp_path):
    r"""A root with raw files of 2014: three users who bought three items, of which the second one has no metadata."""
    raw = tmp_path / '2014' / 'raw'
    raw.mkdir(parents=True)
    reviews = [
        {'reviewerID': f'U{user}', 'asin': item, 'overall': 4.5, 'unixReviewTime': 1_400_000_000 - user}
        for user in range(3)
        for item in ITEMS
    ]
    with gzip.open(raw / 'reviews_Baby_5.json.gz', 'wt') as file:
        file.writelines(json.dumps(review) + '\n' for review in reviews)
    with gzip.open(raw / 'meta_Baby.json.gz', 'wt') as file:
        for item in ITEMS[::2]:
            record = {'asin': item, 'title': f'The "{item}"\n', 'brand': '<b>\t', 'imUrl': 'http://images/x.jpg'}
            file.write(f'{record}\n')
    rng = np.random.default_rng(0)
    with (raw / 'image_features_Baby.b').open('wb') as file:
        for item in ITEMS[1:]:
            file.write(item.encode() + rng.normal(size=4096).astype('<f4').tobytes())
    return tmp_path


def check_same(data, other, keys):
    assert modalities(data) == modalities(other)
    for node_type, names in keys.items():
        assert data[node_type].get('num_nodes') == other[node_type].get('num_nodes')
        for name in names:
            one, two = data[node_type][name], other[node_type][name]
            assert torch.equal(one, two) and one.dtype == two.dtype if isinstance(one, torch.Tensor) else one == two


def test_round_trip_of_amazon_reviews(root):
    np.save(root / 'text_feat.npy', np.random.default_rng(0).normal(size=(3, 5)))
    features = {'text': str(root / 'text_feat.npy')}
    data = AmazonReviews(str(root), 'baby', k_core=3, features=features, progress=False)[0]
    folder = save_mmrec(data, str(root), 'shop')
    assert folder == root / 'shop'
    names = ['image_feat.npy', 'image_mask.npy', 'items.tsv', 'shop.inter', 'text_feat.npy', 'users.tsv']
    assert sorted(path.name for path in folder.iterdir()) == names
    other = MMRecDataset(str(root), 'shop')[0]
    keys = {
        'user': ['raw_id'],
        'item': ['raw_id', 'title', 'x_image', 'x_text', 'has_image'],
        INTERACTS: ['edge_index', 'time', 'rating'],
    }
    check_same(data, other, keys)
    assert data['item'].title == ['The "B000000001"', '', 'The "B000000003"']
    assert data['item'].has_image.tolist() == [False, True, True]
    assert 'has_text' not in other['item'] and 'split' not in other[INTERACTS]
    lines = (folder / 'items.tsv').read_text().splitlines()
    assert lines[:3] == [
        'itemID\traw_id\ttitle\ttext\timage_url',
        '0\tB000000001\tThe "B000000001"\tThe "B000000001"\thttp://images/x.jpg',
        '1\tB000000002\t\t\t',
    ]


def test_round_trip_with_a_split_and_odd_values(tmp_path):
    data = FakeMultimodal(seed=0)[0]
    size = data[INTERACTS].edge_index.size(1)
    data[INTERACTS].rating = torch.rand(size, generator=torch.Generator().manual_seed(0))
    data[INTERACTS].time = torch.linspace(0, 1, size, dtype=torch.float64) / 3
    data['item'].title = [f'a\t"{i}\n\x85 é ' for i in range(data['item'].num_nodes)]
    save_mmrec(data, str(tmp_path / 'new'), 'fake')
    other = MMRecDataset(str(tmp_path / 'new'), 'fake')[0]
    check_same(data, other, {'item': ['x_image'], INTERACTS: ['edge_index', 'time', 'rating', 'split']})
    assert other['item'].title[:2] == ['a "0 é', 'a "1 é']


def test_data_without_features_waits_for_them(root):
    data = AmazonReviews(str(root), 'baby', k_core=3, image_features=False, progress=False)[0]
    folder = save_mmrec(data, str(root), 'shop')
    with pytest.raises(FileNotFoundError, match='_feat.npy'):
        MMRecDataset(str(root), 'shop')
    np.save(folder / 'text_feat.npy', np.ones((3, 2)))
    assert torch.equal(MMRecDataset(str(root), 'shop')[0][INTERACTS].edge_index, data[INTERACTS].edge_index)


def test_what_is_refused(tmp_path):
    data = FakeMultimodal(seed=0)[0]
    root = str(tmp_path)
    with pytest.raises(ValueError, match=r"'name' needs to be the name of a folder \(got 'a/b'\)"):
        save_mmrec(data, root, 'a/b')
    with pytest.raises(ValueError, match='got one split'):
        save_mmrec(FixedSplit()(data)[0], root, 'fake')
    size = data['user'].num_nodes
    odd = data.clone()
    odd['user'].num_nodes = size + 2
    with pytest.raises(ValueError, match=rf'got none of 2 users, first: user {size}\)'):
        save_mmrec(odd, root, 'fake')
    odd = data.clone()
    for raw_id in ('a\tb', None):
        odd['item'].raw_id = [raw_id] * data['item'].num_nodes
        with pytest.raises(ValueError, match="'raw_id' of 'item' needs to be without None, tabs"):
            save_mmrec(odd, root, 'fake')
    assert list(tmp_path.iterdir()) == []
    save_mmrec(data, root, 'fake')
    with pytest.raises(FileExistsError, match=r"fake' is there already: remove it"):
        save_mmrec(data, root, 'fake')


def test_round_trip_of_large_times(tmp_path):
    data = FakeMultimodal(seed=0)[0]
    data[INTERACTS].time = 2**53 + torch.arange(data[INTERACTS].edge_index.size(1))
    save_mmrec(data, str(tmp_path), 'fake')
    check_same(data, MMRecDataset(str(tmp_path), 'fake')[0], {INTERACTS: ['edge_index', 'time']})


@pytest.mark.parametrize('raw_id', [None, list, torch.tensor, np.array])
def test_round_trip_of_raw_ids_that_are_none_or_no_strings(tmp_path, raw_id):
    data = FakeMultimodal(seed=0)[0]
    expected = [str(i) for i in range(data['item'].num_nodes)]
    if raw_id is None:
        del data['item'].raw_id
        data['item'].image_url = [f'http://images/{i}.jpg' for i in expected]
    else:
        data['item'].raw_id = raw_id([int(i) for i in expected])
    save_mmrec(data, str(tmp_path), 'fake')
    assert MMRecDataset(str(tmp_path), 'fake')[0]['item'].raw_id == expected


def test_two_of_one_name(tmp_path):
    data = FakeMultimodal(num_users=256, seed=0)[0]

    def save(_):
        try:
            return save_mmrec(data, str(tmp_path), 'fake')
        except FileExistsError as error:
            return str(error)

    for _ in range(5):
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(save, range(4)))
        message = f"'{tmp_path / 'fake'}' is there already: remove it, or pass another 'name'"
        assert sorted(found, key=str) == [message] * 3 + [tmp_path / 'fake']
        check_same(data, MMRecDataset(str(tmp_path), 'fake')[0], {INTERACTS: ['edge_index']})
        assert [path.name for path in tmp_path.iterdir()] == ['fake']
        shutil.rmtree(tmp_path / 'fake')


def test_what_would_be_written_elsewhere_or_read_as_something_else(tmp_path):
    root = tmp_path / 'root'
    for change, message in [
        (lambda data: data['item'].update({'x_../../evil': data['item'].x_text}), 'the name of a modality'),
        (lambda data: data['item'].update({'x_items': data['item'].x_text}), 'the name of a modality'),
        (lambda data: data['item'].update({'raw_id': 'A' * data['item'].num_nodes}), "'raw_id' needs to be a list"),
        (lambda data: data[INTERACTS].edge_index.sub_(1), r"ids of 'edge_index' need to be in \[0, 63\] \(got -1\)"),
        (lambda data: data[INTERACTS].edge_index.mul_(0), "pairs of 'edge_index' need to be unique"),
    ]:
        data = FakeMultimodal(seed=0)[0].clone()
        change(data)
        with pytest.raises(ValueError, match=message):
            save_mmrec(data, str(root), 'fake')
    with pytest.raises(ValueError, match=r"'name' needs to be the name of a folder \(got '..'\)"):
        save_mmrec(FakeMultimodal(seed=0)[0], str(root), '..')
    assert list(tmp_path.iterdir()) == []


def test_no_room(tmp_path):
    resource = pytest.importorskip('resource')
    data = FakeMultimodal(seed=0)[0]
    data['item'].x_text = torch.zeros(48, 1 << 16)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match="fake' was not written, and what was there is whole"):
            save_mmrec(data, str(tmp_path), 'fake')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
