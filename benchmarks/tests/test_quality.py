r"""The quality benchmarks: rows are resumable and complete, and nothing is chosen by a test metric."""

import copy
import csv
import json
import sys

import pandas as pd
import pytest
import torch
from scipy.stats import ttest_rel

from benchmarks.quality import catalogues, experiments, fold_in, missing, onboard, run, significance


def test_rows_are_complete_and_not_run_again(tmp_path, monkeypatch, capsys):
    jobs = [
        run.job('fake', 'LIRDRec', seed, {'model': {'hidden_channels': 8}, 'fit': {'epochs': 2}}) for seed in (0, 1)
    ]
    path = tmp_path / 'rows.csv'
    run.run_all(jobs[:1], tmp_path, path)
    run.run_all(jobs, tmp_path, path)
    monkeypatch.setattr(run, 'train_and_test', None)  # all are there
    run.run_all(jobs, tmp_path, path)
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['seed'] for row in rows] == ['0', '1']
    assert json.loads(rows[0]['settings'])['fit'] == {'epochs': 2}
    for name in ('test_recall@5', 'test_ndcg@50', 'test_mrr@20', 'test_coverage@10', 'val_recall@20'):
        assert 0 < float(rows[0][name]) <= 1
    assert 0 <= float(rows[0]['seconds']) < 60
    assert 0 <= float(rows[0]['cpu_seconds']) < 60
    assert float(rows[0]['peak_rss_mib']) > 100
    assert rows[0]['torch'] == torch.__version__
    assert rows[0]['test_recall@20'] != rows[1]['test_recall@20']


def test_rerunning_a_row_reproduces_it(tmp_path):
    job = run.job('fake', 'LIRDRec', 3, {'model': {'hidden_channels': 8, 'loss': 'softmax'}, 'fit': {'epochs': 3}})
    first, again = run.run(job, tmp_path), run.run(job, tmp_path)
    for name, value in first.items():
        if '@' in name:
            assert again[name] == pytest.approx(value, abs=1e-6), name


def test_rows_of_a_file_are_rerun_from_their_cells(tmp_path, monkeypatch, capsys):
    settings = {'model': {'hidden_channels': 8}, 'fit': {'epochs': 2}, 'content': {'k': 3}}
    path = tmp_path / 'rows.csv'
    run.run_all([run.job('fake', 'LIRDRec', seed, settings, 'main', 'ours') for seed in (0, 1)], tmp_path, path)
    before = path.read_text()
    argv = ['run', '--root', str(tmp_path), '--rows', str(path), '--rerun', 'experiment=main']
    monkeypatch.setattr('sys.argv', argv)
    capsys.readouterr()
    run.main()
    assert capsys.readouterr().out.count('ndcg@20') == 2
    assert path.read_text() == before
    kept = run.per_user_path(next(csv.DictReader(before.splitlines())), path)
    users = run.load_per_user(kept)
    kept.write_text('of a run that is not to be lost')
    run.main()
    assert kept.read_text() == 'of a run that is not to be lost'
    kept.unlink()
    run.main()  # makes it again
    assert run.load_per_user(kept).equals(users)

    rows = list(csv.DictReader(before.splitlines()))
    rows[1]['test_recall@5'] = str(float(rows[1]['test_recall@5']) + 1e-5)
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert run.rerun(['seed=0', 'variant=ours'], tmp_path, path) <= 1.5e-6
    monkeypatch.setattr('sys.argv', [*argv, 'seed=1'])
    with pytest.raises(SystemExit, match='did not come out again'):
        run.main()
    with pytest.raises(ValueError, match='no row'):
        run.rerun(['seed=2'], tmp_path, path)
    for cells in (['main'], ['expt=main']):
        with pytest.raises(ValueError, match="'rerun' needs cells like 'seed=0' of the columns"):
            run.rerun(cells, tmp_path, path)
    path.write_text(path.read_text().replace('FixedSplit()', 'OtherSplit()'))
    with pytest.raises(ValueError, match="'split' needs to be that of the row"):
        run.rerun(['seed=0'], tmp_path, path)


def test_the_epoch_may_be_chosen_on_some_users(tmp_path):
    _, val = run.views(run.job('fake'), tmp_path, test=False)
    label = val['interacts'].edge_label_index
    some = run.some_users(val, 5)['interacts'].edge_label_index
    users = some[0].unique()
    assert users.numel() == 5
    assert torch.equal(some, label[:, torch.isin(label[0], users)])  # these with all that they have
    assert torch.equal(some, run.some_users(val, 5)['interacts'].edge_label_index)
    assert run.some_users(val) is run.some_users(val, 10**6) is val
    assert val['interacts'].edge_label_index is label
    row = run.run(run.job('fake', settings={'fit': {'epochs': 1}, 'val': {'users': 5}}), tmp_path)
    whole = run.run(run.job('fake', settings={'fit': {'epochs': 1}}), tmp_path)
    assert row['val_recall@20'] == whole['val_recall@20']  # a row's metrics are of all users


def test_models_on_microlens_train_alike():
    for name in ('main', 'ablation'):
        for job in experiments.EXPERIMENTS[name]('microlens_50k'):
            settings = copy.deepcopy(job['settings'])
            if job['model'] == 'MGCN':
                assert settings['fit'].pop('epochs') == 150
            assert settings.items() >= experiments.QUICK.items() or job['model'] in ('Popularity', 'ContentKNN')


def test_what_cannot_be_run_is_refused(tmp_path, monkeypatch, capsys):
    for shard in ('2/2', '1', '0/0', '-1/2'):
        with pytest.raises(ValueError, match="'shard' needs to be of the form '0/2'"):
            run.run_all([run.job('fake')], tmp_path, tmp_path / 'rows.csv', shard)
    for model in ('Foo', 'PWC', 'functional'):
        with pytest.raises(ValueError, match="'model' needs to be a recommender"):
            run.run(run.job('fake', model), tmp_path)
    with pytest.raises(ValueError, match="'dataset' needs to be one of"):
        run.run_all([run.job('foo')], tmp_path, tmp_path / 'rows.csv')
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


class Untouchable:
    r"""A test view that nobody may look at."""

    def __getattr__(self, name):
        raise AssertionError('the test view was read')

    __getitem__ = __getattr__


def test_tuning_never_reads_the_test_view(tmp_path, monkeypatch):
    pytest.importorskip('optuna')
    from benchmarks.quality import tune

    real = catalogues.split('fake')
    monkeypatch.setattr(catalogues, 'split', lambda name: lambda data: (*real(data)[:2], Untouchable()))
    with pytest.raises(AssertionError, match='the test view was read'):
        run.run(run.job('fake', 'Popularity'), tmp_path)
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


@pytest.mark.parametrize('hide', [False, True])
def test_what_tuning_sees_does_not_depend_on_the_test(hide, tmp_path):
    job = run.job('fake', 'LIRDRec', settings={'content': {'collaborative': 4}})
    data = catalogues.load('fake', tmp_path)
    tested = {*zip(*data['interacts'].edge_index[:, data['interacts'].split == 2].tolist(), strict=True)}
    kept = (data['interacts'].split != 2) | (data['interacts'].edge_index[0] % 2 == 0)
    less = copy.copy(data)  # every other user is not tested
    for name, value in data['interacts'].items():
        less['interacts'][name] = value[..., kept]
    seen = run.views(job, tmp_path, test=False, hide=hide)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogues, 'load', lambda name, root: less)
        again = run.views(job, tmp_path, test=False, hide=hide)
    assert len(seen) == 2
    for view, other in zip(seen, again, strict=True):
        for name in ('edge_index', 'edge_label_index'):
            pairs = view['interacts'][name]
            assert torch.equal(pairs, other['interacts'][name])
            assert tested.isdisjoint(zip(*pairs.tolist(), strict=True))
        assert view['interacts'].num_edges + len(tested) < data['interacts'].num_edges
    assert torch.equal(seen[0]['item'].spectrum, again[0]['item'].spectrum)  # its last columns are of interactions


@pytest.mark.parametrize('kind', ['dct', 'dct2', 'none', 'rotation', 'pca', 'whiten'])
def test_spectra_keep_the_norm(kind):
    data = catalogues.load('fake', None)
    out = catalogues.Spectrum(kind)(data)['item'].spectrum
    width = sum(data['item'][f'x_{name}'].size(1) for name in ('image', 'text'))
    assert out.shape[0] == 120
    assert out.shape[1] <= width
    x = data['item'].x_image
    parts = [data['item'][f'x_{name}'] for name in ('image', 'text')]
    if kind in ('pca', 'whiten'):
        parts = [part - part.mean(dim=0) for part in parts]
    assert out.norm() == pytest.approx(float(torch.cat(parts, dim=1).norm()), rel=1e-4)
    if kind in ('dct', 'none', 'rotation'):  # of each row
        assert out[:, : x.size(1)].norm(dim=1).numpy() == pytest.approx(x.norm(dim=1).numpy(), rel=1e-4)


def test_hides_the_latest_where_validation_is_later(tmp_path):
    train, val, _ = catalogues.split('fake')(catalogues.load('fake', tmp_path))
    hidden, _ = catalogues.hide(train, val, latest=True)
    store, left = train['interacts'], hidden['interacts']
    per_user = val['interacts'].edge_label_index[0].bincount(minlength=train['user'].num_nodes)
    for user in range(train['user'].num_nodes):
        times = store.time[store.edge_index[0] == user].sort().values
        kept = left.time[left.edge_index[0] == user].sort().values
        assert kept.tolist() == times[: max(len(times) - int(per_user[user]), 1)].tolist()


def test_a_sequential_model_gets_histories(tmp_path):
    job = run.job('fake', 'SoftmaxLIRDRec', 0, {'model': {'hidden_channels': 8, 'history': 4}})
    train, _ = run.views(job, tmp_path, test=False)
    assert train['user'].history.shape == (train['user'].num_nodes, 4)
    assert run.build(job, train).history.length == 4


def test_experiments_are_lists_of_jobs():
    for name, experiment in experiments.EXPERIMENTS.items():
        if name in ('main', 'preset', 'preset, hidden'):
            continue
        jobs = list(experiment('scientific'))
        assert jobs, name
        assert len({str(run.key(job)) for job in jobs}) == len(jobs), name


@pytest.mark.parametrize(
    ('lacks', 'views', 'tables'),
    [
        ({'shared': False}, 2, 2),
        ({'own': False}, 1, 1),
        ({'fusion': False}, 3, 3),
        ({'one_user_table': True}, 3, 1),
        ({'item_ids': True}, 4, 4),
        ({'item_ids': True, 'own': False, 'shared': False}, 1, 1),
    ],
)
def test_ablated_models_lack_a_part(lacks, views, tables, tmp_path):
    job = run.job('fake', 'Ablated', 0, {'model': {'hidden_channels': 8, **lacks}})
    train, _ = run.views(job, tmp_path, test=False)
    model = run.build(job, train)
    assert model.user.shape == (train['user'].num_nodes, tables, 8)
    assert model.encode(train).user.size(1) == model.encode(train).item.size(1) == 8 * views
    user, item = train['interacts'].edge_index[:, :64]
    model.loss(train, user, item, item.flip(0)).backward()
    assert model.user.grad.norm() > 0
    assert (model.item is not None) == ('item_ids' in lacks)
    if model.item is not None:
        assert model.item.shape == (train['item'].num_nodes, 8)
        assert model.item.grad.norm() > 0


def test_a_view_of_item_ids_leaves_the_others_as_they_are(tmp_path):
    job = run.job('fake', 'Ablated', 0, {'model': {'hidden_channels': 8, 'item_ids': True, 'fusion': False}})
    train, _ = run.views(job, tmp_path, test=False)
    model = run.build(job, train)
    without = run.build(run.job('fake', 'Ablated', 0, {'model': {'hidden_channels': 8, 'fusion': False}}), train)
    state = model.state_dict()
    without.load_state_dict(
        {name: state[name][:, :3] if name == 'user' else state[name] for name in without.state_dict()}, strict=True
    )
    expected, item = without.encode(train), model.encode(train).item
    assert torch.allclose(model.encode(train).user[:, :24], expected.user, atol=1e-6)
    assert torch.allclose(item[:, :24], expected.item, atol=1e-6)
    with torch.no_grad():
        model.item.neg_()
    assert not torch.allclose(model.encode(train).item[:, 24:], item[:, 24:], atol=1e-2)


def test_without_fusion_views_are_concatenated(tmp_path):
    job = run.job('fake', 'Ablated', 0, {'model': {'hidden_channels': 8, 'fusion': False}})
    train, _ = run.views(job, tmp_path, test=False)
    model = run.build(job, train)
    whole = run.build(run.job('fake', 'LIRDRec', 0, {'model': {'hidden_channels': 8, 'pwc': 'uniform'}}), train)
    whole.load_state_dict(model.state_dict())
    assert torch.allclose(model.encode(train).user, 3 * whole.encode(train).user, atol=1e-6)


def test_per_user_metrics_average_to_the_row(tmp_path):
    job, path = run.job('fake', 'ContentKNN'), tmp_path / 'rows.csv'
    run.run_all([job], tmp_path, path)
    (row,) = run.rows.read(path)
    value = run.load_per_user(run.per_user_path(row, path))
    assert value.mean() == pytest.approx(float(row['test_ndcg@20']), abs=1e-6)
    _, _, test = run.views(job, tmp_path, test=True)
    assert value.index.tolist() == test['interacts'].edge_label_index[0].unique().tolist()


def test_content_is_made_worse():
    data = catalogues.load('fake', None)
    generator = torch.Generator().manual_seed(0)
    x = data['item'].x_text
    out = catalogues.worse(data, ['text'], 0.0, 0.5, 1.0, generator)
    assert catalogues.modalities(out) == ['text']
    assert 0.3 < (out['item'].x_text != x).any(dim=1).float().mean() <= 0.5
    assert sorted(map(tuple, out['item'].x_text.tolist())) == sorted(map(tuple, x.tolist()))  # traded, not lost
    out = catalogues.worse(data, ['image', 'text'], 0.0, 0.0, 0.25, generator)
    assert out['item'].x_text.size(1) == round(x.size(1) / 4)
    out = catalogues.worse(data, ['image', 'text'], 2.0, 0.0, 1.0, generator)
    assert out['item'].x_text.norm(dim=1).allclose(x.norm(dim=1))
    cosine = torch.cosine_similarity(out['item'].x_text, x)
    assert cosine.mean() == pytest.approx(5**-0.5, rel=0.1)  # at right angles, noise is twice as long
    assert torch.equal(data['item'].x_text, x)


def test_significance_pairs_the_users(tmp_path, monkeypatch, capsys):
    settings = {'model': {'hidden_channels': 8}, 'fit': {'epochs': 2}}
    jobs = [run.job('fake', 'LIRDRec', seed, settings, 'main', 'LIRDRec') for seed in (0, 1)]
    jobs += [run.job('fake', 'Popularity', seed, {}, 'main', 'Popularity') for seed in (0, 1)]
    path = tmp_path / 'rows.csv'
    run.run_all(jobs, tmp_path, path)
    rows = significance.read(path)
    (found,) = significance.compare(rows, 'main', 'LIRDRec', path)
    mean = rows.astype({'test_ndcg@20': float}).groupby('variant')['test_ndcg@20'].mean()
    assert found['variant'] == 'Popularity'
    assert found['difference'] == pytest.approx(mean['Popularity'] - mean['LIRDRec'], abs=1e-5)
    of_users = {
        name: pd.concat([run.load_per_user(run.per_user_path(row, path)) for row in part.to_dict('records')], axis=1)
        for name, part in rows.groupby('variant')
    }
    mine, paper = of_users['Popularity'].mean(axis=1), of_users['LIRDRec'].mean(axis=1)
    assert found['p'] == pytest.approx(ttest_rel(mine, paper).pvalue, rel=1e-2)
    assert found['sd'] == pytest.approx((mine - paper).std(), abs=1e-6)
    assert found['users'] == len(mine)
    assert significance.compare(rows[rows['seed'] == '9'], 'main', 'LIRDRec', path) == []
    fewer = rows.drop(rows.index[rows['variant'] == 'LIRDRec'][0])
    (one,) = significance.compare(fewer, 'main', 'LIRDRec', path)
    assert (found['seeds'], one['seeds']) == (2, 1)  # of the seeds that both have
    assert significance.compare(rows.drop(rows.index[[0, 3]]), 'main', 'LIRDRec', path) == []
    again = pd.concat([rows, rows[:1].assign(settings='{}')])
    with pytest.raises(ValueError, match='one row for each variant and seed'):
        significance.compare(again, 'main', 'LIRDRec', path)

    found_by = tmp_path / 'significance.csv'
    command = ['significance', '--experiment', 'main', '--rows', str(path), '--out', str(found_by)]
    monkeypatch.setattr('sys.argv', command)
    significance.main()
    run.per_user_path(rows[rows['variant'] == 'LIRDRec'].to_dict('records')[0], path).unlink()
    (less,) = significance.compare(rows, 'main', 'LIRDRec', path)
    assert less == one
    capsys.readouterr()
    significance.main()
    assert pd.read_csv(found_by)['seeds'].tolist() == [2]  # what was found from more seeds stays
    assert 'main: 1 of 4 rows lack the metrics of each user' in capsys.readouterr().out
    new = rows['settings'].where(rows['variant'] != 'LIRDRec', '{"fit": {"epochs": 3}}')
    rows.assign(settings=new).to_csv(path, index=False)
    with pytest.raises(SystemExit, match='no metrics of each user'):
        significance.main()  # but not what was found of other settings


def test_rows_are_there_once():
    rows = pd.read_csv(run.ROWS, keep_default_na=False)
    twice = rows[(rows['experiment'] != '') & rows.duplicated(['experiment', 'variant', 'dataset', 'seed'])]
    assert twice.empty, twice[list(run.KEYS)].to_string()


@pytest.mark.parametrize('module', [onboard, fold_in, missing], ids=lambda module: module.__name__.rpartition('.')[2])
def test_what_has_rows_is_not_run_again(module, monkeypatch):
    results = run.ROWS.parent / f'{module.__name__.rpartition(".")[2]}.csv'
    before = results.read_text()
    for name in ('run', 'run_large', 'measure'):
        monkeypatch.setattr(module, name, lambda *args: pytest.fail('it ran again'), raising=False)
    monkeypatch.setattr(sys, 'argv', ['', '--seeds', '0', '1', '2'])
    module.main()
    assert results.read_text() == before
    if module is onboard:
        monkeypatch.setattr(sys, 'argv', ['', '--items', '100000'])
        module.main()
    monkeypatch.setattr(sys, 'argv', ['', '--seeds', '99'])
    with pytest.raises(pytest.fail.Exception, match='it ran again'):
        module.main()


def test_onboarded_items_do_as_well_as_those_there_from_the_start(tmp_path):
    rows = {row['method']: row for row in onboard.run('fake', 0, 'softmax', 3, 1, tmp_path)}
    assert len(rows) == 7
    assert min(row['cold_recall@20'] for row in rows.values()) > 0.8
    onboarded, anew = rows['onboarded'], rows['same weights, all made anew']
    assert onboarded['cold_recall@20'] == pytest.approx(anew['cold_recall@20'], abs=1e-6)  # onboarding costs nothing
    assert onboarded['largest_change'] < 1e-6 < anew['largest_change']
    assert all(0 <= row['new_share'] <= 1 for row in rows.values())
    assert onboard.run_large(2000, 50, width=16)['largest_change'] < 1e-6


def test_hidden_interactions_stay_candidates():
    train, val, _ = catalogues.split('movielens')(catalogues.load('fake', None))
    less, same = catalogues.hide(train, val)
    whole, kept = ({*zip(*view['interacts'].edge_index.tolist(), strict=True)} for view in (train, less))
    assert kept < whole
    users = train['user'].num_nodes
    before, after = (view['interacts'].edge_index[0].bincount(minlength=users) for view in (train, less))
    positives = val['interacts'].edge_label_index[0].bincount(minlength=users)
    assert torch.equal(before - after, positives.minimum(before - 1))
    assert torch.equal(less['interacts'].edge_label_index, less['interacts'].edge_index)
    assert torch.equal(same['interacts'].edge_index, less['interacts'].edge_index)  # what evaluation leaves out
    assert torch.equal(same['interacts'].edge_label_index, val['interacts'].edge_label_index)
    again = catalogues.hide(train, val)[0]['interacts'].edge_index
    assert torch.equal(again, less['interacts'].edge_index)


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
    jobs = list(experiments.candidates('scientific_text'))
    assert [job['variant'] for job in jobs] == ['LIRDRec, 1', 'LIRDRec, 2', 'SoftmaxLIRDRec, 1', 'SoftmaxLIRDRec, 2']
    assert {job['seed'] for job in jobs} == {0}
    with pytest.raises(ValueError, match="0 of 2 candidates: run 'preset, candidates' first"):
        list(experiments.preset('scientific_text', hidden=True))
    for job, val, test in zip(jobs, (0.1, 0.2, 0.4, 0.3), (0.9, 0.1, 0.1, 0.9), strict=True):
        run.rows.append(path, run.key(job) | {'val_ndcg@20': val, 'test_ndcg@20': test})
    chosen = {job['variant']: job for job in experiments.preset('scientific_text', hidden=True)}
    assert chosen['LIRDRec']['settings'] == jobs[1]['settings']
    assert chosen['SoftmaxLIRDRec']['settings'] == jobs[2]['settings']
    assert 'history' not in chosen['SoftmaxLIRDRec, no history']['settings']['model']


def test_a_run_of_another_experiment_is_taken_over(tmp_path, monkeypatch):
    path = tmp_path / 'rows.csv'
    settings = {'model': {'hidden_channels': 8}, 'fit': {'epochs': 2}}
    run.run_all([run.job('fake', 'LIRDRec', 0, settings, 'first', 'a')], tmp_path, path)
    ran = []
    real = run.train_and_test
    monkeypatch.setattr(run, 'train_and_test', lambda job, root: ran.append(job['seed']) or real(job, root))
    run.run_all([run.job('fake', 'LIRDRec', seed, settings, 'second', 'b') for seed in (0, 1)], tmp_path, path)
    assert ran == [1]
    first, second, _ = csv.DictReader(path.read_text().splitlines())
    assert (second['experiment'], second['variant']) == ('second', 'b')
    assert {k: v for k, v in first.items() if k not in ('experiment', 'variant')}.items() <= second.items()
    assert run.per_user_path(second, path).read_bytes() == run.per_user_path(first, path).read_bytes()
    run.per_user_path(first, path).unlink()
    run.per_user_path(second, path).unlink()
    run.run_all([run.job('fake', 'LIRDRec', 0, settings, 'third', 'c')], tmp_path, path)
    assert ran == [1, 0]  # what tests need is not there
