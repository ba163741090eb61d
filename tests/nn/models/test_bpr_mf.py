from copy import copy

import numpy as np
import pytest
import torch

from lirdrec_pyg.nn.models.bpr_mf import BPRMF


def test_embeddings_and_loss_equal_the_numpy_oracle(splits):
    train = splits[0]
    model = BPRMF.from_data(train, hidden_channels=8, reg_weight=0.3)
    user, item = (param.detach().double().numpy() for param in (model.user, model.item))
    out = model.encode(train)
    np.testing.assert_allclose(out.user.detach(), user)
    np.testing.assert_allclose(out.item.detach(), item)
    triplets = [torch.randint(n, (50,)) for n in (64, 48, 48)]
    expected = 0.0
    for u, i, j in zip(*triplets, strict=True):
        margin = user[u] @ item[i] - user[u] @ item[j]
        penalty = (user[u] ** 2).sum() + (item[i] ** 2).sum() + (item[j] ** 2).sum()
        expected += (np.log1p(np.exp(-margin)) + 0.3 / 2 * penalty) / 50
    assert model.loss(train, *triplets).item() == pytest.approx(expected, rel=1e-5)


def test_sub_graph(splits):
    train = splits[0]
    model = BPRMF.from_data(train, hidden_channels=8, reg_weight=0.3)
    part = copy(train)
    part['user'].n_id, part['item'].n_id = torch.tensor([7, 3, 60]), torch.tensor([40, 2, 5, 11])
    whole, out = model(train), model.embed(part)
    assert torch.equal(out.user, whole.user[part['user'].n_id])
    assert torch.equal(out.item, whole.item[part['item'].n_id])
    local = torch.tensor([[0, 2], [3, 1], [0, 0]])
    ids = [part['user'].n_id[local[0]], part['item'].n_id[local[1]], part['item'].n_id[local[2]]]
    assert model.loss(part, *local).item() == pytest.approx(model.loss(train, *ids).item())


def test_repr(splits):
    assert str(BPRMF.from_data(splits[0], hidden_channels=8)) == (
        'BPRMF(64, 48, hidden_channels=8, reg_weight=0.0001, objective=BPR())'
    )
