import numpy as np
import pandas as pd
import pytest
import torch

from lirdrec_pyg import LIRDRec, fit, recommend
from lirdrec_pyg.datasets import InteractionTable
from lirdrec_pyg.transforms import DCT, InteractionGraph, ItemKNNGraph, LeaveLastOut
from lirdrec_pyg.typing import INTERACTS, ITEM, USER

ITEMS = pd.DataFrame(
    {
        'sku': ['kiwi', 'apple', 'plum', 'apple', None, 'fig'],
        'name': ['Kiwi', 'Apple', 'Plum', 'Apple again', 'Nobody', 'Fig'],
        'description': ['green', None, 'blue', '', '', 'sweet'],
        'photo': ['kiwi.jpg', '', None, 'x.jpg', 'y.jpg', 'fig.jpg'],
    }
)
ORDERS = pd.DataFrame(
    {
        'who': ['ann', 'bob', 'ann', 'bob', None, 'cid', 'ann', 'bob', 'cid'],
        'sku': ['kiwi', 'apple', 'plum', 'kiwi', 'kiwi', 'pear', 'kiwi', None, 'apple'],
        'when': [3.0, 1.0, 2.0, 5.0, 1.0, 1.0, 1.0, 2.0, 9.0],
        'stars': [5, 4, 3, 5, 5, 5, 2, 1, 4],
    }
)


def build(**kwargs):
    defaults = {'user': 'who', 'item': 'sku', 'time': 'when', 'rating': 'stars', 'text': ['name', 'description'],
                'image': 'photo'}  # fmt: skip
    return InteractionTable(ORDERS, ITEMS, **(defaults | kwargs))


def pairs(data):
    user, item = data[INTERACTS].edge_index.tolist()
    return [(data[USER].raw_id[u], data[ITEM].raw_id[i]) for u, i in zip(user, item, strict=True)]


def test_tables_become_data():
    with pytest.warns(UserWarning, match='left out: 1 items without an id'):
        table = build()
    assert table.item_ids == ['apple', 'fig', 'kiwi', 'plum']  # nobody bought the fig: it is part of the data
    assert table.texts == ['Apple', 'Fig sweet', 'Kiwi green', 'Plum blue']
    assert table.images == [None, 'fig.jpg', 'kiwi.jpg', None]
    data = table.to_hetero_data({'text': np.eye(4)})
    assert data[USER].raw_id == ['ann', 'bob', 'cid']
    assert data[ITEM].title == ['Apple', 'Fig', 'Kiwi', 'Plum']
    assert pairs(data) == [('ann', 'plum'), ('ann', 'kiwi'), ('bob', 'apple'), ('bob', 'kiwi'), ('cid', 'apple')]
    assert data[INTERACTS].time.tolist() == [2, 3, 1, 5, 9]  # ann's last kiwi counts
    assert data[INTERACTS].rating.tolist() == [3, 5, 4, 5, 4]
    assert data[ITEM].x_text.dtype == torch.float32
    assert repr(table) == 'InteractionTable(5 interactions, 3 users, 4 items)'


@pytest.mark.filterwarnings('ignore:left out')
def test_what_is_left_out_is_counted_with_examples():
    assert build().report == {
        'items without an id': (1, ['4']),
        'items with an id that came before': (1, ['apple']),
        'interactions without a user': (1, ['4']),
        'interactions without an item': (1, ['7']),
        "interactions with an item that 'items' lacks": (1, ['pear']),
        'interactions that repeat a pair': (1, ['ann kiwi']),
    }


@pytest.mark.filterwarnings('ignore:left out')
def test_options():
    assert pairs(build(duplicates='first').data)[0] == ('ann', 'kiwi')
    assert build(duplicates='first').data[INTERACTS].time.tolist()[0] == 1
    assert pairs(build(min_rating=4).data) == [('ann', 'kiwi'), ('bob', 'apple'), ('bob', 'kiwi'), ('cid', 'apple')]
    table = build(k_core=1)
    assert table.item_ids == ['apple', 'kiwi', 'plum']
    with pytest.raises(ValueError, match="'duplicates' is 'error', and 1 interactions repeat"):
        build(duplicates='error')
    with pytest.raises(ValueError, match=r"no interactions are left of 9 \('min_rating' 6"):
        build(min_rating=6)
    with pytest.raises(ValueError, match="'k_core' needs to be at least 0"):
        build(k_core=-1)
    with pytest.raises(ValueError, match="'min_rating' needs the name of a column"):
        build(min_rating=3, rating=None)


@pytest.mark.filterwarnings('ignore:left out')
@pytest.mark.parametrize('suffix', ['csv', 'tsv', 'parquet'])
def test_files(tmp_path, suffix):
    for name, frame in [('orders', ORDERS), ('items', ITEMS)]:
        path = tmp_path / f'{name}.{suffix}'
        if suffix == 'parquet':
            pytest.importorskip('pyarrow')
            frame.to_parquet(path)
        else:
            frame.to_csv(path, sep=',' if suffix == 'csv' else '\t', index=False)
    kwargs = {'user': 'who', 'item': 'sku', 'time': 'when', 'rating': 'stars', 'text': ['name', 'description']}
    table = InteractionTable(tmp_path / f'orders.{suffix}', str(tmp_path / f'items.{suffix}'), **kwargs)
    assert torch.equal(table.data[INTERACTS].edge_index, build().data[INTERACTS].edge_index)
    assert table.texts == build().texts
    assert table.report == build().report


def test_ids_and_times():
    items = pd.DataFrame({'item': [10, 9, 100]})
    orders = pd.DataFrame(
        {'user': [2.0, 1.0, None], 'item': [10, 9, 9], 'date': ['2024-01-02', '2024-01-01T12:00', '2024-01-01']}
    )
    with pytest.warns(UserWarning, match="1 interactions without a user \\('2'\\)"):
        table = InteractionTable(orders, items, time='date')
    assert table.item_ids == ['9', '10', '100']  # integers in their order
    assert table.data[USER].raw_id == ['1', '2']
    assert table.data[INTERACTS].time.tolist() == [1704110400, 1704153600]
    with pytest.raises(ValueError, match="'date' needs to be a number or a date \\(got 'soon' in row 1\\)"):
        InteractionTable(orders.assign(user=1, date=['2024-01-02', 'soon', '2024-05-03']), items, time='date')
    with pytest.raises(ValueError, match="'date' needs to be a number \\(got 'five' in row 0\\)"):
        InteractionTable(orders.assign(user=1, date=['five', '1', '2']), items, rating='date')


def test_refuses_missing_files_and_columns(tmp_path):
    with pytest.raises(FileNotFoundError, match="orders.csv' \\(argument 'interactions'\\)"):
        InteractionTable(tmp_path / 'orders.csv', ITEMS)
    with pytest.raises(ValueError, match="'interactions' lacks the column 'user' \\(found \\['who'"):
        InteractionTable(ORDERS, ITEMS, item='sku')
    with pytest.raises(ValueError, match="'items' lacks the column 'colour'"):
        build(text='colour')


@pytest.mark.filterwarnings('ignore:left out')
def test_features():
    table = build()
    has = torch.tensor([True, False, True, True])
    data = table.to_hetero_data({'text': torch.ones(4, 2), 'image': (torch.ones(4, 3), has)})
    assert data[ITEM].x_image[1].tolist() == [0, 0, 0]
    assert torch.equal(data[ITEM].has_image, has)
    assert 'has_text' not in data[ITEM]
    for features, message in [
        ({}, "'features' needs at least one modality"),
        ({'text': torch.ones(3, 2)}, r"'text' need to be a matrix of 4 rows, one for each item \(got shape \(3, 2\)\)"),
        ({'text': torch.tensor([[0.0], [1], [float('nan')], [1]])}, "NaN or Inf in row 2, item 'kiwi'"),
        ({'text': (torch.ones(4, 2), has[:3])}, r"mask of modality 'text' needs to be of shape \(4,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            table.to_hetero_data(features)


def test_a_shop_in_a_few_lines():
    generator = torch.Generator().manual_seed(0)
    items = pd.DataFrame({'item': [f'sku-{i}' for i in range(12)], 'name': [f'thing {i}' for i in range(12)]})
    orders = pd.DataFrame([{'user': f'u{u}', 'item': f'sku-{i}', 'time': t} for u in range(10)
                           for t, i in enumerate(torch.randperm(11, generator=generator)[:5].tolist())])  # fmt: skip
    table = InteractionTable(orders, items, time='time', text='name')
    data = ItemKNNGraph(k=3)(DCT()(table.to_hetero_data({'text': torch.randn(12, 8, generator=generator)})))
    train, val, _ = LeaveLastOut()(data)
    train = InteractionGraph()(train)
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8)
    fit(model, train, val, epochs=2, monitor='recall@5', progress=False)
    frame = recommend(model.encode(train), train, ['u3'], k=5)
    assert set(frame['item']) <= set(table.item_ids)


@pytest.mark.parametrize(
    ('column', 'text'),
    [
        (pd.Series(['a', None], dtype='category'), 'a'),
        (pd.Series([7, None], dtype='Int64'), '7'),
        (pd.Series([True, None], dtype='boolean'), 'True'),
        (pd.Series(pd.to_datetime(['2024-01-02', None])), '2024-01-02 00:00:00'),
        (pd.Series([1.5, None]), '1.5'),
    ],
    ids=lambda value: str(getattr(value, 'dtype', '')),
)
def test_texts_of_any_type_may_be_missing(column, text):
    orders = pd.DataFrame({'user': ['ann', 'bob'], 'item': ['x', 'y']})
    table = InteractionTable(orders, pd.DataFrame({'item': ['x', 'y'], 'name': column}), text='name')
    assert table.texts == table.data[ITEM].title == [text, '']


@pytest.mark.parametrize('dtype', ['uint32', 'int16', 'bool', 'Int64', 'uint64'])
def test_times_of_integers_are_int64(dtype):
    orders = pd.DataFrame({'user': [1, 1], 'item': ['x', 'y'], 'time': pd.Series([1, 0], dtype=dtype)})
    table = InteractionTable(orders, pd.DataFrame({'item': ['x', 'y']}), time='time')
    assert table.data[INTERACTS].time.dtype == torch.int64
    assert pairs(table.data) == [('1', 'y'), ('1', 'x')]


def test_refuses_times_beyond_int64():
    orders = pd.DataFrame({'user': [1, 1], 'item': ['x', 'y'], 'time': [5, 2**63]})
    with pytest.raises(ValueError, match=rf"'time' needs to be below 2\*\*63 \(got .*{2**63}.* in row 1\)"):
        InteractionTable(orders, pd.DataFrame({'item': ['x', 'y']}), time='time')


def test_a_missing_time_or_rating_is_left_out_as_a_missing_user_is(tmp_path):
    orders = pd.DataFrame({'user': ['a', 'b', 'c'], 'item': ['x'] * 3, 'date': ['2024-01-02', ' ', '2024-01-02'],
                           'stars': ['5', '4', '']})  # fmt: skip
    orders.to_csv(tmp_path / 'orders.csv', index=False)
    for table in (orders.replace({' ': None, '': None}), tmp_path / 'orders.csv'):
        with pytest.warns(UserWarning, match="1 interactions without a value of 'date'"):
            table = InteractionTable(table, pd.DataFrame({'item': ['x']}), time='date', rating='stars')
        assert table.report == {
            "interactions without a value of 'date'": (1, ['1']),
            "interactions without a value of 'stars'": (1, ['2']),
        }
        assert pairs(table.data) == [('a', 'x')]


@pytest.mark.parametrize(
    ('ids', 'difference'),
    [
        (['KIWI', 'FIG'], ": ids such as 'KIWI' and 'kiwi' differ in case"),
        (['7.0', '8.0'], ": ids such as '7.0' and '7' differ in a '.0' at the end"),
        (['007', '008'], ": ids such as '007' and '7' differ in zeros at the start"),
        (['ananas', 'pear'], ''),
    ],
)
def test_most_interactions_lost_is_more_than_a_warning(ids, difference):
    orders = pd.DataFrame({'user': ['a'] * 3, 'item': ['kiwi', *ids]})
    items = pd.DataFrame({'item': ['kiwi', 'fig', '7', '8']})
    message = rf"'max_unknown' is 0.5, and 2 of 3 interactions have an item that 'items' lacks, .*…\){difference}$"
    with pytest.raises(ValueError, match=message):
        InteractionTable(orders, items)
    with pytest.warns(UserWarning, match="2 interactions with an item that 'items' lacks"):
        assert pairs(InteractionTable(orders, items, max_unknown=0.7).data) == [('a', 'kiwi')]
    with pytest.raises(ValueError, match=r"'max_unknown' needs to be in \[0, 1\] \(got 2\)"):
        InteractionTable(orders, items, max_unknown=2)


def test_the_tables_may_name_the_item_column_differently():
    table = InteractionTable(pd.DataFrame({'user': [1], 'bought': ['x']}), pd.DataFrame({'sku': ['x', 'y']}),
                             item=('bought', 'sku'))  # fmt: skip
    assert pairs(table.data) == [('1', 'x')] and table.item_ids == ['x', 'y']
    assert table.texts == ['', '']


def test_a_comma_at_the_end_of_each_line_shifts_nothing(tmp_path):
    (tmp_path / 'orders.csv').write_text('user,item\nann,x,\nbob,y,\n')
    table = InteractionTable(tmp_path / 'orders.csv', pd.DataFrame({'item': ['x', 'y']}))
    assert pairs(table.data) == [('ann', 'x'), ('bob', 'y')]


@pytest.mark.parametrize('rating', [1e39, '1e39', '-1e39'])
def test_refuses_ratings_that_overflow(rating):
    orders = pd.DataFrame({'user': [1], 'item': ['x'], 'stars': [rating]})
    with pytest.raises(ValueError, match=r"'stars' needs to be at most 3.4e\+38 \(got .*1e\+?39.* in row 0\)"):
        InteractionTable(orders, pd.DataFrame({'item': ['x']}), rating='stars')


def test_refuses_columns_of_one_name():
    with pytest.raises(ValueError, match=r"'items' needs to have the column 'item' once \(found \['item', 'item'\]\)"):
        InteractionTable(pd.DataFrame({'user': [1], 'item': [1]}), pd.DataFrame([[1, 2]], columns=['item', 'item']))


@pytest.mark.filterwarnings('ignore:left out')
def test_features_of_a_data_frame_are_aligned_by_its_index():
    table = build()  # apple, fig, kiwi, plum
    x = pd.DataFrame({'a': [3.0, 1.0, 4.0, 2.0, 9.0], 'b': 1.0}, index=['kiwi', 'apple', 'plum', 'fig', 'pear'])
    assert table.to_hetero_data({'text': x})[ITEM].x_text[:, 0].tolist() == [1, 2, 3, 4]
    has = pd.Series({'plum': True, 'fig': False, 'kiwi': True, 'apple': True})
    data = table.to_hetero_data({'text': (x, has)})
    assert data[ITEM].has_text.tolist() == [True, False, True, True]
    with pytest.warns(UserWarning, match="1 items have no row in the features of modality 'text': they lack it"):
        data = table.to_hetero_data({'text': x.drop('fig')})
    assert data[ITEM].has_text.tolist() == [True, False, True, True]
    assert data[ITEM].x_text[:, 0].tolist() == [1, 0, 3, 4]
    for index in (range(5), ['kiwi', 'kiwi', 'apple', 'plum', 'fig']):
        with pytest.raises(ValueError, match=r"needs to hold the items' raw ids once, as 'apple' .* give"):
            table.to_hetero_data({'text': x.set_axis(index)})
    with pytest.raises(ValueError, match="features of modality 'text' need to be a matrix of numbers"):
        table.to_hetero_data({'text': x.assign(b='red')})
    with pytest.raises(ValueError, match="features of modality 'text' need to be a matrix of numbers"):
        table.to_hetero_data({'text': [['a']] * 4})


@pytest.mark.filterwarnings('ignore:left out')
@pytest.mark.parametrize('name', ['../../evil', 'items', 'type', 'half', 'a b'])
def test_refuses_names_that_modalities_can_not_have(name):
    with pytest.raises(ValueError, match='the name of a modality needs to be an identifier'):
        build().to_hetero_data({name: torch.ones(4, 2)})


@pytest.mark.filterwarnings('ignore:left out')
@pytest.mark.parametrize('value', [1e39, 3e38])
def test_refuses_features_that_are_too_large_to_sum(value):
    x = np.ones((4, 2))
    x[2, 1] = value
    with pytest.raises(ValueError, match=r"\(got values beyond 1e\+32 in row 2, item 'kiwi'\)"):
        build().to_hetero_data({'text': x})
    with pytest.raises(ValueError, match="'has_text' needs to be a bool mask"):
        build().to_hetero_data({'text': (np.ones((4, 2)), np.array([0, 1, 2, 1]))})
