r"""Nothing is chosen by a test metric, nor chosen twice."""

import copy
import json
import sys

import pytest
import torch
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.quality import catalogues, jobs, users
from lirdrec_pyg.transforms import FixedSplit


class Untouchable(HeteroData):
    r"""A test split that nobody may look at."""

    def __init__(self):
        pass

    def __getattr__(self, name):
        raise AssertionError('the test split was read')

    __getitem__ = __getattr__


def test_tuning_never_reads_the_test_split(tmp_path, monkeypatch):
    pytest.importorskip('optuna')
    from benchmarks.quality import tune

    real = catalogues.split('fake')
    monkeypatch.setattr(catalogues, 'split', lambda name: lambda data: (*real(data)[:2], Untouchable()))
    with pytest.raises(AssertionError, match='the test split was read'):
        jobs.run(jobs.job('fake', 'Popularity'), tmp_path)
    monkeypatch.setitem(tune.SPACES, 'LightGCN', ('LightGCN', lambda trial, dataset: {
        'model': {'hidden_channels': 8, 'num_layers': trial.suggest_int('num_layers', 1, 3)}, 'fit': {'epochs': 2},
    }))  # fmt: skip
    storage = f'sqlite:///{tmp_path}/tune.db'
    study = tune.tune('fake', 'LightGCN', tmp_path, 2, storage)
    study = tune.tune('fake', 'LightGCN', tmp_path, 3, storage)  # goes on
    assert len(study.trials) == 3
    tune.save('fake', 'LightGCN', study, tmp_path / 'settings.json')
    known = json.loads((tmp_path / 'settings.json').read_text())['fake']['LightGCN']
    assert known['trials'] == 3
    assert known['val_recall@20'] == pytest.approx(study.best_value, abs=1e-6)
    study = tune.tune('fake', 'LightGCN', tmp_path, 1, storage, 'ndcg@20')
    assert len(study.trials) == 1
    assert len(tune.tune('fake', 'LightGCN', tmp_path, 1, storage, 'ndcg@20', hide=True).trials) == 1
    tune.save('fake', 'LightGCN', study, tmp_path / 'settings.json', 'ndcg@20')
    known = json.loads((tmp_path / 'settings.json').read_text())['fake']['LightGCN']
    assert known['val_ndcg@20'] == pytest.approx(study.best_value, abs=1e-6)
    assert known['settings']['fit']['monitor'] == 'ndcg@20'  # what the model is then trained with


def test_what_was_tuned_is_not_tuned_again(tmp_path, monkeypatch, capsys):
    pytest.importorskip('optuna')
    from benchmarks.quality import tune

    monkeypatch.setattr(tune, 'tune', lambda *args: pytest.fail('it was tuned again'))
    command = ['', '--dataset', 'scientific', '--model', 'VBPR', 'BM3', '--storage', f'sqlite:///{tmp_path}/tune.db']
    monkeypatch.setattr(sys, 'argv', command)
    tune.main()
    assert capsys.readouterr().out.count('chosen before') == 2
    for more in (['--trials', '99'], ['--again'], ['--dataset', 'scientific_text']):
        monkeypatch.setattr(sys, 'argv', command + more)
        with pytest.raises(pytest.fail.Exception, match='it was tuned again'):
            tune.main()


def test_jobs_that_choose_settings_never_read_the_test_split(tmp_path, monkeypatch, capsys):
    settings = {'model': {'hidden_channels': 8}, 'fit': {'epochs': 2}}
    job, path = jobs.job('fake', 'LightGCN', 0, settings, 'candidates', test=False), tmp_path / 'rows.csv'
    whole = FixedSplit.forward
    monkeypatch.setattr(FixedSplit, 'forward', lambda self, data: (*whole(self, data)[:2], Untouchable()))
    jobs.run_all([job], tmp_path, path)
    (row,) = rows.read(path)
    assert float(row['val_ndcg@20']) > 0
    assert {value for name, value in row.items() if name.startswith('test_')} == {''}
    assert not users.has(row, path)
    assert jobs.rerun(['experiment=candidates'], tmp_path, path) <= jobs.ROUNDING
    monkeypatch.undo()
    jobs.run_all([jobs.job('fake', 'LightGCN', 0, settings, 'main')], tmp_path, path)  # not a copy: it is tested
    assert float(rows.read(path)[1]['test_ndcg@20']) > 0
    assert float(rows.read(path)[1]['val_ndcg@20']) == float(row['val_ndcg@20'])


@pytest.mark.parametrize('hide', [False, True])
def test_what_tuning_sees_does_not_depend_on_the_test(hide, tmp_path):
    job = jobs.job('fake', 'LIRDRec', settings={'content': {'collaborative': 4}})
    data = catalogues.load('fake', tmp_path)
    tested = {*zip(*data['interacts'].edge_index[:, data['interacts'].split == 2].tolist(), strict=True)}
    kept = (data['interacts'].split != 2) | (data['interacts'].edge_index[0] % 2 == 0)
    less = copy.copy(data)  # every other user is not tested
    for name, value in data['interacts'].items():
        less['interacts'][name] = value[..., kept]
    seen = jobs.splits(job, tmp_path, test=False, hide=hide)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogues, 'load', lambda name, root: less)
        again = jobs.splits(job, tmp_path, test=False, hide=hide)
    assert len(seen) == 2
    for split, other in zip(seen, again, strict=True):
        for name in ('edge_index', 'edge_label_index'):
            pairs = split['interacts'][name]
            assert torch.equal(pairs, other['interacts'][name])
            assert tested.isdisjoint(zip(*pairs.tolist(), strict=True))
        assert split['interacts'].num_edges + len(tested) < data['interacts'].num_edges
    assert torch.equal(seen[0]['item'].spectrum, again[0]['item'].spectrum)  # its last columns are of interactions
