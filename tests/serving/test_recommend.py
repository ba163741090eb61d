from copy import copy

import numpy as np
import pandas as pd
import pytest
import torch

from lirdrec_pyg import Embeddings, Retriever, recommend
from lirdrec_pyg.typing import INTERACTS


@pytest.fixture
def emb():
    return Embeddings(torch.randn(64, 4), torch.randn(48, 4))


def test_equals_brute_force_and_leaves_out_what_was_seen(splits, emb):
    train = splits[0]
    table = recommend(emb, train, ['user-5', 'user-2'], k=4, batch_size=1)
    assert list(table.columns) == ['user', 'rank', 'item', 'title', 'score']
    assert table['user'].tolist() == ['user-5'] * 4 + ['user-2'] * 4
    user, item = train[INTERACTS].edge_index
    for u in (5, 2):
        score = emb.user[u] @ emb.item.t()
        score[item[user == u]] = float('-inf')
        own = table[table['user'] == f'user-{u}']
        best = score.topk(4)
        assert own['item'].tolist() == [f'item-{i}' for i in best.indices.tolist()]
        assert own['title'].tolist() == [train['item'].title[i] for i in best.indices.tolist()]
        assert own['score'].to_numpy() == pytest.approx(best.values.numpy(), abs=1e-5)
        assert own['rank'].tolist() == [1, 2, 3, 4]


def test_all_items_for_a_user(splits, emb):
    train = splits[0]
    count = int((train[INTERACTS].edge_index[0] == 3).sum())
    assert len(recommend(emb, train, ['user-3'], k=48)) == 48 - count
    assert len(recommend(emb, train, ['user-3'], k=48, exclude_seen=False)) == 48
    cold = torch.zeros(48, dtype=torch.bool)
    cold[[40, 41]] = True
    assert set(recommend(emb, train, ['user-3'], k=5, exclude_seen=False, candidates=cold)['item']) == {
        'item-40',
        'item-41',
    }


def test_saves_as_csv_and_parquet(splits, emb, tmp_path):
    table = recommend(emb, splits[0], ['user-0', 'user-1'], k=3)
    table.to_csv(tmp_path / 'top.csv', index=False)
    table.to_parquet(tmp_path / 'top.parquet')
    assert pd.read_csv(tmp_path / 'top.csv')['item'].tolist() == table['item'].tolist()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / 'top.parquet'), table)


def test_excludes_what_was_seen_where_it_is_repeated_or_scored_best(splits, emb):
    train = copy(splits[0])
    train[INTERACTS].edge_index = train[INTERACTS].edge_index.repeat(1, 2)
    for batch_size in (1, 7, 1024):
        table = recommend(emb, train, train['user'].raw_id, k=48, batch_size=batch_size)
        shown = set(zip(table['user'], table['item'], strict=True))
        seen = {(f'user-{u}', f'item-{i}') for u, i in train[INTERACTS].edge_index.t().tolist()}
        assert not shown & seen and len(shown) == len(table) == 64 * 48 - len(seen)
        assert table.groupby('user')['score'].apply(lambda score: score.is_monotonic_decreasing).all()


def test_refuses(splits, emb):
    train = splits[0]
    with pytest.raises(ValueError, match=r"'k' needs to be in \[1, 48\] \(got 0\)"):
        recommend(emb, train, ['user-0'], k=0)
    with pytest.raises(ValueError, match=r"unknown user ids \(got 1, first: 'nobody'\)"):
        recommend(emb, train, ['user-1', 'nobody'])
    with pytest.raises(ValueError, match=r'unknown user ids \(got 1, first: 5\)'):  # no node id
        recommend(emb, train, [5])
    with pytest.raises(ValueError, match=r'user ids need to be raw ids \(got a tensor\)'):
        recommend(emb, train, torch.tensor([5]))
    with pytest.raises(ValueError, match=r'ids need to be of one dimension \(got 2\)'):
        recommend(emb, train, np.array([['user-5']]))
    twice = copy(train)
    twice['user'].raw_id = [*train['user'].raw_id[1:], 'user-7']
    with pytest.raises(ValueError, match=r"'raw_id' needs to be unique among users \(got 'user-7' again\)"):
        recommend(emb, twice, ['user-7'])
    assert len(recommend(emb, train, [])) == 0
    for wrong, message in [
        (Embeddings(emb.user[1:], emb.item), r'need to have 64 users \(got 63\)'),
        (Embeddings(emb.user, emb.item[1:]), r'need to have 48 items \(got 47\)'),
        (Embeddings(emb.user * -1e30, emb.item * 1e30), r'need to be finite \(got NaN or Inf scores'),
    ]:
        with pytest.raises(ValueError, match=message):
            recommend(wrong, train, ['user-1'])
    for mask in (torch.ones(47, dtype=torch.bool), torch.ones(48), torch.tensor([0, 5])):
        with pytest.raises(ValueError, match="'candidates' needs to be a bool mask of 48 items"):
            recommend(emb, train, ['user-1'], candidates=mask)
    for ids in ([0.9], [True], [-1], [float('nan')]):
        with pytest.raises(ValueError, match=r'unknown user ids \(got 1, first: '):
            recommend(emb, train, ids)
    assert len(recommend(emb, train, ['user-1'], k=np.int64(3))) == 3
    with pytest.raises(TypeError, match='cannot be interpreted as an integer'):
        recommend(emb, train, ['user-1'], k=3.0)
    with pytest.raises(ValueError, match="need to be a sequence, as in .* \\(got the string '12'\\)"):
        recommend(emb, train, '12')
    nameless = copy(train)
    del nameless['user'].raw_id
    with pytest.raises(ValueError, match=r"needs `data\['user'\].raw_id` to look up raw ids \(got '12'\)"):
        recommend(emb, nameless, ['12'])
    with pytest.raises(ValueError, match=r"'user ids' need to be in \[0, 63\] \(got 64\)"):
        recommend(emb, nameless, [64])
    for wrong in (5.0, True):
        with pytest.raises(ValueError, match=f'user ids need to be integers \\(got {wrong}\\)'):
            recommend(emb, nameless, [wrong])


@pytest.mark.parametrize('make', [list, np.array, pd.Series, lambda ids: [np.int64(i) for i in ids]])
def test_an_integer_is_a_raw_id_where_there_are_raw_ids(splits, emb, make):
    train = copy(splits[0])
    order = torch.randperm(64).tolist()
    train['user'].raw_id = [str(i) for i in order]
    nodes = [order.index(15), order.index(3)]
    table = recommend(emb, train, make([15, 3]), k=4)
    assert table['user'].tolist() == ['15'] * 4 + ['3'] * 4
    pd.testing.assert_frame_equal(table, recommend(emb, train, ['15', '3'], k=4))
    pd.testing.assert_frame_equal(table, recommend(emb, train, [15, '3'], k=4))
    by_node = copy(train)
    del by_node['user'].raw_id
    for ids in (nodes, np.array(nodes), torch.tensor(nodes), torch.tensor(nodes, dtype=torch.int32)):
        same = recommend(emb, by_node, ids, k=4)
        pd.testing.assert_frame_equal(same.drop(columns='user'), table.drop(columns='user'))
    served = Retriever(emb, train).recommend(make([15, 3]), k=4)
    assert served['item'].tolist() == table['item'].tolist()
    train['user'].raw_id = order  # not strings
    assert recommend(emb, train, make([15, 3]), k=4)['item'].tolist() == table['item'].tolist()
