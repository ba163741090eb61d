r"""Files that are whole or not there, and the one identity of what they were made of."""

import contextlib
import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    r"""Gives the name of a new file beside ``path`` to write to, and puts it in the place of ``path`` when the block
    ends without an error. Whoever reads ``path`` sees the old file or the new one, whole.

    Folders that lack are made. The new file is flushed to the disk first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', suffix='.tmp', dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # as a file that was opened plainly
        with temporary.open('rb') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: PathLike, content: bytes) -> None:
    r"""Writes a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def file_digest(path: PathLike) -> str:
    r"""Returns the sha256 of a file's content."""
    with Path(path).open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def digest(*parts: Any) -> str:
    r"""Returns the sha256 of values of any kind that has a content: numbers, strings, tensors, arrays, paths (by the
    content of their file), lists, mappings, and objects by their class and attributes.

    Equal values have equal digests in any process. Each value is written with its type and length, so that no two
    different ones look alike.

    Raises:
        TypeError: If a part has no content to tell it by, such as a function. See :func:`has_identity`.
    """
    out = hashlib.sha256()
    for part in parts:
        _update(out, part, set())
    return out.hexdigest()


def has_identity(value: Any) -> bool:
    r"""Whether :func:`digest` can tell a value from others by its content. A plain function has none."""
    try:
        _update(hashlib.sha256(), value, set())
    except TypeError:
        return False
    return True


def _update(out: Any, value: Any, above: set[int]) -> None:
    r"""Adds a value to a digest. ``above`` are the objects that it is within, to refuse circles."""

    def write(kind: str, content: bytes = b'') -> None:
        out.update(f'{kind}:{len(content)}:'.encode() + content)

    if value is None or isinstance(value, bool | int | str | bytes):
        write(type(value).__name__, value if isinstance(value, bytes) else str(value).encode('utf-8', 'surrogatepass'))
    elif isinstance(value, float):
        write('float', struct.pack('<d', value))
    elif isinstance(value, np.generic):
        _update(out, value.item(), above)
    elif isinstance(value, Tensor):
        _update_tensor(out, value)
    elif isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            _update(out, value.tolist(), above)
        else:
            write('array', f'{value.dtype.str}{value.shape}'.encode())
            out.update(np.ascontiguousarray(value).view(np.uint8).data if value.size else b'')
    elif isinstance(value, Path):
        write('file', file_digest(value).encode() if value.is_file() else b'none')
    elif isinstance(value, type):
        write('class', f'{value.__module__}.{value.__qualname__}'.encode())
    elif isinstance(value, torch.dtype | torch.device | torch.Size | range):
        write('torch', str(value).encode())
    else:
        if id(value) in above:
            raise TypeError(f'an object within itself has no content to tell it by (got {type(value).__name__})')
        above = above | {id(value)}
        if isinstance(value, Mapping):
            write('mapping', str(len(value)).encode())
            for key, entry in value.items():
                _update(out, key, above)
                _update(out, entry, above)
        elif isinstance(value, AbstractSet):
            write('set', ''.join(sorted(digest(entry) for entry in value)).encode())
        elif isinstance(value, Sequence):
            write(type(value).__name__, str(len(value)).encode())
            for entry in value:
                _update(out, entry, above)
        else:
            _update_object(out, value, above)


def _update_tensor(out: Any, value: Tensor) -> None:
    if value.layout == torch.sparse_csr:
        parts = [value.crow_indices(), value.col_indices(), value.values()]
    elif value.is_sparse:
        value = value.coalesce()
        parts = [value.indices(), value.values()]
    else:
        parts = [value]
    for part in parts:
        part = part.detach().cpu().contiguous().as_subclass(Tensor)
        head = f'tensor:{part.dtype}{tuple(value.shape)}{tuple(part.shape)}:'
        out.update(head.encode())
        if part.numel():
            out.update(part.reshape(-1).view(torch.uint8).numpy().data)


def _update_object(out: Any, value: Any, above: set[int]) -> None:
    r"""Adds an object by its class and attributes, which is what makes PyG's plain transforms known."""
    if callable(value) and (not hasattr(value, '__dict__') or hasattr(value, '__code__') or hasattr(value, '__func__')):
        raise TypeError(f'a plain function has no content to tell it by (got {value!r})')
    if not hasattr(value, '__dict__'):
        raise TypeError(f"'{type(value).__name__}' has no content to tell it by (got {value!r})")
    if getattr(type(value), '__module__', '') in ('functools', 'builtins'):
        raise TypeError(f"'{type(value).__name__}' has no content to tell it by (got {value!r})")
    _update(out, type(value), above)
    _update(out, dict(sorted(vars(value).items())), above)
