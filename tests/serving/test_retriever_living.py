r"""A Retriever whose users and items come, change and go, against plain dictionaries."""

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from lirdrec_pyg import Embeddings
from lirdrec_pyg.serving import Retriever

WIDTH, KINDS = 4, ['shoes', 'bags', 'hats']


class Living(RuleBasedStateMachine):
    r"""Does the same to a retriever and to dictionaries of arrays; after every step both answer the same."""

    index, exact = 'Flat', True

    @initialize(seed=st.integers(0, 2**31))
    def start(self, seed):
        self.rng = np.random.default_rng(seed)
        self.fresh = 0
        self.users = {f'u{i}': self.draw() for i in range(4)}
        self.items = {f'i{i}': (self.draw(), KINDS[i % 3]) for i in range(60)}
        self.seen = {('u0', f'i{i}') for i in range(0, 60, 7)}
        self.folder = tempfile.TemporaryDirectory()
        settings = {'Flat': {}, 'IVF3,Flat': {'nprobe': 3}, 'HNSW8': {'ef_search': 400}}[self.index]
        pairs = torch.tensor([[0] * 9, list(range(0, 60, 7))])
        self.retriever = Retriever(
            Embeddings(self.stack(self.users.values()), self.stack(x for x, _ in self.items.values())),
            pairs,
            user_ids=list(self.users),
            item_ids=list(self.items),
            items={'kind': [kind for _, kind in self.items.values()]},
            index=self.index,
            rebuild=0.3,
            **settings,
        )

    def draw(self):
        return self.rng.normal(size=WIDTH).astype(np.float32)

    def stack(self, rows):
        return torch.from_numpy(np.array(list(rows), dtype=np.float32).reshape(-1, WIDTH))

    def some(self, known, count):
        return [str(one) for one in self.rng.permutation(sorted(known))[:count]]

    def names(self, letter, count):
        self.fresh += count
        return [f'{letter}{1000 + self.fresh - i}' for i in range(count)]

    @rule(count=st.integers(0, 9))
    def add_items(self, count):
        new = {raw: (self.draw(), str(self.rng.choice(KINDS))) for raw in self.names('i', count)}
        kinds = [kind for _, kind in new.values()]
        self.retriever.add_items(self.stack(x for x, _ in new.values()), list(new), items={'kind': kinds})
        self.items |= new

    @rule(count=st.integers(0, 6), column=st.booleans())
    def update_items(self, count, column):
        ids = self.some(self.items, count)
        new = {raw: (self.draw(), KINDS[0] if column else self.items[raw][1]) for raw in ids}
        columns = {'kind': [KINDS[0]] * len(ids)} if column else None
        self.retriever.update_items(self.stack(x for x, _ in new.values()), ids, items=columns)
        self.items |= new

    @rule(count=st.integers(0, 9))
    def remove_items(self, count):
        ids = self.some(self.items, min(count, len(self.items) - 40))
        self.retriever.remove_items(ids)
        self.items = {raw: own for raw, own in self.items.items() if raw not in ids}
        self.seen = {(user, item) for user, item in self.seen if item not in ids}

    @rule(count=st.integers(0, 3))
    def add_users(self, count):
        new = {raw: self.draw() for raw in self.names('u', count)}
        self.retriever.add_users(self.stack(new.values()), list(new))
        self.users |= new

    @rule(count=st.integers(0, 2))
    def update_users(self, count):
        new = {raw: self.draw() for raw in self.some(self.users, count)}
        self.retriever.update_users(self.stack(new.values()), list(new))
        self.users |= new

    @rule(count=st.integers(0, 2))
    def remove_users(self, count):
        ids = self.some(self.users, min(count, len(self.users) - 2))
        self.retriever.remove_users(ids)
        self.users = {raw: x for raw, x in self.users.items() if raw not in ids}
        self.seen = {(user, item) for user, item in self.seen if user not in ids}

    @rule(count=st.integers(0, 9))
    def add_seen(self, count):
        pairs = [(self.some(self.users, 1)[0], self.some(self.items, 1)[0]) for _ in range(count)]
        self.retriever.add_seen([user for user, _ in pairs], [item for _, item in pairs])
        self.seen |= set(pairs)

    @rule(count=st.integers(0, 3))
    def remove_seen(self, count):
        pairs = sorted(self.seen)[:count]
        self.retriever.remove_seen([user for user, _ in pairs], [item for _, item in pairs])
        self.seen -= set(pairs)

    @rule(load=st.booleans(), whole=st.booleans())
    def save(self, load, whole):
        self.retriever.save(self.folder.name, whole=whole)
        if load:
            self.retriever = Retriever.load(self.folder.name)

    @invariant()
    def answers_are_the_same(self):
        if not hasattr(self, 'retriever'):
            return
        assert (self.retriever.num_users, self.retriever.num_items) == (len(self.users), len(self.items))
        names, x = list(self.items), np.array([x for x, _ in self.items.values()])
        users, kind = self.some(self.users, 2), self.some(KINDS, 1)
        for where in (None, {'kind': kind}):
            table = self.retriever.recommend(users, 3, where=where)
            for user in users:
                score = dict(zip(names, (x @ self.users[user]).tolist(), strict=True))
                left = {
                    raw
                    for raw in names
                    if (user, raw) not in self.seen and where in (None, {'kind': [self.items[raw][1]]})
                }
                self.check(table[table['user'] == user], 'item', left, score)
        own = self.some(self.items, 1)[0]
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        for metric, rows in [('cosine', unit), ('inner', x)]:
            score = dict(zip(names, (rows @ rows[names.index(own)]).tolist(), strict=True))
            table = self.retriever.similar_items([own], 3, metric=metric)
            self.check(table, 'similar', set(names) - {own}, score, metric == 'cosine')

    def check(self, table, name, left, score, exact=False):
        found = table[name].tolist()
        assert table['kind'].tolist() == [self.items[raw][1] for raw in found]
        assert table['score'].tolist() == pytest.approx([score[raw] for raw in found], abs=1e-4)
        assert len(found) == min(3, len(left)) == len(left & set(found))
        if exact or self.exact:
            assert found == sorted(left, key=lambda raw: -score[raw])[:3]

    def teardown(self):
        if hasattr(self, 'folder'):
            self.folder.cleanup()


@pytest.mark.parametrize('index', ['Flat', 'IVF3,Flat', 'HNSW8'])
def test_any_changes_give_the_answers_of_plain_dictionaries(index, monkeypatch):
    monkeypatch.setattr('os.fsync', lambda file: None)  # no power is cut here
    machine = type(f'Living{index[:4]}', (Living,), {'index': index, 'exact': index != 'HNSW8'})
    quick = settings(max_examples=5, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=quick)


@pytest.mark.parametrize('index', ['Flat', 'IVF2,Flat', 'HNSW8'])
def test_readers_see_a_change_whole_or_not_at_all(index):
    r"""Version v of the catalogue has the items v:0 … v:7, all v long, and none of another."""
    rng = torch.Generator().manual_seed(0)
    base = torch.rand(64, WIDTH, generator=rng) * 0.1
    nprobe = 2 if index.startswith('IVF') else None
    retriever = Retriever(
        Embeddings(torch.ones(2, WIDTH), torch.cat([base, torch.ones(8, WIDTH)])),
        item_ids=[*map(str, range(64)), *(f'1:{i}' for i in range(8))],
        items={'version': [0] * 64 + [1] * 8},
        index=index,
        nprobe=nprobe,
        rebuild=0.4,
    )
    done, wrong, found = threading.Event(), [], set()

    def read():
        try:
            while not done.is_set():
                table = retriever.recommend([0, 1], 8)
                versions = set(table['version'])
                found.update(versions)
                scores = {round(score / WIDTH, 3) for score in table['score']}
                names = {item.split(':')[0] for item in table['item']}
                if len(versions) != 1 or scores != versions or names != {str(one) for one in versions}:
                    wrong.append(table)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for version in range(2, 30):
            x = torch.full((8, WIDTH), float(version))
            ids, old = [f'{version}:{i}' for i in range(8)], [f'{version - 1}:{i}' for i in range(8)]
            retriever.add_items(x, ids, items={'version': [version] * 8})
            if version % 2:
                retriever.update_items(base[:8], old, items={'version': [0] * 8})
            retriever.remove_items(old)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[0]
    assert found <= set(range(1, 30)) and len(found) > 1
    assert retriever.num_items == 72


def test_an_update_is_seen_whole_by_a_search_that_began_before_it(monkeypatch):
    retriever = Retriever(Embeddings(torch.ones(1, 2), torch.eye(2).repeat(40, 1)), index='IVF2,Flat', nprobe=2)
    index = retriever._state.index
    search = index.search

    def late(query, k):  # everything changes after the state was taken and before the index is asked
        monkeypatch.setattr(index, 'search', search)
        retriever.update_items(10 * torch.ones(5, 2), [3, 4, 5, 6, 7])
        retriever.remove_items([0, 1, 2])
        retriever.add_items(20 * torch.ones(3, 2), ['a', 'b', 'c'])
        return search(query, k)

    monkeypatch.setattr(index, 'search', late)
    before = retriever.similar_items([9], 5, metric='inner')
    assert set(before['score']) == {1.0} and set(before['similar']) <= set(range(80))
    after = retriever.recommend([0], 8)
    assert after['item'].tolist()[:3] != [0, 1, 2] and set(after['item']) == {'a', 'b', 'c', 3, 4, 5, 6, 7}
    assert retriever.recommend([0], 77)['score'].tolist() == [40.0] * 3 + [20.0] * 5 + [1.0] * 69
    assert index.faiss.ntotal == 88
    retriever.add_seen([0], ['a'])
    assert index.faiss.ntotal == retriever.num_items == 80  # what no search knows any more is forgotten


def test_places_are_given_again_and_given_up():
    for index in ('Flat', 'IVF2,Flat', 'HNSW8'):
        retriever = Retriever(Embeddings(torch.ones(3, 4), torch.randn(100, 4)), index=index, rebuild=0.5)
        for start in range(100, 160, 10):
            retriever.remove_items(range(start - 100, start - 90))
            retriever.add_items(torch.randn(10, 4), range(start, start + 10))
        assert retriever.num_items == 100
        assert len(retriever._state.item.ids) == (160 if index == 'HNSW8' else 100)
        retriever.remove_items(range(60, 145))
        assert len(retriever._state.item.ids) == retriever.num_items == 15
        assert index == 'Flat' or retriever._state.index.faiss.ntotal == 15
        retriever.remove_items(range(145, 160))
        assert len(retriever._state.item.ids) == retriever.num_items == 0
        retriever.add_items(torch.ones(2, 4), ['a', 'b'])
        assert set(retriever.recommend([0, 1], 2)['item']) == {'a', 'b'}


KILLED = """
import os, sys, torch
from lirdrec_pyg.serving import Retriever
torch.set_num_threads(1)
os.fsync = lambda file: None
folder, whole = sys.argv[1], sys.argv[2] == 'whole'
outcomes, retriever = [], Retriever.load(folder)
for point in range(0, 400, 7):
    before = retriever.num_items
    child = os.fork()
    if child == 0:
        retriever.add_items(torch.ones(1, 4), [f'{before}'], items={'kind': ['new']})
        left = [point]
        def die(event, args):
            if event in ('open', 'os.rename', 'os.mkdir', 'os.remove', 'os.chmod', 'shutil.rmtree', 'os.listdir'):
                if left[0] == 0:
                    os.kill(os.getpid(), 9)
                left[0] -= 1
        sys.addaudithook(die)
        retriever.save(folder, whole=whole)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    retriever = Retriever.load(folder)
    kinds = retriever.recommend([0], retriever.num_items)['kind'].tolist()
    assert retriever.num_items in (before, before + 1) and kinds.count('new') == retriever.num_items - 40
    outcomes.append(retriever.num_items - before)
    if status == 0:
        break
assert set(outcomes) == {0, 1}, outcomes
print(point)
"""


@pytest.mark.parametrize('how', ['whole', 'changes'])
def test_whoever_kills_a_save_finds_the_old_state_or_the_new_one(tmp_path, how):
    Retriever(Embeddings(torch.ones(200, 4), torch.randn(40, 4)), items={'kind': ['old'] * 40}).save(tmp_path)
    run = subprocess.run(
        [sys.executable, '-c', KILLED, str(tmp_path), how], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 20  # moments


FULL = """
import resource, signal, sys, torch
from pathlib import Path
from lirdrec_pyg.serving import Retriever
folder = Path(sys.argv[1])
retriever = Retriever.load(folder)
retriever.add_items(torch.ones(5, 4), list('abcde'), items={'kind': ['new'] * 5})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for room in (0, 150, 210):  # rows take 208 bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        retriever.save(folder)
    except OSError as error:
        print(f"'{folder}' was not written, and what was there is whole (" in str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(Retriever.load(folder).num_items)
retriever.save(folder)
print(Retriever.load(folder).num_items)
"""


def test_changes_that_find_no_room_leave_the_old_state_and_are_saved_later(tmp_path):
    Retriever(Embeddings(torch.ones(200, 4), torch.randn(40, 4)), items={'kind': ['old'] * 40}).save(tmp_path)
    run = subprocess.run([sys.executable, '-c', FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ['True'] * 3 + ['40', '45']
    assert len(list(tmp_path.iterdir())) == 3


def test_a_small_change_is_written_beside_what_is_there(tmp_path, caplog):
    generator = torch.Generator().manual_seed(0)
    for index in ('Flat', 'IVF2,Flat', 'HNSW8'):
        folder = tmp_path / index
        x = torch.randn(2000, 8, generator=generator)
        retriever = Retriever(Embeddings(torch.randn(50, 8), x), torch.ones(2, 1, dtype=torch.long), index=index)
        retriever.save(folder)
        base = json.loads((folder / 'manifest.json').read_text())
        retriever.remove_items([1, 2])
        retriever.add_items(torch.randn(3, 8), ['a', 'b', 'c'])
        retriever.add_seen([3, 3], ['a', 7])
        with caplog.at_level('INFO', 'lirdrec_pyg'):
            retriever.save(folder)
        assert f'wrote what changed since {base["data"]}, 0.0 MB' in caplog.text
        manifest = json.loads((folder / 'manifest.json').read_text())
        assert manifest['base'] == {'data': base['data'], 'sha256': base['sha256']}
        size = sum(path.stat().st_size for path in (folder / manifest['data']).iterdir())
        assert size < 5000 < sum(path.stat().st_size for path in (folder / base['data']).iterdir()) / 10
        again = Retriever.load(folder)
        pd.testing.assert_frame_equal(again.recommend(range(50), 9), retriever.recommend(range(50), 9))
        other = Retriever(Embeddings(torch.randn(5, 8), x), index=index)
        other.save(folder)  # somebody else's: what changed here is of another base
        again.add_seen([3], [8])
        again.save(folder)
        assert json.loads((folder / 'manifest.json').read_text())['base'] is None
        assert Retriever.load(folder).num_items == 2001
        retriever.add_items(torch.randn(300, 8), range(5000, 5300))  # too much
        retriever.save(folder)
        retriever.save(folder)
        file = next(path for path in folder.glob('data-*/user.npy') if len(path.read_bytes()) > 1000)
        file.write_bytes(file.read_bytes()[:-1])  # the base is damaged: the next save heals it
        retriever.save(folder)
        assert Retriever.load(folder).num_items == 2301


@pytest.mark.parametrize('name', ['item_rows.npy', 'item.npy', 'seen_rows.npy', 'ids.json', 'about.json'])
def test_damaged_changes_are_refused(tmp_path, name):
    retriever = Retriever(Embeddings(torch.ones(200, 4), torch.randn(40, 4)))
    retriever.save(tmp_path)
    retriever.add_items(torch.ones(1, 4), ['new'])
    retriever.save(tmp_path)
    manifest = json.loads((tmp_path / 'manifest.json').read_text())
    for one in (
        manifest | {'base': None},
        manifest | manifest['base'],
        manifest | {'base': manifest['base'] | {'data': 5}},
    ):
        (tmp_path / 'manifest.json').write_text(json.dumps(one))
        with pytest.raises(ValueError, match='missing'):
            Retriever.load(tmp_path)
    (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
    file = Path(tmp_path, manifest['data'], name)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{name}' is missing, truncated or changed"):
        Retriever.load(tmp_path)
