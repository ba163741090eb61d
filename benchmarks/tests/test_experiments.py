import copy
import json

import pytest
import torch

from benchmarks import rows
from benchmarks.quality import experiments, jobs
from lirdrec_pyg import nn


def test_models_on_microlens_train_alike():
    for name in ('main', 'ablation'):
        for job in experiments.EXPERIMENTS[name]('microlens_50k'):
            settings = copy.deepcopy(job['settings'])
            if job['model'] == 'MGCN':
                assert settings['fit'].pop('epochs') == 150
            assert settings.items() >= experiments.QUICK.items() or job['model'] in ('Popularity', 'ContentKNN')


def test_experiments_are_lists_of_jobs():
    for name, experiment in experiments.EXPERIMENTS.items():
        if name in ('main', 'preset', 'preset, hidden', 'published', 'equal footing'):
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


def test_models_on_equal_footing_have_the_same_trials(tmp_path, monkeypatch):
    path = tmp_path / 'rows.csv'
    monkeypatch.setattr(experiments, 'ROWS', path)
    todo = list(experiments.footing_candidates('scientific'))
    assert len(todo) == 7 * 2 * 2 * 4 and not any(job['test'] for job in todo)
    trials: dict[str, list[tuple[float, float]]] = {}
    for job in todo:
        name, settings = job['variant'].partition(': ')[0], job['settings']
        trials.setdefault(name, []).append((settings['fit']['lr'], settings['model']['reg_weight']))
        assert {name: settings['fit'][name] for name in ('rule', 'patience', 'calibrate')} == {
            'rule': True, 'patience': 20, 'calibrate': True,
        }  # fmt: skip
        assert settings['model'].get('learn_scale') or settings['model'].get('learn_temperature')
    assert len(trials) == 28 and len({str(sorted(tried)) for tried in trials.values()}) == 1

    with pytest.raises(ValueError, match="run 'equal footing, candidates' first"):
        list(experiments.equal_footing('scientific'))
    for number, job in enumerate(todo[:7]):  # of the second model, one is missing
        rows.append(path, jobs.key(job) | {'val_ndcg@20': number % 3, 'test_ndcg@20': ''})
    chosen = list(experiments.equal_footing('scientific'))
    assert [job['seed'] for job in chosen] == [0, 1, 2] and all(job['test'] for job in chosen)
    assert {job['variant'] for job in chosen} == {'BPRMF, BPR, 64'}
    assert chosen[0]['settings'] == todo[2]['settings']


@pytest.mark.parametrize('width', [64, 192])
def test_models_on_equal_footing_are_as_wide(width, tmp_path):
    for name, (model, settings) in experiments.footing('fake').items():
        if name.endswith(f'BPR, {width}'):
            job = jobs.job('fake', model, 0, settings)
            train, _ = jobs.splits(job, tmp_path, test=False)
            found = jobs.build(job, train).encode(train).item.size(1)
            assert abs(found - width) <= 1, name
            assert ('item', 'similar_to', 'item') not in train.edge_types or name != f'item IDs alone, BPR, {width}'


def test_the_paper_s_form_of_pwc_with_the_rate_one_is_an_attention():
    found = {job['variant']: job['settings'] for job in experiments.pwc('movielens') if job['seed'] == 0}
    assert found['a0 0.9, b 0.9'] == next(experiments.ablation('movielens'))['settings']
    x = torch.randn(5, 3, 8)
    rate = nn.PaperPWC(found['tau 1']['model']['pwc_rate'])
    attention = nn.AttentionFusion()
    for fusion in (rate, attention):
        fusion.build(8, 3, 5)
        fusion.reset_parameters()
    attention.load_state_dict(rate.state_dict(), strict=False)
    assert torch.allclose(rate.weight(x), attention.weight(x))
