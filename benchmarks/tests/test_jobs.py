r"""Jobs: rows are complete, and neither lost nor made twice."""

import ast
import csv
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import rows
from benchmarks.quality import experiments, jobs, run, users
from lirdrec_pyg import nn


def test_what_makes_rows_says_its_batch_size():
    r"""Rows must not change with a default. ``batch_size=None`` is today's."""
    root, found = Path(jobs.__file__).parents[2], 0
    for path in [*root.glob('benchmarks/[qs]*/**/*.py'), *root.glob('examples/*.py')]:
        if path.parent.name == 'examples' and '--rows' not in path.read_text():
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') in ('fit', 'Trainer'):
                given = {keyword.arg for keyword in node.keywords}  # None stands for `**settings`
                assert given & {'batch_size', 'loader', None}, f'{path}:{node.lineno}'
                found += 1
    assert found > 15


def test_rows_are_complete_and_not_run_again(tmp_path, monkeypatch, capsys):
    todo = [
        jobs.job('fake', 'LIRDRec', seed, {'model': {'hidden_channels': 8}, 'fit': {'epochs': 2}}) for seed in (0, 1)
    ]
    path = tmp_path / 'rows.csv'
    jobs.run_all(todo[:1], tmp_path, path)
    jobs.run_all(todo, tmp_path, path)
    monkeypatch.setattr(jobs, 'train_and_test', None)  # all are there
    jobs.run_all(todo, tmp_path, path)
    with path.open(newline='') as file:
        table = list(csv.DictReader(file))
    assert [row['seed'] for row in table] == ['0', '1']
    assert json.loads(table[0]['settings'])['fit'] == {'epochs': 2}
    for name in ('test_recall@5', 'test_ndcg@50', 'test_mrr@20', 'test_coverage@10', 'val_recall@20'):
        assert 0 < float(table[0][name]) <= 1
    assert float(table[0]['test_popularity@20']) > 1
    assert 0 <= float(table[0]['seconds']) < 60
    assert 0 <= float(table[0]['cpu_seconds']) < 60
    assert float(table[0]['peak_rss_mib']) > 100
    assert table[0]['torch'] == torch.__version__
    assert table[0]['test_recall@20'] != table[1]['test_recall@20']


def test_rerunning_a_row_reproduces_it(tmp_path):
    job = jobs.job('fake', 'LIRDRec', 3, {'model': {'hidden_channels': 8, 'loss': 'softmax'}, 'fit': {'epochs': 3}})
    first, again = jobs.run(job, tmp_path), jobs.run(job, tmp_path)
    for name, value in first.items():
        if '@' in name:
            assert again[name] == pytest.approx(value, abs=1e-6), name


def test_rows_of_a_file_are_rerun_from_their_cells(tmp_path, monkeypatch, capsys):
    settings = {'model': {'hidden_channels': 8}, 'fit': {'epochs': 2}, 'content': {'k': 3}}
    path = tmp_path / 'rows.csv'
    jobs.run_all([jobs.job('fake', 'LIRDRec', seed, settings, 'main', 'ours') for seed in (0, 1)], tmp_path, path)
    before = path.read_text()
    argv = ['run', '--root', str(tmp_path), '--rows', str(path), '--rerun', 'experiment=main']
    monkeypatch.setattr('sys.argv', argv)
    capsys.readouterr()
    run.main()
    assert capsys.readouterr().out.count('ndcg@20') == 2
    assert path.read_text() == before
    row = next(csv.DictReader(before.splitlines()))
    kept, found = users.path_of(row, path), users.load(row, path)
    users.save(row, path, torch.tensor([0]), torch.tensor([9.0]))  # of a run that is not to be lost
    run.main()
    assert users.load(row, path).tolist() == [9.0]
    kept.unlink()
    run.main()  # makes it again
    assert users.load(row, path).equals(found)

    table = list(csv.DictReader(before.splitlines()))
    table[1]['test_recall@5'] = str(float(table[1]['test_recall@5']) + 1e-5)
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    assert jobs.rerun(['seed=0', 'variant=ours'], tmp_path, path) <= 1.5e-6
    monkeypatch.setattr('sys.argv', [*argv, 'seed=1'])
    with pytest.raises(SystemExit, match='did not come out again'):
        run.main()
    with pytest.raises(ValueError, match='no row'):
        jobs.rerun(['seed=2'], tmp_path, path)
    for cells in (['main'], ['expt=main']):
        with pytest.raises(ValueError, match="'rerun' needs cells like 'seed=0' of the columns"):
            jobs.rerun(cells, tmp_path, path)
    path.write_text(path.read_text().replace('FixedSplit()', 'OtherSplit()'))
    with pytest.raises(ValueError, match="'split' needs to be that of the row"):
        jobs.rerun(['seed=0'], tmp_path, path)


def test_the_epoch_may_be_chosen_on_some_users(tmp_path):
    _, val = jobs.splits(jobs.job('fake'), tmp_path, test=False)
    label = val['interacts'].edge_label_index
    some = jobs.some_users(val, 5)['interacts'].edge_label_index
    held = some[0].unique()
    assert held.numel() == 5
    assert torch.equal(some, label[:, torch.isin(label[0], held)])  # these with all that they have
    assert torch.equal(some, jobs.some_users(val, 5)['interacts'].edge_label_index)
    assert jobs.some_users(val) is jobs.some_users(val, 10**6) is val
    assert val['interacts'].edge_label_index is label
    row = jobs.run(jobs.job('fake', settings={'fit': {'epochs': 1}, 'val': {'users': 5}}), tmp_path)
    whole = jobs.run(jobs.job('fake', settings={'fit': {'epochs': 1}}), tmp_path)
    assert row['val_recall@20'] == whole['val_recall@20']  # a row's metrics are of all users


def test_what_cannot_be_run_is_refused(tmp_path, monkeypatch, capsys):
    for shard in ('2/2', '1', '0/0', '-1/2'):
        with pytest.raises(ValueError, match="'shard' needs to be of the form '0/2'"):
            jobs.run_all([jobs.job('fake')], tmp_path, tmp_path / 'rows.csv', shard)
    for model in ('Foo', 'PWC', 'functional'):
        with pytest.raises(ValueError, match="'model' needs to be a recommender"):
            jobs.run(jobs.job('fake', model), tmp_path)
    with pytest.raises(ValueError, match="'dataset' needs to be one of"):
        jobs.run_all([jobs.job('foo')], tmp_path, tmp_path / 'rows.csv')
    for options in (
        ['ablations'],
        ['ablation', '--seeds', '0'],
        ['main', '--model', 'VBPR'],
        ['main', '--set', 'a.b=1'],
    ):
        monkeypatch.setattr(sys, 'argv', ['', '--rows', str(tmp_path / 'rows.csv'), '--experiment', *options])
        with pytest.raises(SystemExit):
            run.main()
        assert '--experiment' in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / 'rows.csv').exists()
    monkeypatch.setattr(experiments, 'SETTINGS', tmp_path)
    with pytest.raises(FileNotFoundError, match='quality.tune` first'):
        list(experiments.main('scientific'))


def test_a_sequential_model_gets_recent_items(tmp_path):
    job = jobs.job('fake', 'SoftmaxLIRDRec', 0, {'model': {'hidden_channels': 8, 'history': 4}})
    train, _ = jobs.splits(job, tmp_path, test=False)
    assert train['user'].recent_items.shape == (train['user'].num_nodes, 4)
    assert jobs.build(job, train).recent.length == 4


def test_rows_are_there_once():
    table = pd.read_csv(jobs.ROWS, keep_default_na=False)
    twice = table[(table['experiment'] != '') & table.duplicated(['experiment', 'variant', 'dataset', 'seed'])]
    assert twice.empty, twice[list(jobs.KEYS)].to_string()


def test_a_run_of_another_experiment_is_taken_over(tmp_path, monkeypatch):
    path = tmp_path / 'rows.csv'
    settings = {'model': {'hidden_channels': 8}, 'fit': {'epochs': 2}}
    jobs.run_all([jobs.job('fake', 'LIRDRec', 0, settings, 'first', 'a')], tmp_path, path)
    ran = []
    real = jobs.train_and_test
    monkeypatch.setattr(jobs, 'train_and_test', lambda job, root: ran.append(job['seed']) or real(job, root))
    jobs.run_all([jobs.job('fake', 'LIRDRec', seed, settings, 'second', 'b') for seed in (0, 1)], tmp_path, path)
    assert ran == [1]
    first, second, _ = csv.DictReader(path.read_text().splitlines())
    assert (second['experiment'], second['variant']) == ('second', 'b')
    assert {k: v for k, v in first.items() if k not in ('experiment', 'variant')}.items() <= second.items()
    assert users.load(second, path).equals(users.load(first, path))
    users.path_of(first, path).unlink()
    jobs.run_all([jobs.job('fake', 'LIRDRec', 0, settings, 'third', 'c')], tmp_path, path)
    assert ran == [1, 0]  # what tests need is not there


@pytest.mark.parametrize(
    ('model', 'settings', 'expected', 'power'),
    [
        ('LIRDRec', {}, {}, None),
        ('LIRDRec', {'loss': 'bpr', 'num_layers': 3}, {'objective': 'BPR()', 'num_layers': '3'}, None),
        ('LIRDRec', {'loss': 'softmax', 'scoring': 'cosine'}, {'objective': 'SampledSoftmax(temperature=0.2, '
         'num_negatives=None, learn_temperature=False)'}, 0.0),
        ('LIRDRec', {'scoring': 'dot'}, {}, 1.0),
        ('SoftmaxLIRDRec', {'temperature': 0.1, 'num_negatives': 4096, 'scoring': 0.5}, {'objective':
         'UniformBesideBatch(temperature=0.1, num_negatives=4096)'}, 0.5),
        ('SoftmaxLIRDRec', {'num_sampled': 64, 'learn_temperature': True}, {'objective': 'SampledSoftmax('
         'temperature=0.2, num_negatives=64, learn_temperature=True)'}, None),
        ('SoftmaxLIRDRec', {'history': 10, 'dropout': 0.0}, {'recent_items': '10', 'dropout': '0.0'}, None),
        ('LIRDRec', {'pwc': 'released'}, {'fusion': 'PWC(init=0.9, decay=0.9)'}, None),
        ('LIRDRec', {'pwc_decay': 0.5}, {'fusion': 'PWC(init=0.9, decay=0.5)'}, None),
        ('LIRDRec', {'pwc': 'ema', 'pwc_rate': 0.2}, {'fusion': 'PaperPWC(rate=0.2)'}, None),
        ('LIRDRec', {'pwc': 'attention'}, {'fusion': 'AttentionFusion()'}, None),
        ('LIRDRec', {'pwc': 'static'}, {'fusion': 'StaticFusion()'}, None),
        ('LIRDRec', {'pwc': 'uniform'}, {'fusion': 'UniformFusion()'}, None),
        ('Ablated', {'fusion': False, 'item_ids': True}, {'fusion': 'Concatenation()', 'item_ids': 'True'}, None),
        ('LightGCN', {'learn_scale': True}, {'objective': 'ScaledBPR()'}, None),
        ('VBPR', {'loss': 'softmax', 'reg_weight': 0}, {'objective': 'SampledSoftmax(temperature=0.2, '
         'num_negatives=None, learn_temperature=False)', 'reg_weight': '0'}, None),
    ],
)  # fmt: skip
def test_settings_of_rows_are_arguments_of_today(model, settings, expected, power):
    before = json.dumps(settings)
    found, scale = jobs.arguments(model, settings)
    assert ({name: repr(value) for name, value in found.items()}, scale) == (expected, power)
    assert json.dumps(settings) == before


@pytest.mark.parametrize(
    ('settings', 'match'),
    [
        ({'loss': 'hinge'}, "'loss' needs to be 'bpr', 'softmax' or 'infonce'"),
        ({'temperature': 0.1}, "need 'loss' to be 'softmax'"),
        ({'pwc': 'foo'}, "'pwc' needs to be one of"),
        ({'loss': 'softmax', 'learn_scale': True}, "'learn_scale' needs 'loss' to be 'bpr'"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        jobs.arguments('LIRDRec', settings)


def test_all_committed_rows_are_recognised_and_can_be_built(tmp_path):
    known = jobs.known(jobs.ROWS)
    built = set()
    for row in rows.read(jobs.ROWS):
        settings = json.loads(row['settings'])
        job = jobs.job(row['dataset'], row['model'], int(row['seed']), settings, row['experiment'], row['variant'])
        assert tuple(map(str, jobs.key(job).values())) in known
        model = json.dumps([row['model'], settings.get('model', {})], sort_keys=True)
        if model not in built and row['model'] != 'autofit':  # which builds by itself
            built.add(model)
            small = {'model': settings.get('model', {}) | {'hidden_channels': 4}}
            if row['model'] in ('Popularity', 'ContentKNN', 'EASE'):
                small = {}
            job = jobs.job('fake', row['model'], 0, small)
            train, _ = jobs.splits(job, tmp_path, test=False)
            assert isinstance(jobs.build(job, train), nn.Recommender)
    assert len(built) > 40


def test_lengths_count_as_the_settings_say(tmp_path):
    settings = {'model': {'hidden_channels': 4, 'loss': 'softmax', 'scoring': 'cosine'}}
    job = jobs.job('fake', settings=settings)
    train, _ = jobs.splits(job, tmp_path, test=False)
    with torch.no_grad():
        item = jobs.build(job, train)(train).item
    assert torch.allclose(item.norm(dim=1), torch.ones(len(item)))


def test_the_exponent_of_the_length_is_chosen_on_validation(tmp_path, monkeypatch):
    called, real = [], jobs.calibrate
    monkeypatch.setattr(jobs, 'calibrate', lambda model, *splits: called.append(splits) or real(model, *splits))
    model = {'hidden_channels': 4, 'loss': 'softmax', 'learn_temperature': True}
    plain, chosen = (
        jobs.run(jobs.job('fake', 'LIRDRec', 0, {'model': model, 'fit': {'epochs': 4, **more}}), tmp_path)
        for more in ({}, {'calibrate': True})
    )
    assert chosen['epochs'] == plain['epochs'] and chosen['val_ndcg@20'] >= plain['val_ndcg@20']
    ((train, val),) = called
    assert train['interacts'].edge_label_index.size(1) > val['interacts'].edge_label_index.size(1)
