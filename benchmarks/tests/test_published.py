r"""The models of the published splits."""

import copy

import pytest
import torch

from benchmarks.quality import catalogues, jobs, published
from lirdrec_pyg import LightGCN, fit
from lirdrec_pyg.transforms import InteractionGraph


@pytest.fixture
def splits(tmp_path):
    data = copy.copy(catalogues.load('fake', tmp_path))
    for name in ('x_image', 'x_text'):
        data['item'].pop(name)
    train, val, _ = catalogues.split('fake')(data)
    return InteractionGraph()(train), val


@pytest.mark.parametrize('name', ['PublishedLightGCN', 'PublishedBPRMF'])
def test_the_loss_is_that_of_the_framework(splits, name):
    train, _ = splits
    model = published.MODELS[name].from_data(train, seed=0, hidden_channels=8, reg_weight=0.3)
    user, pos, neg = torch.tensor([0, 1, 1]), torch.tensor([2, 3, 4]), torch.tensor([5, 5, 6])
    z = model.embed(train)
    dense = torch.zeros(len(z.user) + len(z.item), len(z.user) + len(z.item))
    first, second = train['interacts'].edge_index
    dense[first, len(z.user) + second] = dense[len(z.user) + second, first] = 1
    scale = (dense.sum(dim=1) + 1e-7) ** -0.5
    layers = [torch.cat([model.user, model.item])]
    for _ in range(3 if name == 'PublishedLightGCN' else 0):
        layers.append(scale[:, None] * dense * scale @ layers[-1])
    mean = torch.stack(layers).mean(dim=0)
    users, items = mean[: len(z.user)], mean[len(z.user) :]
    score = (users[user] * (items[pos] - items[neg])).sum(dim=1)
    penalty = sum(block.norm() for block in (model.user[user], model.item[pos], model.item[neg])) / 3
    expected = -(1e-10 + score.sigmoid()).log().mean() + 0.3 * penalty
    loss = model.loss(train, user, pos, neg)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_without_a_penalty_it_is_lightgcn(splits):
    train, val = splits
    found = []
    for model in (LightGCN, published.PublishedLightGCN):
        model = model.from_data(train, seed=0, hidden_channels=8, reg_weight=0.0)
        fit(model, train, val, epochs=2, lr=1e-3, progress=False)
        found.append(model(train).item)
    assert torch.equal(*found)


def test_item_ids_are_a_view_without_features(splits):
    train, val = splits
    job = jobs.job('fake', 'ItemIDs', 0, {'model': {'hidden_channels': 8}})
    model = jobs.build(job, train)
    assert model.num_views == 1 and model.propagation.num_item_layers == 0
    z = model(train)
    assert z.item.shape == (train['item'].num_nodes, 8)
    before = model.item.detach().clone()
    fit(model, train, val, epochs=3, lr=1e-2, progress=False)
    assert not torch.equal(model.item, before)
