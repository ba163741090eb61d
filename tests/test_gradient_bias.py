r"""Runs the gradient bias example as a user would."""

import csv

import pytest


@pytest.fixture
def run(run_script):
    return lambda *args: run_script('examples/gradient_bias.py', *args)


def read(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_quick_has_rows_for_each_source_and_resumes(tmp_path, run):
    rows = tmp_path / 'rows.csv'
    args = ['--quick', '--loss', 'bpr', 'softmax', '--rows', str(rows)]
    out = run(*args)
    assert out.count('best recall@20') == 2 * 7  # losses, parts of all models
    table = read(rows)
    sources = {}
    for row in table:
        sources.setdefault((row['model'], row['parts'], row['loss']), set()).add(row['name'])
    projections = {'projections.image', 'projections.text'}
    encoders = {'encoders.image', 'encoders.text', 'shared_encoder'}
    for loss in ('bpr', 'softmax'):
        for model in ('VBPR', 'FREEDOM'):
            assert sources[model, 'both', loss] == {'item'} | projections
            assert sources[model, 'ids', loss] == {'item'}
        assert sources['VBPR', 'features', loss] == projections
        assert sources['LIRDRec', 'both', loss] == {'encoders.id.weight'} | encoders
        assert sources['LIRDRec', 'features', loss] == encoders
    assert len(table) == 3 * sum(map(len, sources.values()))  # epochs
    for row in table:
        assert float(row['item_grad']) > 0 and float(row['item_update']) > 0
        assert 0 < float(row['active']) <= 1 and 0 <= float(row['recall']) <= 1
        assert (row['recall_ids'] != '') == (row['parts'] == 'both' and row['model'] != 'FREEDOM')

    before = rows.read_bytes()
    assert run(*args).count('found in') == 2 * 7
    assert rows.read_bytes() == before


def test_initialisation_scale_optimiser_and_density(tmp_path, run):
    rows = tmp_path / 'rows.csv'
    args = ['--quick', '--model', 'VBPR', '--parts', 'both', '--optimizer', 'sgd', '--sgd-lr', '0.001']
    run(
        *args,
        '--init',
        'matched',
        '--id-scale',
        '1',
        '10',
        '--feature-norm',
        'unit',
        '--keep',
        '1',
        '0.5',
        '--rows',
        str(rows),
    )
    last = [row for row in read(rows) if row['epoch'] == '3']
    norms = {(row['keep'], row['id_scale'], row['name']): float(row['norm']) for row in last}
    for keep in ('1.0', '0.5'):
        features = (norms[keep, '1.0', 'projections.image'] + norms[keep, '1.0', 'projections.text']) / 2
        assert norms[keep, '1.0', 'item'] == pytest.approx(features, rel=0.01)  # the rate is too small to move them
        assert norms[keep, '10.0', 'item'] == pytest.approx(10 * features, rel=0.01)
    density = {row['keep']: float(row['interactions_per_item']) for row in last}
    assert density['0.5'] == pytest.approx(density['1.0'] / 2, rel=0.01)


def test_diverging_runs_stop_nothing(tmp_path, run):
    rows = tmp_path / 'rows.csv'
    args = [
        '--quick',
        '--model',
        'VBPR',
        '--parts',
        'both',
        '--optimizer',
        'sgd',
        '--sgd-lr',
        '1e25',
        '--rows',
        str(rows),
    ]
    assert 'finite' in run(*args)
    assert not rows.exists()


def test_plots_from_rows_alone(tmp_path, run):
    rows, figure = tmp_path / 'rows.csv', tmp_path / 'figures' / 'bias.png'
    run('--quick', '--model', 'VBPR', 'LIRDRec', '--rows', str(rows))
    out = run('--rows', str(rows), '--plot-only', '--plot', str(figure))
    assert out.count('wrote') == 2
    assert sorted(path.name for path in figure.parent.iterdir()) == ['bias-conditions.png', 'bias-fake.png']
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in figure.parent.iterdir())
