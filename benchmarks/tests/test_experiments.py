import copy
import json

import pytest

from benchmarks import rows
from benchmarks.quality import experiments, jobs


def test_models_on_microlens_train_alike():
    for name in ('main', 'ablation'):
        for job in experiments.EXPERIMENTS[name]('microlens_50k'):
            settings = copy.deepcopy(job['settings'])
            if job['model'] == 'MGCN':
                assert settings['fit'].pop('epochs') == 150
            assert settings.items() >= experiments.QUICK.items() or job['model'] in ('Popularity', 'ContentKNN')


def test_experiments_are_lists_of_jobs():
    for name, experiment in experiments.EXPERIMENTS.items():
        if name in ('main', 'preset', 'preset, hidden', 'published'):
            continue
        todo = list(experiment('scientific'))
        assert todo, name
        assert len({str(jobs.key(job)) for job in todo}) == len(todo), name


def test_settings_are_carried_over_but_for_weights(tmp_path, monkeypatch):
    known = {'LIRDRec': {'model': 'LIRDRec', 'settings': {'content': {'k': 5, 'weights': {'image': 1.0}}}}}
    path = tmp_path / 'settings_recall@20.json'
    path.write_text(json.dumps({'scientific': known, 'movielens': {'LightGCN': {'settings': {}}}}))
    monkeypatch.setattr(experiments, 'SETTINGS', tmp_path)
    assert experiments.chosen('scientific') == known
    assert experiments.chosen('movielens') == {
        'LIRDRec': {'model': 'LIRDRec', 'settings': {'content': {'k': 5}}},
        'LightGCN': {'settings': {}},
    }


def test_larger_datasets_take_the_candidate_that_validation_prefers(tmp_path, monkeypatch):
    path = tmp_path / 'rows.csv'
    monkeypatch.setattr(experiments, 'ROWS', path)
    todo = list(experiments.candidates('scientific_text'))
    assert [job['variant'] for job in todo] == ['LIRDRec, 1', 'LIRDRec, 2', 'SoftmaxLIRDRec, 1', 'SoftmaxLIRDRec, 2']
    assert {job['seed'] for job in todo} == {0}
    assert not any(job['test'] for job in todo)
    with pytest.raises(ValueError, match="0 of 2 candidates: run 'preset, candidates' first"):
        list(experiments.preset('scientific_text', hidden=True))
    for job, val, test in zip(todo, (0.1, 0.2, 0.4, 0.3), (0.9, 0.1, 0.1, 0.9), strict=True):
        rows.append(path, jobs.key(job) | {'val_ndcg@20': val, 'test_ndcg@20': test})
    chosen = {job['variant']: job for job in experiments.preset('scientific_text', hidden=True)}
    assert chosen['LIRDRec']['settings'] == todo[1]['settings']
    assert chosen['SoftmaxLIRDRec']['settings'] == todo[2]['settings']
    assert 'history' not in chosen['SoftmaxLIRDRec, no history']['settings']['model']


def test_published_splits_take_the_candidates_that_validation_prefers(tmp_path, monkeypatch):
    path = tmp_path / 'rows.csv'
    monkeypatch.setattr(experiments, 'ROWS', path)
    todo = list(experiments.published_candidates('baby_ids'))
    assert not any(job['test'] for job in todo) and len(todo) == 8
    with pytest.raises(ValueError, match="0 of 4 candidates: run 'published, candidates' first"):
        list(experiments.published('baby_ids'))
    for number, job in enumerate(todo):
        rows.append(path, jobs.key(job) | {'val_recall@20': number % 4, 'val_ndcg@20': -number, 'test_recall@20': ''})
    chosen = {job['variant']: job for job in experiments.published('baby_ids')}
    assert chosen['LightGCN']['settings'] == todo[3]['settings']
    assert chosen['BPRMF']['settings'] == todo[7]['settings']
    assert chosen['LightGCN, softmax, 64']['settings']['model']['num_layers'] == 4
    assert all(job['test'] for job in chosen.values())
