import sys

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch_geometric.transforms import Compose

from lirdrec_pyg import LightGCN, LIRDRec, fit, recommend
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import PWC, AttentionFusion, PaperPWC, StaticFusion, UniformFusion
from lirdrec_pyg.serving import explain
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph, RecentItems
from lirdrec_pyg.typing import INTERACTS, ITEM, USER

VIEWS = ['image', 'image_neighbours', 'text', 'text_neighbours', 'shared', 'shared_neighbours']


def training(missing=None, layout='csr'):
    data = Compose([DCT(), ItemKNNGraph(k=4)])(FakeMultimodal(missing=missing, seed=1)[0])
    return InteractionGraph(layout)(RecentItems(4)(FixedSplit()(data)[0]))


def trained(train, **settings):
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, **settings)
    fit(model, train, epochs=1, lr=1e-2, progress=False)
    return model


def parts(table):
    return table[[name for name in table if name.startswith('from_')]]


@pytest.mark.parametrize('fusion', [PWC, PaperPWC, AttentionFusion, StaticFusion, UniformFusion])
@pytest.mark.parametrize('recent_items', [0, 4])
@pytest.mark.parametrize('missing', [None, {'image': 0.3, 'text': 0.1}])
def test_parts_add_up_to_the_score(fusion, recent_items, missing):
    train = training(missing)
    model = trained(train, fusion=fusion(), recent_items=recent_items)
    for power in (0, 0.5, 1):
        model.set_power(power)
        users, items = torch.cartesian_prod(torch.arange(64), torch.arange(48)).t()
        raw = [train[USER].raw_id[u] for u in users.tolist()], [train[ITEM].raw_id[i] for i in items.tolist()]
        table = explain(model, train, *raw, nearest=0)
        names = [f'from_{name}' for name in VIEWS + ['recent_items'] * (recent_items > 0)]
        assert list(parts(table)) == names
        with torch.no_grad():
            z = model(train)
        score = (z.user @ z.item.t()).flatten()
        assert torch.allclose(torch.tensor(table['score'].to_numpy()), score, atol=1e-5, rtol=0)
        assert torch.allclose(torch.tensor(parts(table).sum(axis=1).to_numpy()), score, atol=1e-5, rtol=0)
        assert (parts(table).abs().max() > 1e-3).all()
        for part in model.parts(train).values():
            assert part.user.size(0) == 64 and part.item.size(0) == 48


@pytest.mark.parametrize('layout', ['EdgeIndex', 'edge_index'])
@pytest.mark.parametrize('num_item_layers', [0, 2])
def test_parts_in_all_layouts_and_depths(layout, num_item_layers):
    train = training(layout=layout)
    model = trained(train, num_item_layers=num_item_layers)
    with torch.no_grad():
        z, found = model(train), model.parts(train)
    assert list(found) == (VIEWS if num_item_layers else VIEWS[::2])
    total = sum(part.user @ part.item.t() for part in found.values())
    assert torch.allclose(total, z.user @ z.item.t(), atol=1e-5, rtol=0)


def test_a_part_is_what_its_view_brings():
    train = training({'image': 0.3})
    model = trained(train, num_layers=0, fusion=UniformFusion())
    lacking = (~train[ITEM].has_image).nonzero().view(-1)
    user, item = train[USER].raw_id[0], train[ITEM].raw_id[lacking[0]]
    row = explain(model, train, [user], [item]).iloc[0]
    assert row['from_image'] == 0  # it has none, and no user brings it any
    h = F.normalize(model.content(train)[lacking[0]], dim=-1)
    expected = (F.normalize(model.user[0], dim=-1) / 3 * h).sum(dim=-1).tolist()
    assert row[['from_image', 'from_text', 'from_shared']].tolist() == pytest.approx(expected, abs=1e-6)


def test_because_of_the_nearest_of_the_users_own_items(monkeypatch):
    train = training()
    model = trained(train)
    table = recommend(model(train), train, ['user-3', 'user-40'], k=4, exclude_seen=False)
    found = explain(model, train, table, nearest=2)
    assert list(found) == [*table, *(f'from_{name}' for name in VIEWS), 'because', 'because_title']
    pd.testing.assert_frame_equal(found[['user', 'rank', 'item', 'title']], table[['user', 'rank', 'item', 'title']])
    assert found['score'].tolist() == pytest.approx(table['score'].tolist(), abs=1e-5)
    with torch.no_grad():
        z = F.normalize(model(train).item, dim=1)
    node = {kind: {raw: i for i, raw in enumerate(train[kind].raw_id)} for kind in (USER, ITEM)}
    for row in found.itertuples():
        user, item = node[USER][row.user], node[ITEM][row.item]
        own = [i for u, i in train[INTERACTS].edge_index.t().tolist() if u == user and i != item]
        best = sorted(own, key=lambda i: -float(z[i] @ z[item]))[:2]
        assert row.because == [train[ITEM].raw_id[i] for i in best]
        assert row.because_title == [train[ITEM].title[i] for i in best]
    monkeypatch.setattr(sys.modules['lirdrec_pyg.serving.explain'], 'VALUES', 1)  # a pair at a time
    pd.testing.assert_frame_equal(explain(model, train, table, nearest=2), found)


def test_node_ids_where_there_are_no_raw_ids_and_a_model_of_one_part():
    train = training()
    del train[USER].raw_id, train[ITEM].raw_id, train[ITEM].title
    model = LightGCN.from_data(train, seed=0, hidden_channels=8)
    table = explain(model, train, torch.tensor([0, 5]), [3, 40])
    assert list(table) == ['user', 'item', 'score', 'from_score', 'because']
    assert table['from_score'].tolist() == table['score'].tolist()
    own = train[INTERACTS].edge_index
    assert all(len(ids) == 3 and set(ids) <= set(own[1, own[0] == user].tolist())
               for user, ids in zip([0, 5], table['because'], strict=True))  # fmt: skip
    again = explain(model, train, recommend(model(train), train, [0, 5], k=2))
    assert again['user'].tolist() == ['0', '0', '5', '5']


def test_a_user_without_other_items_has_no_reason():
    train = training()
    keep = train[INTERACTS].edge_index[0] > 0
    keep[0] = True
    first = train[ITEM].raw_id[train[INTERACTS].edge_index[1, 0]]
    train[INTERACTS].edge_index = train[INTERACTS].edge_index[:, keep]
    train[INTERACTS].time = train[INTERACTS].time[keep]
    train = InteractionGraph()(train)
    table = explain(trained(train), train, ['user-0', 'user-1'], [first, first])
    assert table['because'].iloc[0] == []
    assert len(table['because'].iloc[1]) == 3
    assert len(explain(trained(train), train, [], [])) == 0


def test_explaining_refuses():
    train = training()
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8)
    table = pd.DataFrame({'user': ['user-0'], 'item': ['item-0']})

    def refuses(message, *args, **kwargs):
        with pytest.raises(ValueError, match=message):
            explain(model, train, *args, **kwargs)

    refuses(r"'items' need to be left out beside a table", table, ['item-0'])
    refuses(r"the table needs the columns 'user' and 'item' \(got \['user'\]\)", table[['user']])
    refuses(r"'items' need to be given beside users", ['user-0'])
    refuses(r"'items' need to be as many as 'users', 1 \(got 2\)", ['user-0'], ['item-0', 'item-1'])
    refuses(r"unknown item ids \(got 1, first: 'x'\)", ['user-0'], ['x'])
    refuses(r"'nearest' needs to be non-negative \(got -1\)", table, nearest=-1)
    served = recommend(model.encode(train).scaled(0.5), train, ['user-0'], k=2)
    refuses(r"the table's scores need to be those of `model\(data\)` \(got .* in row 0\): for what a", served)
