import re

import pandas as pd
import pytest

from benchmarks.report import significance, tables, values


@pytest.fixture
def folder(tmp_path):
    rows = [
        ('main', 'fake', 'LIRDRec', (0.19, 0.21)),
        ('main', 'fake', 'FREEDOM', (0.22, 0.22)),
        ('preset', 'fake', 'LIRDRec', (0.2, 0.2)),
        ('preset', 'fake', 'SoftmaxLIRDRec', (0.22, 0.22)),
        ('preset', 'other', 'LIRDRec', (0.2, 0.2)),
        ('preset', 'other', 'SoftmaxLIRDRec', (0.3, 0.3)),
        ('defaults', 'fake', 'autofit', (0.3,)),
        ('defaults', 'fake', 'LIRDRec', (0.2,)),
        ('defaults', 'other', 'autofit', (0.1,)),
        ('defaults', 'other', 'LIRDRec', (0.2,)),
        ('transfer', 'fake', 'content', (0.3,)),
        ('transfer', 'fake', 'LightGCN', (0.2,)),
        ('transfer', 'fake', 'noise 2', (0.1,)),
        ('transfer', 'fake', 'columns 0.01', (0.1,)),
        ('item IDs', 'fake', 'LightGCN, as wide', (0.25,)),
    ]
    pd.DataFrame(
        [
            {'experiment': experiment, 'dataset': dataset, 'variant': variant, 'seed': seed, 'settings': '{}'}
            | {'test_ndcg@20': value, 'test_recall@20': 2 * value, 'val_recall@20': 3 * value}
            for experiment, dataset, variant, found in rows
            for seed, value in enumerate(found)
        ]
    ).to_csv(tmp_path / 'runs.csv', index=False)
    found = significance.read(tmp_path / 'runs.csv')
    one = {'experiment': 'main', 'dataset': 'fake', 'variant': 'FREEDOM', 'against': 'LIRDRec', 'seeds': 2}
    one |= {'p_users': 0.1, 'p': 0.2, 'low': -0.05, 'high': 0.25}
    one['settings'] = significance.digest(found, 'FREEDOM', 'LIRDRec')
    pd.DataFrame([one]).to_csv(tmp_path / 'significance.csv', index=False)
    return tmp_path


@pytest.mark.parametrize(
    ('cells', 'value'),
    [
        ('ndcg; main; fake; FREEDOM', '.2200'),
        ('recall; main; fake; FREEDOM', '.4400'),
        ('validation; main; fake; FREEDOM', '.6600'),
        ('change; main; fake; FREEDOM', '+10.0 %'),
        ('change; main; fake; LIRDRec; FREEDOM', '-9.1 %'),
        ('change; main; fake; MGCN', 'not run'),
        ('across; fake; preset; SoftmaxLIRDRec; main; LIRDRec', '+10.0 %'),
        ('between; main; fake; FREEDOM', '-5.0 to +25.0 %'),
        ('between; main; fake; LIRDRec; FREEDOM', 'not run'),
        ('widest; main; fake; FREEDOM', '25.0 %'),
        ('gain; preset; mean', '+30.0 %'),
        ('gain; preset; mean; other', '+10.0 %'),
        ('untuned; ahead; autofit; LIRDRec', '1 of 2'),
        ('untuned; mean; autofit; LIRDRec', '+0.0 %'),
        ('untuned; mean; autofit; EASE', 'not run'),
        ('crossing; fake; noise', '1.0'),
        ('crossing; fake; noise; LightGCN, as wide', '0.5'),
        ('crossing; fake; columns', '10.0%'),
        ('crossing; fake; permute', 'nowhere'),
    ],
)
def test_numbers_in_sentences_are_those_of_the_rows(cells, value, folder):
    text = f'It is <!-- value: {cells} -->of old<!-- / -->, we say.'
    assert values.render(text, folder) == f'It is <!-- value: {cells} -->{value}<!-- / -->, we say.'


def test_numbers_of_cold_items_and_gradients(tmp_path):
    cold = [
        {'dataset': 'fake', 'model': model, 'item_graph': 'knn', 'id_rows': ids, 'seed': seed, 'cold_recall@20': value}
        for model, ids, found in (('LIRDRec', '', (0.3, 0.5)), ('FREEDOM', 'zero', (0.1, 0.2)))
        for seed, value in enumerate(found)
    ]
    pd.DataFrame(cold).to_csv(tmp_path / 'cold.csv', index=False)
    assert values.cold(tmp_path, 'fake', 'LIRDRec, knn', 'cold_recall@20') == '.4000'
    found = values.cold_against(tmp_path, 'fake', 'LIRDRec, knn', 'FREEDOM, knn, zero', 'cold_recall@20')
    assert found.startswith('+.2500 ± .0707')
    with pytest.raises(FileNotFoundError, match='VBPR'):
        values.cold_rows(tmp_path, 'fake', 'VBPR, knn')
    plain = {'dataset': 'fake', 'model': 'VBPR', 'parts': 'both', 'keep': 1.0, 'loss': 'bpr', 'optimizer': 'adam'}
    plain |= {'init': 'own', 'id_scale': 1.0, 'feature_norm': 'own', 'id_grad': 0.5, 'feature_grad': 1.0}
    plain |= {'recall': 0.3, 'recall_ids': 0.1}
    ids = plain | {'parts': 'ids', 'recall': 0.2}
    pd.DataFrame([plain, plain | {'feature_norm': 'unit', 'feature_grad': 20.0, 'keep': 0.5}, ids]).to_csv(
        tmp_path / 'gradient_bias.csv', index=False
    )
    assert values.bias(tmp_path, 'fake', 'VBPR', 'grad') == '2'
    assert values.bias(tmp_path, 'fake', 'VBPR', 'grad', '1000') == '2,000'
    assert values.bias(tmp_path, 'fake', 'VBPR', 'grad', '1', 'feature_norm=unit', 'keep=0.5') == '40'
    assert values.bias_recall(tmp_path, 'fake', 'VBPR') == '.3000'
    assert values.bias_recall(tmp_path, 'fake', 'VBPR', 'recall_ids') == '.1000'
    assert values.alone(tmp_path, 'fake', 'VBPR', 'ids') == '.2000'
    with pytest.raises(FileNotFoundError, match='keep'):
        values.bias(tmp_path, 'fake', 'VBPR', 'grad', '1', 'keep=0.25')


def test_a_number_without_a_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got 'nothing'"):
        values.render('<!-- value: nothing; a -->1<!-- / -->', tmp_path)


def test_lines_cross_where_the_difference_is_zero():
    assert values.crossings([0, 1, 2, 4], [2, 1, -1, 1]) == pytest.approx([1.5, 3])
    assert values.crossings([0, 1], [2, 1]) == []


def test_no_line_begins_with_a_number():
    for page in tables.pages():  # it would be HTML, not a part of its paragraph
        assert re.findall(r'^\s*<!-- value.*', page.read_text(), re.MULTILINE) == [], page.name
