r"""The speed benchmarks: each runs in its quick mode, and its competitors do the same mathematics."""

import argparse
import csv
import gc
import importlib
import json
import sys

import pytest
import torch

from benchmarks import rows
from benchmarks.speed import electronics, living, neighbors, processes, scaling
from benchmarks.speed.straightforward import StraightforwardTrainer
from lirdrec_pyg import BPRSampler, LIRDRec
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, USER


@pytest.fixture
def quick(tmp_path, monkeypatch):
    r"""Runs a script in its quick mode, in this process; returns its rows, and checks what it draws."""

    def run(script, *options, profile=True):
        paths = {name: tmp_path / file for name, file in [('rows', 'rows.csv'), ('plot', 'plot.png')]}
        if profile:
            paths['profile'] = tmp_path / 'trace.json'
        args = [text for name, path in paths.items() for text in (f'--{name}', str(path))]
        monkeypatch.setattr(sys, 'argv', [script, '--quick', *args, *options])
        importlib.import_module(f'benchmarks.speed.{script}').main()
        assert paths['plot'].stat().st_size > 5000
        assert not profile or paths['profile'].stat().st_size > 1000
        with paths['rows'].open(newline='') as file:
            table = list(csv.DictReader(file))
        assert table
        assert all(row['torch'] == torch.__version__ and row['threads'] for row in table)
        return table

    gc.freeze()  # what all tests hold: the collections before a measurement need not look through it
    yield run
    gc.unfreeze()


def test_the_straightforward_implementation_has_the_same_losses():
    data = ItemKNNGraph(k=5)(DCT()(FakeMultimodal(num_users=200, num_items=120, seed=0)[0]))
    train, val, _ = FixedSplit()(data)
    train = InteractionGraph()(train)
    model = LIRDRec.from_data(train, seed=0)
    other = StraightforwardTrainer(model, train, val, batch=256)
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
def test_quick(script, quick):
    table = quick(script, *(['--repeats', '1', '--compile', 'eager'] if script == 'train_epoch' else []))
    assert all(row['seed'] == '0' and json.loads(row['arguments'])['quick'] is True for row in table)
    if script == 'train_epoch':
        assert {row['competitor'] for row in table} >= {
            'straightforward',
            'bf16',
            'fp32 r=16, compiled',
            'bf16 r=16, 16 steps',
        }
        assert all(float(row['epoch_and_validation_s']) > 0 for row in table)
        for row in table[1:]:
            ms = {name.removesuffix('_ms'): float(value) for name, value in row.items() if name.endswith('_ms')}
            assert min(ms.values()) > 0


def test_memory_ends_after_some_steps(quick):
    (row,) = quick('memory', '--size', 'elec', '--steps', '2')
    assert int(row['steps_timed']) == 1 < int(row['steps_an_epoch'])


def test_retrieval_quick(quick):
    table = quick('retrieval', profile=False)
    exact = [row for row in table if row['index'] == 'Flat']
    assert [float(row['recall@20']) for row in exact] == [1.0]
    assert max(float(row['recall@20']) for row in table if row['index'].startswith('HNSW')) > 0.9
    assert all(0 < float(row['p50_ms']) <= float(row['p99_ms']) for row in table)
    assert all((float(row['index_mib']) > 0) == (row['index'] != 'Flat') for row in table)


@pytest.mark.parametrize('script', ['propagation', 'ranking', 'knn'])
def test_quick_kernels(script, quick):
    table = quick(script)
    assert all(row['seed'] == '0' for row in table)
    time = {'propagation': 'ms', 'ranking': 'seconds', 'knn': 'seconds'}[script]
    assert all(float(row[time]) > 0 for row in table)
    if script == 'knn':
        recall = {row['competitor']: float(row['recall']) for row in table if row['items'] == '500'}
        assert recall.pop('exact') == 1
        assert recall.pop('matrix') > 0.99  # ties apart
        assert all(0.5 < value <= 1 for value in recall.values())
    elif script == 'propagation':
        assert {row['kernel'] for row in table} >= {'Propagation, csr', 'LGConv, torch CSR', 'torch.sparse.mm, COO'}


def test_scaling_quick(quick, monkeypatch):
    monkeypatch.setitem(scaling.QUICK, 'interactions', [1000])  # all are one point, which takes one process
    table = quick('scaling')
    assert [row['varied'] for row in table] == ['interactions', 'items', 'width', 'layers']
    assert all(float(row['peak_mib']) > 0 and float(row['step_ms']) > 0 and row['seed'] == '0' for row in table)


def test_processes_quick(tmp_path, monkeypatch):
    out, path = tmp_path / 'out.json', tmp_path / 'rows.csv'

    def start(args, kind, count):  # in this process, whatever their number
        processes.work(argparse.Namespace(**{**vars(args), 'worker': kind, 'out': out}))
        return json.loads(out.read_text())['step_s']

    monkeypatch.setattr(processes, 'start', start)
    monkeypatch.setattr(sys, 'argv', ['processes', '--quick', '--rows', str(path)])
    processes.main()
    table = rows.read(path)
    assert [(row['kind'], row['processes']) for row in table] == [
        ('whole', '1'), ('whole', '2'), ('sampled', '1'), ('sampled', '2'),
    ]  # fmt: skip
    assert all(int(row['triplets_a_second']) > 0 and row['threads'] == '1' for row in table)
    assert all('worker' not in row['arguments'] for row in table)


def test_neighbors_quick(tmp_path, monkeypatch):
    path = tmp_path / 'rows.csv'
    monkeypatch.setattr(sys, 'argv', ['neighbors', '--quick', '--rows', str(path)])
    neighbors.main()
    table = [row for row in rows.read(path) if row['sampler'] == 'ours']
    assert [row['num_neighbors'] for row in table] == ['[4, 2, 0]', '[10, 5, 5]', '[-1, 5, 0]']
    assert all(float(row['ms']) > 0 and int(row['edges']) > 1000 for row in table)


def test_living_quick(tmp_path, monkeypatch):
    path = tmp_path / 'rows.csv'
    monkeypatch.setattr(sys, 'argv', ['living', '--quick', '--rows', str(path)])
    living.main()
    table = rows.read(path)
    assert [row['index'] for row in table] == ['Flat', 'IVF16,Flat', 'HNSW16']
    assert all(float(row['p50_ms_after']) > 0 and float(row['remove_and_add_s']) < 5 for row in table)


def test_electronics_quick(quick, tmp_path):
    folder = str(tmp_path / 'folder')
    table = quick('electronics', '--folder', folder, '--graph-recall', profile=False)
    assert [row['stage'] for row in table] == electronics.STAGES
    told = {row['stage']: json.loads(row['told']) for row in table}
    assert told['generate']['train'] == electronics.sizes(0.002)['train']
    assert told['compress']['widths']['image'] < 512 // 2
    assert told['graph']['image_recall'] > 0.6
    assert told['train']['epochs'] == 2
    assert told['test']['recall@20'] > 0.2  # of 126 items
    assert told['straightforward']['steps'] == 3
    assert len(quick('electronics', '--folder', folder, '--graph-recall', profile=False)) == len(table)  # done before
    more = quick('electronics', '--folder', folder, '--curve', profile=False)[len(table) :]
    assert [row['stage'] for row in more] == electronics.STAGES[:-1]
    assert {row['interactions'] for row in more} == {'10000'}


def test_scale_quick(quick):
    row, whole = quick('scale', '--whole-graph', profile=False)
    assert (whole['num_neighbors'], whole['items_a_step'], whole['knn_s']) == ('all', '2000', row['knn_s'])
    assert float(whole['epoch_s']) > 0
    assert float(row['knn_recall']) > 0.9
    assert 0 < int(row['items_a_step']) <= 2000
    assert float(row['epoch_s']) > 0
