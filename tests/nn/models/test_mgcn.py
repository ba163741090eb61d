from copy import copy

import pytest
import torch
import torch.nn.functional as F

from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn.models.mgcn import MGCN
from lirdrec_pyg.transforms import FixedSplit, InteractionGraph, ModalityGraphs
from lirdrec_pyg.typing import INTERACTS, similar_by


@pytest.fixture
def train(splits):
    return splits[0]


@pytest.fixture
def triplets():
    return [torch.randint(n, (50,)) for n in (64, 48, 48)]


def oracle(model, data, triplets, k=4):
    r"""The forward pass and loss on dense matrices, written from the paper's equations."""
    p = dict(model.named_parameters())
    d, names = model.user.size(1), list(model.in_channels)
    rel = torch.zeros(64, 48)
    rel[tuple(data[INTERACTS].edge_index)] = 1
    rel = rel / ((rel.sum(1) + 1e-7)[:, None] * (rel.sum(0) + 1e-7)[None]).sqrt()
    adj = torch.cat([torch.cat([torch.zeros(64, 64), rel], 1), torch.cat([rel.t(), torch.zeros(48, 48)], 1)])

    def similar(name):
        x = data['item'][f'x_{name}']
        cosine = x @ x.t() / (x.norm(dim=1)[:, None] * x.norm(dim=1))
        graph = torch.zeros(48, 48)
        for i in range(48):
            for j in cosine[i].topk(k).indices:
                graph[i, j] = cosine[i, j].clamp(min=0)
        degree = graph.sum(1)
        return graph / (degree[:, None] * degree).sqrt()

    def linear(x, name):
        return x @ p[f'{name}.weight'].t() + p[f'{name}.bias']

    layers = [torch.cat([p['user'], p['item']])]
    for _ in range(model.propagation.num_layers):
        layers.append(adj @ layers[-1])
    z = torch.stack(layers).mean(0)

    hs, logits = [], []
    for name in names:
        h = p['item'] * torch.sigmoid(linear(linear(data['item'][f'x_{name}'], f'gates.{name}.0'), f'gates.{name}.1'))
        h = torch.linalg.matrix_power(similar(name), model.propagation.num_item_layers) @ h
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
        terms = []
        for n in ids:
            similarity = {
                m: (side[n] @ z[m] / (side[n].norm() * z[m].norm()) / model.temperature).exp() for m in {*ids.tolist()}
            }
            terms.append(-torch.log(similarity[int(n)] / sum(similarity.values())))
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
    data = ModalityGraphs(3)(FakeMultimodal(widths=channels)[0])
    train = InteractionGraph()(FixedSplit()(data)[0])
    model = MGCN.from_data(train, hidden_channels=8)
    user, item, loss = oracle(model, train, triplets, k=3)
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
    for name in ('image', 'text'):
        part[similar_by(name)].edge_index = items.argsort()[train[similar_by(name)].edge_index]
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
    with pytest.raises(ValueError, match=r"'similar_by_image', 'item'\): apply `ModalityGraphs\(\)` to it"):
        MGCN.from_data(train, hidden_channels=8).encode(train)
    assert MGCN.from_data(train, hidden_channels=8, num_item_layers=0).encode(train).item.shape == (48, 8)


def test_a_user_of_many_interactions_is_no_negative_of_itself(train):
    model = MGCN.from_data(train, hidden_channels=8)
    a, b = torch.randn(5, 8), torch.randn(5, 8)
    once, often = torch.tensor([0, 2, 3]), torch.tensor([3, 0, 2]).repeat(4)
    assert model.contrast(a, b, often).item() == pytest.approx(model.contrast(a, b, once).item(), rel=1e-6)


def test_repr(train):
    assert str(MGCN.from_data(train, hidden_channels=8)) == (
        "MGCN(64, 48, {'image': 16, 'text': 8}, hidden_channels=8, num_layers=2, num_item_layers=1, "
        'contrast_weight=0.001, temperature=0.2, reg_weight=0.0001, objective=BPR())'
    )
