from copy import copy

import pytest
import torch
from torch_geometric.transforms import Compose

from lirdrec_pyg import LIRDRec, fit
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.serving import LiveModel, encode_new_items, fold_in_users, onboard_items
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, modalities

WEIGHTS = {'image': 0.3, 'text': 0.7}


@pytest.fixture
def train():
    data = Compose([DCT(), ItemKNNGraph(k=4, weights=WEIGHTS)])(FakeMultimodal(num_cold_items=4, seed=1)[0])
    return InteractionGraph()(FixedSplit()(data)[0])


@pytest.fixture
def model(train):
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8)
    fit(model, train, epochs=5, lr=1e-2, progress=False)
    return model


def features(data, rows):
    return {name: data[ITEM][f'x_{name}'][rows] + 0.01 for name in modalities(data)}


def scores(retriever, user, k=48, **settings):
    table = retriever.recommend([user], k, **settings)
    return dict(zip(table['item'], table['score'], strict=True))


def live_of(model, train, **settings):
    return LiveModel(model, train, **settings)


def test_items_are_served_as_the_functions_have_them(model, train):
    live = live_of(model, train)
    live.add_items(features(train, [3, 8]), ['new-1', 'new-2'], {'title': ['One', 'Two']})
    live.add_items(features(train, [5]), [17], {'title': ['Three']})
    data, new = onboard_items(train, features(train, [3, 8]), ['new-1', 'new-2'], ['One', 'Two'])
    data, last = onboard_items(data, features(train, [5]), ['17'], ['Three'])
    with torch.no_grad():
        user, item = model(train)
    new = torch.cat([torch.arange(44, 48), new, last])  # those that nobody had in training, too
    fresh = encode_new_items(model, data, new, scale=live.scale) @ user[0]
    expected = dict(zip([data[ITEM].raw_id[i] for i in new.tolist()], fresh.tolist(), strict=True))
    expected |= {train[ITEM].raw_id[i]: float(user[0] @ item[i]) for i in range(44)}
    found = scores(live.retriever, 'user-0', k=51, exclude_seen=False)
    assert found == pytest.approx(expected, abs=1e-5)
    assert live.data[ITEM].title[-3:] == ['One', 'Two', 'Three']
    assert repr(live) == "LiveModel(LIRDRec, Retriever(64, 51, index='Flat'), 3 new items, 0 new users)"
    assert train[ITEM].num_nodes == 48
    table = live.retriever.recommend(['user-0'], 51, exclude_seen=False, explain=True)
    parts = table[[f'score[{name}]' for name in ('image', 'text', 'shared')]].sum(axis=1)
    assert parts.tolist() == pytest.approx(table['score'].tolist(), abs=1e-5)
    assert {'One', 'Two', 'Three'} <= set(table['title'])


def test_new_users_are_folded_in_and_nobody_gets_the_same_again(model, train):
    live = live_of(model, train, scale=1)
    live.add_items(features(train, [3]), ['new'], {'title': ['New']})
    live.add_interactions(['anna', 'user-3', 'anna', 15], ['item-4', 'new', 'new', 'item-9'])
    expected = fold_in_users(model, live.data, [['item-4', 'new']])
    item = torch.cat([model.encode(train).item[:44], encode_new_items(model, live.data, torch.arange(44, 49), scale=1)])
    found = scores(live.retriever, 'anna')
    own = {raw: float(expected[0] @ z) for raw, z in zip(live.data[ITEM].raw_id, item, strict=True)}
    assert found == pytest.approx({raw: s for raw, s in own.items() if raw not in ('item-4', 'new')}, abs=1e-5)
    assert 'item-9' not in scores(live.retriever, '15')
    assert 'new' not in scores(live.retriever, 'user-3')
    assert 'new' in scores(live.retriever, 'user-5')
    assert '3 new users' not in repr(live) and '1 new items, 2 new users' in repr(live)


def test_a_new_user_is_known_better_by_and_by_and_sold_out_items_leave(model, train):
    live = live_of(model, train, scale=1)
    live.add_interactions(['anna', 'anna'], ['item-4', 'item-6'])
    live.remove_items(['item-6', 'item-7'])
    live.add_interactions(['anna', 'user-0', 'anna', 'eve'], ['item-8', 'item-7', 'item-4', 'item-6'])
    expected = fold_in_users(model, train, [['item-6', 'item-8', 'item-4'], ['item-6']])
    item = live_of(model, train, scale=1).retriever
    for user, z, seen in [('anna', expected[0], {4, 6, 7, 8}), ('eve', expected[1], {6, 7})]:
        with torch.no_grad():
            own = {f'item-{i}': float(z @ row) for i, row in enumerate(model(train).item) if i < 44 and i not in seen}
        found = scores(live.retriever, user, k=46)
        assert {raw: found[raw] for raw in own} == pytest.approx(own, abs=1e-5)
        assert not {'item-6', 'item-7'} & set(found)
    assert {'item-6', 'item-7'} <= set(scores(item, 'user-1', exclude_seen=False))
    with pytest.raises(ValueError, match='item-6'):
        live.remove_items(['item-6'])


def test_what_is_refused_changes_nothing(model, train):
    live = live_of(model, train, scale=1)
    before = scores(live.retriever, 'user-0'), repr(live)
    for message, call in [
        (r"'raw_id' needs to be new and unique", lambda: live.add_items(features(train, [3]), ['item-3'])),
        (r"'raw_id' needs one for each of the 1 new items", lambda: live.add_items(features(train, [3]), [])),
        (r"unknown item ids \(got 1, first: 'x'\)", lambda: live.add_interactions(['user-0', 'eve'], ['item-1', 'x'])),
        (r"'items' need to be as many as 'users', 1 \(got 2\)", lambda: live.add_interactions(['eve'], ['a', 'b'])),
        (r'user ids need to be strings or integers \(got True\)', lambda: live.add_interactions([True], ['item-1'])),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
        assert (scores(live.retriever, 'user-0'), repr(live)) == before
    live.add_interactions([], [])
    bare = copy(train)
    del bare[USER].raw_id
    with pytest.raises(ValueError, match=r"'data' needs `data\['user'\].raw_id`"):
        live_of(model, bare)
    assert train[INTERACTS].edge_index[1].max() < 44
