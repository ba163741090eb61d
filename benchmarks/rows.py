r"""What all benchmarks share: rows that describe themselves, and timing."""

import argparse
import contextlib
import csv
import fcntl
import importlib.util
import io
import json
import os
import platform
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import psutil
import torch
import torch_geometric

import lirdrec_pyg

Row = dict[str, Any]
HERE = Path(__file__).parent
RESULTS = HERE / 'results'  # quality/ and speed/, see its README
ELSEWHERE = ('root', 'cache_dir', 'rows', 'plot', 'profile', 'task', 'worker', 'out')  # arguments that change no figure


def git(*args: str) -> str:
    r"""Returns what git says of the repository that this file is in."""
    return subprocess.run(['git', *args], cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()


# Of the code that runs, whatever is committed while it does.
COMMIT = git('rev-parse', '--short', 'HEAD') + '-dirty' * bool(git('diff', '--name-only', 'HEAD', '--', ':/*.py'))


def environment(device: str = 'cpu') -> Row:
    r"""Returns what a reader needs to judge a row: versions, hardware, commit and peak memory."""
    row = {
        'lirdrec_pyg': lirdrec_pyg.__version__,
        'commit': COMMIT,
        'torch': torch.__version__,
        'torch_geometric': torch_geometric.__version__,
        'python': platform.python_version(),
        'device': torch.cuda.get_device_name() if device.startswith('cuda') else cpu(),
        'threads': torch.get_num_threads(),
        'peak_rss_mib': int(peak_rss()),
    }
    return row


def peak_rss() -> float:
    r"""Returns the highest resident memory of this process so far, in MiB. Without ``/proc``, it may be that of the
    process that started this one."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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


def append(path: Path, *new: Row) -> None:
    r"""Appends rows to a CSV file.

    Either all rows are written or none. Other processes may append to the same file at the same time.

    A row may have columns that the file lacks. The file then gets these columns, which stay empty in the older rows.

    Args:
        path (Path): The file. It is created where there is none.
        *new (dict): The rows. Each needs a cell for every column of the file.

    Raises:
        ValueError: If a row lacks a column of the file.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path) as file:
        end = '\r\n' if file.readline().endswith('\r\n') else '\n'  # as the file has it
        file.seek(0)
        header, *lines = [*csv.reader(file)] or [[]]
        for row in new:
            if missing := set(header) - set(row):
                raise ValueError(f"'{path}' has columns that the row lacks ({sorted(missing)})")
        columns = list(dict.fromkeys([*header, *(name for row in new for name in row)]))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator=end)
        if columns != header:
            writer.writerows([columns, *(line + [''] * (len(columns) - len(line)) for line in lines)])
        writer.writerows([row.get(name, '') for name in columns] for row in new)
        if columns != header:
            replace(path, text.getvalue().encode())
            return
        data, before = text.getvalue().encode(), path.stat().st_size
        if os.write(file.fileno(), data) < len(data):  # one call: a process that is killed leaves no half of a line
            os.ftruncate(file.fileno(), before)
            raise OSError(f"'{path}' has no room for {len(data)} bytes")


def replace(path: Path, data: bytes) -> None:
    r"""Writes a file as a whole: who is interrupted leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[TextIO]:
    r"""Opens a file to read it and to append to it, and keeps other processes out meanwhile."""
    while True:
        with path.open('a+', newline='') as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # while waiting for it, another process may have replaced the file
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                file.seek(0)
                yield file
                return


def read(path: Path) -> list[dict[str, str]]:
    r"""Returns the rows of a file, none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def has(path: Path, **cells: object) -> bool:
    r"""Returns whether a file has a row with the given cells."""
    return any(all(row[name] == str(value) for name, value in cells.items()) for row in read(path))


def example(name: str) -> ModuleType:
    r"""Returns a script of ``examples`` as a module."""
    spec = importlib.util.spec_from_file_location(name, HERE.parent / 'examples' / f'{name}.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
