from copy import copy

import numpy as np
import pytest
import torch
from torch_geometric.transforms import Compose

from lirdrec_pyg import evaluate, fit
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn.models.freedom import FREEDOM
from lirdrec_pyg.transforms import FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, SIMILAR_TO


@pytest.fixture
def train(splits):
    return splits[0]


@pytest.fixture
def triplets():
    return [torch.randint(n, (50,)) for n in (64, 48, 48)]


def rel_matrix(edge_index):
    rel = np.zeros((64, 48))
    rel[tuple(edge_index.numpy())] = 1
    return rel


def oracle(model, data, rel, triplets):
    r"""The forward pass and loss in NumPy, written from the paper's equations, on the given interactions."""
    p = {name: param.detach().double().numpy() for name, param in model.named_parameters()}
    adj = np.block([[np.zeros((64, 64)), rel], [rel.T, np.zeros((48, 48))]])
    degree = adj.sum(1) + 1e-7
    adj = adj / np.sqrt(degree[:, None] * degree[None])
    similar = np.zeros((48, 48))
    source, target = data[SIMILAR_TO].edge_index.numpy()
    similar[target, source] = data[SIMILAR_TO].edge_weight.numpy()

    layers = [np.concatenate([p['user'], p['item']])]
    for _ in range(model.propagation.num_layers):
        layers.append(adj @ layers[-1])
    z = np.mean(layers, axis=0)
    user = z[:64]
    item = z[64:] + np.linalg.matrix_power(similar, model.propagation.num_item_layers) @ p['item']

    def bpr(table):
        u, i, j = (index.numpy() for index in triplets)
        return np.log1p(np.exp((user[u] * table[j]).sum(1) - (user[u] * table[i]).sum(1))).mean()

    loss = bpr(item)
    for name in ('image', 'text'):
        x = data['item'][f'x_{name}'].double().numpy()
        loss += model.reg_weight * bpr(x @ p[f'projections.{name}.weight'].T)
    return user, item, loss


@pytest.mark.parametrize('num_item_layers', [1, 2])
def test_forward_and_loss_equal_the_numpy_oracle(train, triplets, num_item_layers):
    model = FREEDOM.from_data(train, hidden_channels=8, num_item_layers=num_item_layers, dropout=0.0, reg_weight=0.5)
    user, item, loss = oracle(model, train, rel_matrix(train[INTERACTS].edge_index), triplets)
    out = model.encode(train)
    np.testing.assert_allclose(out.user.detach(), user, atol=1e-5)
    np.testing.assert_allclose(out.item.detach(), item, atol=1e-5)
    assert model.loss(train, *triplets).item() == pytest.approx(loss, rel=1e-5)


def test_loss_on_the_pruned_graph_equals_the_numpy_oracle(train, triplets):
    model = FREEDOM.from_data(train, hidden_channels=8, dropout=0.7, reg_weight=0.5)
    model.on_epoch_start(5)
    (to_item, _), (to_user, _) = model._prune(train)
    rel = (to_user.to_dense().numpy() > 0).astype(float)
    assert rel.sum() == int(train[INTERACTS].edge_index.size(1) * 0.3)
    assert (rel <= rel_matrix(train[INTERACTS].edge_index)).all()
    assert torch.equal(to_item.to_dense(), to_user.to_dense().t())
    assert model.loss(train, *triplets).item() == pytest.approx(oracle(model, train, rel, triplets)[2], rel=1e-5)
    user, _, _ = oracle(model, train, rel_matrix(train[INTERACTS].edge_index), triplets)
    np.testing.assert_allclose(model.encode(train).user.detach(), user, atol=1e-5)  # on all interactions


def test_gradients_on_the_pruned_graph(train, triplets):
    model = FREEDOM.from_data(train, hidden_channels=4)
    model.loss(train, *triplets).backward()
    for name, at in [('user', int(triplets[0][0])), ('item', int(triplets[1][0]))]:
        param = getattr(model, name)
        values = []
        for step in (1e-2, -1e-2):
            with torch.no_grad():
                param[at, 0] += step
            values.append(model.loss(train, *triplets).item())
            with torch.no_grad():
                param[at, 0] -= step
        assert param.grad[at, 0].item() == pytest.approx((values[0] - values[1]) / 2e-2, abs=1e-4)


def test_pruning_is_by_epoch_and_seed_alone(train):
    def kept(epoch, data=train, **kwargs):
        model = FREEDOM.from_data(data, hidden_channels=4, **kwargs)
        model.on_epoch_start(epoch)
        return model._prune(data)[1][0].to_dense()

    assert torch.equal(kept(1), kept(1))
    assert not torch.equal(kept(1), kept(2))
    assert not torch.equal(kept(1), kept(1, dropout_seed=10))
    shuffled = copy(train)
    perm = torch.randperm(train[INTERACTS].edge_index.size(1))
    shuffled[INTERACTS].edge_index = train[INTERACTS].edge_index[:, perm]
    assert torch.equal(kept(1), kept(1, InteractionGraph()(shuffled)))


def test_pruning_is_kept_within_an_epoch_and_drawn_anew_for_other_data(train):
    model = FREEDOM.from_data(train, hidden_channels=4)
    first = model._prune(train)
    assert model._prune(train)[0] is first[0]
    other = copy(train)
    other[INTERACTS].edge_index = train[INTERACTS].edge_index[:, :100]
    other = InteractionGraph()(other)
    assert model._prune(other)[1][0].to_dense().count_nonzero() == 19  # the integer part of 100 * (1 - 0.8)
    model.on_epoch_start(1)
    assert not torch.equal(model._prune(train)[1][0].to_dense(), first[1][0].to_dense())


def test_pruning_is_sensitive_to_degrees():
    # One interaction of four is kept: with probability ∝ weight.
    model = FREEDOM(2, 3, {'text': 4}, hidden_channels=4, dropout=0.75)
    edge_index, weight = torch.tensor([[0, 0, 0, 1], [0, 1, 2, 2]]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    count = torch.zeros(2, 3)
    for epoch in range(2000):
        model.on_epoch_start(epoch)
        count += model._draw(edge_index, weight)[1][0].to_dense() > 0
    share = count[tuple(edge_index)] / 2000
    assert torch.allclose(share, weight / 10, atol=0.04)  # four standard deviations


def test_resumes_exactly(train, tmp_path):
    def run(epochs, name, **kwargs):
        model = FREEDOM.from_data(train, seed=0, hidden_channels=4)
        fit(model, train, epochs=epochs, batch_size=64, lr=1e-2, progress=False, checkpoint=tmp_path / name, **kwargs)
        return model.state_dict()

    expected = run(4, 'whole')
    run(2, 'parts')
    state = run(4, 'parts', resume=True)
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_the_item_graph_finds_cold_items():
    data = ItemKNNGraph(k=5)(FakeMultimodal(num_cold_items=8)[0])
    train, val, _ = FixedSplit()(data)
    train = InteractionGraph()(train)
    model = FREEDOM.from_data(train, seed=0, hidden_channels=8)
    fit(model, train, val, epochs=30, lr=1e-2, monitor='recall@5', progress=False)
    out = model.encode(train)
    assert evaluate(out, val, k=20)['recall@20'] > 0.95
    cold = (out.user @ out.item.t())[:, 40:]
    same = train['user'].block[:, None] == train['item'].block[None, 40:]
    assert (cold.masked_fill(~same, -9).argmax(dim=1) == cold.argmax(dim=1)).float().mean() > 0.95


def test_sub_graph(train):
    model = FREEDOM.from_data(train, hidden_channels=4)
    part = copy(train)
    part['user'].n_id, part['item'].n_id = torch.arange(64), torch.arange(48)
    assert torch.equal(model.encode(part).item, model.encode(train).item)
    with pytest.raises(ValueError, match=r"whole graph where 'dropout' is positive \(got a sampled sub-graph\)"):
        model.loss(part, *torch.zeros(3, 4, dtype=torch.long))


def test_refuses():
    with pytest.raises(ValueError, match=r"'dropout' needs to be in \[0, 1\) \(got 1.0\)"):
        FREEDOM(3, 4, {'text': 2}, dropout=1.0)
    train = Compose([lambda data: FixedSplit()(data)[0], InteractionGraph()])(FakeMultimodal()[0])
    model = FREEDOM.from_data(train, hidden_channels=4)
    with pytest.raises(ValueError, match=r'apply `ItemKNNGraph\(\)` to it'):
        model.encode(train)
    without = FREEDOM.from_data(train, hidden_channels=4, num_item_layers=0)
    assert without.encode(train).item.shape == (48, 4)


def test_repr(train):
    assert str(FREEDOM.from_data(train, hidden_channels=8)) == (
        "FREEDOM(64, 48, {'image': 16, 'text': 8}, hidden_channels=8, num_layers=2, num_item_layers=1, dropout=0.8, "
        'dropout_seed=0, reg_weight=0.001, objective=BPR())'
    )
