import resource

import pytest
import torch

from lirdrec_pyg import _memory
from lirdrec_pyg._memory import keep_freed_memory

PAGES = 64 * 2**20 // resource.getpagesize()


def faults_of_64_mib() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(_memory._glibc() is None, reason='needs glibc')
def test_freed_memory_is_kept_within_and_given_back_after(monkeypatch):
    for name in ('MALLOC_MMAP_MAX_', 'MALLOC_TRIM_THRESHOLD_', 'MALLOC_ARENA_MAX'):
        monkeypatch.delenv(name, raising=False)
    with keep_freed_memory():  # the first ones may still be the last to fit where memory was free before
        assert min(faults_of_64_mib() for _ in range(5)) < PAGES / 100
    assert faults_of_64_mib() > PAGES / 1000  # or huge pages of 2 MiB


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
