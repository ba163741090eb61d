import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lirdrec_pyg.datasets._interactions import deduplicate, k_core, number
from lirdrec_pyg.typing import INTERACTS


def oracle(frame, k, keep):
    r"""The naive way: rows of raw ids that stay, in the order of the data."""
    ordered = frame.sort_values('time', kind='stable')
    frame = ordered.drop_duplicates(['user', 'item'], keep=keep)
    while True:
        users, items = frame['user'].value_counts(), frame['item'].value_counts()
        rows = frame[frame['user'].map(users).ge(k) & frame['item'].map(items).ge(k)]
        if len(rows) == len(frame):
            return rows.sort_values(['user', 'time', 'item'])
        frame = rows


rows = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 5)), max_size=80)


@settings(max_examples=200, deadline=None)
@given(rows, st.integers(0, 4), st.sampled_from(['last', 'first']))
def test_interactions_agree_with_pandas(rows, k, keep):
    frame = pd.DataFrame(rows, columns=['user', 'item', 'time'], dtype=np.int64)
    frame['rating'] = np.arange(len(frame)) % 5
    user_ids, item_ids = ([f'{name}{9 - i}' for i in range(8)] for name in 'ui')  # codes and ids have opposite orders
    user, item, time, rating = (frame[column].to_numpy() for column in frame)
    chosen = deduplicate(user, item, time, keep)
    chosen = chosen[k_core(user[chosen], item[chosen], k)]

    frame['user'] = frame['user'].map(dict(enumerate(user_ids)))
    frame['item'] = frame['item'].map(dict(enumerate(item_ids)))
    expected = oracle(frame, k, keep)
    assert len(chosen) == len(expected)
    if len(expected) == 0:
        return
    data, codes = number(user[chosen], item[chosen], user_ids, item_ids, time[chosen], rating[chosen])
    assert data['user'].raw_id == sorted(set(expected['user']))
    assert data['item'].raw_id == sorted(set(expected['item'])) == [item_ids[code] for code in codes]
    store = data[INTERACTS]
    users, items = store.edge_index.tolist()
    assert [data['user'].raw_id[i] for i in users] == expected['user'].tolist()
    assert [data['item'].raw_id[i] for i in items] == expected['item'].tolist()
    assert store.time.tolist() == expected['time'].tolist()
    assert store.rating.tolist() == expected['rating'].tolist()


def test_decimal_ids_are_ordered_by_value():
    user, item = np.array([0, 1, 2]), np.array([0, 0, 1])
    data, codes = number(user, item, ['10', '9', '100'], ['7', '30', '5'], cold_items=True)
    assert data['user'].raw_id == ['9', '10', '100']
    assert data['item'].raw_id == ['5', '7', '30'] and codes.tolist() == [2, 0, 1]
    assert data[INTERACTS].edge_index.tolist() == [[0, 1, 2], [1, 1, 2]]


def test_deduplicate_without_times_goes_by_position():
    user, item = np.array([1, 0, 1, 1]), np.array([2, 2, 2, 3])
    assert deduplicate(user, item).tolist() == [1, 2, 3]
    assert deduplicate(user, item, keep='first').tolist() == [0, 1, 3]
    with pytest.raises(ValueError, match=r'1 interactions repeat a pair of user and item \(first in row 2\)'):
        deduplicate(user, item, keep='error')
    with pytest.raises(ValueError, match=r"'duplicates' needs to be 'last', 'first' or 'error' \(got 'any'\)"):
        deduplicate(user, item, keep='any')
