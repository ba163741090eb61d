import contextlib
import errno
import functools
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.transforms import BaseTransform

from lirdrec_pyg import _io
from lirdrec_pyg.datasets import MMRecDataset, MovieLens100K
from lirdrec_pyg.datasets._common import read_features, read_mask
from lirdrec_pyg.features import encode_texts
from lirdrec_pyg.transforms import DCT, ItemKNNGraph


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / 'toy'
    folder.mkdir()
    (folder / 'toy.inter').write_text('userID\titemID\n0\t0\n0\t1\n1\t2\n')
    np.save(folder / 'text_feat.npy', np.arange(1.0, 7.0).reshape(3, 2))
    return tmp_path


def build(root, pre_transform=None, **kwargs):
    return MMRecDataset(str(root), 'toy', pre_transform=pre_transform, **kwargs)


class Add(BaseTransform):
    r"""Shows nothing of its arguments."""

    more = 0.0

    def __init__(self, value=0.0, *parts):
        self.value, self.parts = value, parts

    def forward(self, data):
        data['item'].x_text = data['item'].x_text + self.value + self.more
        for part in self.parts:
            data = part(data)
        return data


class Twice(Add):
    __slots__ = ('times',)

    def __init__(self, times):
        super().__init__()
        self.times = times

    def forward(self, data):
        data['item'].x_text = data['item'].x_text * self.times
        return data


def test_a_pre_transform_counts_by_its_arguments(root):
    makers = [
        lambda: None,
        lambda: T.NormalizeFeatures(attrs=['x_text']),
        lambda: T.NormalizeFeatures(attrs=['none']),
        lambda: T.Compose([T.NormalizeFeatures(attrs=['x_text'])]),
        lambda: T.Compose([T.NormalizeFeatures(attrs=['none'])]),
        lambda: T.Constant(value=2.0),
        lambda: T.Constant(value=3.0),
        lambda: Add(1.0),
        lambda: Add(2.0),
        lambda: Add(torch.tensor([1.0, 2.0])),
        lambda: Add(torch.tensor([2.0, 1.0])),
        lambda: Add(1.0, Add(1.0)),
        lambda: Add(1.0, Add(2.0)),
        lambda: Twice(2.0),
        lambda: Twice(3.0),
        lambda: T.Compose([DCT(), ItemKNNGraph(k=1)]),
        lambda: T.Compose([DCT(), ItemKNNGraph(k=2)]),
    ]
    first = [build(root, make()) for make in makers]
    assert len({dataset.processed_dir for dataset in first}) == len(makers)
    for dataset, make in zip(first, makers, strict=True):
        state = os.stat(dataset.processed_paths[0])
        again = build(root, make())
        assert os.stat(again.processed_paths[0]) == state  # it was not made again
        assert torch.equal(again[0]['item'].x_text, dataset[0]['item'].x_text)


def test_a_pre_transform_counts_by_its_code(root):
    def make(factor):
        class Scale(BaseTransform):
            def forward(self, data):
                data['item'].x_text = data['item'].x_text * factor
                return data

        return Scale()

    assert build(root, make(2))[0]['item'].x_text[0].tolist() == [2, 4]
    assert build(root, make(3))[0]['item'].x_text[0].tolist() == [3, 6]


def test_a_value_of_the_class_counts(root, monkeypatch):
    assert build(root, Add())[0]['item'].x_text[0].tolist() == [1, 2]
    monkeypatch.setattr(Add, 'more', 1.0)
    assert build(root, Add())[0]['item'].x_text[0].tolist() == [2, 3]


@pytest.mark.parametrize('wrap', [lambda f: f, lambda f: T.Compose([DCT(), f]), lambda f: Add(0.0, f)])
def test_a_function_is_applied_each_time(root, wrap):
    def add(data, value):
        data['item'].x_text = data['item'].x_text + value
        return data

    for value in (1, 2):
        for function in (
            functools.partial(add, value=value),
            lambda data, value=value: add(data, value),
            Add(float(value)).forward,
        ):
            assert build(root, wrap(function))[0]['item'].x_text[0].tolist() == [1 + value, 2 + value]


@pytest.mark.parametrize('table', [False, True])
def test_a_file_that_changed_within_its_time_stamp_is_noticed(root, monkeypatch, table):
    if table:
        monkeypatch.setattr(_io, 'SMALL', 0)
    path = root / 'toy' / 'text_feat.npy'
    for value in range(5):
        state = path.stat()
        np.save(path, np.full((3, 2), float(value)))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert path.stat().st_size == state.st_size
        assert (build(root)[0]['item'].x_text == value).all()
    assert (root / 'toy' / 'processed' / 'files.json').exists() == table


def test_large_files_are_not_read_again(root, monkeypatch):
    monkeypatch.setattr(_io, 'SMALL', 0)
    now = time.time_ns() + 10 * 10**9
    monkeypatch.setattr(_io.time, 'time_ns', lambda: now)
    first = build(root)
    monkeypatch.setattr(_io, 'file_digest', None)
    assert build(root).processed_dir == first.processed_dir


def test_a_file_that_changes_while_it_is_read_is_no_cache(root):
    def change(data):
        np.save(root / 'toy' / 'text_feat.npy', np.zeros((3, 2)))
        return data

    with pytest.raises(OSError, match=r'text_feat.npy.* changed while it was read: try again'):
        build(root, change)
    assert not list(root.rglob('data.pt'))


def test_any_change_of_the_processed_file_is_noticed(root):
    path = build(root).processed_paths[0]
    content = Path(path).read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(len(content), size=100).tolist():
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        Path(path).write_bytes(changed)
        with pytest.raises(ValueError, match=r"data.pt' is damaged or no processed file .*: pass 'force_reload=True'"):
            build(root)
    other = build(root, Add(1.0)).processed_paths[0]
    for found in (b'', b'text', Path(other).read_bytes()):
        Path(path).write_bytes(found)
        with pytest.raises(ValueError, match=r"damaged or no processed file .*: pass 'force_reload=True'"):
            build(root)
    torch.save({'x': 1}, path)
    with pytest.raises(ValueError, match=r"damaged or no processed file .*: pass 'force_reload=True'"):
        build(root)
    assert build(root, force_reload=True)[0]['item'].x_text[0].tolist() == [1, 2]
    assert os.listdir(os.path.dirname(path)) == ['data.pt']


def test_a_cache_that_can_only_be_read_is_read(root, monkeypatch):
    first = build(root)

    def refuse(*args, **kwargs):
        raise OSError(30, 'Read-only file system')

    monkeypatch.setattr(_io, 'SMALL', 0)
    monkeypatch.setattr(_io, 'write_bytes', refuse)
    assert build(root).processed_dir == first.processed_dir


@contextlib.contextmanager
def no_room(size):
    r"""Lets no file grow beyond a size, as a full disk does."""
    resource = pytest.importorskip('resource')
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_no_room_for_the_processed_file(root):
    message = (
        r"data.pt' was not written, and what was there is whole \(File too large\).*: pass 'cache_dir', or make room"
    )
    with no_room(512), pytest.raises(OSError, match=message):
        build(root)
    assert not [path for path in root.rglob('*') if path.name.startswith(('data.pt', '.'))]
    first = build(root)
    with no_room(512), pytest.raises(OSError, match=message):
        build(root, force_reload=True)
    assert build(root)[0]['item'].x_text.equal(first[0]['item'].x_text)  # nothing was lost


def test_a_folder_that_is_removed_meanwhile(root):
    def remove(data):
        shutil.rmtree(root / 'toy' / 'processed')
        return data

    assert build(root, remove)[0]['item'].num_nodes == 3  # it is made again

    def remove_all(data):
        shutil.rmtree(root / 'toy')
        return data

    with pytest.raises(OSError, match=r'toy.inter.* changed while it was read: try again'):
        build(root, remove_all)


@pytest.mark.parametrize('code', [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_can_not_be_made(root, monkeypatch, code):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, 'mkdir', refuse)
    with pytest.raises(
        OSError, match=rf"can't write to '.*/toy/processed/.*' \({os.strerror(code)}\): pass 'cache_dir'"
    ):
        build(root)
    with pytest.raises(OSError, match=rf"can't write to '.*/ml/raw' \({os.strerror(code)}\): pass another 'root'"):
        MovieLens100K(str(root / 'ml'))


@pytest.mark.parametrize('code', [errno.EROFS, errno.ENOSPC])
def test_a_file_that_can_not_be_made(root, monkeypatch, code):
    first = build(root)
    make = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code))
        return make(path, flags, *args, **kwargs)

    monkeypatch.setattr(_io.os, 'open', refuse)
    with pytest.raises(
        OSError, match=rf"data.pt' was not written, .* \({os.strerror(code)}.*: pass 'cache_dir', or make"
    ):
        build(root, force_reload=True)
    assert build(root)[0]['item'].x_text.equal(first[0]['item'].x_text)


def test_two_processes_of_one_dataset(root):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: build(root)[0]['item'].x_text.tolist(), range(4)))
    assert found == [[[1, 2], [3, 4], [5, 6]]] * 4


def test_features_are_those_of_the_manifest_beside_them(tmp_path):
    encode_texts(['a', None, 'b'], lambda texts: torch.ones(len(texts), 2), tmp_path, progress=False)
    path, mask, manifest = (tmp_path / f'text_{name}' for name in ('feat.npy', 'mask.npy', 'manifest.json'))
    whole = {file: file.read_bytes() for file in (path, mask, manifest)}
    assert read_mask(mask, 3).tolist() == [True, False, True]
    assert read_features(path, 'text').tolist() == [[1, 1], [0, 0], [1, 1]]
    for file, read in [(path, lambda: read_features(path, 'text')), (mask, lambda: read_mask(mask, 3))]:
        file.write_bytes(whole[file][:-1] + bytes([whole[file][-1] ^ 1]))
        with pytest.raises(ValueError, match=f"'{file}' is not the file of .*encode the features again, or remove"):
            read()
        file.write_bytes(whole[file])
    mask.unlink()
    with pytest.raises(ValueError, match=f"'{mask}', which .* names, is not there"):
        read_features(path, 'text')
    mask.write_bytes(whole[mask])
    manifest.write_bytes(whole[manifest][:40])
    with pytest.raises(ValueError, match=f"'{manifest}' is damaged"):
        read_features(path, 'text')
    manifest.unlink()  # features of one's own
    assert read_features(path, 'text').shape == (3, 2)
