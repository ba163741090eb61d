r"""What all benchmarks share: rows that describe themselves, and timing."""

import argparse
import csv
import fcntl
import json
import platform
import resource
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
import torch_geometric

import lirdrec_pyg

Row = dict[str, Any]
ELSEWHERE = ('root', 'cache_dir', 'rows', 'plot', 'profile', 'task')  # arguments that change no figure


def environment(device: str = 'cpu') -> Row:
    r"""Returns what a reader needs to judge a row: versions, hardware, commit and peak memory."""
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True, check=False)
    row = {
        'lirdrec_pyg': lirdrec_pyg.__version__,
        'commit': commit.stdout.strip(),
        'torch': torch.__version__,
        'torch_geometric': torch_geometric.__version__,
        'python': platform.python_version(),
        'device': torch.cuda.get_device_name() if device.startswith('cuda') else cpu(),
        'threads': torch.get_num_threads(),
        'peak_rss_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    return row


def cpu() -> str:
    r"""Returns the name of the processor and which bfloat16 instructions it has."""
    try:
        text = Path('/proc/cpuinfo').read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((line.partition(':')[2].strip() for line in text.splitlines() if line.startswith('model name')), '')
    half = 'bf16 by AMX' if 'amx_bf16' in text else 'with bf16' if 'avx512_bf16' in text else 'no bf16'
    return f'{name or platform.machine()} ({half})'


def call(args: argparse.Namespace, seed: int = 0) -> Row:
    r"""Returns what a script was called with, and the seed of what it generates and initialises."""
    known = {name: value for name, value in vars(args).items() if name not in ELSEWHERE and value is not None}
    return {'seed': seed, 'arguments': json.dumps(known, sort_keys=True, default=str)}


def append(path: Path, row: Row) -> None:
    r"""Appends a row, safely beside other processes. A file without some of its columns gets them, empty in the rows
    before; one with columns that the row lacks is refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a+', newline='') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        end = '\r\n' if file.readline().endswith('\r\n') else '\n'  # as the file has it
        file.seek(0)
        header, *lines = [*csv.reader(file)] or [[]]
        if missing := set(header) - set(row):
            raise ValueError(f"'{path}' has columns that the row lacks ({sorted(missing)})")
        columns = [*header, *(name for name in row if name not in header)]
        if columns != header:
            file.truncate(0)
            csv.writer(file, lineterminator=end).writerows(
                [columns, *(line + [''] * (len(columns) - len(line)) for line in lines)]
            )
        csv.DictWriter(file, fieldnames=columns, lineterminator=end).writerow(row)


def read(path: Path) -> list[dict[str, str]]:
    r"""Returns the rows of a file, none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def has(path: Path, **cells: object) -> bool:
    r"""Returns whether a file has a row with the given cells."""
    return any(all(row[name] == str(value) for name, value in cells.items()) for row in read(path))


def synchronize(device: str) -> None:
    r"""Waits until the device has done all its work."""
    if device.startswith('cuda'):
        torch.cuda.synchronize()


def timed(function: Callable[[], object], repeats: int = 7, device: str = 'cpu', warmup: int = 1) -> list[float]:
    r"""Returns the seconds of each repetition."""
    seconds = []
    for repeat in range(warmup + repeats):
        synchronize(device)
        clock = time.perf_counter()
        function()
        synchronize(device)
        if repeat >= warmup:
            seconds.append(time.perf_counter() - clock)
    return seconds


class PeakMemory:
    r"""Measures the highest resident memory, in MiB, within a ``with`` block, and what it is above the start."""

    def __enter__(self) -> 'PeakMemory':
        self._process = psutil.Process()
        self.start = self.peak = self._process.memory_info().rss / 2**20
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.peak = max(self.peak, self._process.memory_info().rss / 2**20)

    def __exit__(self, *args: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak = max(self.peak, self._process.memory_info().rss / 2**20)

    @property
    def extra(self) -> float:
        r"""The peak above what was resident at the start."""
        return self.peak - self.start


def table(rows: list[Row], columns: list[str]) -> str:
    r"""Returns a plain-text table of some columns."""
    cells = [columns] + [
        [f'{row[c]:.4g}' if isinstance(row[c], float) else str(row[c]) for c in columns] for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return '\n'.join('  '.join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
