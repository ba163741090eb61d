import pytest
import torch
from torch.nn.functional import logsigmoid
from torch_geometric.nn.models import LightGCN as Oracle

from lirdrec_pyg.nn import LightGCN, Popularity
from lirdrec_pyg.typing import INTERACTS


@pytest.mark.parametrize('num_layers', [1, 3])
def test_equals_lightgcn_of_pyg(splits, num_layers):
    train = splits[0]
    model = LightGCN.from_data(train, seed=0, hidden_channels=8, num_layers=num_layers, reg_weight=0.1)
    oracle = Oracle(64 + 48, 8, num_layers)
    oracle.embedding.weight.data = torch.cat([model.user, model.item]).detach().clone()
    user, item = train[INTERACTS].edge_index
    edge_index = torch.stack([torch.cat([user, item + 64]), torch.cat([item + 64, user])])
    z = oracle.get_embedding(edge_index)
    torch.testing.assert_close(torch.cat(model.encode(train)), z, atol=1e-5, rtol=1e-5)

    user, pos = user[:32], item[:32]
    neg = (pos + 1) % 48
    loss = -logsigmoid((z[user] * z[pos + 64]).sum(1) - (z[user] * z[neg + 64]).sum(1)).mean()
    rows = oracle.embedding.weight[torch.cat([user, pos + 64, neg + 64])]
    loss = loss + 0.1 * rows.square().sum() / (2 * 32)
    found = model.loss(train, user, pos, neg)
    assert found.item() == pytest.approx(loss.item(), rel=1e-5)
    found.backward()
    loss.backward()
    grad = torch.cat([model.user.grad, model.item.grad])
    torch.testing.assert_close(grad, oracle.embedding.weight.grad, atol=1e-5, rtol=1e-4)


def test_popularity_counts_training_interactions(splits):
    train = splits[0]
    out = Popularity.from_data(train).encode(train)
    count = [int((train[INTERACTS].edge_index[1] == item).sum()) for item in range(48)]
    assert (out.user @ out.item.t()).argsort(dim=1, descending=True, stable=True).tolist() == [
        sorted(range(48), key=lambda item: -count[item])
    ] * 64
