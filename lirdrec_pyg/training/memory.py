import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # of glibc's mallopt


@contextlib.contextmanager
def keep_freed_memory() -> Iterator[None]:
    r"""Lets the process keep the memory of tensors that are freed within the context, for the next ones.

    By default glibc gives large blocks back to the system at once, which clears them, page by page, for the next step:
    that takes up to a quarter of a step on a large graph. On leaving, free memory is given back and glibc's thresholds
    are those that it comes to by itself with tensors of this size. Without glibc, or with variables ``MALLOC_…`` in the
    environment, which say what the user wants, nothing is changed.
    """
    libc = _glibc()
    if libc is None or any(name.startswith('MALLOC_') for name in os.environ):
        yield
        return
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        libc.mallopt(MMAP_MAX, 65536)
        libc.mallopt(MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(TRIM_THRESHOLD, 64 * 2**20)
        libc.malloc_trim(0)


def _glibc() -> Any:
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018
    except (AttributeError, OSError, TypeError):
        return None
    return libc
