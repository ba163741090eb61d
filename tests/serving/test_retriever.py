import copy
import hashlib
import io
import json
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lirdrec_pyg import Embeddings, recommend
from lirdrec_pyg.serving import Retriever
from lirdrec_pyg.serving._seen import pairs as pairs_of


@pytest.fixture
def emb():
    return Embeddings(torch.randn(64, 4), torch.randn(48, 4))


def brute_force(user, item, k, excluded=(), allowed=None):
    score = item @ user
    items = [i for i in range(len(item)) if i not in excluded and (allowed is None or i in allowed)]
    return sorted(items, key=lambda i: -float(score[i]))[:k]


def names(values):
    return [f'i{value}' for value in values]


def check(table, emb, users, k, excluded, allowed=None):
    r"""Asserts that the table holds the brute force answer, up to ties."""
    for u in users:
        own = table[table['user'] == f'u{u}']
        best = brute_force(emb.user[u], emb.item, k, excluded.get(u, set()), allowed)
        found = [int(raw[1:]) for raw in own['item']]
        assert len(found) == len(set(found)) == len(best)
        assert not excluded.get(u, set()) & set(found)
        assert allowed is None or set(found) <= set(allowed)
        assert own['rank'].tolist() == list(range(1, len(best) + 1))
        score = (emb.item @ emb.user[u])[best]
        assert own['score'].to_numpy() == pytest.approx(score.numpy(), abs=1e-5)
        assert (emb.item @ emb.user[u])[found].numpy() == pytest.approx(score.numpy(), abs=1e-5)


def pairs(excluded):
    return torch.tensor([[u, i] for u, items in excluded.items() for i in items], dtype=torch.long).view(-1, 2).t()


@pytest.mark.parametrize('index', ['Flat', 'HNSW8', 'IVF4,Flat'])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_retriever_equals_brute_force(index, data):
    draw = data.draw
    num_items, num_users = draw(st.integers(40, 300)), 6
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    emb = Embeddings(*(torch.randn(n, 5, generator=generator) for n in (num_users, num_items)))
    share = draw(st.sampled_from([0.0, 0.05, 0.9, 1.0]))
    excluded = {
        u: set((torch.rand(num_items, generator=generator) < share).nonzero().view(-1).tolist())
        for u in range(num_users - 1)  # the last one has seen nothing
    }
    allowed = draw(st.none() | st.sets(st.integers(0, num_items - 1), max_size=60))
    blocked = draw(st.sets(st.integers(0, num_items - 1), max_size=5))
    k = draw(st.integers(1, num_items))
    exact = {} if index == 'Flat' else {'ef_search': 300} if index == 'HNSW8' else {'nprobe': 4}
    retriever = Retriever(
        emb,
        pairs(excluded),
        user_ids=[f'u{u}' for u in range(num_users)],
        item_ids=names(range(num_items)),
        index=index,
        **exact,
    )
    users = draw(st.permutations(range(num_users)))
    table = retriever.recommend(
        [f'u{u}' for u in users],
        k,
        allowed=None if allowed is None else names(sorted(allowed)),
        blocked=names(sorted(blocked)),
    )
    assert list(dict.fromkeys(table['user'])) == [u for u in [f'u{u}' for u in users] if u in set(table['user'])]
    rest = set(range(num_items) if allowed is None else allowed) - blocked
    if index != 'HNSW8':
        check(table, emb, users, k, excluded, rest)
    for u in users:  # also where an index is approximate
        own = table[table['user'] == f'u{u}']
        found = {int(raw[1:]) for raw in own['item']}
        assert len(own) == len(found) == min(k, len(rest - excluded.get(u, set())))
        assert found <= rest - excluded.get(u, set())


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_long_histories_and_filters_equal_brute_force(data):
    draw = data.draw
    num_items = draw(st.integers(3000, 6000))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    emb = Embeddings(*(torch.randn(n, 3, generator=generator) for n in (3, num_items)))
    k = draw(st.integers(1, 50))
    excluded = {}
    for u in range(3):  # the best ones, or any, but always more than 2,048 of them
        count = draw(st.integers(2049, num_items))
        best = draw(st.booleans())
        order = (emb.item @ emb.user[u]).argsort(descending=True) if best else None
        order = torch.randperm(num_items, generator=generator) if order is None else order
        excluded[u] = set(order[:count].tolist())
    allowed = blocked = None
    if draw(st.booleans()):
        share = draw(st.floats(0.01, 1.0))
        allowed = set((torch.rand(num_items, generator=generator) < share).nonzero().view(-1).tolist())
    if draw(st.booleans()):
        blocked = draw(st.sets(st.integers(0, num_items - 1), max_size=30))
    index = draw(st.sampled_from(['Flat', 'IVF4,Flat']))
    kwargs = {} if index == 'Flat' else {'nprobe': 4}
    users = [f'u{u}' for u in range(3)]
    retriever = Retriever(emb, pairs(excluded), user_ids=users, item_ids=names(range(num_items)), index=index, **kwargs)
    table = retriever.recommend(
        users,
        k,
        allowed=None if allowed is None else names(sorted(allowed)),
        blocked=None if blocked is None else names(sorted(blocked)),
    )
    rest = set(range(num_items) if allowed is None else allowed) - (blocked or set())
    check(table, emb, range(3), k, excluded, rest)


@pytest.fixture
def shop():
    r"""Enough items for an approximate index to be asked, and a history longer than 2,048."""
    emb = Embeddings(torch.randn(8, 16), torch.randn(10000, 16))
    excluded = {0: set(range(100, 4000)), 1: {3, 5}, 2: set(emb.item.matmul(emb.user[2]).topk(2300).indices.tolist())}
    return emb, excluded


def retriever_of(shop, index='Flat', **kwargs):
    emb, excluded = shop
    users, items = [f'u{u}' for u in range(len(emb.user))], names(range(len(emb.item)))
    return Retriever(emb, pairs(excluded), user_ids=users, item_ids=items, index=index, **kwargs)


@pytest.mark.parametrize(
    ('index', 'kwargs', 'least'),
    [
        ('HNSW16', {'ef_search': 200}, 0.95),
        ('IVF16,Flat', {'nprobe': 16}, 1.0),
        ('IVF16,PQ8x5np', {'nprobe': 16, 'oversample': 20}, 0.9),
        ('PCA8,HNSW16', {'ef_search': 64, 'oversample': 20}, 0.8),
    ],
)
def test_approximate_index(shop, index, kwargs, least):
    users = [f'u{u}' for u in range(8)]
    exact = retriever_of(shop).recommend(users, 20)
    retriever = retriever_of(shop, index)
    retriever.configure(**kwargs)
    assert retriever.settings == {'ef_search': None, 'nprobe': None, 'oversample': 1} | kwargs
    found = retriever.recommend(users, 20)
    check(exact, shop[0], range(8), 20, shop[1])
    assert found['user'].tolist() == exact['user'].tolist()
    same = [len(set(exact[exact.user == u].item) & set(found[found.user == u].item)) / 20 for u in users]
    assert sum(same) / 8 >= least
    for u, items in shop[1].items():
        assert not set(names(items)) & set(found[found['user'] == f'u{u}']['item'])
    score = (shop[0].user[3] * shop[0].item[[int(raw[1:]) for raw in found[found.user == 'u3'].item]]).sum(dim=1)
    assert found[found.user == 'u3']['score'].to_numpy() == pytest.approx(score.numpy(), abs=1e-5)


def test_similar_items(shop):
    emb, _ = shop
    unit = torch.nn.functional.normalize(emb.item)
    for index in ('Flat', 'IVF4,Flat', 'HNSW8'):
        retriever = retriever_of(shop, index, nprobe=4 if index.startswith('IVF') else None)
        for metric, x in [('cosine', unit), ('inner', emb.item)] if index != 'HNSW8' else [('cosine', unit)]:
            table = retriever.similar_items(['i7', 'i2'], k=3, metric=metric)
            assert list(table.columns) == ['item', 'rank', 'similar', 'score']
            best = brute_force(x[7], x, 3, {7})
            own = table[table['item'] == 'i7']
            assert own['similar'].tolist() == names(best)
            assert own['score'].to_numpy() == pytest.approx((x[best] @ x[7]).numpy(), abs=1e-5)
            assert table['item'].tolist() == ['i7'] * 3 + ['i2'] * 3
        default = retriever.similar_items(['i7', 'i2'], k=3)
        pd.testing.assert_frame_equal(default, retriever.similar_items(['i7', 'i2'], k=3, metric='cosine'))


def test_cosines_of_zero_tiny_and_long_items():
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1e-25, 1e-25], [1e15, 0.0], [-1.0, 0.0]])
    table = Retriever(Embeddings(torch.ones(1, 2), x)).similar_items([0, 1], 4)
    assert table['similar'].tolist()[:4] == [3, 2, 1, 4]
    assert table['score'].to_numpy() == pytest.approx([1, 0.5**0.5, 0, -1, 0, 0, 0, 0], abs=1e-6)


@pytest.mark.parametrize('index', ['Flat', 'IVF4,Flat'])
def test_similar_items_are_filtered(shop, index):
    emb, _ = shop
    retriever = retriever_of(shop, index, nprobe=None if index == 'Flat' else 4)
    rest = set(range(0, 10000, 2)) - {2, 4}
    allowed, blocked = names(range(0, 10000, 2)), ['i2', 'i4', 'i5']
    unit = torch.nn.functional.normalize(emb.item)
    for item in (6, 7):  # allowed itself, and not
        for metric, x in [('inner', emb.item), ('cosine', unit)]:
            table = retriever.similar_items([f'i{item}'], 5, allowed, blocked, metric=metric)
            assert table['similar'].tolist() == names(brute_force(x[item], x, 5, {item}, rest))
    assert retriever.similar_items(['i7'], 5, allowed=['i7', 'i9'])['similar'].tolist() == ['i9']


@pytest.mark.parametrize('index', ['Flat', 'HNSW16'])
def test_adds_users_items_and_what_they_saw(shop, index):
    retriever = retriever_of(shop, index)
    retriever.add_users(10 * torch.eye(16)[:1], ['new'])
    retriever.add_items(100 * torch.eye(16)[:2], ['best', 'other'])
    assert (retriever.num_users, retriever.num_items) == (9, 10002)
    assert retriever.recommend(['new'], 1)[['item', 'score']].to_numpy().tolist() == [['best', 1000.0]]
    retriever.add_items(torch.empty(0, 16), [])
    retriever.add_seen(['new', 'new', 'u1'], ['best', 'best', 'i9'])
    table = retriever.recommend(['new', 'u1'], 9000)
    assert 'best' not in set(table[table['user'] == 'new']['item'])
    assert not {'i3', 'i5', 'i9'} & set(table[table['user'] == 'u1']['item'])
    assert 'best' in set(retriever.recommend(['new'], 5, exclude_seen=False)['item'])


def test_ids_come_from_the_data(splits, emb):
    table = Retriever(emb, seen=splits[0]).recommend(['user-5', 'user-2'], k=4)
    same = recommend(emb, splits[0], ['user-5', 'user-2'], k=4)
    pd.testing.assert_frame_equal(table, same, check_dtype=False, check_exact=False)
    assert Retriever(emb).recommend([63], 2)['user'].tolist() == [63, 63]
    assert (
        Retriever(emb, user_ids=torch.arange(100, 164), item_ids=np.arange(48))
        .recommend(pd.Series([100]), 2)['user']
        .tolist()
        == [100] * 2
    )
    assert len(Retriever(emb).recommend([], 2)) == len(Retriever(emb, index='HNSW8').recommend([], 2)) == 0
    assert repr(Retriever(emb, index='HNSW8')) == "Retriever(64, 48, index='HNSW8')"


@pytest.mark.parametrize('index', ['Flat', 'IVF4,PQ4x4np'])
def test_save_and_load(shop, index, tmp_path):
    retriever = retriever_of(shop, index, nprobe=None if index == 'Flat' else 2, oversample=3)
    (tmp_path / 'model.pt').write_bytes(b'weights')
    for folders in (1, 2, 2):  # over itself, and what was before stays for those who read it
        retriever.save(tmp_path / 'shop', checkpoint=tmp_path / 'model.pt', whole=True)
        again = Retriever.load(tmp_path / 'shop', checkpoint=tmp_path / 'model.pt')
        users = [f'u{u}' for u in range(8)]
        pd.testing.assert_frame_equal(again.recommend(users, 7), retriever.recommend(users, 7))
        assert again.settings == retriever.settings
        assert len(list((tmp_path / 'shop').iterdir())) == 1 + folders
    (tmp_path / 'other.pt').write_bytes(b'other weights')
    with pytest.raises(ValueError, match=r"is of another model than '.*other.pt'"):
        Retriever.load(tmp_path / 'shop', checkpoint=tmp_path / 'other.pt')


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_the_old_one(shop, tmp_path, monkeypatch, error):
    retriever = retriever_of(shop, 'HNSW8')
    retriever.save(tmp_path / 'shop')
    expected = retriever.recommend(['u1'], 5)
    retriever.add_items(torch.ones(1, 16), ['one more'])

    def fail(*args):
        raise error

    monkeypatch.setattr(faiss, 'write_index', fail)
    with pytest.raises(type(error)):
        retriever.save(tmp_path / 'shop', whole=True)
    again = Retriever.load(tmp_path / 'shop')
    assert again.num_items == 10000
    pd.testing.assert_frame_equal(again.recommend(['u1'], 5), expected)
    assert len(list((tmp_path / 'shop').iterdir())) == 2


KILLED = """
import os, sys, faiss, torch
from lirdrec_pyg.serving import Retriever
from lirdrec_pyg.typing import Embeddings
faiss.write_index = lambda *args: os.kill(os.getpid(), 9)
Retriever(Embeddings(torch.randn(3, 4), torch.randn(300, 4)), index='HNSW8').save(sys.argv[1])
"""


def test_saving_touches_nothing_else_in_the_folder(tmp_path):
    (tmp_path / 'data-2024').mkdir()
    (tmp_path / 'data-2024.csv').write_text('mine')
    retriever = Retriever(Embeddings(torch.randn(3, 4), torch.randn(40, 4)), item_ids=list(np.arange(40)))
    for _ in range(2):
        retriever.save(tmp_path, whole=True)
    assert {path.name for path in tmp_path.glob('data-2024*')} == {'data-2024', 'data-2024.csv'}
    assert len(list(tmp_path.iterdir())) == 5  # with the manifest and two folders of its own
    assert Retriever.load(tmp_path).num_items == 40


def test_a_killed_save_leaves_the_old_one(tmp_path):
    retriever = Retriever(Embeddings(torch.randn(3, 4), torch.randn(40, 4)))
    retriever.save(tmp_path)
    result = subprocess.run([sys.executable, '-c', KILLED, str(tmp_path)], check=False)
    assert result.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 3
    assert Retriever.load(tmp_path).num_items == 40
    (tmp_path / 'data-0123456789ab').mkdir()  # as saves of earlier versions left
    retriever.save(tmp_path, whole=True)
    assert len(list(tmp_path.iterdir())) == 3 and len(list(tmp_path.glob('data-*'))) == 2
    assert not (tmp_path / 'data-0123456789ab').exists()


def test_saves_into_one_folder_wait_for_one_another_and_never_hinder_a_load(tmp_path):
    Retriever(Embeddings(torch.zeros(3, 4), torch.randn(40, 4))).save(tmp_path)

    def save(own):  # each has its own lock, as two processes have
        retriever = Retriever(Embeddings(torch.full((3, 4), float(own)), torch.randn(40 + own, 4)))
        for number in range(10):
            retriever.save(tmp_path, whole=number % 2 == 0)

    with ThreadPoolExecutor() as pool:
        saves = [pool.submit(save, own) for own in (1, 2)]
        found = set()
        while not all(one.done() for one in saves):
            loaded = Retriever.load(tmp_path)
            assert loaded.num_items == 40 + loaded._state.user.x[0, 0]  # of one save
            found.add(loaded.num_items)
    assert [one.result() for one in saves] == [None, None]
    assert found >= {41, 42}
    assert Retriever.load(tmp_path).num_items > 40
    # the manifest, the last save and the one before it, of which one may be changes beside a base
    assert 3 <= len(list(tmp_path.iterdir())) <= 4


def test_a_load_goes_on_with_what_took_the_place_of_what_it_was_reading(tmp_path, monkeypatch):
    first = Retriever(Embeddings(torch.randn(3, 4), torch.randn(40, 4)))
    second = Retriever(Embeddings(torch.randn(3, 4), torch.randn(41, 4)))
    first.save(tmp_path)
    load, saves = np.load, iter(range(2))

    def slow(*args, **kwargs):
        for _ in saves:  # two saves while the first file is read
            second.save(tmp_path, whole=True)
        return load(*args, **kwargs)

    monkeypatch.setattr(np, 'load', slow)
    assert Retriever.load(tmp_path).num_items == 41


def test_a_save_says_what_was_not_written(tmp_path):
    retriever = Retriever(Embeddings(torch.randn(3, 4), torch.randn(40, 4)))
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(OSError, match="/file/shop' was not written, and what was there is whole"):
        retriever.save(tmp_path / 'file' / 'shop')
    assert retriever.checkpoint is None


FULL = """
import resource, signal, sys
from pathlib import Path
from lirdrec_pyg.serving import Retriever
folder = Path(sys.argv[1])
retriever = Retriever.load(folder)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for less in (1, 10, 3000):  # what does not fit: numpy.save would not notice that of less than a block
    for name in ('item.npy', 'index.faiss'):
        size = max(path.stat().st_size for path in folder.glob('data-*/' + name))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - less, resource.RLIM_INFINITY))
        try:
            retriever.save(folder, whole=True)
        except OSError as error:
            print(f"'{folder}' was not written, and what was there is whole (" in str(error))
"""


def test_a_save_without_room_for_the_last_bytes_fails_and_leaves_the_old_one(tmp_path):
    retriever = Retriever(Embeddings(torch.randn(3, 4), torch.randn(2000, 4)), index='HNSW8')
    retriever.save(tmp_path)
    run = subprocess.run([sys.executable, '-c', FULL, str(tmp_path)], check=True, capture_output=True, text=True)
    assert run.stdout.split() == ['True'] * 6
    assert len(list(tmp_path.iterdir())) == 2
    pd.testing.assert_frame_equal(Retriever.load(tmp_path).recommend([1], 5), retriever.recommend([1], 5))


@pytest.mark.parametrize('name', ['user.npy', 'item.npy', 'seen.npy', 'ids.json', 'index.faiss'])
@pytest.mark.parametrize('damage', ['truncated', 'changed', 'missing'])
def test_load_refuses_a_damaged_folder(shop, tmp_path, name, damage):
    retriever_of(shop, 'HNSW8').save(tmp_path)
    file = next(tmp_path.glob(f'data-*/{name}'))
    content = file.read_bytes()
    if damage == 'missing':
        file.unlink()
    else:
        file.write_bytes(content[:-1] + (b'' if damage == 'truncated' else bytes([content[-1] ^ 1])))
    with pytest.raises(ValueError, match=rf"{name}' is missing, truncated or changed: its sha256 needs to be \w{{64}}"):
        Retriever.load(tmp_path)


def test_load_refuses(shop, tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'):
        Retriever.load(tmp_path / 'nothing')
    with pytest.raises(ValueError, match=r'is no saved retriever: its manifest.json is missing or damaged'):
        Retriever.load(tmp_path)
    retriever_of(shop).save(tmp_path)
    manifest = json.loads((tmp_path / 'manifest.json').read_text())
    assert manifest['versions']['faiss'] == faiss.__version__
    assert set(manifest['versions']) == {'faiss', 'torch', 'numpy', 'python'}
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob('data-*/*')}
    assert manifest['sha256'] == files
    (tmp_path / 'manifest.json').write_text(json.dumps(manifest | {'format': 9}))
    with pytest.raises(ValueError, match=r'needs to be of format 2 \(got 9\)'):
        Retriever.load(tmp_path)
    for key in ('format', 'index', 'data', 'sha256', 'checkpoint', 'settings'):
        rest = {name: value for name, value in manifest.items() if name != key}
        (tmp_path / 'manifest.json').write_text(json.dumps(rest))
        with pytest.raises(ValueError, match='missing or damaged'):
            Retriever.load(tmp_path)
    others = [{'sha256': {}}, {'data': '../../etc'}, {'data': '/'}, {'data': 'data-0123456789ab/..'}, {'data': 5}]
    others += [{'num_items': 3}, {'settings': {'oversample': 9}}, {'checkpoint': {'sha256': 'x'}}, {'more': 1}]
    for text in (json.dumps(manifest)[:50], '[]', '[' * 10**5, '\xff', *(json.dumps(manifest | o) for o in others)):
        (tmp_path / 'manifest.json').write_text(text)
        with pytest.raises(ValueError, match='missing or damaged'):
            Retriever.load(tmp_path)


def replaced(folder, **files):
    r"""Puts other files into a saved retriever, checksums and all."""
    manifest = json.loads((folder / 'manifest.json').read_text())
    for name, content in files.items():
        name = name.replace('_', '.')
        (folder / manifest['data'] / name).write_bytes(content)
        manifest['sha256'][name] = hashlib.sha256(content).hexdigest()
    (folder / 'manifest.json').write_text(json.dumps(manifest))


def test_load_refuses_files_that_do_not_go_together(shop, tmp_path):
    retriever = retriever_of(shop, 'HNSW8')
    retriever.save(tmp_path / 'more')
    emb, _ = shop
    Retriever(Embeddings(emb.user, emb.item[:500]), index='HNSW8').save(tmp_path / 'less')
    for name, message in [
        ('index.faiss', r"index.faiss' needs to be of \(10000, 16\) embeddings \(got \(500, 16\)\)"),
        ('item.npy', 'item ids need to be as many as embeddings, 500'),
    ]:
        retriever.save(tmp_path / 'more', whole=True)
        replaced(tmp_path / 'more', **{name.replace('.', '_'): next(tmp_path.glob(f'less/*/{name}')).read_bytes()})
        with pytest.raises(ValueError, match=message):
            Retriever.load(tmp_path / 'more')


class Bomb:
    r"""Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f'open({str(self.path)!r}, "w").close()',)


def test_load_runs_nothing(tmp_path):
    Retriever(Embeddings(torch.randn(3, 4), torch.randn(5, 4))).save(tmp_path)
    file = io.BytesIO()
    np.save(file, np.array([Bomb(tmp_path / 'ran')], dtype=object), allow_pickle=True)
    replaced(tmp_path, user_npy=file.getvalue())
    with pytest.raises(ValueError, match='allow_pickle=False'):
        Retriever.load(tmp_path)
    assert not (tmp_path / 'ran').exists()


def test_retriever_refuses(shop):
    emb, _ = shop
    retriever = retriever_of(shop)
    with pytest.raises(ValueError, match=r"unknown user ids \(got 1, first: 'nobody'\)"):
        retriever.recommend(['u1', 'nobody'])
    with pytest.raises(ValueError, match=r"unknown item ids \(got 2, first: 'x'\)"):
        retriever.recommend(['u1'], allowed=['x', 'y'])
    for name in ('ef_search', 'nprobe', 'oversample'):
        with pytest.raises(ValueError, match=rf"'{name}' needs to be positive \(got 0\)"):
            retriever.configure(**{name: 0})
    with pytest.raises(ValueError, match=r'unknown item ids \(got 1, first: 7\)'):
        retriever.similar_items([7])
    with pytest.raises(ValueError, match=r"'k' needs to be in \[1, 10000\] \(got 10001\)"):
        retriever.recommend(['u1'], 10001)
    with pytest.raises(ValueError, match=r"item ids need to be new and unique \(got 'i3' again\)"):
        retriever.add_items(torch.ones(2, 16), ['fresh', 'i3'])
    with pytest.raises(ValueError, match=r"user ids need to be new and unique \(got 'a' again\)"):
        retriever.add_users(torch.ones(2, 16), ['a', 'a'])
    with pytest.raises(ValueError, match=r"'embeddings' need to have 16 columns \(got \(2, 4\)\)"):
        retriever.add_items(torch.ones(2, 4), ['a', 'b'])
    with pytest.raises(
        ValueError, match=r"'embeddings' need to be finite \(got 1 rows with NaN or Inf for items, first: row 0\)"
    ):
        retriever.add_items(torch.full((1, 16), float('nan')), ['a'])
    assert retriever.num_items == 10000
    with pytest.raises(ValueError, match=r'item ids need to be as many as embeddings, 10000 \(got 1\)'):
        Retriever(emb, item_ids=['a'])
    with pytest.raises(ValueError, match=r"item ids of 'seen' need to be in \[0, 9999\] \(got 10000\)"):
        Retriever(emb, seen=torch.tensor([[0], [10000]]))
    with pytest.raises(ValueError, match=r"the index 'Flat' has no setting 'nprobe'"):
        Retriever(emb, nprobe=3)
    with pytest.raises(ValueError, match=r"the index 'IVF4,Flat' has no setting 'ef_search'"):
        Retriever(emb, index='IVF4,Flat', ef_search=3)
    with pytest.raises(ValueError, match=r"'oversample' needs to be positive \(got 0\)"):
        Retriever(emb, oversample=0)
    for index in ('nonsense', '', 'IVF20000,Flat', 'PQ5', 'LSH', 'IDMap,Flat'):
        message = rf"'index' needs to be a FAISS factory string that fits 10000 rows of 16 .* \(got '{index}': "
        with pytest.raises(ValueError, match=message):
            Retriever(emb, index=index)
    with pytest.raises(ValueError, match=r"'items' need to be as many as 'users', 2 \(got 1\)"):
        retriever.add_seen(['u1', 'u2'], ['i1'])
    for number in (1e30, 1e39):  # the second is infinite in single precision
        for user, item in [(-number, number), (number, number)]:
            far = Embeddings(*(torch.tensor([[x] * 4] * 3, dtype=torch.double) for x in (user, item)))
            with pytest.raises(ValueError, match=r"'embeddings' need to be finite \(got"):
                Retriever(far)
    with pytest.raises(ValueError, match=r"'embeddings' need to be finite \(got NaN or Inf scores"):
        retriever.add_items(torch.full((1, 16), 1e30), ['a'])  # with themselves
    assert retriever.num_items == 10000
    with pytest.raises(ValueError, match=r'unknown user ids \(got 1, first: True\)'):
        Retriever(emb).recommend([True])


@pytest.mark.parametrize('index', ['Flat', 'HNSW8'])
def test_k_is_any_integer(shop, index):
    retriever = retriever_of(shop, index)
    pd.testing.assert_frame_equal(retriever.recommend(['u1'], np.int64(3)), retriever.recommend(['u1'], 3))
    with pytest.raises(TypeError, match='cannot be interpreted as an integer'):
        retriever.recommend(['u1'], 3.0)


@pytest.mark.parametrize('index', ['Flat', 'HNSW8', 'IVF4,Flat'])
def test_threads_share_a_retriever(index):
    emb = Embeddings(torch.randn(8, 4), torch.randn(2000, 4))
    retriever = Retriever(emb, index=index)
    done, errors = threading.Event(), []

    def read():
        try:
            while not done.is_set():
                size = retriever.num_items
                table = retriever.recommend([1, 2, 3], 5)
                assert table['rank'].tolist() == [1, 2, 3, 4, 5] * 3
                known = table['item'] < 2000
                score = (
                    emb.user[table['user'].tolist()][torch.tensor(known.tolist())]
                    * emb.item[table['item'][known].tolist()]
                ).sum(1)
                assert table['score'][known].to_numpy() == pytest.approx(score.numpy(), abs=1e-5)
                assert not retriever.similar_items([5, size - 1], 3).isna().any(axis=None)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for i in range(2000, 2200, 4):
            retriever.add_items(torch.randn(4, 4), list(range(i, i + 4)))
            retriever.add_users(torch.randn(1, 4), [i])
            retriever.add_seen([1, i], [i - 1, i])
            retriever.configure(oversample=1 + i % 3)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert (retriever.num_users, retriever.num_items) == (58, 2200)
    state = retriever._state
    seen = pairs_of(state.key)
    fresh = Retriever(Embeddings(state.user.x, state.item.x), seen, user_ids=[*range(8), *range(2000, 2200, 4)])
    users = [1, 2, 2000]
    exact = fresh.recommend(users, 7)
    found = retriever.recommend(users, 7)
    assert len(
        set(zip(exact['user'], exact['item'], strict=True)) & set(zip(found['user'], found['item'], strict=True))
    ) >= (21 if index == 'Flat' else 5)


@pytest.mark.parametrize('index', ['Flat', 'HNSW8'])
def test_copies_are_retrievers_of_their_own(shop, index):
    retriever = retriever_of(shop, index)
    expected = retriever.recommend(['u1', 'u2'], 5)
    for other in (pickle.loads(pickle.dumps(retriever)), copy.deepcopy(retriever)):
        other.add_items(torch.ones(1, 16), ['new'])
        other.add_seen(['u1'], ['new'])
        assert (other.num_items, retriever.num_items) == (10001, 10000)
        pd.testing.assert_frame_equal(retriever.recommend(['u1', 'u2'], 5), expected)
