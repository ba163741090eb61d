r"""Peak memory of a call, on any device."""

import gc
from collections.abc import Callable

import torch

from benchmarks import rows


def extra_memory(function: Callable[[], object], device: str = 'cpu') -> float:
    r"""Returns the MiB that a call takes at most beyond what is held before: resident on CPU, allocated on CUDA."""
    gc.collect()
    if device.startswith('cuda'):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - start) / 2**20
    with rows.PeakMemory() as memory:
        function()
    return memory.extra
