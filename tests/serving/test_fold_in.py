from copy import copy

import pytest
import torch
from torch_geometric.transforms import Compose

from lirdrec_pyg import LIRDRec, fit
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import AttentionFusion, PaperPWC, SampledSoftmax, StaticFusion, UniformFusion
from lirdrec_pyg.nn.kernels import normalize
from lirdrec_pyg.serving import Retriever, fold_in_users, item_layers, onboard_items
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, modalities

WEIGHTS = {'image': 0.3, 'text': 0.7}


KNN = ItemKNNGraph(k=4, weights=WEIGHTS)


def only(data, num_items):
    r"""Returns data with the first items alone, before any content work, and the features of the others."""
    small = copy(data)
    for key in data[ITEM].keys():  # noqa: SIM118
        if data[ITEM].is_node_attr(key) or key in ('raw_id', 'title'):
            small[ITEM][key] = data[ITEM][key][:num_items]
    small[ITEM].num_nodes = num_items
    keep = data[INTERACTS].edge_index[1] < num_items
    for key in data[INTERACTS].keys():  # noqa: SIM118
        small[INTERACTS][key] = data[INTERACTS][key][..., keep]
    rest = {name: data[ITEM][f'x_{name}'][num_items:] for name in modalities(data)}
    masks = {name: data[ITEM][f'has_{name}'][num_items:] for name in rest if f'has_{name}' in data[ITEM]}
    return small, rest, masks


def catalogue(missing=None, layout='csr', num_items=48, num_cold_items=10):
    r"""Returns the training view of all items, that of the first 38, and what onboarding the others takes."""
    data = FakeMultimodal(num_items=num_items, num_cold_items=num_cold_items, missing=missing, seed=1)[0]
    small, features, masks = only(data, num_items - num_cold_items)
    content = Compose([DCT(), KNN])
    whole, part = (InteractionGraph(layout)(FixedSplit()(content(d))[0]) for d in (data, small))
    raw_id, title = data[ITEM].raw_id[-num_cold_items:], data[ITEM].title[-num_cold_items:]
    return whole, part, {'features': features, 'masks': masks, 'raw_id': raw_id, 'title': title}


def raw(items):
    return [f'item-{i}' for i in items]


def without(data, user):
    r"""Returns the graph without the interactions of a user, and the items of these."""
    data = copy(data)
    own = data[INTERACTS].edge_index[0] == user
    items = data[INTERACTS].edge_index[1, own]
    data[INTERACTS].edge_index = data[INTERACTS].edge_index[:, ~own]
    return InteractionGraph()(data), items.tolist()


def max_difference(part, num_layers, power=1.0, **kwargs):
    model = LIRDRec.from_data(part, seed=0, hidden_channels=8, num_layers=num_layers, **kwargs).eval()
    model.set_power(power)
    expected = model.encode(part).user
    found = []
    for user in range(6):
        data, items = without(part, user)
        found.append(fold_in_users(model, data, [raw(items)], free=normalize(model.user[user : user + 1].detach())))
    return float((torch.cat(found) - expected[:6]).detach().abs().max())


@pytest.mark.parametrize('num_layers', [0, 1, 2])
@pytest.mark.parametrize('power', [1, 0.5])
@pytest.mark.parametrize('fusion', [AttentionFusion(), StaticFusion(), UniformFusion(), PaperPWC()])
def test_a_trained_user_folds_in_as_it_is(splits, num_layers, power, fusion):
    assert max_difference(splits[0], num_layers, power, fusion=fusion) < 1e-5


def test_what_differs_for_a_trained_user(splits):
    assert 1e-5 < max_difference(splits[0], 3, fusion=UniformFusion()) < 0.02  # its traces in others
    model = LIRDRec.from_data(splits[0], seed=0, hidden_channels=8).eval()
    with torch.no_grad():
        model.fusion.theta.copy_(torch.randn(64, 3))
    data, items = without(splits[0], 5)
    free = normalize(model.user[5:6].detach())
    user = model.encode(splits[0]).user[5]
    assert not torch.allclose(fold_in_users(model, data, [raw(items)], free)[0], user, atol=1e-3)
    with torch.no_grad():
        model.fusion.theta.copy_(model.fusion.theta[5].clone().expand(64, 3))
    assert torch.allclose(fold_in_users(model, data, [raw(items)], free)[0], user, atol=1e-5)


def test_fold_in_takes_the_latest_items_of_a_sequential_model(splits):
    train = splits[0]
    kwargs = {'num_layers': 0, 'fusion': UniformFusion(), 'recent_items': 4}
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, **kwargs).eval()
    store, free = train[INTERACTS], normalize(model.user.detach())
    own = [store.edge_index[1, store.edge_index[0] == user] for user in range(6)]
    time = [store.time[store.edge_index[0] == user] for user in range(6)]
    histories = [raw(items[t.argsort()].tolist()) for items, t in zip(own, time, strict=True)]
    expected = model.encode(train).user[:6]
    assert torch.allclose(fold_in_users(model, train, histories, free[:6]), expected, atol=1e-5)
    reverse = fold_in_users(model, train, [history[::-1] for history in histories], free[:6])
    assert not torch.allclose(reverse, expected, atol=1e-3)
    nobody = fold_in_users(model, train, [histories[0], []], free[:2])[1]
    assert torch.allclose(nobody, normalize(model.fusion(free[1:2])[0]), atol=1e-5)


def test_fold_in_is_one_user_at_a_time_and_takes_raw_ids(splits):
    data = splits[0]
    model = LIRDRec.from_data(data, seed=0, hidden_channels=8).eval()
    layers = item_layers(model, data)
    together = fold_in_users(model, data, [raw([3, 5]), [], raw([47, 5, 9])], layers=layers)
    alone = torch.cat(
        [fold_in_users(model, data, [h]) for h in (['item-5', 'item-3'], ['item-47', 'item-9', 'item-5'])]
    )
    assert torch.allclose(together[[0, 2]], alone, atol=1e-6)
    assert not together[1].any()
    mean = normalize(model.user.detach()).mean(dim=0)
    views_of_nobody = fold_in_users(model, data, [raw([3]), []], mean.expand(2, -1, -1))[1]
    weight = model.fusion.gate * model.fusion.predict(mean.unsqueeze(0))
    weight = (weight + (1 - model.fusion.gate) * model.fusion.theta.mean(dim=0)).softmax(dim=-1)
    assert torch.allclose(views_of_nobody, (mean * weight[0].unsqueeze(-1)).flatten(), atol=1e-6)


def test_folds_in_a_history_of_new_items():
    _, part, arguments = catalogue()
    model = LIRDRec.from_data(part, seed=0, hidden_channels=8).eval()
    data, _ = onboard_items(part, **arguments)
    user = fold_in_users(model, data, [arguments['raw_id'][:2]])
    assert torch.isfinite(user).all()
    assert user.norm() < 10


def test_folded_in_users_get_what_they_like(splits):
    train = splits[0]
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, objective=SampledSoftmax())
    model.set_power(0)
    fit(model, train, epochs=15, lr=1e-2, progress=False)
    histories = [raw([0, 2, 4]), raw([1, 3, 5])]  # of either block
    users = fold_in_users(model, train, histories)
    assert torch.allclose(users.norm(dim=1), torch.ones(2))
    retriever = Retriever(model.encode(train), seen=train)
    retriever.add_users(users, ['even', 'odd'])
    retriever.add_seen(['even'] * 3, ['item-0', 'item-2', 'item-4'])
    for row in retriever.recommend(['even', 'odd'], 10).itertuples():
        assert int(row.item.split('-')[1]) % 2 == (row.user == 'odd')


def test_fold_in_refuses(splits):
    data = splits[0]
    model = LIRDRec.from_data(data, seed=0, hidden_channels=8).eval()
    with pytest.raises(ValueError, match=r"unknown item ids \(got 1, first: 'x'\)"):
        fold_in_users(model, data, [['item-1', 'x']])
    with pytest.raises(ValueError, match=r'unknown item ids \(got 1, first: 48\)'):
        fold_in_users(model, data, [[48]])
    with pytest.raises(ValueError, match=r'need to be unique \(got 1 duplicates, first: user 1, item 3\)'):
        fold_in_users(model, data, [raw([3]), raw([3, 3])])
    with pytest.raises(ValueError, match=r"items after the 'known' 20 can't have interactions"):
        item_layers(model, data, item_layers(model, data)[:, :20])
    free, layers = torch.zeros(2, model.num_views, 8), item_layers(model, data)
    for wrong in (float('nan'), float('inf')):
        bad_free, bad_layers = free.clone(), layers.clone()
        bad_free[1, 0, 3] = bad_layers[1, 20, 5] = wrong
        with pytest.raises(ValueError, match="'free' needs to be finite"):
            fold_in_users(model, data, [raw([3]), raw([5])], free=bad_free)
        with pytest.raises(ValueError, match="'layers' needs to be finite"):
            fold_in_users(model, data, [raw([3]), raw([5])], layers=bad_layers)
    for wrong in (free[:1], free[:, 1:], free[..., 1:], free.flatten(1), free.long()):
        with pytest.raises(ValueError, match=r"'free' needs to be a float tensor of shape \[2, 3, 8\] \(got torch"):
            fold_in_users(model, data, [raw([3]), raw([5])], free=wrong)
    for wrong in (layers[1:], layers[..., 1:], layers[0], torch.cat([layers, layers], dim=1)):
        with pytest.raises(ValueError, match=r"'layers' needs to be a float tensor of shape \[3, 48, 24\] \(got torch"):
            fold_in_users(model, data, [raw([3])], layers=wrong)
