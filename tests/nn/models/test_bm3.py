from copy import copy

import pytest
import torch
import torch.nn.functional as F

from lirdrec_pyg.nn.models.bm3 import BM3
from lirdrec_pyg.transforms import InteractionGraph
from lirdrec_pyg.typing import INTERACTS


@pytest.fixture
def train(splits):
    return splits[0]


@pytest.fixture
def batch():
    return [torch.randint(n, (50,)) for n in (64, 48, 48)]


def oracle(model, data, batch, masks):
    r"""The forward pass and loss on dense matrices, written from the paper's equations; ``masks`` are of dropout."""
    p = dict(model.named_parameters())
    rel = torch.zeros(64, 48)
    rel[tuple(data[INTERACTS].edge_index)] = 1
    adj = torch.cat([torch.cat([torch.zeros(64, 64), rel], 1), torch.cat([rel.t(), torch.zeros(48, 48)], 1)])
    degree = adj.sum(1) + 1e-7
    adj = adj / (degree[:, None] * degree[None]).sqrt()
    layers = [torch.cat([p['user'], p['item']])]
    for _ in range(model.propagation.num_layers):
        layers.append(adj @ layers[-1])
    z = torch.stack(layers).mean(0)
    h_user, h_item = z[:64], z[64:] + p['item']

    def predict(h):
        return h @ p['predictor.weight'].t() + p['predictor.bias']

    def distance(a, b):
        cosines = [a[n] @ b[n] / (a[n].norm() * b[n].norm()) for n in range(len(a))]
        return 1 - torch.stack(cosines).mean()

    masks = iter(masks)
    user, pos, _ = batch
    u, i = h_user[user], h_item[pos]
    u_target, i_target = u.detach() * next(masks), i.detach() * next(masks)
    loss = distance(predict(u), i_target) + distance(predict(i), u_target)
    for name in ('image', 'text'):
        x = data['item'][f'x_{name}'][pos]
        h = x @ p[f'projections.{name}.weight'].t() + p[f'projections.{name}.bias']
        loss = loss + model.align_weight * distance(predict(h), i_target)
        loss = loss + model.align_weight * distance(predict(h), h.detach() * next(masks))
    penalty = (h_user.square().sum().sqrt() + h_item.square().sum().sqrt()) / 48
    return predict(h_user), predict(h_item), loss + model.reg_weight * penalty


@pytest.mark.parametrize('training', [True, False])
def test_forward_loss_and_gradients_equal_the_dense_oracle(train, batch, training):
    model = BM3.from_data(train, hidden_channels=16, num_layers=3, dropout=0.3, align_weight=0.7, reg_weight=2.0)
    model.train(training)
    torch.manual_seed(7)
    masks = [F.dropout(torch.ones(50, 16), 0.3, training) for _ in range(4)]
    assert (torch.stack(masks) == 0).any() == training
    user, item, expected = oracle(model, train, batch, masks)
    out = model.encode(train)
    assert torch.allclose(out.user, user, atol=1e-5)
    assert torch.allclose(out.item, item, atol=1e-5)
    torch.manual_seed(7)
    loss = model.loss(train, *batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    params = list(model.parameters())
    for grad, other in zip(torch.autograd.grad(loss, params), torch.autograd.grad(expected, params), strict=True):
        assert torch.allclose(grad, other, atol=1e-5)


def test_needs_no_negatives(train, batch):
    model = BM3.from_data(train, hidden_channels=8).eval()
    user, pos, neg = batch
    assert model.loss(train, user, pos, neg) == model.loss(train, user, pos, (neg + 1) % 48)


def test_sub_graph(train, batch):
    model = BM3.from_data(train, hidden_channels=8).eval()
    part = copy(train)  # the whole graph, nodes in another order
    users, items = torch.randperm(64), torch.randperm(48)
    user, item = train[INTERACTS].edge_index
    part[INTERACTS].edge_index = torch.stack([users.argsort()[user], items.argsort()[item]])
    part['user'].n_id, part['item'].n_id = users, items
    for key in ('x_image', 'x_text'):
        part['item'][key] = train['item'][key][items]
    part = InteractionGraph('edge_index')(part)
    whole, out = model.encode(train), model.encode(part)
    assert torch.allclose(out.user, whole.user[users], atol=1e-5)
    assert torch.allclose(out.item, whole.item[items], atol=1e-5)
    ids = users[batch[0]], items[batch[1]], items[batch[2]]
    assert model.loss(part, *batch).item() == pytest.approx(model.loss(train, *ids).item(), rel=1e-5)


def test_refuses():
    with pytest.raises(ValueError, match=r"'dropout' needs to be in \[0, 1\) \(got -0.1\)"):
        BM3(3, 4, {'text': 2}, dropout=-0.1)


def test_repr(train):
    assert str(BM3.from_data(train, hidden_channels=8)) == (
        "BM3(64, 48, {'image': 16, 'text': 8}, hidden_channels=8, num_layers=2, dropout=0.5, "
        'align_weight=2.0, reg_weight=0.1, objective=None)'
    )
