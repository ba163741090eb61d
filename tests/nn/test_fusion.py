import math

import pytest
import torch

from lirdrec_pyg import LIRDRec, fit, load_model
from lirdrec_pyg.nn import PWC, AttentionFusion, Fusion, PaperPWC, StaticFusion, UniformFusion

FUSIONS = [PWC, PaperPWC, AttentionFusion, StaticFusion, UniformFusion]


class Gate(Fusion):
    def build(self, channels: int, num_views: int, num_users: int) -> None:
        super().build(channels, num_views, num_users)
        self.lin = torch.nn.Linear(channels, 1)

    def weight(self, x: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
        return self.lin(x).squeeze(-1).sigmoid()


def built(fusion, num_views=3, num_users=10):
    fusion.build(8, num_views, num_users)
    fusion.reset_parameters()
    return fusion


@pytest.mark.parametrize('cls', FUSIONS)
def test_weights_sum_to_one_and_scale_the_views(cls):
    fusion, x = built(cls()), torch.randn(10, 3, 8)
    weight = fusion.weight(x)
    assert torch.allclose(weight.sum(dim=-1), torch.ones(10))
    expected = torch.cat([weight[:, [v]] * x[:, v] for v in range(3)], dim=1)
    assert torch.allclose(fusion(x), expected)
    assert fusion.weight_of_new(x[:4]).shape == (4, 3)


@pytest.mark.parametrize('cls', FUSIONS)
def test_a_part_of_the_users(cls):
    fusion, x = built(cls()), torch.randn(10, 3, 8)
    index = torch.tensor([7, 2])
    assert torch.allclose(fusion(x[index], index), fusion(x)[index])


@pytest.mark.parametrize('cls', FUSIONS)
def test_state_dict_holds_everything(cls):
    fusion, x = built(cls(), 2, 6), torch.randn(6, 2, 8)
    for epoch in (1, 2, 3):
        fusion.on_epoch_start(epoch)
        fusion.remember(fusion.weight(x).detach())
    other = built(cls(), 2, 6)
    other.load_state_dict(fusion.state_dict())
    for model in (fusion, other):
        model.on_epoch_start(4)
    assert torch.equal(fusion(x), other(x))


def test_released_schedule():
    pwc = built(PWC(), 2, 6)
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


def test_released_copies_the_last_training_weights(splits):
    train = splits[0]
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8)
    pwc = model.fusion
    user, pos = train['user', 'interacts', 'item'].edge_index[:, :20]
    model.on_epoch_start(1)
    model.loss(train, user, pos, pos.flip(0))
    views, _ = model.propagate(model.content(train), train, _graph(train))
    weight = pwc.weight(views).detach()
    assert torch.equal(pwc.last_weight, weight)
    with torch.no_grad():
        model.user.add_(1)
    model.eval()
    model.loss(train, user, pos, pos.flip(0))  # evaluation leaves no trace
    model(train)
    model.train()(train)  # nor does encoding
    assert torch.equal(pwc.last_weight, weight)
    model.on_epoch_start(2)
    assert torch.equal(pwc.theta, weight)


def _graph(data):
    from lirdrec_pyg.nn.propagation import edges

    return edges(data)


def test_released_leaves_out_networks_that_rounding_would(monkeypatch):
    pwc, x = built(PWC(), 2, 6), torch.randn(6, 2, 8)
    epoch = next(t for t in range(1, 100) if pwc.on_epoch_start(t) or pwc.gate < 1e-12)
    assert epoch == 24
    with_networks = torch.softmax(pwc.gate * pwc.predict(x) + (1 - pwc.gate) * pwc.theta, dim=-1)
    monkeypatch.setattr(pwc, 'predict', None)
    weight = pwc.weight(x)
    assert torch.equal(weight, with_networks)
    weight[:, 0].sum().backward()
    assert pwc.theta.grad.abs().sum() > 0


def test_the_papers_grows_from_uniform_to_the_prediction():
    pwc, x = built(PaperPWC(rate=0.25), 2, 6), torch.randn(6, 2, 8)
    pred = built(AttentionFusion(), 2, 6)
    pred.nets.load_state_dict(pwc.nets.state_dict())
    target = pred.weight(x)
    for epoch in range(1, 6):
        pwc.on_epoch_start(epoch)
        share = 1 - 0.75**epoch
        weight = pwc.weight(x)
        assert torch.allclose(weight, share * target + (1 - share) / 2, atol=1e-6)
        pwc.remember(weight.detach())


def test_a_fusion_of_ones_own_trains_and_comes_back(splits, tmp_path):
    train, val, _ = splits
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, fusion=Gate())
    assert 'fusion=Gate()' in repr(model)
    before = model.fusion.lin.weight.detach().clone()
    path = tmp_path / 'run.pt'
    fit(model, train, val, epochs=3, lr=1e-2, monitor='recall@5', checkpoint=path, progress=False)
    assert not torch.equal(model.fusion.lin.weight, before)
    assert torch.equal(load_model(path)(train).user, model(train).user)


def test_refuses():
    with pytest.raises(ValueError, match=r"'init' needs to be in \(0, 1\) \(got 1\)"):
        PWC(init=1)
    with pytest.raises(ValueError, match="'decay' needs"):
        PWC(decay=0)
    with pytest.raises(ValueError, match=r"'rate' needs to be in \(0, 1\] \(got 2\)"):
        PaperPWC(rate=2)
    with pytest.raises(ValueError, match=r"'epoch' needs to be positive \(got 0\)"):
        built(PWC()).on_epoch_start(0)


def test_repr():
    assert str(PWC()) == 'PWC(init=0.9, decay=0.9)'
    assert str(StaticFusion()) == 'StaticFusion()'
    assert math.isclose(built(PWC()).gate, 0.9)
