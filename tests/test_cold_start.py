r"""Runs the cold start example as a user would."""

import csv

import pytest


@pytest.fixture
def run(run_script):
    return lambda *args: run_script('examples/cold_start.py', *args)


def read(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_quick_has_a_row_for_each_variant_and_seed_and_resumes(tmp_path, run):
    rows = tmp_path / 'rows.csv'
    args = ['--quick', '--model', 'LIRDRec', 'ContentKNN', 'FREEDOM', 'Popularity', '--rows', str(rows)]
    out = run(*args)
    table = read(rows)
    assert len(table) == 2 * 12  # seeds, variants
    assert len({tuple(list(row.values())[:5]) for row in table}) == len(table)
    for row in table:
        assert int(row['cold_items']) == 48  # of 240
        assert all(0 <= float(row[name]) <= 1 for name in ('cold_recall@20', 'cold_ndcg@20', 'all_recall@20'))
        assert float(row['all_recall@20']) <= float(row['cold_recall@20']) + 1e-9  # more items compete
        assert (int(row['best_epoch']) > 0) == (row['model'] in ('LIRDRec', 'FREEDOM'))
    mean = {}
    for row in table:
        mean.setdefault((row['model'], row['item_graph'], row['id_rows']), []).append(float(row['cold_recall@20']))
    mean = {key: sum(values) / len(values) for key, values in mean.items()}
    assert mean['LIRDRec', 'knn', ''] > 0.75 > mean['LIRDRec', 'shuffled', '']  # the sign of a wrong graph
    assert mean['ContentKNN', '', ''] > 0.75
    assert abs(mean['Popularity', '', ''] - 20 / 48) < 0.1  # chance
    assert 'LIRDRec, no item graph' in out and ' ± ' in out

    before = rows.read_bytes()
    again = run(*args)
    assert 'seed 0:' not in again and 'fake, 2 seeds' in again
    assert rows.read_bytes() == before


def test_plots_from_rows_alone(tmp_path, run):
    rows, figure = tmp_path / 'rows.csv', tmp_path / 'figures' / 'cold.png'
    run('--quick', '--model', 'ContentKNN', 'VBPR', '--rows', str(rows))
    assert len(read(rows)) == 2 * 4
    out = run('--rows', str(rows), '--plot-only', '--plot', str(figure))
    assert f'wrote {figure}' in out
    assert figure.read_bytes().startswith(b'\x89PNG')
    assert [path.name for path in figure.parent.iterdir()] == ['cold.png']
