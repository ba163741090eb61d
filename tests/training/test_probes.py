import csv
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch.optim import SGD

from lirdrec_pyg import FitResult, LightGCN, LIRDRec, fit
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import FREEDOM, VBPR, AttentionFusion, PaperPWC, StaticFusion, UniformFusion
from lirdrec_pyg.training.callbacks import write_csv
from lirdrec_pyg.training.probes import GradientBiasProbe, ModalityWeightMonitor
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph

KWARGS = {'batch_size': 64, 'lr': 1e-2, 'seed': 3, 'progress': False}
ENCODERS = {'encoders.image': 'x_image', 'encoders.text': 'x_text', 'shared_encoder': 'spectrum'}


def at(model):
    r"""Returns what a callback sees in the first step."""
    return SimpleNamespace(model=model, epoch=1, step=1)


def probed(cls, train, optimizer=None, epochs=2, **kwargs):
    model = cls.from_data(train, seed=0, hidden_channels=8, reg_weight=0.0)
    probe = GradientBiasProbe(train, **kwargs)
    fit(
        model,
        train,
        epochs=epochs,
        optimizer=optimizer,
        callbacks=[probe],
        **(KWARGS if optimizer is None else KWARGS | {'lr': None}),
    )
    return model, probe


def test_under_sgd_each_item_moves_by_the_gradient_it_feels(splits):
    lr = 0.5
    _, probe = probed(VBPR, splits[0], lambda params: SGD(params, lr=lr))
    assert {row['name'] for row in probe.rows} == {'item', 'projections.image', 'projections.text'}
    for row in probe.rows:
        assert row['grad_norm'] > 0
        assert row['update_norm'] == pytest.approx(lr * row['grad_norm'], rel=1e-4)
        assert row['item_update'] == pytest.approx(lr * row['item_grad'], rel=1e-3)
    for name, grads in probe.item_grads.items():
        for grad, update in zip(grads, probe.item_updates[name], strict=True):
            assert torch.allclose(update, lr * grad, rtol=1e-2, atol=1e-6)


def test_first_step_against_the_definition(splits):
    train = splits[0]
    model = VBPR.from_data(train, seed=0, hidden_channels=8)
    probe = GradientBiasProbe(train)
    user, pos, neg = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]), torch.tensor([6, 7, 3])
    loss = model.loss(train, user, pos, neg)
    loss.backward()
    probe.on_backward(at(model), loss)
    before = model.item.detach().clone()
    with torch.no_grad():
        model.item -= model.item.grad
    probe.on_step(at(model))

    ids, image, text = probe.rows
    norms = model.item.grad.norm(dim=1)
    assert ids['item_grad'] == pytest.approx(norms.mean().item())
    assert ids['active'] == pytest.approx(5 / 48)  # the items of the batch
    assert ids['update_norm'] == pytest.approx((model.item - before).norm().item())
    for name, row in [('image', image), ('text', text)]:
        grad = model.projections[name].weight.grad
        moved = (train['item'][f'x_{name}'] @ grad.t()).norm(dim=1)
        assert row['item_grad'] == pytest.approx(moved.mean().item(), rel=1e-5)
        assert row['active'] == 1  # the projection moves every item
        assert row['item_update'] == 0


def test_encoders_of_two_layers_against_finite_differences(splits):
    train = splits[0]
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, dropout=0.5)
    probe = GradientBiasProbe(train, ids=[], features=ENCODERS)
    model.loss(train, torch.arange(20), torch.arange(20), torch.arange(20, 40)).backward()
    probe.on_backward(at(model), torch.tensor(0.0))
    probe.on_step(at(model))
    for row, (name, key) in zip(probe.rows, ENCODERS.items(), strict=True):
        encoder = model.get_submodule(name).double().eval()
        x = train['item'][key].double()
        grads = [param.grad.clone() for param in encoder.parameters()]
        out = []
        with torch.no_grad():
            for sign in (1, -2):
                for param, grad in zip(encoder.parameters(), grads, strict=True):
                    param += sign * 1e-5 * grad
                out.append(encoder(x))
        expected = ((out[0] - out[1]) / 2e-5).norm(dim=1).mean()
        assert row['item_grad'] == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize('cls', [VBPR, FREEDOM])
def test_epoch_rows_are_means_and_distances(splits, cls):
    train = splits[0]
    start = cls.from_data(train, seed=0, hidden_channels=8, reg_weight=0.0).item.detach()
    model, probe = probed(cls, train, epochs=3)
    assert len(probe.epoch_rows) == 3 * 3
    assert len(probe.item_grads['item']) == 3
    for row in probe.epoch_rows:
        steps = [step for step in probe.rows if (step['epoch'], step['name']) == (row['epoch'], row['name'])]
        assert len(steps) == 6  # 384 interactions
        for key in ('grad_norm', 'update_norm', 'item_grad', 'item_update', 'active'):
            assert row[key] == pytest.approx(sum(step[key] for step in steps) / 6)
        grads = probe.item_grads[row['name']][row['epoch'] - 1]
        assert grads.shape == (48,) and row['item_grad'] == pytest.approx(grads.mean().item(), rel=1e-5)
    last = [row for row in probe.epoch_rows if row['name'] == 'item'][-1]
    assert last['distance'] == pytest.approx((model.item - start).norm(dim=1).mean().item(), rel=1e-5)
    assert last['norm'] == pytest.approx(model.item.norm(dim=1).mean().item(), rel=1e-5)
    first = [row for row in probe.epoch_rows if row['epoch'] == 1]
    assert all(row['displacement'] == row['distance'] for row in first)


def test_every_and_csv(splits, tmp_path):
    _, probe = probed(VBPR, splits[0], every=4)
    assert [(row['epoch'], row['step']) for row in probe.rows[::3]] == [(1, 1), (1, 5), (2, 1), (2, 5)]
    for rows in (probe.rows, probe.epoch_rows):
        write_csv(rows, tmp_path / 'rows.csv')
        with (tmp_path / 'rows.csv').open(newline='') as file:
            assert [row['name'] for row in csv.DictReader(file)] == [row['name'] for row in rows]


def test_watching_changes_nothing(splits):
    train, val, _ = splits
    states = []
    for callbacks in ([], [GradientBiasProbe(train, ids=['user'], features=ENCODERS), ModalityWeightMonitor(train)]):
        model = LIRDRec.from_data(train, seed=0, hidden_channels=8, dropout=0.3)
        fit(model, train, val, epochs=3, callbacks=callbacks, **KWARGS)
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_probe_checks_its_arguments(splits):
    train = splits[0]
    with pytest.raises(ValueError, match=r"'every' needs to be positive \(got 0\)"):
        GradientBiasProbe(train, every=0)
    with pytest.raises(ValueError, match=r"'ids' needs to name parts of VBPR \(got 'items'\)"):
        probed(VBPR, train, ids=['items'])
    with pytest.raises(ValueError, match=r"'features' needs to name parts of LightGCN \(got 'projections.image'\)"):
        probed(LightGCN, train)


def monitored(train, epochs=1, **kwargs):
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, **kwargs)
    monitor = ModalityWeightMonitor(train)
    result = fit(model, train, epochs=epochs, callbacks=[monitor], **KWARGS)
    assert isinstance(result, FitResult)
    return model, monitor


def test_monitor_records_the_weights(splits, tmp_path):
    train = splits[0]
    model, monitor = monitored(train, epochs=2, fusion=AttentionFusion())
    assert [(row['epoch'], row['view']) for row in monitor.rows] == [
        (epoch, view) for epoch in (1, 2) for view in ('image', 'text', 'shared')
    ]
    seen = []
    model.fusion.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(train)
        weight = model.fusion.weight(seen[0])
    for row, column in zip(monitor.rows[-3:], weight.t(), strict=True):
        assert row['mean'] == pytest.approx(column.mean().item())
        assert row['std'] == pytest.approx(column.std().item())
        assert (row['min'], row['max']) == (column.min().item(), column.max().item())
    write_csv(monitor.rows, tmp_path / 'weights.csv')


@pytest.mark.parametrize('fusion', [UniformFusion(), StaticFusion(), PaperPWC()])
def test_monitor_is_silent_where_weights_start_uniform(splits, fusion):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        _, monitor = monitored(splits[0], epochs=2, fusion=fusion)
    assert sum(row['mean'] for row in monitor.rows[-3:]) == pytest.approx(1)


def test_monitor_warns_on_collapse(splits):
    train = splits[0]
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, fusion=StaticFusion())
    monitor = ModalityWeightMonitor(train)
    with torch.no_grad():
        model.fusion.theta.copy_(torch.tensor([0.0, 9.0, 0.0]))
    with pytest.warns(UserWarning, match="the view 'text', which weighs 1.000 on average \\(epoch 1\\)"):
        monitor.on_epoch(at(model), {'epoch': 1})
    with torch.no_grad():
        model.fusion.theta.zero_()
    with pytest.warns(UserWarning, match='collapsed to uniform ones'):
        monitor.on_epoch(at(model), {'epoch': 2})
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        monitor.on_epoch(at(model), {'epoch': 3})  # once is enough


def test_released_weights_collapse_to_uniform():
    data = ItemKNNGraph(k=4)(DCT()(FakeMultimodal(num_users=20, num_items=24, seed=1)[0]))
    train = InteractionGraph()(FixedSplit()(data)[0])
    with pytest.warns(UserWarning, match='collapsed to uniform ones'):
        _, monitor = monitored(train, epochs=25)
    assert max(abs(row['mean'] - 1 / 3) for row in monitor.rows[-3:]) < 0.01


def test_monitor_checks_the_model(splits):
    with pytest.raises(ValueError, match=r"'model' needs a fusion, as LIRDRec has \(got LightGCN\)"):
        ModalityWeightMonitor(splits[0]).on_epoch(at(LightGCN.from_data(splits[0])), {'epoch': 1})
    with pytest.raises(ValueError, match=r"'views' needs 3 names \(got \['image'\]\)"):
        ModalityWeightMonitor(splits[0], views=['image']).on_epoch(at(LIRDRec.from_data(splits[0])), {'epoch': 1})
