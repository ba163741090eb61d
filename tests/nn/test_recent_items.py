import pytest
import torch
import torch.nn.functional as F

from lirdrec_pyg.nn import RecentItemsEncoder


def test_equals_a_loop():
    encoder = RecentItemsEncoder(4, length=3)
    torch.nn.init.normal_(encoder.lin.weight)
    user, item = torch.randn(3, 4), torch.randn(6, 4)
    history = torch.tensor([[5, 0, 2], [1, -1, -1], [-1, -1, -1]])
    out = encoder(user, item, history)
    for u, h, q in zip(user, history, out, strict=True):
        own = [j for j in range(3) if h[j] >= 0]
        weight = torch.tensor([0.6**j for j in own])
        mean = sum((w * F.normalize(item[h[j]], dim=0) for w, j in zip(weight / weight.sum(), own, strict=True)), 0.0)
        expected = F.normalize(u, dim=0) + (encoder.lin.weight @ mean if own else 0)
        assert torch.allclose(q, expected, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(encoder(user, item, history.repeat(2000, 1)[:3]), out)


def test_gradients_are_finite_where_there_is_no_history():
    encoder = RecentItemsEncoder(4, length=3).double()
    history = torch.tensor([[5, 0, -1], [-1, -1, -1]])
    inputs = torch.randn(2, 4, dtype=torch.double, requires_grad=True), torch.randn(6, 4, dtype=torch.double)
    encoder(*inputs, history).sum().backward()
    assert torch.isfinite(encoder.theta.grad).all() and encoder.theta.grad.abs().sum() > 0
    inputs[1].requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: encoder(*x, history), inputs)


def test_errors():
    with pytest.raises(ValueError, match="'length' needs to be at least 1"):
        RecentItemsEncoder(4, 0)
    with pytest.raises(ValueError, match="'decay' needs to be in"):
        RecentItemsEncoder(4, 2, decay=0)
    assert repr(RecentItemsEncoder(4, 2)) == 'RecentItemsEncoder(4, length=2)'
