r"""Long jobs in pieces: what is finished stays on disk, so a job that dies loses at most one piece."""

import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from lirdrec_pyg._io import digest, file_digest, try_digest, write_bytes

PACKAGES = ('lirdrec-pyg', 'torch', 'transformers', 'sentence-transformers', 'timm', 'pillow')


class Shards:
    r"""The finished pieces of a job, in a folder of their own that goes when the job is done.

    Args:
        folder (Path): Where the job writes its result.
        name (str): The name of the job.
        key (str): What the job is made of; pieces of another key or ``size`` are thrown away, with a warning.
        count (int): The number of inputs.
        size (int): The number of inputs in a piece.
        suffix (str): The suffix of the files of the pieces.
        resume (bool): Whether to go on with pieces that are there.
    """

    def __init__(self, folder: Path, name: str, key: str, count: int, size: int, suffix: str, resume: bool) -> None:
        if size < 1:
            raise ValueError(f"'shard_size' needs to be positive (got {size})")
        self.folder = folder / f'.{name}_shards'
        self.count, self.size, self.suffix = count, size, suffix
        self.key = f'{key} {size}'.encode()
        path = self.folder / 'key.txt'
        if self.folder.is_dir() and not (resume and path.is_file() and path.read_bytes() == self.key):
            if resume:
                warnings.warn(f"'{self.folder}' holds pieces of another job: these are thrown away", stacklevel=4)
            shutil.rmtree(self.folder)
        write_bytes(path, self.key)

    def __iter__(self) -> Iterator[tuple[range, Path]]:
        r"""Yields the inputs of each piece and its file."""
        for number, start in enumerate(range(0, self.count, self.size)):
            yield range(start, min(start + self.size, self.count)), self.folder / f'{number:06d}{self.suffix}'

    def done(self) -> list[tuple[range, Path]]:
        r"""Returns up to four of the pieces that are there, from the first to the last."""
        found = [(rows, file) for rows, file in self if file.is_file()]
        return found[:: max(1, len(found) // 4)][:4]

    def restart(self) -> None:
        r"""Throws all pieces away."""
        shutil.rmtree(self.folder)
        write_bytes(self.folder / 'key.txt', self.key)

    def remove(self) -> None:
        shutil.rmtree(self.folder)


class Identity(NamedTuple):
    r"""What is known of an encoder.

    Args:
        entries (dict): What the manifest says of it.
        key (str): A digest that no encoder shares that is known to be another one.
        whole (bool): Whether the digest covers all that its results depend on. If not, its results are compared.
    """

    entries: dict[str, Any]
    key: str
    whole: bool


def identify(encoder: object) -> Identity:
    r"""Tells an encoder from others: by what it says of itself, if it has a ``name`` and ``revision`` or ``settings``,
    else by its class, attributes and code. A plain function, and an object that holds one, is known by its name only.
    """
    name = getattr(encoder, 'name', None)
    revision, settings = getattr(encoder, 'revision', None), getattr(encoder, 'settings', None)
    says = name is not None and (revision is not None or settings is not None)
    name = str(name or getattr(encoder, '__qualname__', type(encoder).__qualname__))
    entries = {'encoder': name, 'revision': revision, **(settings or {})}
    known = try_digest(entries) if says else try_digest(encoder, code=True)
    key = digest(name, known or try_digest(encoder))
    return Identity({**entries, 'encoder_sha256': known}, key, known is not None)


def probes(rows: Sequence[int], inputs: Sequence[object], count: int) -> list[int]:
    r"""Returns some of the given rows to compare results at: the two longest inputs, which show where an encoder cuts
    them, and others in between."""
    longest = sorted(rows, key=lambda row: len(str(inputs[row])))[-2:]
    return sorted({*longest, *rows[:: max(1, len(rows) // (count - 2))][: count - 2]})


def warn_of_another(argument: str, path: Path) -> None:
    warnings.warn(f"'{argument}' gives other results than those in '{path}': all is computed again", stacklevel=4)


def manifest(path: Path, ids: Sequence[str] | None, count: int, **entries: Any) -> dict[str, Any]:
    r"""Writes the manifest of a result: what it was made of, and by which versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    content = {'count': count, 'ids_sha256': None if ids is None else digest(ids), **entries, 'versions': versions}
    text = json.dumps(content, indent=2, default=str)
    write_bytes(path, text.encode())
    return json.loads(text)


def finished(manifest_path: Path, key: str, **files: Path) -> dict[str, Any] | None:
    r"""Returns the manifest of a result that is made of the same and whose files are as they were written, else
    :obj:`None`. ``files`` are named by the manifest's entries for their digests."""
    try:
        known = json.loads(manifest_path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or known.get('key') != key or not known.keys() >= files.keys():
        return None
    return known if all(known[entry] == content_of(path) for entry, path in files.items()) else None


def content_of(path: Path) -> str | None:
    r"""Returns the digest of a file, :obj:`None` if there is none."""
    return file_digest(path) if path.is_file() else None


def check_job(argument: str, name: str, count: int, batch_size: int, ids: Sequence[str] | None) -> list[str] | None:
    r"""Raises if a job can't be done as asked; returns the ids as a list of plain strings."""
    if not name.isidentifier():
        raise ValueError(f"'{argument}' needs to be a name (got {name!r})")
    if count == 0 or batch_size < 1:
        raise ValueError(f"inputs and 'batch_size' need to be positive (got {count} and {batch_size})")
    if ids is not None and len(ids) != count:
        raise ValueError(f"'ids' needs to name each of the {count} inputs (got {len(ids)})")
    return None if ids is None else [str(one) for one in ids]
