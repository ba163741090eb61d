import pytest
import torch
import torch.nn.functional as F

from lirdrec_pyg.nn.objectives import bpr_loss, mean_square_norm, softmax_loss


def test_bpr_loss():
    pos, neg = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    expected = -(torch.sigmoid(pos - neg).log()).mean()
    assert torch.allclose(bpr_loss(pos, neg), expected)


def test_mean_square_norm():
    assert mean_square_norm(torch.full((2, 3), 2.0), torch.full((5, 3), 1.0)) == 5


@pytest.mark.parametrize('max_elements', [1, 64, 2**20])
def test_softmax_loss_in_blocks_is_cross_entropy(max_elements):
    user, item = torch.randn(17, 4, dtype=torch.double), torch.randn(23, 4, dtype=torch.double)
    target = torch.randint(23, (17,))
    user.requires_grad_()
    item.requires_grad_()
    expected = F.cross_entropy(user @ item.t() / 0.3, target)
    grads = torch.autograd.grad(expected * 3, [user, item])
    out = softmax_loss(user, item, target, temperature=0.3, max_elements=max_elements)
    assert torch.allclose(out, expected)
    for grad, other in zip(torch.autograd.grad(out * 3, [user, item]), grads, strict=True):
        assert torch.allclose(grad, other)


def test_softmax_loss_gradcheck():
    user, item = (torch.randn(5, 3, dtype=torch.double, requires_grad=True) for _ in range(2))
    target = torch.tensor([0, 0, 4, 2, 1])
    assert torch.autograd.gradcheck(lambda u, i: softmax_loss(u, i, target, 0.5, 7), (user, item))


@pytest.mark.parametrize('max_elements', [1, 64, 2**20])
def test_softmax_loss_scores_a_user_once(max_elements):
    user, item = torch.randn(6, 4, dtype=torch.double), torch.randn(23, 4, dtype=torch.double)
    index, target = torch.tensor([5, 0, 0, 3, 5, 0, 1]), torch.randint(23, (7,))  # two users without positives
    user.requires_grad_()
    item.requires_grad_()
    expected = softmax_loss(user[index], item, target, 0.3)
    grads = torch.autograd.grad(expected * 3, [user, item])
    out = softmax_loss(user, item, target, 0.3, max_elements, index)
    assert torch.allclose(out, expected)
    for grad, other in zip(torch.autograd.grad(out * 3, [user, item]), grads, strict=True):
        assert torch.allclose(grad, other)


@pytest.mark.parametrize('max_elements', [1, 64, None])
def test_softmax_loss_among_candidates(max_elements):
    user, item = torch.randn(7, 4, dtype=torch.double), torch.randn(23, 4, dtype=torch.double)
    candidates = torch.rand(23) < 0.6
    rows = candidates.nonzero().view(-1)
    target = torch.randint(rows.numel(), (7,))
    user.requires_grad_()
    item.requires_grad_()
    expected = F.cross_entropy(user @ item[rows].t() / 0.3, target)
    grads = torch.autograd.grad(expected, [user, item])
    out = softmax_loss(user, item, rows[target], 0.3, max_elements, candidates=candidates)
    assert torch.allclose(out, expected)
    for grad, other in zip(torch.autograd.grad(out, [user, item]), grads, strict=True):
        assert torch.allclose(grad, other)


def test_softmax_loss_counts_a_candidate_as_often_as_it_is_one():
    user, item = torch.randn(7, 4, dtype=torch.double), torch.randn(5, 4, dtype=torch.double)
    times = torch.tensor([1, 3, 0, 2, 1])
    rows = torch.arange(5).repeat_interleave(times)
    target = torch.randint(rows.numel(), (7,))
    user.requires_grad_()
    item.requires_grad_()
    expected = F.cross_entropy(user @ item[rows].t() / 0.3, target)
    grads = torch.autograd.grad(expected, [user, item])
    out = softmax_loss(user, item, rows[target], 0.3, candidates=times)
    assert torch.allclose(out, expected)
    for grad, other in zip(torch.autograd.grad(out, [user, item]), grads, strict=True):
        assert torch.allclose(grad, other)
