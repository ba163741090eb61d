import csv
import os
import signal
import subprocess
import sys
from copy import copy

import numpy as np
import pytest
import torch

from lirdrec_pyg import BPRSampler, Callback, LightGCN, LIRDRec, Popularity, Trainer, evaluate, fit, load_model
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import SampledSoftmax
from lirdrec_pyg.nn.part import build as build_part
from lirdrec_pyg.training import WholeGraph
from lirdrec_pyg.training.checkpoint import load_checkpoint, save_checkpoint
from lirdrec_pyg.transforms import DCT, InteractionGraph, ItemKNNGraph, RandomSplit
from lirdrec_pyg.typing import INTERACTS, ITEM, REV_INTERACTS, SIMILAR_TO, USER

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


def test_refuses_missing_corrupt_and_foreign_checkpoints(splits, tmp_path):
    train, val, _ = splits
    path = tmp_path / 'checkpoint.pt'
    with pytest.raises(FileNotFoundError, match='no checkpoint at'):
        fit(build(train), train, val, checkpoint=path, resume=True, **KWARGS)
    fit(build(train), train, val, epochs=1, checkpoint=path, **KWARGS)
    content = path.read_bytes()

    with pytest.raises(ValueError, match="has another 'settings'"):
        fit(build(train), train, val, checkpoint=path, resume=True, **(KWARGS | {'lr': 1.0}))
    with pytest.raises(ValueError, match="has another 'model'"):
        fit(LightGCN.from_data(train), train, val, checkpoint=path, resume=True, **KWARGS)
    with pytest.raises(ValueError, match="has another 'hparams'"):
        fit(LIRDRec.from_data(train), train, val, checkpoint=path, resume=True, **KWARGS)
    other = train.clone()
    store = other['user', 'interacts', 'item']
    store.edge_index = store.edge_index[:, 1:]
    with pytest.raises(ValueError, match="has another 'data'"):
        fit(build(train), other, val, checkpoint=path, resume=True, **KWARGS)
    other = train.clone()
    other['item'].x_text[0, 0] += 1
    with pytest.raises(ValueError, match="has another 'data'"):
        fit(build(train), other, val, checkpoint=path, resume=True, **KWARGS)

    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match='is corrupt or not a checkpoint'):
        load_model(path)
    torch.save({'weights': torch.zeros(1)}, path)
    with pytest.raises(ValueError, match='is corrupt or not a checkpoint'):
        load_model(path)


def test_numbers_of_numpy_make_a_readable_checkpoint(splits, tmp_path):
    train, val, _ = splits
    path = tmp_path / 'checkpoint.pt'
    model = LIRDRec.from_data(train, seed=0, hidden_channels=np.int64(8), reg_weight=np.float64(1e-4))
    fit(model, train, val, epochs=1, checkpoint=path, **(KWARGS | {'lr': np.float64(1e-2)}))
    assert torch.equal(load_model(path).encode(train).item, model.encode(train).item)
    fit(model, train, val, epochs=2, checkpoint=path, resume=True, **KWARGS)


def test_resuming_with_a_validation_view_adds_its_column(splits, tmp_path):
    train, val, _ = splits
    path = tmp_path / 'checkpoint.pt'
    fit(build(train), train, epochs=1, checkpoint=path, **KWARGS)
    fit(build(train), train, val, epochs=2, checkpoint=path, resume=True, log_csv=tmp_path / 'h.csv', **KWARGS)
    with (tmp_path / 'h.csv').open() as file:
        assert [row['recall@5'] != '' for row in csv.DictReader(file)] == [False, True]
    assert sorted(os.listdir(tmp_path)) == ['checkpoint.pt', 'h.csv']


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / 'checkpoint.pt'
    save_checkpoint({'format': 2, 'value': 1}, path)

    def full(state, file):
        file.write_bytes(b'half')
        raise OSError('no space left on device')

    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(OSError, match='no space left'):
        save_checkpoint({'format': 2, 'value': 2}, path)
    assert load_checkpoint(path)['value'] == 1
    assert os.listdir(tmp_path) == ['checkpoint.pt']


SAVE = """
import os, resource, signal, sys, torch
from pathlib import Path
from lirdrec_pyg.nn.part import build as build_part
from lirdrec_pyg.training import WholeGraph
from lirdrec_pyg.training.checkpoint import load_checkpoint, save_checkpoint
path, how = sys.argv[1:]
if how == 'killed':
    os.replace = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
else:  # the last bytes don't fit
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(path).stat().st_size - 10, resource.RLIM_INFINITY))
try:
    save_checkpoint(load_checkpoint(path) | {'value': torch.ones(1000)}, path)
except (OSError, RuntimeError):
    sys.exit(3)
"""


@pytest.mark.parametrize(('how', 'code'), [('killed', -signal.SIGKILL), ('full', 3)])
def test_a_save_that_is_killed_or_lacks_room_leaves_the_old_checkpoint(tmp_path, how, code):
    path = tmp_path / 'checkpoint.pt'
    save_checkpoint({'format': 2, 'value': torch.zeros(1000)}, path)
    before = path.read_bytes()
    result = subprocess.run([sys.executable, '-c', SAVE, str(path), how], check=False, capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    assert path.read_bytes() == before
    assert not load_checkpoint(path)['value'].any()
    save_checkpoint({'format': 2, 'value': torch.ones(1000)}, path)
    assert load_checkpoint(path)['value'].all()


class Bomb:
    r"""Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f'open({str(self.path)!r}, "w").close()',)


def test_a_checkpoint_is_of_this_version_and_runs_nothing(splits, tmp_path):
    path, train = tmp_path / 'checkpoint.pt', splits[0]
    fit(build(train), train, epochs=1, checkpoint=path, **KWARGS)
    state = load_checkpoint(path)
    save_checkpoint(state | {'format': 3}, path)
    with pytest.raises(ValueError, match=r'is not a checkpoint of format 2 \(got 3\)'):
        fit(build(train), train, epochs=1, checkpoint=path, resume=True, **KWARGS)
    save_checkpoint(state | {'log': Bomb(tmp_path / 'ran')}, path)
    with pytest.raises(ValueError, match=r'is corrupt or not a checkpoint \(UnpicklingError\)'):
        load_model(path)
    assert not (tmp_path / 'ran').exists()
    assert torch.load(path, weights_only=False)['epoch'] == 1  # still a file of torch: whoever trusts it can read it


def test_denormals_in_features_change_nothing(splits):
    train, val, _ = splits
    with_denormals, without = copy(train), copy(train)
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


def test_a_checkpoint_is_not_overwritten_without_being_asked(splits, tmp_path):
    train, val, _ = splits
    path = tmp_path / 'run.pt'
    fit(build(train), train, val, epochs=2, checkpoint=path, **KWARGS)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"exists: pass 'resume=True' to go on from it, or 'overwrite=True'"):
        fit(build(train), train, val, epochs=1, checkpoint=path, **KWARGS)
    assert path.read_bytes() == before
    fit(build(train), train, val, epochs=1, checkpoint=path, overwrite=True, **KWARGS)
    assert load_checkpoint(path)['epoch'] == 1


def changed(splits, what):
    train, val, _ = (split.clone() for split in splits)
    if what == 'item graph weights':
        train[SIMILAR_TO].edge_weight[0] *= 2
    elif what == 'mask':
        train[ITEM].has_text = torch.arange(48) > 0
        train[ITEM].x_text[0] = 0
    elif what == 'times':
        train[INTERACTS].time[0] += 1
    elif what == 'recent items':
        train[USER].recent_items[0, 0] = 7
    elif what == 'spectrum':
        train[ITEM].spectrum[5] += 1
    elif what == 'one feature':
        train[ITEM].x_image[47, 15] += 1e-3
    elif what == 'raw ids':
        train[USER].raw_id = train[USER].raw_id[::-1]
    elif what == 'validation':
        val[INTERACTS].edge_label_index = val[INTERACTS].edge_label_index[:, 1:]
    return train, val


@pytest.mark.parametrize(
    ('what', 'named'),
    [
        ('item graph weights', r"another 'data' \(similar_to.edge_weight\)"),
        ('mask', r"another 'data' \(item.x_text, item.has_text\)"),
        ('times', r"another 'data' \(interacts.time\)"),
        ('recent items', r"another 'data' \(user.recent_items\)"),
        ('spectrum', r"another 'data' \(item.spectrum\)"),
        ('one feature', r"another 'data' \(item.x_image\)"),
        ('raw ids', r"another 'data' \(user.raw_id\)"),
        ('validation', r"another 'validation'"),
    ],
)
def test_a_run_resumes_on_equal_data_alone(splits, tmp_path, what, named):
    train, val, _ = splits
    path = tmp_path / 'run.pt'
    fit(build(train), train, val, epochs=1, checkpoint=path, **KWARGS)
    with pytest.raises(ValueError, match=named):
        fit(build(train), *changed(splits, what), checkpoint=path, resume=True, **KWARGS)
    fit(build(train), *changed(splits, 'nothing'), epochs=2, checkpoint=path, resume=True, **KWARGS)  # a copy is equal


def test_a_run_resumes_with_equal_settings_alone(splits, tmp_path):
    train, val, _ = splits
    path, kwargs = tmp_path / 'run.pt', KWARGS | {'lr': None}

    def sgd(**settings):
        return lambda params: torch.optim.SGD(params, **settings)

    fit(build(train), train, val, epochs=1, checkpoint=path, optimizer=sgd(lr=0.1, momentum=0.9), **kwargs)
    for settings in ({'lr': 0.1}, {'lr': 0.2, 'momentum': 0.9}, {'lr': 0.1, 'momentum': 0.9, 'weight_decay': 1e-3}):
        with pytest.raises(ValueError, match="has another 'settings' \\(groups: "):
            fit(build(train), train, val, checkpoint=path, resume=True, optimizer=sgd(**settings), **kwargs)
    for other in ({'batch_size': 64}, {'seed': 8}, {'monitor': 'ndcg@5'}, {'precision': 'bf16'}):
        optimizer = sgd(lr=0.1, momentum=0.9)
        with pytest.raises(ValueError, match=f"another 'settings' \\({next(iter(other))}: "):
            fit(build(train), train, val, checkpoint=path, resume=True, optimizer=optimizer, **kwargs | other)
    model = LIRDRec.from_data(train, hidden_channels=8, objective=SampledSoftmax())
    with pytest.raises(ValueError, match="another 'hparams' \\(objective: "):
        fit(model, train, val, checkpoint=path, resume=True, optimizer=sgd(lr=0.1, momentum=0.9), **kwargs)
    fit(build(train), train, val, epochs=2, checkpoint=path, resume=True, optimizer=sgd(lr=0.1, momentum=0.9), **kwargs)


def test_a_flipped_or_missing_byte_is_noticed(splits, tmp_path):
    path = tmp_path / 'run.pt'
    fit(build(splits[0]), splits[0], epochs=1, checkpoint=path, **KWARGS)
    content = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(len(content), (150,), generator=generator).tolist():
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(torch.randint(8, (1,), generator=generator))
        for damaged in (bytes(flipped), content[:place]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match='is corrupt or not a checkpoint'):
                load_model(path)


def renumbered(train, users, new=0):
    r"""Returns data of some of the users, in another order, and of new ones who have seen the first item."""
    out = train.clone()
    place = torch.full((train[USER].num_nodes,), -1)
    place[users] = torch.arange(len(users))
    user, item = train[INTERACTS].edge_index
    keep = place[user] >= 0
    edge_index = torch.stack([place[user[keep]], item[keep]])
    more = torch.stack([torch.arange(len(users), len(users) + new), torch.zeros(new, dtype=torch.long)])
    for key in list(out[USER].keys()):
        del out[USER][key]
    out[USER].num_nodes = len(users) + new
    out[USER].raw_id = [train[USER].raw_id[i] for i in users] + [f'new-{i}' for i in range(new)]
    for key in list(out[INTERACTS].keys()):
        del out[INTERACTS][key]
    out[INTERACTS].edge_index = torch.cat([edge_index, more], dim=1)
    del out[REV_INTERACTS]
    return InteractionGraph()(out)


@pytest.mark.parametrize('cls', [LIRDRec, LightGCN])
def test_a_checkpoint_is_aligned_by_raw_id(splits, tmp_path, caplog, cls):
    train, val, _ = splits
    path = tmp_path / 'run.pt'
    model = cls.from_data(train, seed=0, hidden_channels=8)
    fit(model, train, val, epochs=3, checkpoint=path, **KWARGS)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    mixed = renumbered(train, order)
    for used in (model, load_model(path)):
        with pytest.raises(ValueError, match=r"raw ids of 'user' need to be those .* align its rows by `load_model"):
            used(mixed)
    aligned = load_model(path, mixed)
    assert torch.allclose(aligned(mixed).user, model(train).user[order], atol=1e-6)
    assert torch.allclose(aligned(mixed).item, model(train).item, atol=1e-6)
    assert 'users by raw id: 64 known, 0 new, 0 gone' in caplog.text
    some = renumbered(train, order[:60], new=3)
    aligned = load_model(path, some)
    assert 'users by raw id: 60 known, 3 new, 4 gone' in caplog.text
    assert torch.equal(aligned.user[:60], model.user[order[:60]])
    assert aligned.user[60:].norm() > 0
    assert torch.equal(load_model(path, some).user, aligned.user)  # seeded
    result = fit(aligned, some, epochs=1, **KWARGS)  # a warm start
    assert (
        result.log[0]['loss']
        < fit(cls.from_data(some, seed=0, hidden_channels=8), some, epochs=1, **KWARGS).log[0]['loss']
    )
    del some[USER].raw_id
    with pytest.raises(ValueError, match=r'rows of users need raw ids to be aligned by.*\(the data has none\)'):
        load_model(path, some)
