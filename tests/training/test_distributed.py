r"""Two processes on CPU train as one does, and survive the death of one."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lirdrec_pyg import LIRDRec, evaluate, load_model
from lirdrec_pyg.typing import INTERACTS

ROOT = Path(__file__).parents[2]
SCRIPT = 'examples/distributed.py'


def launch(processes: int, *args: str, die: str = '') -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'MASTER_PORT': str(port)}
    script = SCRIPT
    if die:  # the same script, in which a process dies
        env['DIE'] = die
        script = str(Path(__file__).with_name('dying_rank.py'))
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', str(processes)]
    command += ['--master-port', str(port), script, '--batch-size', '255', '--lr', '5e-3', *args]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)


def history(result: subprocess.CompletedProcess[str]) -> list[tuple[float, float]]:
    assert result.returncode == 0, result.stderr
    found = re.findall(r'epoch \d+: loss ([\d.]+), validation recall@20 ([\d.]+)', result.stdout)
    return [(float(loss), float(recall)) for loss, recall in found]


@pytest.mark.parametrize('loss', ['bpr', 'softmax'])
def test_two_processes_have_the_losses_of_one(loss, tmp_path):
    one, two = (
        history(launch(n, '--epochs', '3', '--loss', loss, '--checkpoint', str(tmp_path / f'{n}.pt'))) for n in (1, 2)
    )
    assert len(one) == len(two) == 3
    for (loss_one, recall_one), (loss_two, recall_two) in zip(one, two, strict=True):
        assert loss_two == pytest.approx(loss_one, rel=1e-5, abs=2e-6)
        assert recall_two == pytest.approx(recall_one, abs=0.01)
    assert one[-1][0] < one[0][0]
    models = [load_model(LIRDRec, tmp_path / f'{n}.pt') for n in (1, 2)]
    for (name, ours), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-4, msg=name)


def test_two_processes_go_on_where_a_part_of_the_model_is_left_out():
    assert len(history(launch(2, '--epochs', '25'))) == 25  # the networks of PWC, from epoch 24 on


def test_training_goes_on_after_a_process_dies(tmp_path):
    whole = history(launch(2, '--epochs', '4', '--checkpoint', str(tmp_path / 'whole.pt')))
    path = tmp_path / 'parts.pt'
    killed = launch(2, '--epochs', '4', '--checkpoint', str(path), die='3')
    assert killed.returncode != 0
    assert 'epoch 2:' in killed.stdout
    assert 'epoch 3:' not in killed.stdout
    assert [file.name for file in tmp_path.glob('parts*')] == ['parts.pt']  # nothing half-written
    rest = history(launch(2, '--epochs', '4', '--checkpoint', str(path), '--resume'))
    assert rest == whole[2:]
    states = [load_model(LIRDRec, tmp_path / f'{name}.pt').state_dict() for name in ('whole', 'parts')]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_each_process_ranks_its_share_of_the_users(splits, monkeypatch):
    spec = importlib.util.spec_from_file_location('distributed', ROOT / SCRIPT)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    train, val, _ = splits
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8)
    ranked, totals = [], []

    def watched(embeddings, view, **kwargs):
        ranked.append(set(view[INTERACTS].edge_label_index[0].tolist()))
        return evaluate(embeddings, view, **kwargs)

    monkeypatch.setattr(example, 'evaluate', watched)
    monkeypatch.setattr(example.dist, 'all_reduce', lambda total: totals.append(total.clone()))
    for rank in range(3):
        example.validate(model, train, val, rank, 3)
    users = set(val[INTERACTS].edge_label_index[0].tolist())
    assert set.union(*ranked) == users
    assert sum(map(len, ranked)) == len(users)  # none twice
    assert max(map(len, ranked)) < len(users) / 2
    hits, count = torch.stack(totals).sum(dim=0)
    whole = evaluate(model.encode(train), val, k=20, metrics=['recall'])['recall@20']
    assert float(hits / count) == pytest.approx(whole, abs=1e-6)
