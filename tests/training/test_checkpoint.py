import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from lirdrec_pyg import LightGCN, LIRDRec, fit, load_model
from lirdrec_pyg.nn import SampledSoftmax
from lirdrec_pyg.training.checkpoint import load_checkpoint, save_checkpoint
from lirdrec_pyg.transforms import InteractionGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, REV_INTERACTS, SIMILAR_TO, USER

KWARGS = {'batch_size': 100, 'lr': 1e-2, 'monitor': 'recall@5', 'seed': 7, 'progress': False}


def build(train):
    return LIRDRec.from_data(train, seed=0, hidden_channels=8)


def rows(result):
    return [{key: value for key, value in row.items() if key != 'seconds'} for row in result.log]


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


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / 'checkpoint.pt'
    save_checkpoint({'format': 2, 'value': 1}, path)

    def full(state, file):
        file.write(b'half')
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
