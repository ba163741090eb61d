from copy import copy

import pytest
import torch

from lirdrec_pyg.nn import AlphaRec, InfoNCE, SampledSoftmax
from lirdrec_pyg.transforms import FixedSplit, HalfPrecision, InteractionGraph
from lirdrec_pyg.typing import INTERACTS


@pytest.fixture
def train(splits):
    return splits[0]


def dense(data):
    x = torch.zeros(64, 48)
    x[tuple(data[INTERACTS].edge_index)] = 1
    return x


def oracle(model, data):
    r"""The forward pass on dense matrices, node by node where that is the plainest."""
    rel, p = dense(data), dict(model.named_parameters())
    features = torch.cat([data['item'][f'x_{name}'] for name in model.modalities], dim=1)
    users = torch.stack([features[row.bool()].mean(0) if row.any() else torch.zeros_like(features[0]) for row in rel])

    def mlp(x):
        h = x @ p['mlp.0.weight'].t() + p['mlp.0.bias']
        return torch.where(h > 0, h, 0.01 * h) @ p['mlp.2.weight'].t() + p['mlp.2.bias']

    both = torch.cat([torch.cat([torch.zeros(64, 64), rel], 1), torch.cat([rel.t(), torch.zeros(48, 48)], 1)])
    degree = both.sum(1) + 1e-7
    adj = both / (degree[:, None] * degree).sqrt()
    layers = [torch.cat([mlp(users), mlp(features)])]
    for _ in range(model.propagation.num_layers):
        layers.append(adj @ layers[-1])
    z = torch.stack(layers).mean(0)
    return z[:64], z[64:]


@pytest.mark.parametrize(('num_layers', 'modalities'), [(2, ('text',)), (0, ('text',)), (1, ('image', 'text'))])
def test_forward_and_gradients_equal_the_dense_oracle(data, num_layers, modalities):
    data[INTERACTS].split[data[INTERACTS].edge_index[0] == 0] = 2  # one user has no training interactions
    part = InteractionGraph()(FixedSplit()(data)[0])
    assert part[INTERACTS].edge_index[0].min() == 1
    model = AlphaRec.from_data(
        part, seed=0, hidden_channels=8, mlp_channels=16, num_layers=num_layers, modalities=modalities
    )
    out, (user, item) = model.embed(part), oracle(model, part)
    assert torch.allclose(out.user, user, atol=1e-5)
    assert torch.allclose(out.item, item, atol=1e-5)
    scores = model(part)
    cosine = (user / user.norm(dim=1, keepdim=True)) @ (item / item.norm(dim=1, keepdim=True)).t()
    assert torch.allclose(scores.user @ scores.item.t(), cosine, atol=1e-5)
    params = list(model.parameters())
    weight = torch.randn(64, 48)
    grads = torch.autograd.grad((out.user @ out.item.t() * weight).sum(), params)
    for grad, other in zip(grads, torch.autograd.grad((user @ item.t() * weight).sum(), params), strict=True):
        assert torch.allclose(grad, other, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize('num_negatives', [5, 100])
def test_loss_equals_the_formula(train, num_negatives):
    model = AlphaRec.from_data(
        train, hidden_channels=8, mlp_channels=16, objective=InfoNCE(temperature=0.3, num_negatives=num_negatives)
    )
    user, pos = train[INTERACTS].edge_index[:, :40]
    model.objective.generator = torch.Generator().manual_seed(5)
    seen = dense(train).sum(0).nonzero().view(-1)
    drawn = seen[torch.randperm(len(seen), generator=torch.Generator().manual_seed(5))[:num_negatives]].tolist()
    z_user, z_item = oracle(model, train)

    def score(u, i):
        return torch.exp(z_user[u] @ z_item[i] / (z_user[u].norm() * z_item[i].norm()) / 0.3)

    terms = []
    for u, i in zip(user.tolist(), pos.tolist(), strict=True):
        negative = sum(score(u, j) for j in drawn if j != i)
        terms.append(-torch.log(score(u, i) / (score(u, i) + negative)))
    expected = torch.stack(terms).mean()
    loss = model.loss(train, user, pos, pos)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    params = list(model.parameters())
    for grad, other in zip(torch.autograd.grad(loss, params), torch.autograd.grad(expected, params), strict=True):
        assert torch.allclose(grad, other, atol=1e-5)


def test_no_parameter_has_a_row_per_user_or_item(train):
    model = AlphaRec.from_data(train, hidden_channels=8, mlp_channels=16)
    assert model.tables() == {}
    assert {key: list(value.shape) for key, value in model.named_parameters()} == {
        'mlp.0.weight': [16, 8],
        'mlp.0.bias': [16],
        'mlp.2.weight': [8, 16],
        'mlp.2.bias': [8],
    }
    assert model.number('power') == 0
    assert model.fit_defaults == {'lr': 5e-4, 'patience': 20}


def test_reads_features_in_half_precision(train):
    model = AlphaRec.from_data(train, seed=0, hidden_channels=8, mlp_channels=16)
    half = model(HalfPrecision(edge_weight=False)(train))
    assert half.item.dtype == torch.float
    assert torch.allclose(half.item, model(train).item, atol=0.05)


def test_refuses(train):
    for wrong in ('text', (), ('audio',)):
        with pytest.raises(ValueError, match=r"'modalities' needs to name some of \['image', 'text'\]"):
            AlphaRec.from_data(train, modalities=wrong)
    with pytest.raises(ValueError, match=r"'temperature' needs to be positive \(got 0\)"):
        InfoNCE(temperature=0)
    with pytest.raises(ValueError, match=r"'num_negatives' needs to be positive \(got 0\)"):
        InfoNCE(num_negatives=0)
    part = copy(train)
    part['user'].n_id = torch.arange(64)
    with pytest.raises(ValueError, match='got a sampled sub-graph'):
        AlphaRec.from_data(train).embed(part)


def test_repr(train):
    assert str(AlphaRec.from_data(train, objective=SampledSoftmax())).startswith(
        "AlphaRec({'image': 16, 'text': 8}, hidden_channels=64, mlp_channels=1536, num_layers=2, "
        "modalities=('text',), objective=SampledSoftmax("
    )
