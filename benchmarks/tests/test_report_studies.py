import pandas as pd
import pytest

from benchmarks.report import studies, tables


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, 'RESULTS', tmp_path)
    return tmp_path


def lines_of(text):
    return [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()][2:]


def test_startup_tells_epochs_and_seconds(results):
    row = {'dataset': 'fake', 'variant': 'LIRDRec', 'items': 'content', 'test_ndcg@20': 0.2}
    for share, epochs in ((90, 3), (95, 5), (100, 9)):
        row |= {f'epochs_to_{share}%': epochs, f'cpu_seconds_to_{share}%': 2.0 * epochs}
    pd.DataFrame([row | {'seed': 0}, row | {'seed': 1, 'test_ndcg@20': 0.4}]).to_csv(
        results / 'startup.csv', index=False
    )
    assert lines_of(studies.startup('fake')) == [
        ['LIRDRec (2)', 'content', '.3000 ± .1414', '3 / 6', '5 / 10', '9 / 18']
    ]  # fmt: skip


def test_simulations_stand_by_the_share(results):
    rows = [
        {'dataset': 'fake', 'variant': variant, 'seed': 0, 'share': share, 'strength': 3.0, 'lr': 1e-3}
        | {'test_ndcg@20': value}
        for variant, share, value in (('taste', 0.0, 0.5), ('taste', 1.0, 0.6), ('LIRDRec', 1.0, 0.4))
    ]
    pd.DataFrame(rows).to_csv(results / 'when_ids_pay.csv', index=False)
    assert lines_of(studies.when_ids_pay('fake')) == [
        ['one who knows the taste (1)', '.5000', '.6000'],
        ['LIRDRec (1)', 'not run', '.4000'],
    ]


def test_ways_of_the_dct_are_compared(results):
    rows = [
        {'dataset': 'fake', 'way': way, 'repeat': repeat, 'epochs': 5, 'width': 512, 'cpu_seconds': seconds}
        | {'largest_difference': 0.0}
        for way, seconds in (('once', 10.0), ('in each step', 15.0))
        for repeat in range(3)
    ]
    pd.DataFrame(rows).to_csv(results / 'dct_in_loop.csv', index=False)
    assert lines_of(studies.dct_in_loop()) == [
        ['fake, once (3)', '512', '2.0', '1.00', '0'],
        ['fake, in each step (3)', '512', '3.0', '1.50', '0'],
    ]


def test_features_have_a_cost_and_a_worth(results):
    row = {'dataset': 'fake', 'features': 'LSA', 'seed': 0, 'width': 128, 'items_per_s': 1234.5}
    pd.DataFrame([row | {'test_recall@20': 0.2, 'test_ndcg@20': 0.1}]).to_csv(results / 'feature_cost.csv', index=False)
    assert lines_of(studies.feature_cost()) == [['fake: LSA (1)', '128', '1,234', '.2000', '.1000']]


def test_variants_stand_against_the_first(results):
    rows = [
        {'experiment': 'PWC', 'dataset': 'fake', 'variant': variant, 'seed': 0, 'best_epoch': 7}
        | {'test_recall@20': value, 'test_ndcg@20': value}
        for variant, value in (('tau 0.1', 0.22), ('a', 0.2))
    ]
    pd.DataFrame(rows).to_csv(results / 'runs.csv', index=False)
    assert lines_of(studies.variants('PWC', 'fake', first='a')) == [
        ['tau 0.1 (1)', '.2200', '.2200', '+10.0%', '7'],
        ['a (1)', '.2000', '.2000', '', '7'],
    ]
    assert 'against another' in studies.variants('PWC', 'fake', first='another')


def test_equal_footing_has_a_line_for_each_model_and_width(results):
    rows = [
        {'experiment': 'equal footing', 'dataset': 'fake', 'variant': variant, 'seed': 0, 'test_ndcg@20': value}
        for variant, value in (
            ('item IDs alone, BPR, 64', 0.1),
            ('item IDs alone, softmax, 64', 0.2),
            ('LIRDRec, BPR, 192', 0.3),
        )
    ]
    pd.DataFrame(rows).to_csv(results / 'runs.csv', index=False)
    found = studies.equal_footing('fake')
    assert found.startswith('| test ndcg@20 (seeds) | BPR | softmax |')
    assert lines_of(found) == [
        ['item IDs alone, 64 wide', '.1000 (1)', '.2000 (1)'],
        ['LIRDRec, 192 wide', '.3000 (1)', 'not run'],
    ]


def test_without_rows_the_page_says_so(results):
    for name in ('startup-fake', 'feature_cost', 'when_ids_pay-fake', 'dct_in_loop'):
        assert '*No rows yet.*' in tables.render(f'<!-- table: {name} --><!-- end -->')
