import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_rel

from benchmarks.quality import jobs, users
from benchmarks.report import significance


def forget(cells, path):
    r"""Removes the metrics of the users of a row."""
    file = users.path_of(cells, path)
    with np.load(file) as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != users.name_of(cells)}
    np.savez_compressed(file, **kept)


def test_significance_pairs_the_users(tmp_path, monkeypatch, capsys):
    settings = {'model': {'hidden_channels': 8}, 'fit': {'epochs': 2}}
    todo = [jobs.job('fake', 'LIRDRec', seed, settings, 'main', 'LIRDRec') for seed in (0, 1)]
    todo += [jobs.job('fake', 'Popularity', seed, {}, 'main', 'Popularity') for seed in (0, 1)]
    path = tmp_path / 'rows.csv'
    jobs.run_all(todo, tmp_path, path)
    rows = significance.read(path)
    (found,) = significance.compare(rows, 'main', 'LIRDRec', path)
    mean = rows.astype({'test_ndcg@20': float}).groupby('variant')['test_ndcg@20'].mean()
    assert found['variant'] == 'Popularity'
    assert found['difference'] == pytest.approx(mean['Popularity'] - mean['LIRDRec'], abs=1e-5)
    of_users = {
        name: pd.concat([users.load(row, path) for row in part.to_dict('records')], axis=1)
        for name, part in rows.groupby('variant')
    }
    mine, paper = of_users['Popularity'].mean(axis=1), of_users['LIRDRec'].mean(axis=1)
    assert found['p_users'] == pytest.approx(ttest_rel(mine, paper).pvalue, rel=1e-2)
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
    forget(rows[rows['variant'] == 'LIRDRec'].to_dict('records')[0], path)
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


def comparison(difference=0.01, sd=0.2, users=400, seeds=4):
    return {'users': users, 'seeds': seeds, 'ndcg@20': 0.1 + difference, 'difference': difference, 'sd': sd} | {
        'relative': difference / 0.1
    }


def test_p_carries_the_variance_of_users_and_of_seeds():
    users_alone = significance.both(comparison(), [(0.0, 4), (0.0, 4)])
    se = 0.2 / 20
    assert users_alone['p'] == pytest.approx(2 * student.sf(0.01 / se, 399), rel=1e-2)
    assert users_alone['low'] == pytest.approx((0.01 - student.ppf(0.975, 399) * se) / 0.1, abs=1e-4)
    of_both = significance.both(comparison(), [(0.01**2, 4), (0.02**2, 4)])
    assert of_both['p'] > users_alone['p']
    assert of_both['sd_seeds'] == pytest.approx(0.0005**0.5, abs=1e-6)
    assert of_both['low'] < users_alone['low'] and of_both['high'] > users_alone['high']
    few_seeds = significance.both(comparison(sd=0.0), [(0.01**2, 4), (0.02**2, 4)])  # as Welch's test of the seeds
    free = (0.01**2 / 4 + 0.02**2 / 4) ** 2 / ((0.01**2 / 4) ** 2 / 3 + (0.02**2 / 4) ** 2 / 3)
    assert few_seeds['p'] == pytest.approx(2 * student.sf(0.01 / (0.0005 / 4) ** 0.5, free), rel=1e-2)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        found, variances = [], []
        taste = rng.normal(0, 0.2, size=(2, 200, 1))  # what users have in common over seeds
        for model in range(2):
            draws = 0.1 + taste[model] + rng.normal(0, 0.02, size=(1, 4)) + rng.normal(0, 0.02, size=(200, 4))
            found.append(draws.mean(axis=1))
            variances.append((draws.mean(axis=0).var(ddof=1), 4))
        difference = found[1] - found[0]
        one = comparison(difference.mean(), difference.std(ddof=1), 200)
        low, high = (significance.both(one, variances)[end] for end in ('low', 'high'))
        held += low * (one['ndcg@20'] - one['difference']) <= 0 <= high * (one['ndcg@20'] - one['difference'])
    assert 0.92 < held / 400 < 0.98


def test_some_experiments_have_more_to_compare_with():
    assert significance.others('main', None) == ['LIRDRec']
    assert significance.others('defaults', None) == ['LIRDRec', 'autofit']
    assert significance.others('defaults', 'EASE') == ['EASE']


def test_one_seed_says_nothing_of_seeds():
    table = pd.DataFrame([comparison() | {'experiment': 'e', 'dataset': 'd', 'variant': 'A', 'against': 'B'}])
    table['settings'] = 'x'
    rows = pd.DataFrame([{'experiment': 'e', 'dataset': 'd', 'variant': v, 'test_ndcg@20': 0.1} for v in 'ABB'])
    (one,) = significance.with_seeds(table, rows).to_dict('records')
    assert np.isnan(one['p']) and np.isnan(one['high'])
    assert list(one)[-1] == 'settings'


def test_what_is_kept_has_both_variances():
    table = pd.read_csv(significance.RESULTS)
    several = table[table['sd_seeds'].notna()]
    assert len(several) > 80
    assert (several['p'] >= several['p_users'] * 0.99).mean() > 0.95  # it may only fall where the users' was rounded
    assert several['low'].le(several['relative']).all() and several['high'].ge(several['relative']).all()
    again = significance.with_seeds(table.drop(columns=['sd_seeds', 'low', 'high', 'p']), significance.read(jobs.ROWS))
    pd.testing.assert_frame_equal(again, table, check_dtype=False, rtol=1e-2)
