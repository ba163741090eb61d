from copy import copy

import numpy as np
import pytest
import torch

from lirdrec_pyg import evaluate, fit
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn.models.vbpr import VBPR
from lirdrec_pyg.transforms import FixedSplit, InteractionGraph


@pytest.fixture
def train(splits):
    return splits[0]


def build(train, **kwargs):
    model = VBPR.from_data(train, hidden_channels=8, reg_weight=0.3, **kwargs)
    with torch.no_grad():
        for param in model.parameters():
            param.add_(0.1 * torch.randn_like(param))  # biases are not zero
    return model


@pytest.mark.parametrize('bias', [False, True])
def test_scores_and_loss_equal_the_numpy_oracle(train, bias):
    model = build(train, bias=bias)
    p = {name: param.detach().double().numpy() for name, param in model.named_parameters()}
    gamma_user, theta = p['user'][:, :8], p['user'][:, 8:]
    f = torch.cat([train['item'].x_image, train['item'].x_text], dim=1).double().numpy()
    joint = np.concatenate([p['projections.image.weight'], p['projections.text.weight']], axis=1)
    content = f @ joint[:8].T  # [I, d]
    beta = p['item_bias'][:, 0] + f @ joint[8] if bias else np.zeros(48)
    expected = gamma_user @ p['item'].T + theta @ content.T + beta
    out = model.encode(train)
    np.testing.assert_allclose((out.user @ out.item.t()).detach(), expected, atol=1e-4)

    triplets = [torch.randint(n, (50,)) for n in (64, 48, 48)]
    u, i, j = (index.numpy() for index in triplets)
    item = np.concatenate([p['item'], content], axis=1)
    penalty = (p['user'][u] ** 2).sum() + (item[i] ** 2).sum() + (item[j] ** 2).sum()
    loss = np.log1p(np.exp(expected[u, j] - expected[u, i])).mean() + 0.3 * penalty / (2 * 50)
    assert model.loss(train, *triplets).item() == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize('bias', [False, True])
def test_sub_graph(train, bias):
    model = build(train, bias=bias)
    part = copy(train)
    part['user'].n_id, part['item'].n_id = torch.tensor([7, 3, 60]), torch.tensor([40, 2, 5, 11])
    for key in ('x_image', 'x_text'):
        part['item'][key] = train['item'][key][part['item'].n_id]
    whole, out = model(train), model.embed(part)
    assert torch.allclose(out.user, whole.user[part['user'].n_id])
    assert torch.allclose(out.item, whole.item[part['item'].n_id], atol=1e-6)
    local = torch.tensor([[0, 2], [3, 1], [0, 0]])
    ids = [part['user'].n_id[local[0]], part['item'].n_id[local[1]], part['item'].n_id[local[2]]]
    assert model.loss(part, *local).item() == pytest.approx(model.loss(train, *ids).item(), rel=1e-5)


def test_content_finds_cold_items():
    train, val, _ = FixedSplit()(FakeMultimodal(num_cold_items=8)[0])
    train = InteractionGraph()(train)
    model = VBPR.from_data(train, seed=0, hidden_channels=8)
    fit(model, train, val, epochs=30, lr=1e-2, monitor='recall@5', progress=False)
    out = model.encode(train)
    assert evaluate(out, val, k=20)['recall@20'] > 0.95
    cold = (out.user @ out.item.t())[:, 40:]
    same = train['user'].block[:, None] == train['item'].block[None, 40:]
    assert (cold.masked_fill(~same, -9).argmax(dim=1) == cold.argmax(dim=1)).float().mean() > 0.95


def test_repr(train):
    assert str(VBPR.from_data(train, hidden_channels=8)) == (
        "VBPR(64, 48, {'image': 16, 'text': 8}, hidden_channels=8, bias=False, reg_weight=0.0001, objective=BPR())"
    )
