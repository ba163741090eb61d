r"""What stands in the tables of a Retriever: columns of items, filters by them, variety, reasons."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from lirdrec_pyg import Embeddings
from lirdrec_pyg.nn import LightGCN, LIRDRec
from lirdrec_pyg.serving import Retriever
from lirdrec_pyg.typing import INTERACTS

ITEMS = {
    'title': [f'item {i}' for i in range(40)],
    'category': [['shoes', 'bags', 'hats', None][i % 4] for i in range(40)],
    'price': [float(i) if i % 5 else float('nan') for i in range(40)],
    'tags': [['red'] if i % 2 else ['red', 'blue'] if i % 3 else [] for i in range(40)],
    'sale': [i > 30 for i in range(40)],
}


@pytest.fixture
def emb():
    return Embeddings(torch.randn(6, 8), torch.randn(40, 8))


@pytest.mark.parametrize('make', [dict, lambda items: pd.DataFrame(items, index=range(7, 47))])
def test_columns_stand_in_the_tables(emb, make, tmp_path):
    retriever = Retriever(emb, items=make(ITEMS))
    retriever.save(tmp_path)
    for one in (retriever, Retriever.load(tmp_path)):
        table = one.recommend([0], 40)
        assert list(table.columns) == ['user', 'rank', 'item', *ITEMS, 'score'] and one.columns == list(ITEMS)
        for row in table.itertuples():
            assert row.title == f'item {row.item}' and row.sale == (row.item > 30)
            assert row.tags == tuple(ITEMS['tags'][row.item])
            assert row.price == row.item if row.item % 5 else pd.isna(row.price)
        assert table['sale'].dtype == bool
        assert list(one.similar_items([0], 2)) == ['item', 'rank', 'similar', *ITEMS, 'score']


@pytest.mark.parametrize('index', ['Flat', 'HNSW8'])
@pytest.mark.parametrize(
    ('where', 'right'),
    [
        ({'category': ['shoes', 'bags']}, lambda i: i % 4 < 2),
        ({'category': 'hats', 'sale': True}, lambda i: i % 4 == 2 and i > 30),
        ({'tags': 'blue'}, lambda i: i % 2 == 0 and i % 3 > 0),
        ({'tags': {'blue', 'red'}}, lambda i: i % 2 or i % 3),
        ({'price': np.array([3, 4, 5])}, lambda i: i in (3, 4)),
        ({'price': None, 'title': ['item 5', 'item 6', 'item 10']}, lambda i: i in (5, 10)),
        ({'category': ['scarves']}, lambda i: False),
        ({'category': []}, lambda i: False),
        ({}, lambda i: True),
    ],
)
def test_filters_by_columns(emb, index, where, right):
    retriever = Retriever(emb, items=ITEMS, index=index)
    expected = {i for i in range(40) if right(i)}
    assert set(retriever.recommend([1], 40, where=where)['item']) == expected
    assert set(retriever.recommend([1], 40, allowed=range(20), where=where)['item']) == expected & set(range(20))
    assert set(retriever.recommend([1], 40, blocked=range(20), where=where)['item']) == expected - set(range(20))
    assert set(retriever.similar_items([39], 40, where=where)['similar']) == expected - {39}
    retriever.update_items(None, [39, 38], items={'category': ['scarves', 'shoes'], 'price': [3, None]})
    retriever.remove_items([4, 5])
    retriever.add_items(torch.ones(1, 8), ['new'], items={'category': ['scarves']})
    found = retriever.recommend([1], 39, where={'category': ['scarves', 'shoes']})
    assert set(found['item']) == {39, 38, 'new', *range(0, 39, 4)} - {4}
    assert found.set_index('item').isna().loc['new', 'title']
    if where == {'price': None, 'title': ['item 5', 'item 6', 'item 10']}:
        assert set(retriever.recommend([1], 39, where=where)['item']) == {10}


def test_titles_come_from_the_data(splits):
    emb = Embeddings(torch.randn(64, 4), torch.randn(48, 4))
    table = Retriever(emb, splits[0]).recommend(['user-3'], 2)
    titles = dict(zip(splits[0]['item'].raw_id, splits[0]['item'].title, strict=True))
    assert table['title'].tolist() == [titles[item] for item in table['item']]
    assert 'title' not in Retriever(emb, splits[0], items={}).recommend(['user-3'], 2)


def test_columns_are_refused(emb):
    retriever = Retriever(emb, items=ITEMS)
    for items, message in [
        ({'title': ['a']}, r"column 'title' of 'items' needs one value for each, 40 \(got 1\)"),
        ({'score': [1] * 40}, r"names of columns of 'items' need to be strings, none of .* \(got 'score'\)"),
        ({3: [1] * 40}, r'need to be strings, none of .* \(got 3\)'),
        ({'title': 'a' * 40}, r"column 'title' of 'items' needs to be a sequence \(got str\)"),
        ({'day': [pd.Timestamp('2026-01-01')] * 40}, r"values of column 'day' of 'items' need to be texts, numbers"),
        ({'day': [[['a']]] * 40}, r"values of column 'day' of 'items' need to be texts, numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            Retriever(emb, items=items)
    with pytest.raises(TypeError, match=r"'items' need to be a DataFrame or a mapping of columns \(got list\)"):
        Retriever(emb, items=['a'])
    for where, message in [
        ({'colour': ['red']}, r"'where' needs columns among \['title', .*\] \(got 'colour'\)"),
        ({'category': [5]}, r"'where' needs texts for the column 'category' \(got 5\)"),
        ({'price': ['cheap']}, r"'where' needs numbers for the column 'price' \(got 'cheap'\)"),
        ({'sale': 1}, r"'where' needs truths for the column 'sale' \(got 1\)"),
        ({'tags': [['red']]}, r"'where' needs texts for the column 'tags' \(got \['red'\]\)"),
        ({'price': {'min': 3}}, r"'where' needs one value or a list of them for the column 'price'"),
    ]:
        with pytest.raises(ValueError, match=message):
            retriever.recommend([0], where=where)
    with pytest.raises(TypeError, match=r"'where' needs to be a mapping of columns to values \(got list\)"):
        retriever.similar_items([0], where=['shoes'])
    with pytest.raises(ValueError, match=r"'items' need to have columns among .* \(got 'size'\)"):
        retriever.add_items(torch.ones(1, 8), ['new'], items={'size': [3]})
    with pytest.raises(ValueError, match='needs one value for each, 2'):
        retriever.update_items(None, [1, 2], items={'sale': [True]})
    with pytest.raises(ValueError, match=r'item ids need to be unique \(got 1 again\)'):
        retriever.update_items(torch.ones(2, 8), [1, 1])
    with pytest.raises(ValueError, match=r'item ids need to be unique \(got 1 again\)'):
        retriever.remove_items([2, 1, 1])
    with pytest.raises(ValueError, match=r"unknown user ids \(got 1, first: 'x'\)"):
        retriever.update_users(torch.ones(1, 8), ['x'])
    with pytest.raises(ValueError, match=r'need to be seen \(got 1 that are not, first: user 0, item 3\)'):
        retriever.remove_seen([0], [3])
    with pytest.raises(ValueError, match=r"'metric' needs to be 'cosine' or 'inner' \(got 'l2'\)"):
        retriever.similar_items([0], metric='l2')
    for wrong in (-0.1, 1.0, float('nan')):
        with pytest.raises(ValueError, match=r"'diversity' needs to be in \[0, 1\)"):
            retriever.recommend([0], diversity=wrong)
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match=r"'rebuild' needs to be in \(0, 1\)"):
            Retriever(emb, rebuild=wrong)
    for views, message in [({'a': 3}, "'views' need to have 8 columns together"), ({'a': 0}, 'needs to be in')]:
        with pytest.raises(ValueError, match=message):
            Retriever(emb, views=views)
    assert retriever.num_items == 40


def greedy(user, item, k, weight):
    r"""Maximal marginal relevance, as it is written."""
    score, unit = item @ user, normalize(item)
    pool = score.topk(5 * k).indices.tolist()
    low, high = float(score[pool].min()), float(score[pool].max())
    out = []
    while len(out) < k:

        def value(i):
            near = max((float(unit[i] @ unit[j]) for j in out), default=0.0)
            return (1 - weight) * (float(score[i]) - low) / (high - low) - weight * near

        out.append(max((i for i in pool if i not in out), key=value))
    return out


@pytest.mark.parametrize('index', ['Flat', 'IVF2,Flat'])
def test_diversity_is_maximal_marginal_relevance(emb, index):
    retriever = Retriever(emb, index=index, nprobe=2 if index != 'Flat' else None)
    for weight in (0.3, 0.7):
        table = retriever.recommend(range(6), 5, diversity=weight)
        for u in range(6):
            own = table[table['user'] == u]
            assert own['item'].tolist() == greedy(emb.user[u], emb.item, 5, weight)
            score = emb.item[own['item'].tolist()] @ emb.user[u]
            assert own['score'].to_numpy() == pytest.approx(score.numpy(), abs=1e-5)
            assert own['rank'].tolist() == [1, 2, 3, 4, 5]
    pd.testing.assert_frame_equal(retriever.recommend([2], 5, diversity=0), retriever.recommend([2], 5))
    few = retriever.recommend([2], 5, diversity=0.5, allowed=[3, 9])
    assert set(few['item']) == {3, 9} and few['rank'].tolist() == [1, 2]
    assert len(retriever.recommend([], 5, diversity=0.5)) == 0


def test_explains_by_views_and_by_what_the_user_has_seen(emb, tmp_path):
    seen = torch.tensor([[0, 0, 0, 0, 0, 1], [3, 5, 7, 9, 11, 2]])
    views = {'image': 3, 'text': 4, 'shared': 1}
    retriever = Retriever(emb, seen, items={'title': ITEMS['title']}, views=views)
    retriever.save(tmp_path)
    unit = normalize(emb.item)
    for one in (retriever, Retriever.load(tmp_path)):
        table = one.recommend([0, 1, 2], 6, explain=True)
        shares = table[[f'score[{name}]' for name in views]]
        assert shares.sum(axis=1).to_numpy() == pytest.approx(table['score'].to_numpy(), abs=1e-5)
        assert list(table)[-3:] == ['score[shared]', 'because', 'because_title']
        for row in table.to_dict('records'):
            u, i = row['user'], row['item']
            assert row['score[image]'] == pytest.approx(float(emb.user[u][:3] @ emb.item[i][:3]), abs=1e-5)
            own = seen[1][seen[0] == u].tolist()
            assert row['because'] == sorted(own, key=lambda j: -float(unit[i] @ unit[j]))[:3]
            assert row['because_title'] == [f'item {j}' for j in row['because']]
    again = retriever.recommend([0], 40, exclude_seen=False, explain=True).set_index('item')['because']
    assert all(item not in because for item, because in again.items()) and len(again[3]) == 3
    assert list(Retriever(emb).recommend([0], explain=True))[-2:] == ['score', 'because']
    assert len(retriever.recommend([], explain=True)) == 0


def test_serves_a_model(splits):
    train = splits[0]
    model = LIRDRec.from_data(train, seed=0, hidden_channels=4)
    retriever = Retriever.from_model(model, train, index='HNSW8')
    assert retriever.views == {'image': 4, 'text': 4, 'shared': 4} and model.training
    table = retriever.recommend(['user-3'], 5, explain=True)
    assert table[['score[image]', 'score[text]', 'score[shared]']].sum(axis=1).to_numpy() == pytest.approx(
        table['score'].to_numpy(), abs=1e-5
    )
    user, item = train[INTERACTS].edge_index
    own = {f'item-{i}' for i in item[user == 3].tolist()}
    assert all(set(because) <= own and because for because in table['because'])
    other = Retriever.from_model(LightGCN.from_data(train, seed=0), train, views=None)
    assert other.views == {} and len(other.recommend(['user-3'], 5)) == 5
