import math

import pytest
import torch

from lirdrec_pyg.nn import PWC

VARIANTS = ['released', 'ema', 'attention', 'static', 'uniform']


@pytest.mark.parametrize('variant', VARIANTS)
def test_weights_sum_to_one_and_scale_the_views(variant):
    pwc, x = PWC(8, 3, 10, variant), torch.randn(10, 3, 8)
    weight = pwc.weight(x)
    assert torch.allclose(weight.sum(dim=-1), torch.ones(10))
    expected = torch.cat([weight[:, [v]] * x[:, v] for v in range(3)], dim=1)
    assert torch.allclose(pwc(x), expected)


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_part_of_the_users(variant):
    pwc, x = PWC(8, 3, 10, variant), torch.randn(10, 3, 8)
    index = torch.tensor([7, 2])
    assert torch.allclose(pwc(x[index], index), pwc(x)[index])


@pytest.mark.parametrize('variant', VARIANTS)
def test_state_dict_holds_everything(variant):
    pwc, x = PWC(8, 2, 6, variant), torch.randn(6, 2, 8)
    for epoch in (1, 2, 3):
        pwc.on_epoch_start(epoch)
        pwc(x)
    other = PWC(8, 2, 6, variant)
    other.load_state_dict(pwc.state_dict())
    for model in (pwc, other):
        model.on_epoch_start(4)
    assert torch.equal(pwc(x), other(x))
    assert pwc.gate == other.gate


def test_released_schedule():
    pwc = PWC(8, 2, 6)
    expected = [0.890, 0.868, 0.827, 0.758, 0.650, 0.496, 0.320, 0.169, 0.073, 0.027]
    for epoch, gate in enumerate(expected, start=1):
        pwc.on_epoch_start(epoch)
        assert pwc.gate == pytest.approx(gate, abs=6e-4)
    # multiplying one weight by b^t and renormalising, epoch by epoch, is the same
    a = 0.9
    for t in range(1, 11):
        a = a * 0.9**t / (a * 0.9**t + 1 - a)
    assert pwc.gate == pytest.approx(a)
    pwc.on_epoch_start(1000)
    assert pwc.gate == pytest.approx(0, abs=1e-12)


def test_released_copies_the_last_training_weights():
    pwc, x = PWC(8, 2, 6), torch.randn(6, 2, 8)
    pwc.on_epoch_start(1)
    weight = pwc.weight(x)
    before = pwc.theta.clone()
    pwc.eval()
    pwc.weight(torch.randn(6, 2, 8))  # evaluation leaves no trace
    pwc.train()
    with torch.no_grad():
        pwc.weight(torch.randn(6, 2, 8))
    assert torch.equal(pwc.theta, before)
    pwc.on_epoch_start(2)
    assert torch.equal(pwc.theta, weight)


def test_released_leaves_out_networks_that_rounding_would(monkeypatch):
    pwc, x = PWC(8, 2, 6), torch.randn(6, 2, 8)
    epoch = next(t for t in range(1, 100) if pwc.on_epoch_start(t) or pwc.gate < 1e-12)
    assert epoch == 24
    with_networks = torch.softmax(pwc.gate * pwc._predict(x) + (1 - pwc.gate) * pwc.theta, dim=-1)
    monkeypatch.setattr(pwc, '_predict', None)
    weight = pwc.weight(x)
    assert torch.equal(weight, with_networks)
    weight[:, 0].sum().backward()
    assert pwc.theta.grad.abs().sum() > 0


def test_ema_grows_from_uniform_to_the_prediction():
    pwc, x = PWC(8, 2, 6, 'ema', rate=0.25), torch.randn(6, 2, 8)
    pred = PWC(8, 2, 6, 'attention')
    pred.nets.load_state_dict(pwc.nets.state_dict())
    target = pred.weight(x)
    for epoch in range(1, 6):
        pwc.on_epoch_start(epoch)
        share = 1 - 0.75**epoch
        assert torch.allclose(pwc.weight(x), share * target + (1 - share) / 2, atol=1e-6)


def test_refuses():
    with pytest.raises(ValueError, match="'variant' needs to be one of"):
        PWC(8, 2, 6, 'other')
    with pytest.raises(ValueError, match=r"'init' needs to be in \(0, 1\) \(got 1\)"):
        PWC(8, 2, 6, init=1)
    with pytest.raises(ValueError, match="'decay' needs"):
        PWC(8, 2, 6, decay=0)
    with pytest.raises(ValueError, match=r"'epoch' needs to be positive \(got 0\)"):
        PWC(8, 2, 6).on_epoch_start(0)


def test_repr():
    assert str(PWC(8, 2, 6)) == "PWC(8, num_views=2, num_users=6, variant='released')"
    assert math.isclose(PWC(8, 2, 6).gate, 0.9)
