import gzip
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from lirdrec_pyg._io import file_digest
from lirdrec_pyg.datasets import MMRecDataset, mmrec
from lirdrec_pyg.datasets._common import read_features
from lirdrec_pyg.typing import INTERACTS, modalities

LINES = ['0\t0\t5\t10\t0', '0\t1\t4\t11\t1', '0\t2\t3\t12\t2', '1\t1\t5\t13\t0', '1\t2\t1\t14\t0']
HEADER = 'userID\titemID\trating\ttimestamp\tx_label'


class Scale(BaseTransform):
    calls = 0

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def forward(self, data: HeteroData) -> HeteroData:
        Scale.calls += 1
        data['item'].x_image = data['item'].x_image * self.factor
        return data

    def __repr__(self) -> str:
        return f'Scale({self.factor})'


@pytest.fixture
def root(tmp_path):
    write(tmp_path)
    return tmp_path


def write(root, name='toy', lines=LINES, header=HEADER, num_items=4):
    folder = root / name
    folder.mkdir(exist_ok=True)
    (folder / f'{name}.inter').write_text('\n'.join([header, *lines]) + '\n')
    rng = np.random.default_rng(0)
    np.save(folder / 'text_feat.npy', rng.normal(size=(num_items, 3)).astype(np.float16))
    np.save(folder / 'image_feat.npy', rng.normal(size=(num_items, 5)))
    return folder


def test_mmrec(root):
    dataset = MMRecDataset(str(root), 'toy')
    assert str(dataset) == "MMRecDataset('toy', modalities=['image', 'text'])"
    assert len(dataset) == 1
    data = dataset[0]
    data.validate()
    assert 'num_nodes' in data['user'] and data['user'].num_nodes == 2
    assert 'num_nodes' in data['item'] and data['item'].num_nodes == 4  # item 3 is cold
    assert modalities(data) == ['image', 'text']
    image = np.load(root / 'toy' / 'image_feat.npy')
    assert torch.equal(data['item'].x_image, torch.from_numpy(image.astype(np.float32)))
    assert data['item'].x_text.dtype == torch.float32
    store = data[INTERACTS]
    assert store.edge_index.dtype == torch.long
    assert store.edge_index.tolist() == [[0, 0, 0, 1, 1], [0, 1, 2, 1, 2]]
    assert store.time.tolist() == [10, 11, 12, 13, 14]
    assert store.rating.tolist() == [5, 4, 3, 5, 1]
    assert store.split.tolist() == [0, 1, 2, 0, 0]
    assert data['user'].raw_id == ['0', '1']
    assert data['item'].raw_id == ['0', '1', '2', '3']
    assert 'title' not in data['item']


def test_mmrec_folder_itself_and_optional_columns(root):
    write(root, lines=['1\t0\t7', '0\t1\t8'], header='itemID\tuserID\tposition')
    data = MMRecDataset(str(root / 'toy'), 'toy')[0]
    assert data[INTERACTS].edge_index.tolist() == [[0, 1], [1, 0]]
    assert data[INTERACTS].time.tolist() == [7, 8]
    assert 'split' not in data[INTERACTS] and 'rating' not in data[INTERACTS]


def test_mmrec_masks_and_ids(root):
    folder = root / 'toy'
    image = np.load(folder / 'image_feat.npy')
    image[2] = np.nan  # allowed, the mask says that there is none
    np.save(folder / 'image_feat.npy', image)
    np.save(folder / 'image_mask.npy', np.array([True, True, False, True]))
    (folder / 'items.tsv').write_text('itemID\tasin\ttext\n1\tB1\tA "quoted title\n0\tB0\tzero\n3\tB3\t\n2\tB2\té\n')
    (folder / 'users.tsv').write_text('userID\treviewer\n0\tann\n1\tNA\n')
    data = MMRecDataset(str(root), 'toy')[0]
    assert data['item'].has_image.tolist() == [True, True, False, True]
    assert 'has_text' not in data['item']
    assert data['item'].x_image[2].abs().sum() == 0
    assert data['item'].raw_id == ['B0', 'B1', 'B2', 'B3']
    assert data['item'].title == ['zero', 'A "quoted title', 'é', '']
    assert data['user'].raw_id == ['ann', 'NA']


def test_mmrec_cache(root, recwarn):
    Scale.calls = 0
    first = MMRecDataset(str(root), 'toy', pre_transform=Scale(2))
    again = MMRecDataset(str(root), 'toy', pre_transform=Scale(2))
    assert Scale.calls == 1 and first.processed_dir == again.processed_dir
    assert torch.equal(first[0]['item'].x_image, again[0]['item'].x_image)
    other = MMRecDataset(str(root), 'toy', pre_transform=Scale(3))
    assert torch.allclose(other[0]['item'].x_image / 3, first[0]['item'].x_image / 2)
    MMRecDataset(str(root), 'toy', pre_transform=Scale(2), force_reload=True)
    assert Scale.calls == 3

    plain = MMRecDataset(str(root), 'toy')
    text = MMRecDataset(str(root), 'toy', modalities=['text'])
    assert modalities(text[0]) == ['text']
    path = root / 'toy' / 'toy.inter'
    os.utime(path, ns=(1, 1))
    touched = MMRecDataset(str(root), 'toy')
    (root / 'toy' / 'users.tsv').write_text('userID\traw\n0\ta\n1\tb\n')
    named = MMRecDataset(str(root), 'toy')
    assert named[0]['user'].raw_id == ['a', 'b']
    datasets = [first, other, plain, text, touched, named]
    assert len({dataset.processed_dir for dataset in datasets}) == len(datasets)
    assert all(dataset.processed_dir.startswith(str(root / 'toy' / 'processed')) for dataset in datasets)
    assert os.listdir(plain.processed_dir).count('data.pt') == 1
    assert not [name for name in os.listdir(plain.processed_dir) if name.endswith('.tmp')]
    assert len(recwarn) == 0


def test_mmrec_function_is_never_cached(root):
    factor = 2.0

    def scale(data):
        data['item'].x_image = data['item'].x_image * factor
        return data

    first = MMRecDataset(str(root), 'toy', pre_transform=scale)[0]
    factor = 3.0
    second = MMRecDataset(str(root), 'toy', pre_transform=scale)[0]
    assert torch.allclose(first['item'].x_image / 2, second['item'].x_image / 3)


def test_mmrec_cache_dir(root, tmp_path):
    dataset = MMRecDataset(str(root), 'toy', cache_dir=str(tmp_path / 'cache'))
    assert dataset.processed_dir.startswith(str(tmp_path / 'cache' / 'toy'))
    assert not (root / 'toy' / 'processed').exists()
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match="pass 'cache_dir'"):
        MMRecDataset(str(root), 'toy', cache_dir=str(tmp_path / 'file'))


def test_mmrec_failed_processing_leaves_no_cache(root):
    def fail(data):
        raise RuntimeError('broken')

    with pytest.raises(RuntimeError, match='broken'):
        MMRecDataset(str(root), 'toy', pre_transform=fail)
    assert not list((root / 'toy').rglob('*.pt*'))


def test_mmrec_published(root, monkeypatch):
    folder = write(root, 'baby')
    with pytest.warns(UserWarning) as record:
        MMRecDataset(str(root), 'baby')
    messages = [str(warning.message) for warning in record]
    assert len(messages) == 4
    assert 'it has (2, 4, 5) (users, items, interactions) instead of (19445, 7050, 160792)' in messages[0]
    assert 'baby.inter' in messages[1] and 'does not start with e0abb033' in messages[1]

    monkeypatch.setitem(mmrec.PUBLISHED, 'baby', (2, 4, 5))
    for name in ('baby.inter', 'image_feat.npy', 'text_feat.npy'):
        path = folder / name
        monkeypatch.setitem(mmrec.PUBLISHED_FILES, f'baby/{name}', (path.stat().st_size, file_digest(path)[:8]))
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        MMRecDataset(str(root), 'baby', force_reload=True)


def test_mmrec_missing_files(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"toy/toy\.inter': .* needs to hold 'toy\.inter' and a '<modality>_feat"
    ):
        MMRecDataset(str(tmp_path), 'toy')
    folder = write(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"audio_feat\.npy': the modalities found are \['image', 'text'\]"):
        MMRecDataset(str(tmp_path), 'toy', modalities=['audio'])
    for value in ('image', []):
        with pytest.raises(ValueError, match="'modalities' needs to be one or more names"):
            MMRecDataset(str(tmp_path), 'toy', modalities=value)
    for path in folder.glob('*.npy'):
        path.unlink()
    with pytest.raises(FileNotFoundError, match='<modality>_feat.npy'):
        MMRecDataset(str(tmp_path), 'toy')


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        ([*LINES, '1\t0\t5'], r"line 7 of '.*toy\.inter' needs 5 tab-separated fields \(got 3: '1\\t0\\t5'\)"),
        ([LINES[0] + '\t9', *LINES[1:]], r"line 2 of '.*' needs 5 tab-separated fields \(got 6"),
        ([*LINES[:2], '', *LINES[2:]], r'line 4 of .* needs 5 tab-separated fields \(got 1'),
        ([*LINES, '1\tx7\t5\t1\t0'], r"line 7 of '.*': 'itemID' needs to be an integer \(got 'x7' in '1\\tx7"),
        ([*LINES, '1\t1e30\t5\t1\t0'], r"line 7 of '.*': 'itemID' needs to be an integer \(got '1e30'"),
        ([*LINES, '1.5\t0\t5\t1\t0'], r"line 7 of '.*': 'userID' needs to be an integer \(got '1.5'"),
        ([*LINES, '1\t0\t5\tnan\t0'], r"line 7 of '.*': 'timestamp' needs to be a number \(got 'nan'"),
        ([*LINES, '1\t0\t\t1\t0'], r"line 7 of '.*': 'rating' needs to be a number \(got ''"),
        ([*LINES, '1\t0\t5\t1\t3'], r"line 7 of '.*': 'x_label' needs to be 0, 1 or 2 \(got 3\)"),
        ([*LINES, '-1\t0\t5\t1\t0'], r"line 7 of '.*': 'userID' needs to be at least 0 \(got -1\)"),
        ([*LINES, '1\t-2\t5\t1\t0'], r"line 7 of '.*': 'itemID' needs to be at least 0 \(got -2\)"),
        ([*LINES, '1\t4\t5\t1\t0'], r"line 7 of '.*': 'itemID' needs to be below 4, .* features \(got 4\)"),
        ([*LINES, '5\t0\t5\t1\t0'], r"'userID' of '.*' needs to be 0 to 5 without gaps .* of 3 users, first: user 2\)"),
        ([*LINES, LINES[4], LINES[1]], r'\(got 2 duplicates, first: user 1, item 2 in line 7\)'),
        ([], r'needs at least one interaction \(got 0\)'),
    ],
)
def test_mmrec_bad_lines(tmp_path, lines, message):
    write(tmp_path, lines=lines)
    with pytest.raises(ValueError, match=message):
        MMRecDataset(str(tmp_path), 'toy')


def test_mmrec_missing_column(tmp_path):
    write(tmp_path, header='user\titemID\trating\ttimestamp\tx_label')
    with pytest.raises(ValueError, match=r"lacks the column 'userID' \(found \['user', 'itemID', 'rating'"):
        MMRecDataset(str(tmp_path), 'toy')


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (np.zeros((3, 2)), r"need equally many rows, one per item \(got \{'image': 3, 'text': 4\}\)"),
        (np.zeros(4), r'needs to be a numeric matrix with a row for each item \(got float64 of shape \(4,\)\)'),
        (np.full((4, 2), 'a'), r'needs to be a numeric matrix with a row for each item \(got <U1'),
        (np.array([[1.0], [2.0], [np.nan], [np.inf]]), "modality 'image' need to be finite .* NaN or Inf in row 2 of"),
        (np.array([[1.0], [1e300], [1.0], [1.0]]), "modality 'image' need to be finite .* in row 1 of"),
        (np.array([[object()]] * 4), 'needs to be a numeric .npy file'),
    ],
)
def test_mmrec_bad_features(root, array, message):
    np.save(root / 'toy' / 'image_feat.npy', array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        MMRecDataset(str(root), 'toy')


def test_mmrec_bad_side_files(root):
    folder = root / 'toy'
    np.save(folder / 'text_mask.npy', np.ones(4))
    with pytest.raises(ValueError, match=r'needs to be bool of shape \(4,\) \(got float64'):
        MMRecDataset(str(root), 'toy')
    (folder / 'text_mask.npy').write_bytes(b'')
    with pytest.raises(ValueError, match=r'needs to be a numeric \.npy file'):
        MMRecDataset(str(root), 'toy')
    (folder / 'text_mask.npy').unlink()
    (folder / 'items.tsv').write_text('itemID\traw_id\n0\ta\n1\tb\n1\tc\n3\td\n')
    with pytest.raises(ValueError, match=r"'itemID' of '.*items\.tsv' needs to name each of 0 to 3 once"):
        MMRecDataset(str(root), 'toy')


def test_mmrec_reads_features_in_chunks(root):
    path = root / 'toy' / 'image_feat.npy'
    has = torch.tensor([True, False, True, True])
    assert torch.equal(read_features(path, 'image', has, chunk_size=3), read_features(path, 'image', has))
    assert read_features(path, 'image', has, chunk_size=1)[1].abs().sum() == 0


class Bomb:
    r"""Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f'open({str(self.path)!r}, "w").close()',)


def test_the_cache_is_read_without_running_anything(root, tmp_path):
    processed = MMRecDataset(str(root), 'toy').processed_paths[0]
    content = Path(processed).read_bytes()
    folder = os.path.dirname(processed)
    for name in ('pre_transform.pt', 'pre_filter.pt'):
        torch.save(Bomb(tmp_path / 'ran'), os.path.join(folder, name))
    MMRecDataset(str(root), 'toy')
    os.remove(processed)
    MMRecDataset(str(root), 'toy')  # made again
    torch.save((Bomb(tmp_path / 'ran'), None), processed)
    with pytest.raises(ValueError, match=r"data.pt' is damaged or no processed file .*: pass 'force_reload=True'"):
        MMRecDataset(str(root), 'toy')
    assert not (tmp_path / 'ran').exists()
    Path(processed).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match='is damaged'):
        MMRecDataset(str(root), 'toy')
    assert MMRecDataset(str(root), 'toy', force_reload=True)[0]['item'].num_nodes == 4


def test_tables_of_another_encoding_or_packed(root):
    folder = root / 'toy'
    (folder / 'items.tsv').write_bytes('itemID\tasin\ttitle\n0\ta\té\n1\tb\t\n2\tc\t\n3\td\t\n'.encode('latin-1'))
    with pytest.raises(ValueError, match=r"line 2 of '.*items.tsv' needs to be in utf-8 .*: 'cp1252' would fit"):
        MMRecDataset(str(root), 'toy')
    assert MMRecDataset(str(root), 'toy', encoding='cp1252')[0]['item'].title[0] == 'é'
    path = folder / 'toy.inter'
    path.write_bytes(gzip.compress(path.read_bytes().replace(b'\n', b'\r\n')))
    assert MMRecDataset(str(root), 'toy', encoding='latin-1')[0][INTERACTS].time.tolist() == [10, 11, 12, 13, 14]
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ValueError, match=r"toy.inter' is cut short or damaged after line \d"):
        MMRecDataset(str(root), 'toy', encoding='latin-1')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', r"toy.inter' needs a header and a line for each row \(got an empty file\)"),
        ('userID,itemID\n0,1\n', r"lacks the column 'userID' .*: ',' would fit as 'separator'"),
        ('userID\titemID\titemID\n0\t1\t2\n', r"need different names \(got \['itemID'\] more than once\)"),
        (f'{HEADER}\n0\t0\t1e39\t1\t0\n', r"line 2 of .*: 'rating' needs to be at most 3.4e\+38 \(got '1e39'"),
        ('userID\titemID\n0\t0\n9007199254740993.0\t1\n', r"line 3 of .*: 'userID' needs to be below 2\*\*53"),
    ],
)
def test_tables_that_can_not_be_read(root, content, message):
    (root / 'toy' / 'toy.inter').write_text(content)
    with pytest.raises(ValueError, match=message):
        MMRecDataset(str(root), 'toy')


@pytest.mark.parametrize('header', ['itemID\tbrand\tasin\ttitle', 'brand\ttitle\titemID\traw_id'])
def test_brands_are_no_ids(root, header):
    rows = [
        dict(zip(('itemID', 'brand', 'asin', 'raw_id', 'title'), row, strict=True))
        for row in [
            ('0', 'Acme', 'a', 'a', 't'),
            ('1', 'Acme', 'b', 'b', 't'),
            ('2', '', 'c', 'c', ''),
            ('3', '', 'd', 'd', ''),
        ]
    ]
    lines = ['\t'.join(row[name] for name in header.split('\t')) for row in rows]
    (root / 'toy' / 'items.tsv').write_text('\n'.join([header, *lines]) + '\n')
    item = MMRecDataset(str(root), 'toy')[0]['item']
    assert item.raw_id == ['a', 'b', 'c', 'd'] and item.title == ['t', 't', '', '']
    (root / 'toy' / 'items.tsv').write_text('itemID\tbrand\n0\tA\n1\tA\n2\tB\n3\tB\n')
    assert MMRecDataset(str(root), 'toy')[0]['item'].raw_id == ['0', '1', '2', '3']


@pytest.mark.parametrize('array', [np.array(1.0), np.zeros((4, 0)), np.zeros(4, dtype=[('a', 'f4')])])
def test_arrays_that_are_no_matrices(root, array):
    np.save(root / 'toy' / 'image_feat.npy', array)
    with pytest.raises(
        ValueError, match=r"image_feat.npy' needs to be a numeric matrix with a row for each item \(got"
    ):
        MMRecDataset(str(root), 'toy')


@pytest.mark.parametrize('value', [1e39, 3e38])
def test_features_that_are_too_large_to_sum(root, value):
    np.save(root / 'toy' / 'image_feat.npy', np.array([[1.0], [value], [1.0], [1.0]]))
    with pytest.raises(ValueError, match=r"modality 'image' need to be finite \(got values beyond 1e\+32 in row 1 of"):
        MMRecDataset(str(root), 'toy')


def test_names_that_modalities_can_not_have(root):
    np.save(root / 'toy' / 'items_feat.npy', np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"the name of a modality .* \(got 'items'\): rename it"):
        MMRecDataset(str(root), 'toy')
    assert modalities(MMRecDataset(str(root), 'toy', modalities=['text'])[0]) == ['text']
