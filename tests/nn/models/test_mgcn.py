from copy import copy

import pytest
import torch
import torch.nn.functional as F

from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn.models.mgcn import MGCN
from lirdrec_pyg.transforms import FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, SIMILAR_TO


@pytest.fixture
def train(splits):
    return splits[0]


@pytest.fixture
def triplets():
    return [torch.randint(n, (50,)) for n in (64, 48, 48)]


def oracle(model, data, triplets):
    r"""The forward pass and loss on dense matrices, written from the paper's equations."""
    p = dict(model.named_parameters())
    d, names = model.user.size(1), list(model.in_channels)
    rel = torch.zeros(64, 48)
    rel[tuple(data[INTERACTS].edge_index)] = 1
    rel = rel / ((rel.sum(1) + 1e-7)[:, None] * (rel.sum(0) + 1e-7)[None]).sqrt()
    adj = torch.cat([torch.cat([torch.zeros(64, 64), rel], 1), torch.cat([rel.t(), torch.zeros(48, 48)], 1)])
    similar = torch.zeros(48, 48)
    source, target = data[SIMILAR_TO].edge_index
    similar[target, source] = data[SIMILAR_TO].edge_weight

    def linear(x, name):
        return x @ p[f'{name}.weight'].t() + p[f'{name}.bias']

    layers = [torch.cat([p['user'], p['item']])]
    for _ in range(model.propagation.num_layers):
        layers.append(adj @ layers[-1])
    z = torch.stack(layers).mean(0)

    hs, logits = [], []
    for name in names:
        h = p['item'] * torch.sigmoid(linear(linear(data['item'][f'x_{name}'], f'gates.{name}.0'), f'gates.{name}.1'))
        h = torch.linalg.matrix_power(similar, model.propagation.num_item_layers) @ h
        hs.append(torch.cat([rel @ h, h]))
        logits.append(torch.tanh(linear(hs[-1], 'query.0')) @ p['query.2.weight'][0])
    total = sum(logit.exp() for logit in logits)
    shared = sum((logit.exp() / total)[:, None] * h for logit, h in zip(logits, hs, strict=True))
    side = shared
    for m, h in enumerate(hs):
        rows = slice(m * d, (m + 1) * d)
        side = side + torch.sigmoid(z @ p['preference.weight'][rows].t() + p['preference.bias'][rows]) * (h - shared)
    side = side / (len(names) + 1)

    user, item = (z + side)[:64], (z + side)[64:]
    u, i, j = triplets
    loss = -F.logsigmoid((user[u] * item[i]).sum(1) - (user[u] * item[j]).sum(1)).mean()
    penalty = sum(x.square().sum() for x in (user[u], item[i], item[j])) / (2 * len(u))

    def contrast(ids):
        a, b = (x[ids] / x[ids].norm(dim=1, keepdim=True) for x in (side, z))
        terms = []
        for n in range(len(ids)):
            similarity = torch.exp((a[n] * b).sum(1) / model.temperature)
            terms.append(-torch.log(similarity[n] / similarity.sum()))
        return torch.stack(terms).mean()

    loss = loss + model.reg_weight * penalty + model.contrast_weight * (contrast(u) + contrast(64 + i))
    return user, item, loss


@pytest.mark.parametrize(('num_layers', 'num_item_layers'), [(2, 1), (1, 2), (3, 0)])
def test_forward_loss_and_gradients_equal_the_dense_oracle(train, triplets, num_layers, num_item_layers):
    model = MGCN.from_data(
        train,
        hidden_channels=8,
        num_layers=num_layers,
        num_item_layers=num_item_layers,
        contrast_weight=0.1,
        reg_weight=0.3,
    )
    user, item, expected = oracle(model, train, triplets)
    out = model.encode(train)
    assert torch.allclose(out.user, user, atol=1e-5)
    assert torch.allclose(out.item, item, atol=1e-5)
    loss = model.loss(train, *triplets)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    params = list(model.parameters())
    for grad, other in zip(torch.autograd.grad(loss, params), torch.autograd.grad(expected, params), strict=True):
        assert torch.allclose(grad, other, atol=1e-5)


@pytest.mark.parametrize('channels', [{'text': 4}, {'audio': 3, 'image': 5, 'text': 4}])
def test_any_number_of_modalities(channels, triplets):
    data = ItemKNNGraph(3)(FakeMultimodal(widths=channels)[0])
    train = InteractionGraph()(FixedSplit()(data)[0])
    model = MGCN.from_data(train, hidden_channels=8)
    user, item, loss = oracle(model, train, triplets)
    out = model.encode(train)
    assert torch.allclose(out.user, user, atol=1e-5)
    assert torch.allclose(out.item, item, atol=1e-5)
    assert model.loss(train, *triplets).item() == pytest.approx(loss.item(), rel=1e-5)


def test_sub_graph(train, triplets):
    model = MGCN.from_data(train, hidden_channels=8)
    part = copy(train)  # the whole graph, nodes in another order
    users, items = torch.randperm(64), torch.randperm(48)
    user, item = train[INTERACTS].edge_index
    part[INTERACTS].edge_index = torch.stack([users.argsort()[user], items.argsort()[item]])
    part[SIMILAR_TO].edge_index = items.argsort()[train[SIMILAR_TO].edge_index]
    part['user'].n_id, part['item'].n_id = users, items
    for key in ('x_image', 'x_text'):
        part['item'][key] = train['item'][key][items]
    part = InteractionGraph('edge_index')(part)
    whole, out = model.encode(train), model.encode(part)
    assert torch.allclose(out.user, whole.user[users], atol=1e-5)
    assert torch.allclose(out.item, whole.item[items], atol=1e-5)
    ids = users[triplets[0]], items[triplets[1]], items[triplets[2]]
    assert model.loss(part, *triplets).item() == pytest.approx(model.loss(train, *ids).item(), rel=1e-5)


def test_refuses_data_without_an_item_graph():
    train = InteractionGraph()(FixedSplit()(FakeMultimodal()[0])[0])
    with pytest.raises(ValueError, match=r'apply `ItemKNNGraph\(\)` to it'):
        MGCN.from_data(train, hidden_channels=8).encode(train)
    assert MGCN.from_data(train, hidden_channels=8, num_item_layers=0).encode(train).item.shape == (48, 8)


def test_repr(train):
    assert str(MGCN.from_data(train, hidden_channels=8)) == (
        "MGCN(64, 48, {'image': 16, 'text': 8}, hidden_channels=8, num_layers=2, num_item_layers=1, "
        'contrast_weight=0.001, temperature=0.2, reg_weight=0.0001, objective=BPR())'
    )
