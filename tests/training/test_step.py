r"""A training step has a form that can be recorded and replayed: no shape depends on values, nothing waits for the
device, and what changes by epoch is in buffers.

There need not be a GPU: tensors on the device ``meta`` have shapes alone, and refuse whatever would have to know more.
On CPU the tests ask for the form of a device by :obj:`HOSTS`.
"""

from copy import copy

import pytest
import torch
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from lirdrec_pyg import Callback, LightGCN, LIRDRec, SoftmaxLIRDRec, Trainer
from lirdrec_pyg.nn import (
    BPRMF,
    MGCN,
    PWC,
    AlphaRec,
    AttentionFusion,
    InfoNCE,
    PaperPWC,
    SampledSoftmax,
    StaticFusion,
    UniformFusion,
    kernels,
    objectives,
    propagation,
)
from lirdrec_pyg.nn.kernels import sampled_softmax_loss, softmax_loss
from lirdrec_pyg.nn.models import alpharec
from lirdrec_pyg.nn.objectives import random_items
from lirdrec_pyg.nn.part import Part
from lirdrec_pyg.transforms import InteractionGraph
from lirdrec_pyg.typing import INTERACTS

STEPS = {
    'BPR, PWC': (LIRDRec, {}),
    'BPR, PaperPWC': (LIRDRec, {'fusion': PaperPWC()}),
    'BPR, attention': (LIRDRec, {'fusion': AttentionFusion()}),
    'BPR, static': (LIRDRec, {'fusion': StaticFusion()}),
    'BPR, uniform': (LIRDRec, {'fusion': UniformFusion()}),
    'dropout': (LIRDRec, {'dropout': 0.3}),
    'all items': (LIRDRec, {'objective': SampledSoftmax()}),
    'some items': (LIRDRec, {'objective': SampledSoftmax(num_negatives=8)}),
    'more items than there are': (LIRDRec, {'objective': SampledSoftmax(num_negatives=10**6)}),
    'items of the batch': (LIRDRec, {'objective': SampledSoftmax(num_negatives='batch')}),
    'learned temperature': (LIRDRec, {'objective': SampledSoftmax(learn_temperature=True)}),
    'learned, some items': (LIRDRec, {'objective': SampledSoftmax(num_negatives=8, learn_temperature=True)}),
    'recent items': (LIRDRec, {'objective': SampledSoftmax(num_negatives=8), 'recent_items': 4}),
    'SoftmaxLIRDRec': (SoftmaxLIRDRec, {}),
    'LightGCN': (LightGCN, {}),
    'BPRMF': (BPRMF, {}),
    'MGCN': (MGCN, {}),
}
SPARSE = {  # whose products of sparse matrices `meta` does not know
    'AlphaRec': (AlphaRec, {'objective': InfoNCE(num_negatives=8)}),
    'AlphaRec, all items': (AlphaRec, {'objective': InfoNCE(num_negatives=10**6)}),
}


@pytest.fixture
def device_form(monkeypatch):
    monkeypatch.setattr(kernels, 'HOSTS', ())


def prepared(name, splits, layout='csr'):
    cls, kwargs = (STEPS | SPARSE)[name]
    train = InteractionGraph(layout)(splits[0])
    return cls.from_data(train, seed=0, hidden_channels=8, **kwargs), train


def step_without_content(model, train):
    r"""One step, forward, backward and update, on tensors that have shapes alone."""
    train = copy(train).apply(lambda x: x.to('meta'))
    user, pos = train[INTERACTS].edge_index[:, :64]
    model = model.to('meta').train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(2):  # the state of Adam is made in the first
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(train, user, pos, pos.clone())
        loss.backward()
        optimizer.step()
    assert loss.is_meta and loss.shape == ()
    return {name: param.grad for name, param in model.named_parameters()}


@pytest.mark.parametrize('layout', ['csr', 'edge_index'])
@pytest.mark.parametrize('name', STEPS)
def test_no_shape_depends_on_values_and_nothing_waits(name, layout, splits, monkeypatch):
    model, train = prepared(name, splits, layout)
    monkeypatch.setattr(Part, 'number', None)  # reads a value
    if layout == 'csr':  # whose product needs content
        monkeypatch.setattr(propagation, 'spmm', lambda adj, x: x.new_empty(adj.size(0), x.size(1)))
    grads = step_without_content(model, train)
    assert all(grad is not None and grad.is_meta for grad in grads.values())


@pytest.mark.parametrize('name', ['all items', 'some items', 'items of the batch', 'recent items', 'MGCN'])
def test_the_form_of_a_host_would_not_pass(name, splits, monkeypatch):
    monkeypatch.setattr(kernels, 'HOSTS', ('meta',))
    model, train = prepared(name, splits, 'edge_index')
    with pytest.raises((NotImplementedError, RuntimeError), match='meta|Meta'):
        step_without_content(model, train)


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_backward(self, trainer, loss):
        self.values.append(loss.item())


@pytest.mark.parametrize('name', [*STEPS, *SPARSE])
def test_fifty_steps_are_those_of_a_host(name, splits, monkeypatch):
    found = {}
    draw = objectives.draw

    def same(batch, limit, generator):
        return draw(batch, limit, generator) if found else drawn_as_on_a_device(batch, limit, generator)

    monkeypatch.setattr(objectives, 'draw', same)
    monkeypatch.setattr(alpharec, 'draw', same)
    for form, hosts in (('host', ('cpu',)), ('device', ())):
        model, train = prepared(name, splits)
        monkeypatch.setattr(kernels, 'HOSTS', hosts)
        losses = Losses()
        size = -(-train[INTERACTS].edge_index.size(1) // 2)
        trainer = Trainer(model, train, batch_size=size, lr=1e-3, callbacks=[losses])
        for _ in range(25):  # PWC leaves its networks out from the 24th on
            trainer.train_epoch()
        found[form] = torch.tensor(losses.values)
    assert len(found['host']) == 50
    torch.testing.assert_close(found['device'], found['host'], rtol=1e-5, atol=1e-6)


def drawn_as_on_a_device(batch, limit, generator):
    seen = batch.seen()
    number = int(seen.sum())
    items = random_items(seen, min(limit, seen.numel()), generator)
    return objectives.Drawn(items[:number] if limit < number else seen.nonzero().view(-1), number)


def test_weights_replayed_in_later_epochs(device_form):
    r"""What the first epoch recorded has the weights of any other one."""
    fusion, x = PWC(), torch.randn(10, 3, 8)
    fusion.build(8, 3, 10)
    fusion.reset_parameters()
    fusion.on_epoch_start(1)

    def step(state, x):
        return functional_call(fusion, state, (x,))

    recorded = make_fx(step)(dict(fusion.state_dict()), x)
    outputs = []
    for epoch in range(1, 31):
        fusion.on_epoch_start(epoch)
        fusion.remember(fusion.weight(x).detach())
        outputs.append(recorded(dict(fusion.state_dict()), x))
        assert torch.equal(outputs[-1], fusion(x))
    assert not torch.allclose(outputs[0], outputs[5], atol=1e-3)


def test_the_share_of_the_networks_is_the_same_on_a_device(monkeypatch):
    fusion, x = PWC(), torch.randn(10, 3, 8)
    fusion.build(8, 3, 10)
    fusion.reset_parameters()
    for epoch in range(1, 41):
        fusion.on_epoch_start(epoch)
        expected = fusion.weight(x)
        with monkeypatch.context() as patch:
            patch.setattr(kernels, 'HOSTS', ())
            patch.setattr(Part, 'number', None)  # it is not read
            assert torch.allclose(fusion.weight(x), expected, rtol=1e-6, atol=1e-7)


def test_an_estimate_on_a_device_is_that_of_a_host(monkeypatch):
    user, item = torch.randn(6, 4, dtype=torch.double), torch.randn(40, 4, dtype=torch.double)
    index, pos = torch.tensor([5, 0, 0, 3, 5, 0, 1]), torch.randint(40, (7,))
    drawn = torch.randperm(40)[:12]
    drawn[0] = pos[2]
    known = torch.ones(40, dtype=torch.bool).index_fill_(0, drawn[9:], False)  # the last are none
    hit = torch.isin(pos, drawn[:9])
    for x in (user, item):
        x.requires_grad_()
    expected = sampled_softmax_loss(user, item[pos], item[drawn[:9]], hit, 30, 0.3, index=index)
    grads = torch.autograd.grad(expected, [user, item])
    monkeypatch.setattr(kernels, 'HOSTS', ())
    for size in (1, 24, None):
        number = torch.tensor(30)
        out = sampled_softmax_loss(user, item[pos], item[drawn], hit, number, 0.3, size, index, known[drawn])
        assert torch.allclose(out, expected)
        for grad, other in zip(torch.autograd.grad(out, [user, item]), grads, strict=True):
            assert torch.allclose(grad, other)
    expected = softmax_loss(user[index], item, pos)
    assert torch.allclose(softmax_loss(user, item, pos, index=index), expected)


def test_an_estimate_whose_only_item_is_the_positive():
    user, item = (torch.randn(1, 4, dtype=torch.double, requires_grad=True) for _ in range(2))
    loss = sampled_softmax_loss(user, item, item, torch.tensor([True]), 9)
    loss.backward()
    for x in (loss, user.grad, item.grad):
        assert torch.allclose(x, torch.zeros_like(x), atol=1e-10)


def test_random_items_are_distinct_seen_ones_and_uniform():
    seen = torch.arange(12) % 3 != 0  # 8 of 12
    generator = torch.Generator().manual_seed(0)
    count = torch.zeros(12)
    for _ in range(4000):
        items = random_items(seen, 3, generator)
        assert items.unique().numel() == 3
        count[items] += 1
    assert (count[~seen] == 0).all()
    assert torch.allclose(count[seen] / 4000, torch.tensor(3 / 8), atol=0.03)
    assert set(random_items(seen, 10).tolist()) > set(seen.nonzero().view(-1).tolist())


def test_items_of_the_batch_count_once(device_form):
    r"""Among the items of a batch each counts once, also where it is there several times."""
    user, item = torch.randn(5, 4), torch.randn(9, 4)
    pos = torch.tensor([7, 2, 7, 7, 0])
    batch = objectives.Batch(torch.arange(5), pos, pos, lambda i: user[i], lambda i: item[i])
    objective = SampledSoftmax(num_negatives='batch')
    z_user, z_item = (torch.nn.functional.normalize(x, dim=-1) for x in (user, item))
    rows, target = pos.unique(return_inverse=True)
    expected = torch.nn.functional.cross_entropy(z_user @ z_item[rows].t() / 0.2, target)
    assert torch.allclose(objective(batch), expected)
