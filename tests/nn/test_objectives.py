import pytest
import torch
import torch.nn.functional as F

from lirdrec_pyg import LightGCN, LIRDRec, evaluate, fit, load_model
from lirdrec_pyg.nn import BM3, BPRMF, FREEDOM, MGCN, PWC, VBPR, Batch, Objective, SampledSoftmax
from lirdrec_pyg.nn.kernels import sampled_softmax_loss, softmax_loss
from lirdrec_pyg.nn.objectives import bpr_loss, squared_norm
from lirdrec_pyg.nn.part import build


def test_bpr_loss():
    pos, neg = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    expected = -(torch.sigmoid(pos - neg).log()).mean()
    assert torch.allclose(bpr_loss(pos, neg), expected)


def test_squared_norm():
    assert squared_norm(torch.full((2, 3), 2.0), torch.full((5, 3), 1.0)) == (24 + 15) / 4


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


class Hinge(Objective):
    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, batch: Batch) -> torch.Tensor:
        user, pos, neg = batch.triplets()
        return (self.margin - (user * (pos - neg)).sum(dim=-1)).clamp(min=0).mean()


class Everything(Objective):
    r"""Asks for rows again and again, and for items alone."""

    def forward(self, batch: Batch) -> torch.Tensor:
        return (batch.items(batch.pos) * batch.items(batch.pos)).mean()


MODELS = [LIRDRec, LightGCN, BPRMF, VBPR, FREEDOM, BM3, MGCN]


@pytest.mark.parametrize('cls', MODELS)
def test_an_objective_of_ones_own_trains_any_model_and_comes_back(cls, splits, tmp_path):
    train, val, test = splits
    model = cls.from_data(train, seed=0, hidden_channels=8, objective=Hinge(margin=0.5))
    assert 'objective=Hinge(margin=0.5)' in repr(model)
    path = tmp_path / 'run.pt'
    fit(model, train, val, epochs=40, lr=1e-2, monitor='recall@20', checkpoint=path, progress=False)
    assert evaluate(model(train), test, k=20)['recall@20'] > 0.8
    loaded = load_model(path)
    assert isinstance(loaded.objective, Hinge) and loaded.objective.margin == 0.5
    assert torch.equal(loaded(train).item, model(train).item)


def test_a_model_takes_a_copy(splits):
    hinge, gate = Hinge(), PWC()
    models = [LIRDRec.from_data(splits[0], objective=hinge, fusion=gate) for _ in range(2)]
    assert models[0].objective is not hinge and models[0].fusion is not gate
    assert models[0].fusion.theta is not models[1].fusion.theta


def test_an_objective_may_ask_for_any_rows(splits):
    train = splits[0]
    user, pos = train['user', 'interacts', 'item'].edge_index[:, :20]
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, objective=Everything())
    z = model.embed(train)
    loss = model.loss(train, user, pos, pos)
    expected = z.item[pos].square().mean() + 1e-4 * (z.user.square().mean() + z.item.square().mean())
    assert torch.allclose(loss, expected)
    loss.backward()
    assert model.user.grad.isfinite().all()


def test_settings_that_a_checkpoint_cannot_hold_are_refused(splits):
    class Of(Objective):
        def __init__(self, function: object) -> None:
            super().__init__()

        def forward(self, batch: Batch) -> torch.Tensor:
            return batch.users().sum()

    model = LIRDRec.from_data(splits[0], objective=Of(print))
    with pytest.raises(
        ValueError, match=r"'function' needs to be a plain value or a part.*\(got <built-in function print>"
    ):
        model.settings()
    with pytest.raises(ValueError, match=r"the class 'elsewhere:Unknown' needs to be known: import the module"):
        build({'class': 'elsewhere:Unknown'})


def test_only_parts_are_made_of_settings():
    with pytest.raises(ValueError, match='needs to be known'):
        build({'class': 'os:system', 'command': 'true'})
    shown = repr(build(SampledSoftmax(0.3, 5).settings()))
    assert shown == 'SampledSoftmax(temperature=0.3, num_negatives=5, learn_temperature=False)'


def estimate(user, item, index, pos, drawn, temperature):
    r"""The formula of `sampled_softmax_loss`, on all pairs at once."""
    positive = (user[index] * item[pos]).sum(dim=1, keepdim=True) / temperature
    negative = user[index] @ item[drawn].t() / temperature
    hit = drawn == pos.unsqueeze(1)
    rate = (len(item) - 1) / (len(drawn) - hit.sum(dim=1, keepdim=True).double())
    negative = (negative + rate.log()).masked_fill(hit, float('-inf'))
    return F.cross_entropy(torch.cat([positive, negative], dim=1), torch.zeros_like(pos))


@pytest.mark.parametrize('max_elements', [1, 30, None])
def test_sampled_softmax_loss_is_its_formula(max_elements):
    user, item = torch.randn(9, 5, dtype=torch.double), torch.randn(40, 5, dtype=torch.double)
    index, pos, drawn = torch.randint(8, (31,)), torch.randint(40, (31,)), torch.randperm(40)[:12]
    user.requires_grad_()
    item.requires_grad_()
    expected = estimate(user, item, index, pos, drawn, 0.3)
    grads = torch.autograd.grad(expected * 3, [user, item])
    hit = torch.isin(pos, drawn)
    assert hit.any() and not hit.all()
    out = sampled_softmax_loss(user, item[pos], item[drawn], hit, 40, 0.3, max_elements, index)
    assert torch.allclose(out, expected)
    for grad, other in zip(torch.autograd.grad(out * 3, [user, item]), grads, strict=True):
        assert torch.allclose(grad, other)


def test_sampled_softmax_loss_from_all_items_is_the_softmax_loss():
    user, item, pos = torch.randn(7, 4), torch.randn(23, 4), torch.randint(23, (7,))
    out = sampled_softmax_loss(user, item[pos], item, torch.ones(7, dtype=torch.bool), 23)
    assert torch.allclose(out, softmax_loss(user, item, pos))


def test_sampled_softmax_loss_estimates_the_sum_over_all_items_without_bias():
    torch.manual_seed(0)
    user, item, pos = torch.randn(1, 4), torch.randn(23, 4), torch.tensor([5])
    score = (user @ item.t()).view(-1) / 2
    sums = []
    for _ in range(2000):
        drawn = torch.randperm(23)[:6]
        loss = sampled_softmax_loss(user, item[pos], item[drawn], torch.isin(pos, drawn), 23, 2.0)
        sums.append((loss + score[pos]).exp())
    assert torch.allclose(torch.cat(sums).mean(), score.exp().sum(), rtol=0.02)


def test_temperature_is_learned(splits):
    train, val = splits[:2]
    objective = SampledSoftmax(0.5, learn_temperature=True)
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, objective=objective)
    user, pos = train['user', 'interacts', 'item'].edge_index[:, :20]
    fixed = LIRDRec.from_data(train, seed=0, hidden_channels=8, objective=SampledSoftmax(0.5))
    assert torch.allclose(model.loss(train, user, pos, pos), fixed.loss(train, user, pos, pos))
    fit(model, train, val, epochs=5, lr=1e-2, progress=False)
    assert model.objective.temperature != pytest.approx(0.5, abs=1e-3)
    assert 'objective.log_scale' in model.state_dict()
