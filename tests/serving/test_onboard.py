from copy import copy, deepcopy

import numpy as np
import pytest
import torch
from torch_geometric.transforms import Compose

from lirdrec_pyg import LIRDRec, evaluate, fit
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import SampledSoftmax
from lirdrec_pyg.nn.kernels import normalize
from lirdrec_pyg.ranking import top_k
from lirdrec_pyg.serving import (
    Retriever,
    encode_new_items,
    fold_in_users,
    item_layers,
    new_item_scale,
    onboard_items,
)
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, SIMILAR_TO, USER, Embeddings, modalities

LAYOUTS = ['csr', 'EdgeIndex', 'edge_index']
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
DEVICES = [('csr', 'meta'), ('edge_index', 'meta'), *(pytest.param(layout, 'cuda', marks=cuda) for layout in LAYOUTS)]
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


@pytest.mark.parametrize('layout', ['csr', 'EdgeIndex', 'edge_index'])
@pytest.mark.parametrize('missing', [None, {'image': 0.3}, {'image': 0.2, 'text': 0.2}])
@pytest.mark.parametrize(('power', 'kwargs'), [(1, {}), (0, {'num_item_layers': 2, 'num_layers': 3})])
def test_onboarding(layout, missing, power, kwargs):
    whole, part, arguments = catalogue(missing, layout)
    model = LIRDRec.from_data(part, seed=0, hidden_channels=8, **kwargs).eval()
    model.set_power(power)
    before = model.encode(part)
    layers = item_layers(model, part)
    data, new = onboard_items(part, **arguments)

    assert new.tolist() == list(range(38, 48))
    assert (part[ITEM].num_nodes, data[ITEM].num_nodes) == (38, 48)
    for key in ('x_image', 'x_text', 'spectrum', 'raw_id', 'title', *(f'has_{name}' for name in missing or {})):
        same = data[ITEM][key] == whole[ITEM][key]
        assert same if isinstance(same, bool) else same.all(), key
    (source, target), weight = whole[SIMILAR_TO].edge_index, whole[SIMILAR_TO].edge_weight
    edge_index, edge_weight = data[SIMILAR_TO].edge_index, data[SIMILAR_TO].edge_weight
    into = edge_index[1] >= 38
    assert edge_index[:, into].tolist() == torch.stack([source, target])[:, target >= 38].tolist()
    assert torch.allclose(edge_weight[into], weight[target >= 38])
    assert edge_index[:, ~into].tolist() == part[SIMILAR_TO].edge_index.tolist()

    after = model.encode(data)
    assert torch.allclose(after.user, before.user, atol=1e-6, rtol=0)
    assert torch.allclose(after.item[:38], before.item, atol=1e-6, rtol=0)
    for known in (layers, None):
        found = encode_new_items(model, data, new, known, borrow=0, scale=1)
        assert torch.allclose(found, after.item[38:], atol=1e-6)


@pytest.mark.parametrize('layout', ['csr', 'edge_index'])
def test_borrows_from_neighbours_what_they_have_of_users(layout):
    _, part, arguments = catalogue({'image': 0.2}, layout)
    model = LIRDRec.from_data(part, seed=0, hidden_channels=8).eval()
    data, new = onboard_items(part, **arguments)
    layers = item_layers(model, data)
    z, edges = layers.sum(dim=0), data[SIMILAR_TO]
    for i in new.tolist():  # as the formula says
        pairs = [(j, w) for (j, t), w in zip(edges.edge_index.t().tolist(), edges.edge_weight.tolist(), strict=True)
                 if t == i and j < 38]  # fmt: skip
        z[i] += 0.7 * sum(w * layers[1:, j].sum(dim=0) for j, w in pairs) / sum(w for _, w in pairs)
    expected = [z[i] + sum(w * z[j] for (j, t), w in zip(edges.edge_index.t().tolist(), edges.edge_weight, strict=True)
                           if t == i) for i in new.tolist()]  # fmt: skip
    found = encode_new_items(model, data, new, layers[:, :38], borrow=0.7, scale=1)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-6)
    old = torch.arange(38)
    assert torch.allclose(encode_new_items(model, data, old, borrow=0.7, scale=1), model.encode(part).item, atol=1e-6)
    with pytest.raises(ValueError, match=r"'borrow' needs to be non-negative \(got -1\)"):
        encode_new_items(model, data, new, borrow=-1)


def test_onboards_day_by_day():
    whole, part, arguments = catalogue()
    model = LIRDRec.from_data(part, seed=0, hidden_channels=8).eval()
    data, layers = part, item_layers(model, part)
    for rows in (slice(0, 4), slice(4, 10)):
        day = {key: {m: x[rows] for m, x in value.items()} if isinstance(value, dict) else value[rows]
               for key, value in arguments.items()}  # fmt: skip
        data, new = onboard_items(data, **day)
        layers = item_layers(model, data, layers)
        found = encode_new_items(model, data, new, layers, borrow=0, scale=1)
        assert torch.allclose(found, model.encode(data).item[new], atol=1e-6)
    assert layers.shape == (3, 48, 24)
    assert item_layers(model, data, layers) is layers
    assert data[ITEM].raw_id == whole[ITEM].raw_id


def test_a_modality_that_no_new_item_has():
    _, part, arguments = catalogue()
    features = {'text': arguments['features']['text']}
    data, new = onboard_items(part, features, arguments['raw_id'])
    assert data[ITEM].has_image.tolist() == [True] * 38 + [False] * 10
    assert 'has_text' not in data[ITEM]
    assert data[ITEM].title[-1] == ''
    assert not data[ITEM].x_image[new].any()
    assert not data[ITEM].spectrum[new, :16].any()
    assert data[ITEM].spectrum[new, 16:].any(dim=1).all()
    model = LIRDRec.from_data(part, seed=0, hidden_channels=8).eval()
    assert torch.allclose(model.encode(data).item[:38], model.encode(part).item, atol=1e-6)


def test_duplicates_are_connected_as_in_the_whole():
    whole, part, arguments = catalogue(num_items=148, num_cold_items=20)
    x = arguments['features']['image']
    x[:10] = part[ITEM].x_image[0]  # more of them than neighbours
    x[10:] = x[10]
    part = ItemKNNGraph(4, {'image': 1})(part)
    data, new = onboard_items(part, **arguments)
    whole = ItemKNNGraph(4, {'image': 1})(data)
    expected = whole[SIMILAR_TO].edge_index
    edge_index = data[SIMILAR_TO].edge_index
    assert edge_index[:, edge_index[1] >= new[0]].tolist() == expected[:, expected[1] >= new[0]].tolist()


def test_leaves_out_what_is_not_known_of_new_items():
    _, part, arguments = catalogue()
    part[ITEM].price = torch.ones(38)
    data, _ = onboard_items(part, **arguments)
    assert 'price' in part[ITEM]
    assert 'price' not in data[ITEM]
    assert 'block' not in data[ITEM]


def test_new_items_are_found_by_those_who_like_such():
    whole, part, arguments = catalogue(num_items=60, num_cold_items=20)
    model = LIRDRec.from_data(part, seed=0, hidden_channels=8, objective=SampledSoftmax())
    model.set_power(0)
    fit(model, part, epochs=15, lr=1e-2, progress=False)
    data, new = onboard_items(part, **arguments)
    block = whole[ITEM].block
    retriever = Retriever(model.encode(part), seen=part)
    retriever.add_items(encode_new_items(model, data, new), arguments['raw_id'])
    table = retriever.recommend(part[USER].raw_id, 10, allowed=arguments['raw_id'])
    item = {raw: i for i, raw in enumerate(whole[ITEM].raw_id)}
    hits = [block[item[row.item]] == int(row.user.split('-')[1]) % 2 for row in table.itertuples()]
    assert len(hits) == 640
    assert sum(map(bool, hits)) / 640 > 0.95
    view = copy(FixedSplit()(FakeMultimodal(num_items=60, num_cold_items=20, seed=1)[0])[2])
    cold = torch.arange(60) >= 40
    embeddings = Embeddings(model.encode(part).user, model.encode(data).item)
    found = evaluate(embeddings, view, k=10, metrics=['recall'], candidates=cold)
    full = LIRDRec.from_data(whole, seed=0, hidden_channels=8, objective=SampledSoftmax())
    full.set_power(0)
    fit(full, whole, epochs=15, lr=1e-2, progress=False)
    expected = evaluate(full.encode(whole), view, k=10, metrics=['recall'], candidates=cold)
    assert found['recall@10'] == pytest.approx(expected['recall@10'], abs=0.1)


def test_onboarding_refuses():
    _, part, arguments = catalogue()
    x = arguments['features']
    fresh = arguments['raw_id']

    def refuses(message, features=x, raw_id=fresh, **kwargs):
        with pytest.raises(ValueError, match=message):
            onboard_items(part, features, raw_id, **kwargs)

    refuses(r"'features' names the unknown modality 'sound' \(the data has \['image', 'text'\]\)", {'sound': x['text']})
    refuses(r"'masks' names the unknown modality 'sound'", masks={'sound': torch.ones(10)})
    refuses(r"same number of rows, .* \(got {'image': 10, 'text': 9}\)", x | {'text': x['text'][1:]})
    refuses(r'same number of rows, at least one, for all modalities \(got {}\)', {})
    refuses(r"'x_text' needs to have 8 columns \(got \(10, 3\)\)", x | {'text': x['text'][:, :3]})
    refuses(r"'x_text' needs to be finite", x | {'text': x['text'] / 0})
    refuses(r"'raw_id' needs one for each of the 10 new items \(got 0\)", raw_id=None)
    refuses(r"'title' needs one for each of the 10 new items \(got 1\)", title=['x'])
    refuses(r"'raw_id' needs to be new and unique \(got 'item-3' again\)", raw_id=[*fresh[1:], 'item-3'])
    refuses(r"'raw_id' needs to be new and unique \(got 'item-44' again\)", raw_id=[*fresh[:9], 'item-44'])
    refuses(r"'weights' names the unknown modality 'sound'", weights={'sound': 1})
    refuses(r"'weights' need to be finite and non-negative \(got inf for 'text'\)", weights={'text': float('inf')})
    refuses(
        r"'weights' needs to be {'image': 0.3, 'text': 0.7}, that of the item graph \(got {'text': 1.0}\)",
        weights={'text': 1},
    )
    refuses(r"'k' needs to be 4, that of the item graph \(got 3\): omit it", k=3)
    refuses(
        r"'x_text' needs to be finite \(got 10 rows with values beyond", x | {'text': x['text'].double() * 0 + 1e39}
    )
    for k in (0, -1, 49):
        refuses(rf"'k' needs to be in \[1, 48\] \(got {k}\)", k=k)
    spectrum = part[ITEM].spectrum
    for other in (spectrum[:, 1:], spectrum.roll(8, dims=1), DCT(['text', 'image'])(part)[ITEM].spectrum):
        part[ITEM].spectrum = other
        refuses(r"'data' needs the spectrum of all modalities in their order, `DCT\(\)`")


def test_new_items_join_the_item_graph_as_it_was_made():
    _, part, arguments = catalogue()
    expected = onboard_items(part, **arguments)[0][SIMILAR_TO]
    assert onboard_items(part, **arguments, k=4, weights={'text': 0.7, 'image': 0.3})[0][SIMILAR_TO].k == 4
    part = copy(part)
    part[ITEM].x_sound = torch.randn(38, 5)  # it came after the item graph, and takes no part there
    sound = arguments | {'features': arguments['features'] | {'sound': torch.randn(10, 5)}}
    del part[ITEM].spectrum
    assert torch.equal(onboard_items(part, **sound)[0][SIMILAR_TO].edge_index, expected.edge_index)
    for name, value in [('k', 4), ('weights', WEIGHTS)]:  # as in a graph from elsewhere
        del part[SIMILAR_TO][name]
        with pytest.raises(ValueError, match=f"'{name}' needs to be given: the item graph does not say how"):
            onboard_items(part, **sound)
        sound[name] = value
    similar = onboard_items(part, **sound)[0][SIMILAR_TO]
    assert torch.equal(similar.edge_weight, expected.edge_weight)
    del part[SIMILAR_TO]
    with pytest.raises(ValueError, match=r"'k' and 'weights' need an item graph in the data \(got 4 and"):
        onboard_items(part, **sound)


def test_new_items_and_layers_that_do_not_exist_are_refused():
    _, part, arguments = catalogue()
    model = LIRDRec.from_data(InteractionGraph()(part), seed=0, hidden_channels=8).eval()
    data, new = onboard_items(part, **arguments)
    data = InteractionGraph()(data)
    layers = item_layers(model, data)
    for wrong in (-1, 48):
        with pytest.raises(ValueError, match=rf"'new' need to be in \[0, 47\] \(got {wrong}\)"):
            encode_new_items(model, data, torch.tensor([wrong]), layers)
    with pytest.raises(ValueError, match=r"'new' needs to be integers of shape \[N\]"):
        encode_new_items(model, data, torch.tensor([0.9]), layers)
    layers[1, 4, 2] = float('nan')
    with pytest.raises(ValueError, match="'layers' needs to be finite"):
        encode_new_items(model, data, new, layers)
    for borrow in (float('inf'), float('nan'), -1):
        with pytest.raises(ValueError, match=rf"'borrow' needs to be non-negative \(got {borrow}\)"):
            encode_new_items(model, data, new, borrow=borrow)
    arguments = arguments | {'k': np.int64(4)}
    assert onboard_items(part, **arguments)[1].tolist() == new.tolist()


@pytest.mark.parametrize(('layout', 'device'), DEVICES)
def test_serves_on_the_device_of_the_model(splits, layout, device):
    train = InteractionGraph(layout)(splits[0])
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, recent_items=4).eval()
    there = deepcopy(model).to(device)
    histories, free = [['item-3', 'item-5'], [], ['item-47', 'item-5', 'item-9']], normalize(model.user.detach())[:3]
    new = torch.tensor([4, 7])

    def same(found, expected):
        assert (found.device.type, found.shape) == (device, expected.shape)
        if device == 'cuda':
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)

    layers = item_layers(model, train)
    same(item_layers(there, train), layers)
    for known in (None, layers, layers.to(device)):
        same(fold_in_users(there, train, histories, layers=known), fold_in_users(model, train, histories))
        same(fold_in_users(there, train, histories, free, known), fold_in_users(model, train, histories, free))
        for borrow in [0.0] if device == 'meta' else [0.0, 0.5]:  # which edges it takes depends on values
            expected = encode_new_items(model, train, new, borrow=borrow, scale=2)
            same(encode_new_items(there, train, new, known, borrow, scale=2), expected)
    assert train[ITEM].x_text.device.type == 'cpu'


def test_modalities_may_come_in_another_order(splits):
    train = copy(splits[0])
    model = LIRDRec.from_data(train, hidden_channels=8)
    del train[ITEM].x_image, train[ITEM].spectrum
    train[ITEM].x_image = splits[0][ITEM].x_image
    assert torch.equal(item_layers(model, DCT()(train)), item_layers(model, splits[0]))


def hidden(data, items):
    r"""Returns data in which nobody has interacted with some items, and no other item has them as neighbours."""
    is_new = torch.zeros(data[ITEM].num_nodes, dtype=torch.bool)
    is_new[items] = True
    data = copy(data)
    data[INTERACTS].edge_index = data[INTERACTS].edge_index[:, ~is_new[data[INTERACTS].edge_index[1]]]
    source, target = data[SIMILAR_TO].edge_index
    weight = data[SIMILAR_TO].edge_weight.clone()
    for i in (~is_new).nonzero().view(-1).tolist():
        own, gone = target == i, (target == i) & is_new[source]
        weight[own & ~gone] *= weight[own].sum() / weight[own & ~gone].sum()
        weight[gone] = 0
    data[SIMILAR_TO].edge_weight = weight
    recent = data[USER].recent_items
    data[USER].recent_items = torch.where((recent >= 0) & is_new[recent], -1, recent)
    return InteractionGraph()(data)


@pytest.mark.parametrize('power', [0, 0.5, 1])
def test_with_the_scale_known_items_treated_as_new_win_the_places_of_known_ones(splits, power):
    train = splits[0]
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, recent_items=4)
    fit(model, train, epochs=5, lr=1e-2, progress=False)
    model.set_power(power)
    scale = new_item_scale(model, train, borrow=0, k=5, folds=4, seed=3)
    assert scale == new_item_scale(model, train, item_layers(model, train), 0, 5, 4, seed=3)
    known = train[INTERACTS].edge_index[1].unique()
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(3))
    seen = torch.zeros(64, 48, dtype=torch.bool)
    seen[tuple(train[INTERACTS].edge_index)] = True
    won = places = 0
    for fold in known[order].tensor_split(4):
        user, item = model.encode(hidden(train, fold))
        item = item.clone()
        item[fold] *= scale
        excluded = seen.clone()
        excluded[:, fold] = False
        top = (user @ item.t()).masked_fill(excluded, float('-inf')).topk(5).indices
        won, places = won + torch.isin(top, fold).sum().item(), places + top.numel()
    assert won / places == pytest.approx(1 / 4, abs=2 / places)


def test_by_default_new_items_win_about_their_share_of_the_places():
    _, part, arguments = catalogue(num_items=120, num_cold_items=40)
    model = LIRDRec.from_data(part, seed=0, hidden_channels=8)
    fit(model, part, epochs=10, lr=1e-2, progress=False)
    data, new = onboard_items(part, **arguments)
    user, item = model.encode(data)

    def share(**settings):
        item[new] = encode_new_items(model, data, new, **settings)
        lists = torch.cat([items for _, items in top_k(Embeddings(user, item), torch.arange(64), 10,
                                                       part[INTERACTS].edge_index)])  # fmt: skip
        return (lists >= 80).double().mean().item()

    assert share(borrow=0, scale=1) < 0.02  # of 1 in 3 of the catalogue
    assert 0.15 < share() < 0.35
    first = encode_new_items(model, data, new)
    assert torch.equal(first, encode_new_items(model, data, new, scale=new_item_scale(model, data)))


def test_the_scale_of_new_items_refuses(splits):
    train = splits[0]
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8)
    for folds in (1, 49):
        with pytest.raises(ValueError, match=rf"'folds' need to be in \[2, 48\], the known items \(got {folds}\)"):
            new_item_scale(model, train, folds=folds)
    with pytest.raises(ValueError, match=r"'k' needs to be positive \(got 0\)"):
        new_item_scale(model, train, k=0)
    with pytest.raises(ValueError, match=r"'num_users' needs to be positive \(got -1\)"):
        new_item_scale(model, train, num_users=-1)
    with pytest.raises(ValueError, match=r"'borrow' needs to be non-negative \(got nan\)"):
        new_item_scale(model, train, borrow=float('nan'))
    for scale in (0, -1, float('inf'), float('nan')):
        with pytest.raises(ValueError, match=rf"'scale' needs to be positive \(got {scale}\)"):
            encode_new_items(model, train, torch.tensor([1]), scale=scale)
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, num_item_layers=0)
    with pytest.raises(ValueError, match=r"'model' needs to score items above zero .* \(got the scale inf\)"):
        new_item_scale(model, train, torch.zeros(3, 48, 24), borrow=0)  # no content, no score
