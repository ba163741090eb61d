r"""Two processes train as one does, and survive the death of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name('distributed_runs.py')


def start(processes, task, out, *args):
    r"""Starts the script in some processes and returns what each found."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(Path(__file__).parents[2])}
    command = [sys.executable]
    if processes > 1:
        command += ['-m', 'torch.distributed.run', '--nproc-per-node', str(processes), '--master-port', str(port)]
    command += [str(SCRIPT), task, str(out), *map(str, args)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    found = [Path(f'{out}.{rank}') for rank in range(processes)]
    return result, [json.loads(path.read_text()) if path.is_file() else None for path in found]


def log(found):
    return [{name: value for name, value in row.items() if name != 'seconds'} for row in found['log']]


def test_two_processes_are_one_on_the_whole_graph(tmp_path):
    results = [start(n, 'whole', tmp_path / str(n)) for n in (1, 2)]
    for result, _ in results:
        assert result.returncode == 0, result.stderr
    (one,), (two, other) = (found for _, found in results)
    for objective in ('bpr', 'softmax'):
        assert two[objective]['user'] == other[objective]['user']  # all processes have the same weights
        assert log(two[objective]) == log(other[objective])
        for ours, expected in zip(log(two[objective]), log(one[objective]), strict=True):
            assert ours['loss'] == pytest.approx(expected['loss'], rel=1e-5)
            assert ours['recall@20'] == pytest.approx(expected['recall@20'], abs=0.01)
        assert two[objective]['user'] == pytest.approx(one[objective]['user'], rel=1e-3, abs=1e-4)
        assert log(one[objective])[-1]['loss'] < log(one[objective])[0]['loss']
    assert two['long']['epoch'] == 25
    assert one['stopped'] == [5, 5] and two['stopped'] == other['stopped'] == [1, 2]  # the first one never asks
    assert two['coverage'] == other['coverage'] == pytest.approx(one['coverage'], abs=0.02)


def test_training_goes_on_after_a_process_dies(tmp_path):
    result, (whole, _) = start(2, 'resume', tmp_path / 'whole', tmp_path / 'whole.pt', 'live')
    assert result.returncode == 0, result.stderr
    path = tmp_path / 'parts.pt'
    result, found = start(2, 'resume', tmp_path / 'died', path, 'die')
    assert result.returncode != 0 and found == [None, None]
    assert [file.name for file in tmp_path.glob('parts*')] == ['parts.pt']  # nothing half-written
    result, (parts, _) = start(2, 'resume', tmp_path / 'parts', path, 'resume')
    assert result.returncode == 0, result.stderr
    assert log(parts['parts']) == log(whole['parts'])
    assert parts['loaded'] == whole['loaded']


def test_each_process_samples_its_own_mini_batches(tmp_path):
    results = [start(n, 'sampled', tmp_path / str(n)) for n in (1, 2)]
    for result, _ in results:
        assert result.returncode == 0, result.stderr
    (one,), (two, other) = (found for _, found in results)
    for sparse in ('False', 'True'):
        assert two[sparse]['steps'] == -(-one[sparse]['steps'] // 2)  # `batch_size` counts for each process
        assert log(two[sparse]) == log(other[sparse])
        assert two[sparse]['weight'] == other[sparse]['weight']
        assert log(two[sparse])[-1]['loss'] < log(two[sparse])[0]['loss']
