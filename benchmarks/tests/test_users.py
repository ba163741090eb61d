r"""The metrics of each user: one file a dataset, which several processes write."""

import multiprocessing

import numpy as np
import pytest
import torch

from benchmarks import rows
from benchmarks.quality import jobs, users


def test_per_user_metrics_average_to_the_row(tmp_path):
    job, path = jobs.job('fake', 'ContentKNN'), tmp_path / 'rows.csv'
    jobs.run_all([job], tmp_path, path)
    (found,) = rows.read(path)
    value = users.load(found, path)
    assert value.mean() == pytest.approx(float(found['test_ndcg@20']), abs=1e-6)
    _, _, test = jobs.splits(job, tmp_path, test=True)
    assert value.index.tolist() == test['interacts'].edge_label_index[0].unique().tolist()


def row(**cells):
    usual = {'experiment': 'main', 'variant': 'a', 'dataset': 'fake', 'split': 'FixedSplit()', 'model': 'LIRDRec'}
    return usual | {'seed': 0, 'settings': '{}'} | cells


def test_arrays_have_names_that_can_be_read(tmp_path):
    path = tmp_path / 'rows.csv'
    first, again, alone = row(), row(settings='{"fit": {}}'), row(experiment='', variant='')
    for number, cells in enumerate((first, again, alone)):
        users.save(cells, path, torch.tensor([1, 3]), torch.tensor([number, 0.5]))
    names = sorted(users.names(tmp_path / 'users' / 'fake.npz'))
    assert [name.rpartition('/')[0] for name in names] == ['alone/LIRDRec/0', 'main/a/0', 'main/a/0']
    assert users.load(first, path).to_dict() == {1: 0.0, 3: 0.5}
    assert users.load(again, path).to_dict() == {1: 1.0, 3: 0.5}  # never those of other settings
    assert not users.has(row(seed=1), path) and not users.has(row(dataset='other'), path)
    users.copy(first, row(experiment='other'), path)
    assert users.load(row(experiment='other'), path).equals(users.load(first, path))


def save_some(path, process):
    for seed in range(5):
        users.save(row(variant=str(process), seed=seed), path, torch.tensor([0]), torch.tensor([float(process)]))


def test_metrics_of_many_processes_are_all_there(tmp_path):
    path = tmp_path / 'rows.csv'
    fork = multiprocessing.get_context('fork')
    processes = [fork.Process(target=save_some, args=(path, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(users.names(tmp_path / 'users' / 'fake.npz')) == 10
    assert {users.load(row(variant='1', seed=seed), path)[0] for seed in range(5)} == {1.0}


def test_who_is_interrupted_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / 'rows.csv'
    assert not users.has(row(), path)
    for _ in range(2):  # before there is a file, and after
        monkeypatch.setattr(rows.os, 'replace', lambda *names: pytest.fail('killed'))
        with pytest.raises(pytest.fail.Exception):
            users.save(row(seed=1), path, torch.tensor([0]), torch.tensor([1.0]))
        monkeypatch.undo()
        assert not users.has(row(seed=1), path)
        users.save(row(), path, torch.tensor([0]), torch.tensor([1.0]))
        assert users.has(row(), path)
    assert [file.name for file in (tmp_path / 'users').iterdir()] == ['fake.npz']


def test_committed_metrics_belong_to_committed_rows():
    names = {}
    for cells in rows.read(jobs.ROWS):
        names.setdefault(users.path_of(cells, jobs.ROWS), set()).add(users.name_of(cells))
    files = sorted((jobs.ROWS.parent / 'users').glob('*.npz'))
    assert {'microlens_50k', 'movielens', 'scientific'} <= {file.stem for file in files}
    for file in files:
        assert users.names(file) <= names[file]
        with np.load(file) as arrays:
            assert all(arrays[name].dtype == np.float32 for name in arrays.files)
