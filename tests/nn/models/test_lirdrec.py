from copy import copy

import numpy as np
import pytest
import torch
from scipy.fft import dct

from lirdrec_pyg import LIRDRec, SoftmaxLIRDRec
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import SampledSoftmax
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, SIMILAR_TO, Embeddings


def oracle(model, data, triplets, epoch):
    r"""The forward pass and loss in NumPy, written from the paper's equations."""
    p = {name: param.detach().double().numpy() for name, param in model.named_parameters()}
    x = {name: data['item'][f'x_{name}'].double().numpy() for name in model.in_channels}
    x['shared'] = np.concatenate([dct(value, norm='ortho') for value in x.values()], axis=1)
    num_users, num_items = data['user'].num_nodes, data['item'].num_nodes
    rel = np.zeros((num_users, num_items))
    rel[tuple(data[INTERACTS].edge_index.numpy())] = 1
    adj = np.block([[np.zeros((num_users, num_users)), rel], [rel.T, np.zeros((num_items, num_items))]])
    degree = adj.sum(1) + 1e-7
    adj = adj / np.sqrt(degree[:, None] * degree[None])
    similar = np.zeros((num_items, num_items))
    source, target = data[SIMILAR_TO].edge_index.numpy()
    similar[target, source] = data[SIMILAR_TO].edge_weight.numpy()

    def mlp(h, w1, b1, w2, b2=0.0):
        h = h @ w1.T + b1
        return np.where(h > 0, h, 0.01 * h) @ w2.T + b2

    users, items, preds = [], [], []
    for v, name in enumerate(x):
        key = 'shared_encoder' if name == 'shared' else f'encoders.{name}'
        h = mlp(x[name], p[f'{key}.lin1.weight'], p[f'{key}.lin1.bias'], p[f'{key}.lin2.weight'])
        z = np.concatenate([p['user'][:, v], h])
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        z = sum(np.linalg.matrix_power(adj, power) @ z for power in range(model.propagation.num_layers + 1))
        users.append(z[:num_users])
        items.append(z[num_users:])
        net = f'fusion.nets.{v}'
        preds.append(mlp(users[-1], *(p[f'{net}.{i}.{n}'] for i in (0, 2) for n in ('weight', 'bias'))))
    item = np.concatenate(items, axis=1)
    item = item + similar @ item
    gate = 0.9 / (0.9 + 0.1 * 0.9 ** (-epoch * (epoch + 1) / 2))
    logit = gate * np.concatenate(preds, axis=1) + (1 - gate) * p['fusion.theta']
    weight = np.exp(logit) / np.exp(logit).sum(1, keepdims=True)
    user = np.concatenate([weight[:, [v]] * users[v] for v in range(len(users))], axis=1)
    u, i, j = triplets
    margin = (user[u] * item[i]).sum(1) - (user[u] * item[j]).sum(1)
    loss = np.log1p(np.exp(-margin)).mean() + model.reg_weight * ((user**2).mean() + (item**2).mean())
    return user, item, loss


def test_forward_and_loss_equal_the_numpy_oracle(splits):
    train = splits[0]
    model = LIRDRec.from_data(train, hidden_channels=8, num_layers=3, reg_weight=0.1)
    model.on_epoch_start(3)
    with torch.no_grad():
        for param in model.parameters():
            param.add_(0.1 * torch.randn_like(param))  # biases are not zero
        model.fusion.theta.copy_(torch.randn_like(model.fusion.theta))
    triplets = [torch.randint(n, (50,)) for n in (64, 48, 48)]
    user, item, loss = oracle(model, train, [index.numpy() for index in triplets], epoch=3)
    out = model.encode(train)
    np.testing.assert_allclose(out.user.detach(), user, atol=1e-5)
    np.testing.assert_allclose(out.item.detach(), item, atol=1e-5)
    assert model.loss(train, *triplets).item() == pytest.approx(loss, rel=1e-5)


def test_no_parameter_has_a_row_per_item(splits):
    model = LIRDRec.from_data(splits[0], hidden_channels=7)
    for name, tensor in model.state_dict().items():
        assert 48 not in tensor.shape, name


def test_a_new_item_needs_nothing(splits):
    train = splits[0]
    model = LIRDRec.from_data(train, hidden_channels=8).eval()
    before = model.encode(train)
    grown = copy(train)
    for key in ('x_image', 'x_text', 'spectrum'):
        grown['item'][key] = torch.cat([train['item'][key], torch.randn(3, train['item'][key].size(1))])
    grown['item'].num_nodes = 51
    for key in ('raw_id', 'title'):
        grown['item'][key] = [*train['item'][key], *'abc']
    into = torch.tensor([[0, 5, 48, 7], [48, 48, 48, 50]])  # edges into the new items only
    grown[SIMILAR_TO].edge_index = torch.cat([train[SIMILAR_TO].edge_index, into], dim=1)
    grown[SIMILAR_TO].edge_weight = torch.cat([train[SIMILAR_TO].edge_weight, torch.full((4,), 0.25)])
    from lirdrec_pyg.transforms import InteractionGraph

    after = model.encode(InteractionGraph()(grown))
    assert torch.allclose(after.user, before.user, atol=1e-6)
    assert torch.allclose(after.item[:48], before.item, atol=1e-6)
    assert torch.isfinite(after.item[48:]).all()
    assert (after.item[48:].norm(dim=1) > 0.1).all()


def test_refuses(splits, data):
    train = splits[0]
    model = LIRDRec.from_data(train, hidden_channels=8)
    with pytest.raises(ValueError, match='apply `Interaction'):
        model.encode(data)
    with pytest.raises(ValueError, match="'in_channels' needs at least one modality"):
        LIRDRec(3, {})
    wrong = copy(train)
    wrong['item'].x_text = torch.randn(48, 9)
    with pytest.raises(ValueError, match=r"'x_text' needs to have 8 columns \(got 9\)"):
        model.encode(wrong)
    wrong = copy(train)
    wrong['user'].num_nodes = 65
    wrong['user'].raw_id = [*train['user'].raw_id, 'a']
    del wrong['user'].recent_items, wrong['user'].block
    with pytest.raises(ValueError, match=r'needs to have 64 users \(got 65\)'):
        model.encode(InteractionGraph()(wrong))
    wrong = copy(train)
    del wrong['item'].spectrum
    with pytest.raises(ValueError, match=r'apply `DCT\(\)`'):
        LIRDRec.from_data(wrong)
    wrong = copy(train)
    del wrong[SIMILAR_TO]
    with pytest.raises(ValueError, match=r'apply `ItemKNNGraph\(\)` to it, or .*`num_item_layers=0` \(got 1\)'):
        model.encode(wrong)
    assert LIRDRec.from_data(wrong, hidden_channels=8, num_item_layers=0).encode(wrong).item.isfinite().all()
    wrong = copy(train)
    del wrong['item'].x_text
    with pytest.raises(ValueError, match="unknown modality 'text'"):
        model.encode(wrong)
    wrong = copy(train)
    wrong['item'].x_audio = torch.randn(48, 3)
    with pytest.raises(ValueError, match=r"needs to have the modalities \['image', 'text'\] \(got .*'audio'\]"):
        model.encode(wrong)


def test_the_order_of_the_modalities_in_the_data_does_not_matter(data):
    train = InteractionGraph()(FixedSplit()(data)[0])
    other = copy(train)
    image = other['item'].x_image
    del other['item'].x_image, other['item'].spectrum
    other['item'].x_image = image
    other = DCT()(other)
    assert not torch.equal(other['item'].spectrum, train['item'].spectrum)
    model = LIRDRec.from_data(train, hidden_channels=8)
    assert torch.equal(model.encode(other).item, model.encode(train).item)


def test_official_state_dict_refuses(splits):
    model = LIRDRec.from_data(splits[0], hidden_channels=8)
    with pytest.raises(ValueError, match="lacks the parameter 'fusion_module.theta'"):
        model.load_official_state_dict({})
    with pytest.raises(ValueError, match='needs to be of shape'):
        model.load_official_state_dict({'fusion_module.theta': torch.zeros(2, 3)} | _official(model))
    with pytest.raises(ValueError, match='the fusion PWC'):
        LIRDRec(3, {'text': 4}).load_official_state_dict({})


def _official(model):
    state = {}
    for key, table, net in [('v', 'v_preference', 'a'), ('t', 't_preference', 'b'), ('s', 'id_preference', 'c')]:
        names = [table, f'{key}_MLP.weight', f'{key}_MLP.bias', f'{key}_MLP_1.weight']
        names += [f'fusion_module.weco_{net}.{fc}.{n}' for fc in ('fc1', 'fc2') for n in ('weight', 'bias')]
        state |= dict.fromkeys(names, torch.zeros(1))
    return state


def test_softmax_objective(splits):
    train = splits[0]
    user, pos = train[INTERACTS].edge_index[:, :20]

    def build(num_negatives=None):
        model = LIRDRec.from_data(
            train, seed=0, hidden_channels=8, objective=SampledSoftmax(0.5, num_negatives), reg_weight=0.0
        )
        model.set_power(0)
        return model

    model = build()
    z = model(train)
    assert torch.allclose(z.user.norm(dim=1), torch.ones(64))
    assert torch.allclose(z.item.norm(dim=1), torch.ones(48))
    expected = torch.nn.functional.cross_entropy(z.user[user] @ z.item.t() / 0.5, pos)
    assert torch.allclose(model.loss(train, user, pos, pos), expected)

    items = pos.unique()
    expected = torch.nn.functional.cross_entropy(
        z.user[user] @ z.item[items].t() / 0.5, torch.searchsorted(items, pos)
    )  # fmt: skip
    assert torch.allclose(build('batch').loss(train, user, pos, pos), expected)
    assert torch.equal(build(10_000).loss(train, user, pos, pos), build().loss(train, user, pos, pos))
    assert model.fit_defaults == {'lr': 1e-3, 'patience': 10}
    assert LIRDRec.from_data(train).fit_defaults == {'lr': 1e-4, 'patience': 20}


@pytest.mark.parametrize('num_negatives', [None, 10])
def test_softmax_does_not_push_items_away_that_nobody_could_choose(num_negatives):
    data = ItemKNNGraph(k=4)(DCT()(FakeMultimodal(num_cold_items=6, seed=1)[0]))
    train = InteractionGraph()(FixedSplit()(data)[0])
    user, pos = train[INTERACTS].edge_index[:, :20]
    objective = SampledSoftmax(num_negatives=num_negatives)
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, objective=objective)
    seen = train[INTERACTS].edge_index[1].unique()
    assert seen.numel() < train['item'].num_nodes
    z = [part.detach().requires_grad_() for part in model(train)]
    objective(model.batch(train, Embeddings(*z), user, pos, pos)).backward()
    pushed = z[1].grad.abs().sum(dim=1).nonzero().view(-1)
    assert torch.isin(pushed, seen).all()
    assert torch.isin(pos, pushed).all()
    if num_negatives is None:
        assert torch.equal(pushed, seen)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'temperature': 0}, "'temperature' needs to be positive \\(got 0\\)"),
        ({'num_negatives': 0}, "'num_negatives' needs to be positive, 'batch' or None \\(got 0\\)"),
    ],
)
def test_refuses_objectives(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SampledSoftmax(**kwargs)


def test_the_preset_is_these_settings(splits):
    train = splits[0]
    ours = SoftmaxLIRDRec.from_data(train, seed=0, hidden_channels=8)
    same = LIRDRec.from_data(train, seed=0, hidden_channels=8, objective=SampledSoftmax(), dropout=0.3)
    same.set_power(0.5)
    known = {**same.settings(), 'class': ''}
    assert {**ours.settings(), 'class': ''} == known
    for (name, value), other in zip(ours.state_dict().items(), same.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    assert ours.fit_defaults == {'lr': 1e-3, 'patience': 10}


def test_the_power_changes_the_length_of_embeddings_alone(splits):
    train = splits[0]
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8)
    long = model(train)
    for power in (0, 0.5, 1, 2):
        model.set_power(power)
        for ours, z in zip(model(train), long, strict=True):
            length = z.norm(dim=1, keepdim=True)
            assert torch.allclose(ours, z / length * length**power, atol=1e-5)
        assert torch.equal(model.scale(long.item), model(train).item)
    assert model.state_dict()['power'] == 2
    for power in (-0.5, float('nan'), float('inf')):
        with pytest.raises(ValueError, match=rf"'power' needs to be a non-negative number \(got {power!r}\)"):
            model.set_power(power)
        with pytest.raises(ValueError, match="'power' needs"):
            long.scaled(power)


def test_recent_items_are_what_came_before_the_interaction(splits):
    train = splits[0]
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, recent_items=4).eval()
    user, pos = train[INTERACTS].edge_index[:, [5, 90]]
    assert torch.equal(model.recent_items_before(train, user, pos), train[INTERACTS].recent_items[[5, 90]])
    plain = LIRDRec.from_data(train, hidden_channels=8).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    expected = model.recent(*plain(train), train['user'].recent_items)
    assert torch.allclose(model(train).user, expected)
    with pytest.raises(ValueError, match="'pos' needs to be training interactions"):
        model.loss(train, user, splits[1][INTERACTS].edge_label_index[1, user], pos)
    with pytest.raises(ValueError, match=r'apply `RecentItems\(3\)` to it \(got of length 4\)'):
        LIRDRec.from_data(train, hidden_channels=8, recent_items=3)(train)
    train['user'].n_id = torch.arange(64)
    with pytest.raises(ValueError, match="'recent_items' needs the whole graph"):
        model(train)
    with pytest.raises(ValueError, match="'recent_items' needs to be non-negative"):
        LIRDRec.from_data(train, recent_items=-1)


@pytest.mark.parametrize('dtype', [torch.float, torch.bfloat16])
def test_a_spectral_filter_weighs_each_frequency_and_is_none_at_first(splits, dtype):
    train, _, _ = splits
    plain = LIRDRec.from_data(train, seed=0, hidden_channels=8)
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, spectral_filter=True)
    assert model.state_dict().keys() - plain.state_dict().keys() == {'shared_encoder.filter'}
    train['item'].spectrum = train['item'].spectrum.to(dtype)
    user, pos = train[INTERACTS].edge_index[:, :32]
    for one, other in zip(model(train), plain(train), strict=True):
        assert torch.equal(one, other)
    weight = torch.rand(24) + 0.5
    model.shared_encoder.filter.data.copy_(weight)
    part = copy(train)
    part['item'].spectrum = train['item'].spectrum.float() * weight
    tolerance = 1e-5 if dtype == torch.float else 0.05
    assert torch.allclose(model(train).item, plain(part).item, atol=tolerance)
    model.loss(train, user, pos, (pos + 1) % 48).backward()
    assert model.shared_encoder.filter.grad.abs().min() > 0
    assert str(model).endswith('spectral_filter=True)')


def test_the_filter_has_the_gradient_of_its_formula(splits):
    train, _, _ = splits
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, spectral_filter=True)
    x, encoder = train['item'].spectrum, model.shared_encoder
    encoder.filter.data.uniform_(0.5, 1.5)
    weight = torch.randn(48, 8)
    h = torch.nn.functional.leaky_relu(encoder.lin1(x * encoder.filter))
    expected = torch.autograd.grad((encoder.lin2(h) * weight).sum(), list(encoder.parameters()))
    found = torch.autograd.grad((encoder(x) * weight).sum(), list(encoder.parameters()))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
