import csv
import json
import re

import pandas as pd
import pytest

from benchmarks.quality import catalogues
from benchmarks.report import significance, speed, tables
from benchmarks.report.markdown import paired


def made(name):
    return tables.render(f'before <!-- table: {name} --> old <!-- end --> after')


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, 'RESULTS', tmp_path)
    return tmp_path


def runs(path, experiment, dataset, **variants):
    r"""Writes rows, one for each seed, whose metrics are all the given figures."""
    metrics = ['test_recall@10', 'test_recall@20', 'test_ndcg@10', 'test_ndcg@20']
    pd.DataFrame(
        [
            {'experiment': experiment, 'dataset': dataset, 'variant': variant, 'seed': seed}
            | {'settings': '{}', 'best_epoch': 3, 'seconds': 7.0, **dict.fromkeys(metrics, value)}
            for variant, values in variants.items()
            for seed, value in enumerate(values)
        ]
    ).to_csv(path / 'runs.csv', index=False)


def compared(path, *found):
    r"""Writes comparisons over two seeds."""
    rows = significance.read(path / 'runs.csv')
    digest = significance.digest(rows, 'LIRDRec', 'LIRDRec')  # all have the same settings
    given = {'seeds': 2, 'settings': digest, 'low': -0.1, 'high': 0.2}
    pd.DataFrame([given | {'p_users': one['p'] or 1e-9} | one for one in found]).to_csv(
        path / 'significance.csv', index=False
    )


def test_the_tables_are_made_of_the_rows():
    pages = tables.pages()
    assert len(pages) > 1
    for path in pages:
        text = path.read_text()
        assert tables.render(text) == text, f'{path.name}: run `python -m benchmarks.report.tables`'
    assert '<!-- table: ' in (tables.ROOT / 'README.md').read_text()


def test_the_readme_of_the_results_says_what_each_file_and_column_is():
    folder = tables.RESULTS.parent
    text = re.sub('```.*?```', '', (folder / 'README.md').read_text(), flags=re.DOTALL)
    words = set(re.findall(r'`([^`]+)`', text))
    metric = r'(val|test|cold|all|val_cold|held_out|others|new|known|new_among_new)_.+@\d+'
    for path in folder.rglob('*.csv'):
        assert path.name in words
        with path.open(newline='') as file:
            columns = next(csv.reader(file))
        known = re.compile(rf'{metric}|.+_(s|ms|us|mib|gib|gflops|ratio)|\d+|seconds_to_\d+%')
        assert [column for column in columns if column not in words and not known.fullmatch(column)] == [], path
    assert {path.stem for path in folder.rglob('*.npz')} <= set(catalogues.DATASETS)


def test_tables_without_rows_say_so(results):
    for name in ('cold-scientific', 'faithful', 'main-fake'):
        assert made(name) == f'before <!-- table: {name} -->\n\n*No rows yet.*\n\n<!-- end --> after'
    runs(results, 'main', 'fake', LIRDRec=[0.1])
    assert 'No rows yet' in made('main-other')
    assert 'No rows yet' in made('transfer-fake')
    assert 'No rows yet' not in made('main-fake')


def test_models_as_they_ship_are_ranked_where_all_were_run(results, monkeypatch):
    monkeypatch.setattr(tables, 'UNTUNED', ('fake', 'lastfm'))
    known = tables.experiments.EXPERIMENTS
    monkeypatch.setitem(known, 'defaults', lambda name: [{'variant': one} for one in ('LIRDRec', 'EASE')])
    runs(results, 'defaults', 'fake', LIRDRec=[0.1, 0.3], EASE=[0.4])
    found = made('defaults')
    assert '| model | mean rank | knows items by | fake (2 seeds) |' in found
    assert '| LIRDRec (paper) | 2.0 | content | .2000 ± .1414 |' in found
    assert '| EASE | 1.0 | IDs | **.4000 (1)** |' in found
    assert 'Not run yet: Last.fm.' in found
    runs(results, 'defaults', 'fake', LIRDRec=[0.1])
    other = pd.read_csv(results / 'runs.csv').assign(dataset='lastfm', variant='EASE')
    pd.concat([pd.read_csv(results / 'runs.csv'), other]).to_csv(results / 'runs.csv', index=False)
    found = made('defaults')
    assert 'mean rank' not in found  # no dataset has both
    assert '| EASE | IDs | **.1000** | not run |' in found
    assert '| LIRDRec (paper) | content | not run | **.1000** |' in found
    monkeypatch.setitem(known, 'defaults', lambda name: [{'variant': 'EASE'}])
    assert '| LIRDRec (paper) |  | content | too wide |' in made('defaults')


def test_autofit_stands_against_the_papers_and_the_best_with_ids(results):
    runs(results, 'defaults', 'scientific', autofit=[0.2, 0.2], LIRDRec=[0.1, 0.1], FREEDOM=[0.22, 0.22], BPRMF=[0.1])
    cells = {'experiment': 'defaults', 'dataset': 'scientific', 'against': 'autofit', 'p': 0.1}
    compared(results, {**cells, 'variant': 'FREEDOM'})
    line = next(line for line in made('autofit').splitlines() if line.startswith('| Scientific'))
    assert [cell.strip() for cell in line.split('|')[2:-1]] == [
        '.2000 ± .0000', '-50.0% (not tested)', 'FREEDOM: +10.0% (-10.0 to +20.0)'
    ]  # fmt: skip
    runs(results, 'defaults', 'scientific', LIRDRec=[0.1, 0.1])
    assert 'No rows yet' in made('autofit')


def test_models_are_ranked_and_tested(results):
    runs(results, 'main', 'fake', A=[0.3, 0.5], LIRDRec=[0.2, 0.2], B=[0.1])
    assert '| A (2) | **.4000 ± .1414** |' in made('main-fake')
    cells = {'experiment': 'main', 'dataset': 'fake', 'variant': 'A', 'against': 'LIRDRec'}
    compared(
        results,
        {**cells, 'p': 0.0123},
        {**cells, 'against': 'B', 'p': 0.5},
        {**cells, 'variant': 'B', 'dataset': 'other', 'p': 0.5},
        {**cells, 'variant': 'of old', 'p': 0.5},
    )
    lines = [line.split('|')[1:-1] for line in made('main-fake').splitlines() if line.startswith('|')][2:]
    assert [line[0].strip() for line in lines] == ['B (1)', 'LIRDRec (paper) (2)', 'A (2)']
    assert [line[4].strip() for line in lines] == ['.1000', '*.2000 ± .0000*', '**.4000 ± .1414**']
    assert [line[5].strip() for line in lines] == ['', '', '-10.0 to +20.0 %']
    assert [line[6].strip() for line in lines] == ['', '', '0.01']


@pytest.mark.parametrize(('experiment', 'name'), [('main', 'main-fake'), ('ablation', 'ablation-fake')])
def test_coverage_and_popularity_stand_where_rows_have_them(results, experiment, name):
    runs(results, experiment, 'fake', LIRDRec=[0.1, 0.1], softmax=[0.2])
    assert 'coverage@20' not in made(name)
    rows = pd.read_csv(results / 'runs.csv')
    rows['test_popularity@20'] = [100.0, 121.2, None]
    rows['test_coverage@20'] = [0.4, None, 0.5]
    rows.to_csv(results / 'runs.csv', index=False)
    lines = [line.split(' | ') for line in made(name).splitlines() if line.startswith('| ')]
    found = {line[0].strip('| ').replace(' (paper)', ''): [cell.strip('| ') for cell in line[-2:]] for line in lines}
    assert next(iter(found.values())) == ['coverage@20', 'popularity@20']
    assert found['LIRDRec (2)'] == ['40%', '111']
    assert next(value for name, value in found.items() if name.startswith('softmax')) == ['50%', '']


def test_ablations_stand_in_the_order_of_the_experiment(results):
    names = ['PCA', 'one of old', 'no PWC', 'softmax', 'LIRDRec']
    runs(results, 'ablation', 'fake', **dict.fromkeys(names, (0.2, 0.3)))
    lines = [line.split('|')[1].strip() for line in made('ablation-fake').splitlines() if line.startswith('|')]
    assert lines[2:] == [
        f'{name} (2)'
        for name in ('LIRDRec', 'softmax for BPR', 'views side by side, no weights', 'PCA for the DCT', 'one of old')
    ]
    runs(results, 'item IDs', 'fake', **dict.fromkeys(['item IDs alone', 'LIRDRec'], (0.2, 0.3)))
    lines = [line.split('|')[1].strip() for line in made('item_ids-fake').splitlines() if line.startswith('|')]
    assert lines[2:] == ['LIRDRec (2)', 'item IDs in place of its content (2)']


def test_tiny_probabilities_are_not_zero():
    assert [tables.probability(p) for p in (0.0, 1e-30, 2.34e-10, 0.0123, 1.0)] == [
        '< 1e-12', '< 1e-12', '2e-10', '0.01', '1',
    ]  # fmt: skip


def test_probabilities_are_corrected_for_their_number(results):
    assert tables.holm([0.03, 0.01, 0.02, 0.5]) == pytest.approx([0.06, 0.04, 0.06, 0.5])
    assert tables.holm([0.9, 0.8]) == [1.0, 1.0]
    assert tables.holm([]) == []
    names = ['softmax', 'PCA', 'other']
    cells = {'experiment': 'ablation', 'dataset': 'fake', 'against': 'LIRDRec'}
    runs(results, 'ablation', 'fake', LIRDRec=[0.1, 0.2], **dict.fromkeys(names, (0.1, 0.2)))
    rows = [{**cells, 'variant': name, 'p': p} for name, p in zip(names, (0.02, 0.01, 0.2), strict=True)]
    compared(results, *rows)
    of_both = '-10.0 to +20.0 %'
    assert tables.compared('ablation', 'fake') == {
        name: (of_both, p) for name, p in zip(names, ('0.04', '0.03', '0.2'), strict=True)
    }
    assert tables.compared('ablation', 'none') == {}
    compared(results, *(row | {'seeds': 1} for row in rows[:1]))
    assert tables.compared('ablation', 'fake') == {'softmax': (of_both, '0.02 (of 1)')}
    compared(results, rows[0] | {'p': None, 'p_users': 0.5, 'low': None, 'high': None})
    assert tables.compared('ablation', 'fake') == {'softmax': ('', '0.5 (users alone)')}
    other = pd.read_csv(results / 'runs.csv').replace({'settings': {'{}': '{"fit": {}}'}})
    other.to_csv(results / 'runs.csv', index=False)
    assert tables.compared('ablation', 'fake') == {}  # what was tested was of other settings


def test_epochs_without_a_baseline_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, 'RESULTS', tmp_path)
    columns = ['competitor', 'size', 'epoch_and_validation_s', 'times_faster', 'device']
    here, there = list(speed.MACHINES)[:2]
    rows = [('straightforward', 'baby', 30, 1, here), ('bf16', 'baby', 10, 3, here), ('bf16', 'baby', 8, 3.5, here)]
    rows += [('bf16', 'baby', 2, None, here), ('fp32', 'baby', 2, None, here), ('bf16', 'elec', 99, 1, here)]
    rows += [('bf16', 'baby', 5, 4, there), ('bf16', 'baby', 7, 7, 'another')]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / 'train_epoch.csv', index=False)
    found = speed.epoch()
    assert '| straightforward | 30.00 | 1.00 |  |' in found
    assert '| bf16 | 9.00 | 3.00 – 3.50 | 5.00 | 4.00 |' in found
    assert 'fp32' not in found and 'nan' not in found


def test_the_table_of_electronics_is_of_what_was_run_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, 'RESULTS', tmp_path)
    row = {'interactions': 10**6, 'stage': 'train', 'minutes': 30.0, 'peak_gib': 2.0, 'measured': False}
    curve = row | {'interactions': 10**7, 'minutes': 400.0, 'measured': True}
    rows = [one | {'told': json.dumps({'epochs': 40})} for one in (row | {'minutes': 50.0}, row, curve)]
    pd.DataFrame(rows).to_csv(tmp_path / 'electronics.csv', index=False)
    found = speed.electronics()
    assert '| training | 30.0 | 2.0 | epochs 40 |' in found  # the newest row
    assert '| all | 30.0 | 2.0 |  |' in found
    assert '400' not in found


def test_changes_are_relative(results):
    runs(results, 'ablation', 'fake', LIRDRec=[0.19, 0.21], softmax=[0.21, 0.23])
    assert '| softmax for BPR (2) | .2200 ± .0141 | .2200 ± .0141 | +10.0% |  |  | 3 |' in made('ablation-fake')
    names = {'LightGCN': [0.2], 'content': [0.3], 'noise 2': [0.25], 'permute 0.25': [0.1], 'columns 0.02': [0.2]}
    runs(results, 'transfer', 'fake', **names, **{'titles alone': [0.2]})
    found = made('transfer-fake')
    assert '| LIRDRec: all content (1) | .3000 | .3000 | +50.0% |' in found
    assert '| noise of 2 times the length of the features (1) | .2500 | .2500 | +25.0% |' in found
    assert '| 25% of the items with traded features (1) | .1000 | .1000 | -50.0% |' in found
    assert '| 2% of the columns (1) |' in found
    assert '| titles alone (1) |' in found


def test_effects_stand_beside_one_another(results):
    runs(results, 'ablation', 'scientific', **{'LIRDRec': [0.2] * 3, 'no transform': [0.22] * 3, 'PCA': [0.1] * 3})
    cells = {'experiment': 'ablation', 'dataset': 'scientific', 'against': 'LIRDRec', 'p': 0.1}
    compared(results, {**cells, 'variant': 'no transform', 'seeds': 3}, {**cells, 'variant': 'PCA'})
    lines = tables.effects('ablation', ('no transform', 'PCA', 'no PWC')).splitlines()[2:]
    assert lines == [
        '| no DCT | +10.0% (-10.0 to +20.0) |',
        '| PCA for the DCT | -50.0% (-10.0 to +20.0, 2 seeds) |',
        '| views side by side, no weights | not run |',
    ]


def test_preset_is_compared_on_each_dataset(results):
    runs(results, 'preset', 'fake', LIRDRec=[0.19, 0.21], SoftmaxLIRDRec=[0.21, 0.23])
    rows = pd.read_csv(results / 'runs.csv')
    rows.loc[rows['variant'] == 'LIRDRec', 'seconds'] *= 3
    alone = rows.assign(dataset='alone')[rows['variant'] == 'LIRDRec']  # whose other half has no rows yet
    other = rows.assign(dataset='other', **{'test_ndcg@20': 0.2})
    pd.concat([rows, other, alone]).to_csv(results / 'runs.csv', index=False)
    found = made('preset')
    assert '| fake (2) | .2000 ± .0141 | .2200 ± .0141 | .2000 ± .0141 | .2200 ± .0141 | +10.0% |  |  | 3.0 |' in found
    assert '| mean |  |  |  |  | +5.0% |  |  |  |' in found
    assert '| median |  |  |  |  | +5.0% |  |  |  |' in found
    assert 'alone' not in found
    rows = pd.read_csv(results / 'runs.csv').assign(cpu_seconds=[4.0, 4.0, 2.0, 2.0] * 2 + [None] * 2)
    rows.to_csv(results / 'runs.csv', index=False)
    assert '| +10.0% |  |  | 2.0 |' in made('preset')


def test_candidates_are_told_by_validation(results):
    runs(results, 'preset, candidates', 'fake', **{'LIRDRec, 2': [0.2, 0.9], 'LIRDRec, 1': [0.3]})
    rows = pd.read_csv(results / 'runs.csv')
    settings = [json.dumps({'model': {'num_layers': n}, 'fit': {'lr': 1e-3}}) for n in (3, 3, 2)]
    rows.assign(model='LIRDRec', settings=settings, **{'val_ndcg@20': [0.2, 0.9, 0.1]}).to_csv(
        results / 'runs.csv', index=False
    )
    lines = made('candidates').strip().splitlines()
    assert '| fake: LIRDRec | layers 2, learning rate 0.001 | .1000 |' in lines
    assert '| fake: LIRDRec | layers 3, learning rate 0.001 | **.2000** |' in lines


def test_sequential_variants_stand_beside_their_likes(results):
    runs(results, 'preset, hidden', 'fake', **{'LIRDRec': [0.2], 'SoftmaxLIRDRec': [0.3], 'LIRDRec, history': [0.25]})
    lines = made('sequential-fake').strip().splitlines()
    assert [line.split(' (')[0] for line in lines[4:7]] == [
        '| LIRDRec', '| LIRDRec with the latest items', '| SoftmaxLIRDRec'
    ]  # fmt: skip
    assert '| .2500 | +25.0% |' in lines[5]


def test_ours_as_it_stands_is_set_against_both_tuned(results):
    runs(results, 'preset, hidden', 'fake', LIRDRec=[0.19, 0.21], SoftmaxLIRDRec=[0.24, 0.26])
    tuned = pd.read_csv(results / 'runs.csv')
    assert 'No rows yet' in made('untuned')
    runs(results, 'preset, untuned', 'fake', SoftmaxLIRDRec=[0.22])
    pd.concat([tuned, pd.read_csv(results / 'runs.csv')]).to_csv(results / 'runs.csv', index=False)
    assert '| fake (1) | .2200 | .2200 | +10.0% | .2000 ± .0141 | .2500 ± .0141 |' in made('untuned')


def test_published_sets_stand_beside_what_is_known(results):
    runs(results, '', 'baby', LIRDRec=[0.1, 0.2])
    rows = pd.read_csv(results / 'runs.csv').assign(model='LIRDRec', settings='{}')
    other = rows.assign(settings='{"fit": {}}', **{'test_recall@20': 0.9})
    pd.concat([rows, other]).to_csv(results / 'runs.csv', index=False)
    found = made('published')
    assert '| baby (2) | .1500 ± .0707 / .1500 ± .0707 | .1028 / .0455 | .1055 / .0458 |' in found
    assert '| elec (0) | not run | .0667 / .0304 | .0674 / .0306 |' in found


def test_bias_is_a_ratio_in_each_condition(results):
    cells = {'dataset': 'fake', 'parts': 'both', 'model': 'VBPR', 'keep': 1.0, 'loss': 'bpr', 'optimizer': 'adam'}
    cells |= {'init': 'own', 'id_scale': 1.0, 'feature_norm': 'own', 'id_grad': 0.1, 'id_move': 0.2}
    cells |= {'recall': 0.2, 'recall_ids': 0.1, 'recall_features': None}
    conditions = [
        {'feature_grad': 0.2, 'feature_move': 0.4},
        {'feature_grad': 3.0, 'feature_move': 7.0, 'optimizer': 'sgd', 'keep': 0.5},
        {'parts': 'ids'},
    ]
    frame = pd.DataFrame([{**cells, **changed, 'seed': seed} for changed in conditions for seed in (0, 1)])
    frame.to_csv(results / 'gradient_bias.csv', index=False)
    lines = [line for line in made('bias-fake').splitlines() if line.startswith('|')][2:]
    assert lines == [
        '| VBPR (2) | 2 | 2 | .2000 ± .0000 |  | .1000 ± .0000 |',
        '| VBPR, 50% of the interactions, SGD (2) | 30 | 35 | .2000 ± .0000 |  | .1000 ± .0000 |',
    ]
    pd.concat([frame, frame.assign(lr=3.0)]).to_csv(results / 'gradient_bias.csv', index=False)
    with pytest.raises(ValueError, match='rows need to differ in'):
        made('bias-fake')


def test_weights_are_the_last_and_warnings_counted(results):
    pd.DataFrame(
        [
            {'dataset': 'fake', 'variant': 'ema', 'seed': seed, 'epoch': epoch, 'view': view, 'mean': mean, 'std': 0.1}
            | {'warning': 'collapsed' if seed else ''}
            for seed in (0, 1)
            for epoch, weight in ((1, 0.5), (2, 0.9))
            for view, mean in (('text', weight), ('shared', 1 - weight))
        ]
    ).to_csv(results / 'pwc.csv', index=False)
    assert "| 'ema' (2) | 0.90 ± 0.10 | 0.10 ± 0.10 | 1 |" in made('pwc-fake')


def test_cold_items_stand_beside_chance(results):
    pd.DataFrame(
        [
            {'dataset': 'fake', 'model': 'LIRDRec', 'item_graph': graph, 'id_rows': '', 'seed': 0, 'cold_items': 40}
            | dict.fromkeys(['cold_recall@20', 'cold_ndcg@20', 'all_recall@20', 'all_ndcg@20'], 0.25)
            for graph in ('knn', 'none', 'shuffled')
        ]
    ).to_csv(results / 'cold.csv', index=False)
    names = [line.split('|')[1].strip() for line in made('cold-fake').splitlines() if line.startswith('|')]
    assert names[2:] == [
        'LIRDRec (1)', 'LIRDRec, no item graph (1)', 'LIRDRec, shuffled item graph (1)', 'by chance',
    ]  # fmt: skip
    assert '| by chance | .5000 |' in made('cold-fake')
    assert '| LIRDRec, no item graph (1) | .2500 | +.0000 | .2500 |' in made('cold-fake')
    assert '| LIRDRec, no item graph (1) |' in tables.cold('fake', tables.SHORT)
    assert 'shuffled' not in tables.cold('fake', tables.SHORT)
    twice = pd.read_csv(results / 'cold.csv')
    pd.concat([twice, twice.assign(settings='others')]).to_csv(results / 'cold.csv', index=False)
    with pytest.raises(ValueError, match='rows need to differ in'):
        made('cold-fake')


def test_seeds_are_paired():
    values, base = pd.Series([0.3, 0.5, 0.4, 9], [0, 1, 2, 7]), pd.Series([0.3, 0.1, 0.2], [2, 0, 1])
    assert paired(values, base) == '+.2000 ± .1000 (p 0.07)'
    assert paired(base, values) == '-.2000 ± .1000 (p 0.07)'
    assert paired(base, base) == '+.0000'
    assert paired(values[:1], base) == '+.2000'


def test_users_folded_in_stand_beside_those_trained_with(results):
    pd.DataFrame(
        [
            {'dataset': 'fake', 'method': method, 'seed': seed, 'seconds': seconds}
            | dict.fromkeys(['held_out_recall@20', 'held_out_ndcg@20'], value + step * seed)
            for method, value, step, seconds in [
                ('trained with them', 0.3, 0.1, 40),
                ('folded in (none)', 0.2, 0.12, 0.004),
            ]
            for seed in range(2)
        ]
    ).to_csv(results / 'fold_in.csv', index=False)
    found = made('fold_in-fake')
    assert '| trained with them (2) | .3500 ± .0707 |  | .3500 ± .0707 |  | 40 |' in found
    assert '| folded in (2) | .2600 ± .0849 | -.0900 ± .0141 (p 0.07) |' in found
