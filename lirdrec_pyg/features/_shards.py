r"""Long jobs in pieces: what is finished stays on disk, so a job that dies loses at most one piece."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ('lirdrec-pyg', 'torch', 'transformers', 'sentence-transformers', 'timm', 'pillow')


class Shards:
    r"""The finished pieces of a job, in a folder of their own that goes when the job is done.

    Args:
        folder (Path): Where the job writes its result.
        name (str): The name of the job.
        key (str): What the job is made of; pieces of another key or ``size`` are thrown away, with a warning.
        count (int): The number of inputs.
        size (int): The number of inputs in a piece.
        resume (bool): Whether to go on with pieces that are there.
    """

    def __init__(self, folder: Path, name: str, key: str, count: int, size: int, resume: bool) -> None:
        if size < 1:
            raise ValueError(f"'shard_size' needs to be positive (got {size})")
        self.folder = folder / f'.{name}_shards'
        self.count, self.size = count, size
        path, key = self.folder / 'key.txt', f'{key} {size}'
        if self.folder.is_dir():
            known = path.read_text() if path.is_file() else ''
            if not resume or known != key:
                if resume:
                    warnings.warn(f"'{self.folder}' holds pieces of another job: these are thrown away", stacklevel=4)
                shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write(path, key.encode())

    def __iter__(self) -> Iterator[tuple[range, Path]]:
        r"""Yields the inputs of each piece and its file."""
        for number, start in enumerate(range(0, self.count, self.size)):
            yield range(start, min(start + self.size, self.count)), self.folder / f'{number:06d}'

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def write(path: Path, content: bytes) -> None:
    r"""Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def digest(parts: Iterable[object]) -> str:
    r"""Returns the sha256 of the ``repr`` of all parts."""
    out = hashlib.sha256()
    for part in parts:
        out.update(repr(part).encode() + b'\0')
    return out.hexdigest()


def sha256(path: Path) -> str | None:
    r"""Returns the digest of a file, :obj:`None` if there is none."""
    if not path.is_file():
        return None
    out = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            out.update(block)
    return out.hexdigest()


def identity(encoder: object) -> dict[str, Any]:
    r"""Returns what is known of an encoder: its name and whatever else its ``settings`` say."""
    name = getattr(encoder, 'name', None) or getattr(encoder, '__qualname__', type(encoder).__qualname__)
    return {'encoder': str(name), 'revision': getattr(encoder, 'revision', None), **getattr(encoder, 'settings', {})}


def manifest(path: Path, ids: Sequence[str] | None, count: int, **entries: Any) -> dict[str, Any]:
    r"""Writes the manifest of a result: what it was made of, and by which versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    content = {'count': count, 'ids_sha256': None if ids is None else digest(ids), **entries, 'versions': versions}
    write(path, json.dumps(content, indent=2).encode())
    return content


def finished(manifest_path: Path, key: str, **files: Path) -> dict[str, Any] | None:
    r"""Returns the manifest of a result, if it is made of the same and all of its files, by the entries of their
    digests, are as they were written."""
    if not manifest_path.is_file():
        return None
    known: dict[str, Any] = json.loads(manifest_path.read_text())
    if known.get('key') != key or not known.keys() >= files.keys():
        return None
    return known if all(known[entry] == sha256(path) for entry, path in files.items()) else None


def check_job(argument: str, name: str, count: int, batch_size: int, ids: Sequence[str] | None) -> list[str] | None:
    r"""Raises if a job can't be done as asked; returns the ids as a list of plain strings."""
    if not name.isidentifier():
        raise ValueError(f"'{argument}' needs to be a name (got {name!r})")
    if count == 0 or batch_size < 1:
        raise ValueError(f"inputs and 'batch_size' need to be positive (got {count} and {batch_size})")
    if ids is not None and len(ids) != count:
        raise ValueError(f"'ids' needs to name each of the {count} inputs (got {len(ids)})")
    return None if ids is None else [str(one) for one in ids]
