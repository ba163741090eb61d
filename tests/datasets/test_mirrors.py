r"""Downloads from mirrors, served here."""

import http.server
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lirdrec_pyg._io import file_digest
from lirdrec_pyg.datasets import MMRecDataset, _download, _mirrors
from lirdrec_pyg.typing import INTERACTS

TABLE = np.array([[0, 0, 0, 1, 1], [0, 1, 2, 1, 3], [0, 1, 2, 0, 0]])
LINES = ['\t'.join(map(str, row)) for row in TABLE.T.tolist()]


class Handler(http.server.SimpleHTTPRequestHandler):
    r"""Serves a folder, and goes on where a client asks it to."""

    def do_GET(self):
        path = self.server.folder / self.path.strip('/')
        self.server.requests.append(path.name)
        if not path.is_file():
            return self.send_error(404)
        content = path.read_bytes()
        start = int(self.headers.get('Range', 'bytes=0-')[6:-1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        self.send_header('ETag', '"1"')
        self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + self.server.most])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    r"""A mirror of a small set in the place of Baby, with the interactions as a table."""
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.folder, server.requests, server.most = tmp_path / 'mirror', [], 1 << 30
    server.folder.mkdir()
    (server.folder / 'baby.inter').write_text('\n'.join(['userID\titemID\tx_label', *LINES]) + '\n')
    for name in ('image', 'text'):
        np.save(server.folder / f'{name}_feat.npy', np.random.default_rng(0).normal(size=(4, 300)))
    monkeypatch.setitem(_mirrors.MIRRORS, 'baby', f'http://127.0.0.1:{server.server_address[1]}')
    monkeypatch.setitem(_mirrors.PUBLISHED, 'baby', (2, 4, 5))
    monkeypatch.setitem(_mirrors.SPLITS, 'baby', [3, 1, 1])
    monkeypatch.setattr(_mirrors, 'WIDTHS', {'image': 300, 'text': 300})
    for file in [*_mirrors.PUBLISHED_FILES]:
        monkeypatch.delitem(_mirrors.PUBLISHED_FILES, file)
    monkeypatch.setattr(_download.time, 'sleep', lambda seconds: None)
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != 'processed')


def as_parts(server):
    (server.folder / 'baby.inter').unlink()
    for part, name in enumerate(_mirrors.PARTS):
        np.save(server.folder / name, TABLE[:2, TABLE[2] == part])


@pytest.mark.parametrize('parts', [False, True])
def test_a_set_is_downloaded_once(server, tmp_path, parts, recwarn):
    if parts:
        as_parts(server)
    data = MMRecDataset(str(tmp_path), 'baby', download=True)[0]
    pairs = [*map(tuple, [*data[INTERACTS].edge_index.tolist(), data[INTERACTS].split.tolist()])]
    assert sorted(zip(*pairs, strict=True)) == sorted(map(tuple, TABLE.T.tolist()))
    assert data['item'].x_text.numpy() == pytest.approx(np.load(server.folder / 'text_feat.npy'), rel=1e-6)
    assert files(tmp_path / 'baby') == ['baby.inter', 'image_feat.npy', 'text_feat.npy']
    assert len(server.requests) == (6 if parts else 3)
    MMRecDataset(str(tmp_path), 'baby', download=True)
    MMRecDataset(str(tmp_path), 'baby')
    assert len(server.requests) == (6 if parts else 3)
    assert not recwarn.list


def test_what_lacks_is_downloaded(server, tmp_path):
    MMRecDataset(str(tmp_path), 'baby', modalities=['text'], download=True)
    assert files(tmp_path / 'baby') == ['baby.inter', 'text_feat.npy']
    own = (tmp_path / 'baby' / 'text_feat.npy').read_bytes()
    np.save(server.folder / 'text_feat.npy', np.zeros((4, 300)))
    MMRecDataset(str(tmp_path), 'baby', download=True)
    assert (tmp_path / 'baby' / 'text_feat.npy').read_bytes() == own
    (tmp_path / 'baby' / 'image_feat.npy').unlink()
    (tmp_path / 'baby' / 'baby.inter').write_text('\n'.join(['userID\titemID\tx_label', *LINES[:-1], '1\t2\t0']) + '\n')
    with pytest.raises(
        ValueError, match=r"baby.inter' needs to be the interactions of .* \(got others\): move it away"
    ):
        MMRecDataset(str(tmp_path), 'baby', download=True)


def test_a_broken_download_goes_on(server, tmp_path):
    server.most = 1000
    with pytest.raises(
        ConnectionError, match=rf"bytes came.*By hand: '{tmp_path / 'baby'}' needs to hold \['baby.inter', "
    ):
        MMRecDataset(str(tmp_path), 'baby', download=True, modalities=['text', 'image'])
    assert files(tmp_path / 'baby') == ['baby.inter', 'download']  # nothing is half there
    assert files(tmp_path / 'baby' / 'download') == ['image_feat.npy.part', 'image_feat.npy.part.json']
    server.most = 1 << 30
    data = MMRecDataset(str(tmp_path), 'baby', download=True)[0]
    assert data['item'].x_image.numpy() == pytest.approx(np.load(server.folder / 'image_feat.npy'), rel=1e-6)
    assert files(tmp_path / 'baby') == ['baby.inter', 'image_feat.npy', 'text_feat.npy']


def test_files_are_checked(server, tmp_path, monkeypatch):
    folder, path = tmp_path / 'baby', server.folder / 'text_feat.npy'
    whole = path.read_bytes()
    known = (len(whole), file_digest(path)[:8])
    monkeypatch.setitem(_mirrors.PUBLISHED_FILES, 'baby/text_feat.npy', known)
    path.write_bytes(whole[:-1] + b'!')
    with pytest.raises(
        ValueError, match=rf'needs to have {known[0]} bytes and the sha256 {known[1]}… \(got {known[0]} '
    ):
        MMRecDataset(str(tmp_path), 'baby', download=True)
    assert files(folder) == ['baby.inter', 'download', 'image_feat.npy']
    assert files(folder / 'download') == []
    path.write_bytes(whole)
    MMRecDataset(str(tmp_path), 'baby', download=True)


@pytest.mark.parametrize('wrong', [np.zeros((3, 300)), np.zeros((4, 299)), None])
def test_features_of_unknown_checksum_need_the_published_shape(server, tmp_path, wrong):
    path = server.folder / 'image_feat.npy'
    path.write_bytes(b'<html>') if wrong is None else np.save(path, wrong)
    message = 'image_feat.npy' if wrong is None else r"image_feat.npy' needs to be of shape \(4, 300\) \(got \(\d"
    with pytest.raises(ValueError, match=message):
        MMRecDataset(str(tmp_path), 'baby', download=True)
    assert not (tmp_path / 'baby' / 'image_feat.npy').exists()


def test_interactions_need_the_published_numbers(server, tmp_path, monkeypatch):
    monkeypatch.setitem(_mirrors.SPLITS, 'baby', [3, 2, 0])
    with pytest.raises(
        ValueError, match=r'need to be those published.*split into \[3, 2, 0\] \(got .* and \[3, 1, 1\]'
    ):
        MMRecDataset(str(tmp_path), 'baby', download=True)
    assert not (tmp_path / 'baby' / 'baby.inter').exists()


@pytest.mark.parametrize('part', [np.zeros((3, 2), dtype=int), np.zeros((2, 3)), -np.ones((2, 3), dtype=int)])
def test_parts_that_are_no_pairs(server, tmp_path, part):
    as_parts(server)
    np.save(server.folder / 'valid.npy', part)
    with pytest.raises(ValueError, match=r"'valid.npy' of the mirror needs to hold users and items in two rows"):
        MMRecDataset(str(tmp_path), 'baby', download=True)


def test_two_download_once(server, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: MMRecDataset(str(tmp_path), 'baby', download=True), range(3)))
    assert len(server.requests) == 3


def test_errors(server, tmp_path):
    with pytest.raises(ValueError, match=r"'name' to be one of \['baby', 'clothing', 'sports'\].* \(got 'elec'\)"):
        MMRecDataset(str(tmp_path), 'elec', download=True)
    with pytest.raises(ValueError, match=r"'modalities' needs to be of \['image', 'text'\] to be downloaded"):
        MMRecDataset(str(tmp_path), 'baby', modalities=['audio'], download=True)
    with pytest.raises(FileNotFoundError, match=r'pass `download=True`'):
        MMRecDataset(str(tmp_path), 'baby')


def test_mirrors_are_encrypted():
    assert all(url.startswith('https://') for url in _mirrors.MIRRORS.values())
    assert all(sum(_mirrors.SPLITS[name]) == _mirrors.PUBLISHED[name][2] for name in _mirrors.MIRRORS)
