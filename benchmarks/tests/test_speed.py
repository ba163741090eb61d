r"""The speed benchmarks: each runs in its quick mode, and its competitors do the same mathematics."""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import rows
from benchmarks.speed.straightforward import Trainer
from lirdrec_pyg import BPRSampler, LIRDRec
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, USER

ROOT = Path(__file__).parents[2]


def test_the_straightforward_implementation_has_the_same_losses():
    data = ItemKNNGraph(k=5)(DCT()(FakeMultimodal(num_users=200, num_items=120, seed=0)[0]))
    train, val, _ = FixedSplit()(data)
    train = InteractionGraph()(train)
    model = LIRDRec.from_data(train, seed=0)
    other = Trainer(model, train, val, batch=256)
    sampler = BPRSampler(train[INTERACTS].edge_index, train[USER].num_nodes, train[ITEM].num_nodes, 256, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for epoch in (1, 2, 3):
        batches = list(sampler)
        expected = other.epoch(epoch, batches)
        model.on_epoch_start(epoch)
        losses = []
        for batch in batches:
            optimizer.zero_grad()
            loss = model.loss(train, *batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses == pytest.approx(expected, rel=1e-5)
    assert 0 < other.validate() <= 1


@pytest.mark.parametrize('script', ['train_epoch', 'time_to_quality', 'memory'])
def test_quick(script, tmp_path):
    path = tmp_path / 'rows.csv'
    args = [sys.executable, '-m', f'benchmarks.speed.{script}', '--quick', '--rows', str(path)]
    args += ['--profile', str(tmp_path / 'trace.json'), '--plot', str(tmp_path / 'plot.png')]
    if script == 'train_epoch':
        args += ['--repeats', '1', '--compile', 'eager']
    result = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    with path.open(newline='') as file:
        table = list(csv.DictReader(file))
    assert table
    assert all(row['torch'] == torch.__version__ and row['threads'] for row in table)
    assert all(row['seed'] == '0' and json.loads(row['arguments'])['quick'] is True for row in table)
    assert (tmp_path / 'plot.png').stat().st_size > 5000
    assert (tmp_path / 'trace.json').stat().st_size > 1000
    if script == 'train_epoch':
        assert {row['competitor'] for row in table} >= {'straightforward', 'fp32', 'bf16', 'fp32 r=16, compiled'}
        assert all(float(row['epoch_and_validation_s']) > 0 for row in table)
        for row in table[1:]:
            ms = {name.removesuffix('_ms'): float(value) for name, value in row.items() if name.endswith('_ms')}
            assert min(ms.values()) > 0
            assert ms['of_it_fusion'] + ms['of_it_loss'] < ms['rest_of_forward'] + 0.02
            assert ms['of_it_propagation'] < ms['backward']


def test_rows_widen_the_file_that_lacks_their_columns(tmp_path):
    path = tmp_path / 'rows.csv'
    rows.append(path, {'a': 1, 'b': 'x, "y"'})
    rows.append(path, {'a': 2, 'c': 3, 'b': '', 'd': 4})
    assert path.read_text().splitlines() == ['a,b,c,d', '1,"x, ""y""",,', '2,,3,4']
    with pytest.raises(ValueError, match=r"columns that the row lacks \(\['c', 'd'\]\)"):
        rows.append(path, {'a': 1, 'b': 2})
    assert len(rows.read(path)) == 2
    for end in (b'\n', b'\r\n'):
        path.write_bytes(b'a' + end + b'1' + end)
        rows.append(path, {'a': 2, 'b': 3})
        rows.append(path, {'a': 4, 'b': 5})
        assert path.read_bytes() == end.join([b'a,b', b'1,', b'2,3', b'4,5', b''])


def test_rows_are_appended_all_or_none(tmp_path, monkeypatch):
    path = tmp_path / 'rows.csv'
    rows.append(path, {'a': 1, 'b': 2}, {'a': 3, 'b': 4})
    before = path.read_bytes()
    with pytest.raises(ValueError, match='columns that the row lacks'):
        rows.append(path, {'a': 5, 'b': 6}, {'a': 7})
    monkeypatch.setattr(rows.os, 'write', lambda file, data: rows.os.pwrite(file, data[:3], 0))  # a full disk
    with pytest.raises(OSError, match='no room for 4 bytes'):
        rows.append(path, {'a': 5, 'b': 6})
    monkeypatch.undo()
    assert path.read_bytes() == before
    monkeypatch.setattr(rows.os, 'replace', lambda *names: pytest.fail('killed'))
    with pytest.raises(pytest.fail.Exception):
        rows.append(path, {'a': 5, 'b': 6, 'c': 7})
    monkeypatch.undo()
    assert path.read_bytes() == before
    rows.append(path, {'a': 5, 'b': 6, 'c': 7})
    assert rows.read(path)[-1] == {'a': '5', 'b': '6', 'c': '7'}
    assert rows.has(path, a=3, b=4) and not rows.has(path, a=3, b=2)


def test_rows_of_many_processes_are_all_there(tmp_path):
    script = (
        'import sys; from pathlib import Path; from benchmarks import rows\n'
        'path, process = Path(sys.argv[1]), sys.argv[2]\n'
        'for i in range(20): rows.append(path, *({"process": process, "i": n, "new": 1} for n in (i, -i)))'
    )
    path, command = tmp_path / 'rows.csv', [sys.executable, '-c', script]
    rows.append(path, {'process': 'none', 'i': 0})
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    for process in [subprocess.Popen([*command, str(path), str(number)], env=env) for number in range(2)]:
        assert process.wait() == 0
    assert len(rows.read(path)) == 81
    assert len({(row['process'], row['i']) for row in rows.read(path)}) == 79  # 0 and -0 are one


def test_rows_say_how_a_script_was_called():
    args = argparse.Namespace(items=[1, 2], root=Path('somewhere'), rows=Path('x.csv'), plot=None, only=None, k=3)
    assert rows.call(args, 7) == {'seed': 7, 'arguments': '{"items": [1, 2], "k": 3}'}


def test_retrieval_quick(tmp_path):
    path = tmp_path / 'rows.csv'
    args = [sys.executable, '-m', 'benchmarks.speed.retrieval', '--quick', '--rows', str(path)]
    args += ['--plot', str(tmp_path / 'plot.png')]
    result = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    with path.open(newline='') as file:
        table = list(csv.DictReader(file))
    assert (tmp_path / 'plot.png').stat().st_size > 5000
    exact = [row for row in table if row['index'] == 'Flat']
    assert [float(row['recall@20']) for row in exact] == [1.0]
    assert max(float(row['recall@20']) for row in table if row['index'].startswith('HNSW')) > 0.9
    assert all(0 < float(row['p50_ms']) <= float(row['p99_ms']) for row in table)


@pytest.mark.parametrize('script', ['propagation', 'ranking', 'knn', 'scaling'])
def test_quick_kernels(script, tmp_path):
    path = tmp_path / 'rows.csv'
    args = [sys.executable, '-m', f'benchmarks.speed.{script}', '--quick', '--rows', str(path)]
    args += ['--plot', str(tmp_path / 'plot.png'), '--profile', str(tmp_path / 'trace.json')]
    result = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    with path.open(newline='') as file:
        table = list(csv.DictReader(file))
    assert (tmp_path / 'plot.png').stat().st_size > 5000
    assert (tmp_path / 'trace.json').stat().st_size > 1000
    assert all(row['torch'] == torch.__version__ and row['seed'] == '0' for row in table)
    time = {'propagation': 'ms', 'ranking': 'seconds', 'knn': 'seconds', 'scaling': 'step_ms'}[script]
    assert all(float(row[time]) > 0 for row in table)
    if script == 'knn':
        recall = {row['competitor']: float(row['recall']) for row in table if row['items'] == '500'}
        assert recall.pop('exact') == 1
        assert recall.pop('matrix') > 0.99  # ties apart
        assert all(0.5 < value <= 1 for value in recall.values())
    elif script == 'propagation':
        assert {row['kernel'] for row in table} >= {'Propagation, csr', 'LGConv, torch CSR', 'torch.sparse.mm, COO'}
    elif script == 'scaling':
        assert {row['varied'] for row in table} == {'interactions', 'items', 'width', 'layers'}
        assert all(float(row['peak_mib']) > 0 for row in table)


@pytest.mark.torch_sparse
def test_scale_quick(tmp_path):
    path = tmp_path / 'rows.csv'
    args = [sys.executable, '-m', 'benchmarks.speed.scale', '--quick', '--rows', str(path)]
    args += ['--plot', str(tmp_path / 'plot.png')]
    result = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    with path.open(newline='') as file:
        (row,) = csv.DictReader(file)
    assert (tmp_path / 'plot.png').stat().st_size > 5000
    assert float(row['knn_recall']) > 0.9
    assert 0 < int(row['items_a_step']) <= 2000
    assert float(row['epoch_s']) > 0
