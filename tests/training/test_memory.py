import os
import subprocess
import sys

import pytest
import torch

from lirdrec_pyg.training import memory as _memory
from lirdrec_pyg.training.memory import keep_freed_memory

FAULTS = """
import resource
import torch
from lirdrec_pyg.training.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with keep_freed_memory():  # the first ones may still find no block of that size among those that are free
    within = min(faults() for _ in range(50))
print(within, faults(), 64 * 2**20 // resource.getpagesize())
"""


@pytest.mark.skipif(_memory._glibc() is None, reason='needs glibc')
def test_freed_memory_is_kept_within_and_given_back_after():
    # A process of its own: once an allocation has failed in a thread, glibc moves it to an arena that keeps no large
    # blocks, and other tests make allocations fail.
    env = {name: value for name, value in os.environ.items() if not name.startswith('MALLOC_')}
    shown = subprocess.run([sys.executable, '-c', FAULTS], env=env, capture_output=True, text=True, check=True).stdout
    within, after, pages = map(int, shown.split())
    assert within < pages / 100
    assert after > pages / 1000  # or huge pages of 2 MiB


@pytest.mark.skipif(_memory._glibc() is None, reason='needs glibc')
def test_the_environment_has_the_last_word(monkeypatch):
    monkeypatch.setenv('MALLOC_MMAP_MAX_', '0')
    calls = []
    monkeypatch.setattr(_memory, '_glibc', lambda: type('Libc', (), {'mallopt': lambda *args: calls.append(args)}))
    with keep_freed_memory():
        pass
    assert calls == []


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(_memory, '_glibc', lambda: None)
    with keep_freed_memory():
        assert torch.ones(3).sum() == 3
