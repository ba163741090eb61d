import numpy as np
import pandas as pd
import pytest
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
