import copy
import csv
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch_geometric.data import HeteroData

from lirdrec_pyg import BPRSampler, Callback, LightGCN, LIRDRec, Popularity, Trainer, evaluate, fit, load_model
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import BM3, SampledSoftmax
from lirdrec_pyg.nn.part import build as build_part
from lirdrec_pyg.training import EarlyStopping, ReleasedEarlyStopping, WholeGraph, default_batch_size, default_lr
from lirdrec_pyg.training.checkpoint import load_checkpoint
from lirdrec_pyg.transforms import DCT, InteractionGraph, ItemKNNGraph, RandomSplit
from lirdrec_pyg.typing import INTERACTS, ITEM

KWARGS = {'batch_size': 100, 'lr': 1e-2, 'monitor': 'recall@5', 'seed': 7, 'progress': False}


def build(train):
    return LIRDRec.from_data(train, seed=0, hidden_channels=8)


class Stop(Callback):
    r"""Interrupts training in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_backward(self, trainer, loss):
        if (trainer.epoch, trainer.step) == (self.epoch, 2):
            raise KeyboardInterrupt


def rows(result):
    return [{key: value for key, value in row.items() if key != 'seconds'} for row in result.log]


@pytest.mark.parametrize('stop', [1, 2, 4])
def test_interrupted_and_resumed_is_uninterrupted(splits, tmp_path, stop):
    train, val, _ = splits
    whole = build(train)
    expected = fit(whole, train, val, epochs=6, **KWARGS)

    path = tmp_path / 'run' / 'checkpoint.pt'
    with pytest.raises(KeyboardInterrupt):
        fit(build(train), train, val, epochs=6, checkpoint=path, callbacks=[Stop(stop)], **KWARGS)
    assert load_checkpoint(path)['epoch'] == stop - 1
    assert os.listdir(path.parent) == ['checkpoint.pt']
    model = LIRDRec.from_data(train, seed=99, hidden_channels=8)  # whatever state it is in
    result = fit(model, train, val, epochs=6, checkpoint=path, resume=True, **KWARGS)
    assert rows(result) == rows(expected)
    assert result.best_epoch == expected.best_epoch
    for (name, a), b in zip(whole.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name

    loaded = load_model(path)
    assert torch.equal(loaded.encode(train).item, whole.encode(train).item)


@pytest.mark.parametrize('cls', [LIRDRec, LightGCN])
def test_runs_with_two_threads_are_bit_equal(cls):
    # The size is such that kernels run in parallel, and a batch holds each user often.
    data = ItemKNNGraph(k=5)(DCT()(FakeMultimodal(num_users=300, num_items=600, seed=0)[0]))
    train = InteractionGraph()(RandomSplit(seed=0)(data)[0])
    histories, states = [], []
    torch.set_num_threads(2)
    try:
        for _ in range(3):
            model = cls.from_data(train, seed=0)
            histories.append(rows(fit(model, train, epochs=2, batch_size=2048, lr=1e-2, progress=False)))
            states.append(model.state_dict())
    finally:
        torch.set_num_threads(1)
    assert histories[0] == histories[1] == histories[2]
    for state in states[1:]:
        assert all(torch.equal(value, state[key]) for key, value in states[0].items())


def test_bf16_follows_fp32(splits):
    train, val, _ = splits
    losses = {}
    for precision in ('fp32', 'bf16'):
        model = build(train)
        result = fit(model, train, val, epochs=5, precision=precision, **KWARGS)
        losses[precision] = torch.tensor([row['loss'] for row in result.log])
        assert {param.dtype for param in model.parameters()} == {torch.float32}
    assert train['item'].x_image.dtype == torch.float32
    assert not torch.equal(losses['bf16'], losses['fp32'])
    assert torch.allclose(losses['bf16'], losses['fp32'], rtol=1e-2)


def test_another_optimizer(splits):
    train = splits[0]
    model, expected = build(train), build(train)
    fit(
        model,
        train,
        epochs=1,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
        **KWARGS | {'batch_size': 10_000, 'lr': None},
    )
    user, pos, neg = next(iter(BPRSampler(train['user', 'interacts', 'item'].edge_index, 64, 48, 10_000, seed=7)))
    expected.on_epoch_start(1)
    expected.loss(train, user, pos, neg).backward()
    for param, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(param, other - 0.1 * other.grad, atol=1e-6)


def test_learning_rate_and_patience_are_the_models_own(splits):
    train, val, _ = splits
    kwargs = KWARGS | {'lr': None}
    for model, lr in [(build(train), 1e-4), (LightGCN.from_data(train, seed=0), 1e-3)]:
        same = build_part(model.settings())
        same.load_state_dict(model.state_dict())
        assert rows(fit(model, train, val, epochs=2, **kwargs)) == rows(
            fit(same, train, val, epochs=2, **kwargs | {'lr': lr})
        )


def test_early_stopping_restores_the_best_weights(splits):
    train, val, _ = splits
    model = build(train)
    result = fit(model, train, val, epochs=200, patience=3, **KWARGS)
    values = [row['recall@5'] for row in result.log]
    assert len(values) == result.best_epoch + 4 < 200
    assert result.best_value == max(values) == values[result.best_epoch - 1]
    assert not model.training
    assert evaluate(model.encode(train), val, k=5)['recall@5'] == result.best_value


def test_log_csv_and_global_random_state(splits, tmp_path):
    train, val, _ = splits
    state = torch.get_rng_state()
    result = fit(build(train), train, val, epochs=3, log_csv=tmp_path / 'history.csv', **KWARGS)
    assert torch.equal(torch.get_rng_state(), state)
    with open(tmp_path / 'history.csv', newline='') as file:
        read = list(csv.DictReader(file))
    assert [float(row['loss']) for row in read] == [row['loss'] for row in result.log]
    assert list(read[0]) == ['epoch', 'loss', 'recall@5', 'seconds']
    assert os.listdir(tmp_path) == ['history.csv']


def test_callbacks_see_gradients(splits):
    train = splits[0]
    seen = []

    class Probe(Callback):
        def on_backward(self, trainer, loss):
            seen.append((trainer.epoch, trainer.step, float(trainer.model.user.grad.norm())))

        def on_epoch(self, trainer, row):
            seen.append(row['epoch'])

    fit(build(train), train, epochs=2, callbacks=[Probe()], **KWARGS)
    assert [entry if isinstance(entry, int) else entry[:2] for entry in seen] == [
        *((1, step) for step in range(1, 5)),
        1,
        *((2, step) for step in range(1, 5)),
        2,
    ]
    assert all(entry[2] > 0 for entry in seen if isinstance(entry, tuple))


def test_progress_bar_shows_loss_and_metric(splits, capsys):
    train, val, _ = splits
    fit(build(train), train, val, epochs=1, **(KWARGS | {'progress': True}))
    shown = capsys.readouterr().err
    assert 'LIRDRec' in shown
    assert 'loss=' in shown
    assert 'recall@5=' in shown


def test_a_model_without_parameters_is_only_evaluated(splits):
    train, val, _ = splits
    model = Popularity.from_data(train)
    result = fit(model, train, val, monitor='recall@5')
    assert result.log == []
    assert result.best_value == evaluate(model.encode(train), val, k=5)['recall@5']


def test_nan_loss_stops_with_epoch_step_and_tensor(splits):
    train = splits[0]

    class Poison(Callback):
        def on_step(self, trainer):
            if (trainer.epoch, trainer.step) == (2, 3):
                trainer.model.shared_encoder.lin1.bias.data[0] = float('nan')

    with pytest.raises(FloatingPointError, match=r'epoch 2, step 4: first at fault is parameter shared_encoder.lin1.b'):
        fit(build(train), train, epochs=3, callbacks=[Poison()], **KWARGS)


def test_refuses_arguments(splits):
    with pytest.raises(ValueError, match="'precision' needs to be 'fp32' or 'bf16' \\(got 'fp16'\\)"):
        fit(build(splits[0]), splits[0], precision='fp16')
    train = splits[0]
    for name in ('epochs', 'batch_size', 'patience', 'lr'):
        with pytest.raises(ValueError, match=rf"'{name}' needs to be positive \(got 0\)"):
            fit(build(train), train, splits[1], **{name: 0})
    with pytest.raises(ValueError, match="'monitor' needs to be of the form"):
        fit(build(train), train, monitor='recall')
    with pytest.raises(ValueError, match=r"one of \['recall', .*\] \(got 'recal@20'\)"):
        fit(build(train), train, monitor='recal@20')
    with pytest.raises(ValueError, match=r"'monitor' needs a k in \[1, 48\], the number of items \(got 'recall@49'\)"):
        fit(build(train), train, splits[1], monitor='recall@49')
    with pytest.raises(ValueError, match="'resume' needs a 'checkpoint'"):
        fit(build(train), train, resume=True)


def test_resuming_with_a_validation_view_adds_its_column(splits, tmp_path):
    train, val, _ = splits
    path = tmp_path / 'checkpoint.pt'
    fit(build(train), train, epochs=1, checkpoint=path, **KWARGS)
    fit(build(train), train, val, epochs=2, checkpoint=path, resume=True, log_csv=tmp_path / 'h.csv', **KWARGS)
    with (tmp_path / 'h.csv').open() as file:
        assert [row['recall@5'] != '' for row in csv.DictReader(file)] == [False, True]
    assert sorted(os.listdir(tmp_path)) == ['checkpoint.pt', 'h.csv']


def test_denormals_in_features_change_nothing(splits):
    train, val, _ = splits
    with_denormals, without = copy.copy(train), copy.copy(train)
    for data, value in [(with_denormals, 1e-34), (without, 0.0)]:
        data[ITEM].x_text = data[ITEM].x_text.clone()
        data[ITEM].x_text[:, 3] = value
    one, other = build(train), build(train)
    results = [fit(model, data, val, epochs=3, **KWARGS) for model, data in [(one, with_denormals), (other, without)]]
    assert rows(results[0]) == rows(results[1])
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_stepping_through_a_run_is_fit(splits, tmp_path):
    train, val, _ = splits
    kwargs = {name: value for name, value in KWARGS.items() if name != 'progress'}
    model, expected = build(train), build(train)
    result = fit(expected, train, val, epochs=4, **KWARGS)
    trainer = Trainer(model, train, val, **kwargs)
    for epoch in range(1, 3):
        assert trainer.train_epoch() == result.log[epoch - 1]['loss']
        assert trainer.validate() == result.log[epoch - 1]['recall@5']
    trainer.save(tmp_path / 'run.pt')
    trainer = Trainer(LIRDRec.from_data(train, hidden_channels=8), train, val, **kwargs)
    trainer.resume(tmp_path / 'run.pt')
    assert (trainer.epoch, len(trainer.log)) == (2, 2)
    assert rows(trainer.fit(4)) == rows(result)
    assert torch.equal(trainer.model(train).item, expected(train).item)
    assert repr(trainer) == "Trainer(LIRDRec, monitor='recall@5', seed=7, precision='fp32', epoch=4)"
    assert repr(result) == f'FitResult(4 epochs, best_epoch={result.best_epoch}, best_value={result.best_value:.4f})'


def test_dropout_of_an_epoch_does_not_depend_on_what_was_drawn_before(splits, tmp_path):
    train, val, _ = splits
    kwargs = {'hidden_channels': 8, 'dropout': 0.5, 'objective': SampledSoftmax(num_negatives=7)}
    whole = LIRDRec.from_data(train, seed=0, **kwargs)
    expected = fit(whole, train, val, epochs=5, **KWARGS)
    path = tmp_path / 'run.pt'
    with pytest.raises(KeyboardInterrupt):
        fit(LIRDRec.from_data(train, seed=0, **kwargs), train, val, checkpoint=path, callbacks=[Stop(3)], **KWARGS)
    torch.rand(5)
    model = LIRDRec.from_data(train, **kwargs)
    assert rows(fit(model, train, val, epochs=5, checkpoint=path, resume=True, **KWARGS)) == rows(expected)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in model.state_dict().items())


class Enough(Callback):
    def __init__(self, epoch, step=None):
        self.epoch, self.step, self.seen = epoch, step, []

    def on_step(self, trainer):
        if (trainer.epoch, trainer.step) == (self.epoch, self.step):
            trainer.stop()

    def on_epoch(self, trainer, row):
        self.seen.append(row['epoch'])
        if self.step is None and trainer.epoch == self.epoch:
            trainer.stop()

    def on_end(self, trainer):
        self.seen.append('end')


def test_a_callback_stops_a_run(splits, tmp_path):
    train, val, _ = splits
    path, enough = tmp_path / 'run.pt', Enough(3)
    result = fit(build(train), train, val, epochs=9, callbacks=[enough], checkpoint=path, **KWARGS)
    assert [row['epoch'] for row in result.log] == [1, 2, 3]
    assert enough.seen == [1, 2, 3, 'end']
    assert load_checkpoint(path)['epoch'] == 3
    within = Enough(5, step=2)  # in the middle of an epoch, which then does not count
    result = fit(
        build(train), train, val, epochs=9, callbacks=[within], checkpoint=path, resume=True, **KWARGS
    )  # fmt: skip
    assert [row['epoch'] for row in result.log] == [1, 2, 3, 4]
    assert load_checkpoint(path)['epoch'] == 4
    whole = build(train)
    expected = fit(whole, train, val, epochs=6, **KWARGS)
    model = build(train)
    assert rows(fit(model, train, val, epochs=6, checkpoint=path, resume=True, **KWARGS)) == rows(expected)
    assert torch.equal(model(train).user, whole(train).user)


def test_callbacks_hear_of_the_end_after_an_error(splits):
    enough = Enough(1)
    with pytest.raises(KeyboardInterrupt):
        fit(build(splits[0]), splits[0], callbacks=[Stop(1), enough], **KWARGS)
    assert enough.seen == ['end']


def test_refuses_arguments_that_would_be_ignored(splits, tmp_path):
    train = splits[0]
    loader, sgd = WholeGraph(train), lambda params: torch.optim.SGD(params, lr=0.1)
    for kwargs, message in [
        ({'loader': loader, 'batch_size': 5}, r"'batch_size' needs to be that of the 'loader': leave it out \(got 5\)"),
        ({'optimizer': sgd, 'lr': 0.1}, r"'lr' needs to be set where 'optimizer' makes the optimiser"),
        ({'patience': 3}, r"'patience' needs a validation split, 'val', to wait for"),
        ({'overwrite': True}, r"'overwrite' needs a 'checkpoint'"),
        ({'checkpoint': tmp_path / 'a', 'overwrite': True, 'resume': True}, 'exclude each other'),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(build(train), train, epochs=1, progress=False, **kwargs)
    with pytest.raises(ValueError, match=r"'model' needs parameters to train \(got Popularity, which has none\)"):
        Trainer(Popularity(), train)
    with pytest.raises(ValueError, match=r"'model' needs to be a Recommender \(got Linear\)"):
        Trainer(torch.nn.Linear(2, 2), train)


@pytest.mark.parametrize(
    ('cls', 'kwargs'),
    [(LIRDRec, {'dropout': 0.5, 'objective': SampledSoftmax(num_negatives=9)}), (BM3, {'dropout': 0.5})],
)
def test_two_runs_in_two_threads_do_not_disturb_each_other(splits, cls, kwargs):
    train, val, _ = splits
    first = cls.from_data(train, seed=0, hidden_channels=8, **kwargs)

    def run(seed):
        return rows(fit(copy.deepcopy(first), train, val, epochs=6, **KWARGS | {'seed': seed}))

    alone = [run(seed) for seed in (1, 2, 3, 4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, (1, 2, 3, 4))) == alone
    assert alone[0] != alone[1]
    assert all(module.generator is None for module in first.modules() if hasattr(module, 'generator'))


def test_default_batch_and_learning_rate_follow_the_interactions(splits):
    train, val = splits[:2]
    assert default_batch_size(train) == 2048
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8)
    trainer = Trainer(model, train, val)
    assert trainer.loader.sampler.batch_size == 2048 and trainer.optimizer.param_groups[0]['lr'] == 1e-4

    many = HeteroData()
    many[INTERACTS].edge_index = torch.zeros(2, 1_250_000, dtype=torch.long)
    assert default_batch_size(many) == 1_250_000 / 16
    many[INTERACTS].edge_index = many[INTERACTS].edge_index[:, :46_144]
    assert 16 * default_batch_size(many) == 46_144  # no small step at the end
    assert default_lr(model, 8192) == pytest.approx(2e-4)
    assert default_lr(model, 100) == default_lr(model) == 1e-4
    trainer = Trainer(model, train, val, batch_size=8 * 2048)
    assert trainer.optimizer.param_groups[0]['lr'] == pytest.approx(8**0.5 * 1e-4)
    assert Trainer(model, train, val, batch_size=8192, lr=1e-2).optimizer.param_groups[0]['lr'] == 1e-2


def stopped(rule, values, loss=None):
    r"""Returns the epoch in which a rule ends a run with the given validation values, and the best one until then."""
    loss = [1 / epoch for epoch in range(1, len(values) + 1)] if loss is None else loss

    class Run:
        val, monitor, is_first_process, epoch, best_epoch, done = 'some', 'ndcg@20', True, 0, 0, False

        def stop(self):
            self.done = True

    run, run.log = Run(), []
    for run.epoch, value in enumerate(values, 1):
        if value > max((row['ndcg@20'] for row in run.log), default=0):
            run.best_epoch = run.epoch
        run.log.append({'ndcg@20': value, 'loss': loss[run.epoch - 1]})
        rule.on_epoch(run, run.log[-1])
        if run.done:
            break
    return run.epoch, run.best_epoch


def test_early_stopping_finds_a_later_peak(caplog):
    dip = [0.038, 0.045, 0.044, 0.042, 0.041] + [0.041 + 0.0005 * i for i in range(60)] + [0.07] * 60
    assert stopped(ReleasedEarlyStopping(10), dip) == (13, 2)
    assert 'ended in epoch 13: ndcg@20 was best in epoch 2, and the loss has fallen by 85 %' in caplog.text
    assert 'a peak that early may not be the last' in caplog.text
    assert stopped(EarlyStopping(10), dip)[1] == dip.index(max(dip)) + 1


def test_a_peak_before_the_model_has_learned_is_not_the_last():
    early = [0.02, 0.07, 0.08, 0.09, *[0.09 - 0.0005 * i for i in range(25)]]  # as LightGCN's, whose graph knows much
    values = [*early, *[0.078 + 0.0005 * i for i in range(80)], *[0.118] * 80]
    loss = [max(0.693 * 0.97**i, 0.05) for i in range(len(values))]
    assert stopped(EarlyStopping(20), values, loss)[1] == values.index(max(values)) + 1
    assert stopped(EarlyStopping(20), values)[1] == 4  # it had learned by then
    flat = [0.1, *[0.09] * 200]
    assert stopped(EarlyStopping(20), flat, [0.693] * 201) == (62, 1)  # but it does not wait for ever


def test_early_stopping_waits_no_longer_where_a_run_overfits(caplog):
    for best in (10, 20, 80):
        values = [*range(best), *range(best, 0, -1)]
        epoch, found = stopped(EarlyStopping(10), values)
        assert found == stopped(ReleasedEarlyStopping(10), values)[1]
        assert epoch <= 1.5 * stopped(ReleasedEarlyStopping(10), values)[0]
    assert not caplog.records  # of warnings
    with pytest.raises(ValueError, match=r"'growth' needs to be in \[0, 1\) \(got 1\)"):
        EarlyStopping(10, growth=1)


def test_fit_takes_the_rule_by_name(splits):
    train, val = splits[:2]
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8)
    runs = {}
    for rule in ('climbing', 'released'):
        again = copy.deepcopy(model)
        runs[rule] = len(fit(again, train, val, **KWARGS | {'monitor': 'ndcg@5'}, patience=2, stopping=rule).log)
    assert runs['released'] <= runs['climbing']
    with pytest.raises(ValueError, match=r"'stopping' needs to be one of \['climbing', 'released'\] \(got 'never'\)"):
        fit(model, train, val, **KWARGS, stopping='never')
