r"""Long jobs in pieces: what is finished stays on disk, so a job that dies loses at most one piece."""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from lirdrec_pyg._io import digest, file_digest, load_sealed, save_sealed, try_digest, write_bytes
from lirdrec_pyg.typing import check_modality_name

PACKAGES = ('lirdrec-pyg', 'torch', 'transformers', 'sentence-transformers', 'timm', 'pillow')
ENTRIES = {
    'blank', 'count', 'dim', 'dtype', 'encoder', 'encoder_sha256', 'ids_sha256', 'key', 'manifest_sha256',
    'mask_sha256', 'missing', 'modality', 'revision', 'sha256', 'unreadable', 'unreadable_examples', 'versions',
}  # fmt: skip


class Ready(NamedTuple):
    r"""An input made ready.

    Args:
        value (Any): What the encoder takes, :obj:`None` if there is nothing to encode.
        blank (bool): Whether it is an image of one colour.
        unreadable (str): Why it can't be read, if it is there and can't.
    """

    value: Any
    blank: bool = False
    unreadable: str = ''


class Shards:
    r"""The finished pieces of a job, in a folder of their own that goes when the job is done.

    A piece is sealed with the job's key and its own number: one that was damaged, or is another's, is none.

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
        self.key = f'{key} {size}'
        path = self.folder / 'key.txt'
        if self.folder.is_dir() and not (resume and path.is_file() and path.read_bytes() == self.key.encode()):
            if resume:
                warnings.warn(f"'{self.folder}' holds pieces of another job: these are thrown away", stacklevel=4)
            shutil.rmtree(self.folder)
        write_bytes(path, self.key.encode())

    def __iter__(self) -> Iterator[tuple[range, Path]]:
        r"""Yields the inputs of each piece and its file."""
        for number, start in enumerate(range(0, self.count, self.size)):
            yield range(start, min(start + self.size, self.count)), self.folder / f'{number:06d}.pt'

    def read(self, file: Path) -> dict[str, Any] | None:
        r"""Returns the content of a piece, :obj:`None` if there is none that is as it was written."""
        try:
            return load_sealed(file, self._kind(file)) if file.is_file() else None
        except (OSError, ValueError):
            return None

    def get(self, rows: range, file: Path, compute: Callable[[range], dict[str, Any]]) -> dict[str, Any]:
        r"""Returns the content of a piece, which is computed and written if there is none."""
        if (piece := self.read(file)) is None:
            piece = compute(rows)
            save_sealed(piece, file, self._kind(file))
        return piece

    def again(self, file: Path) -> dict[str, Any]:
        r"""Returns the content of a piece that was finished before."""
        if (piece := self.read(file)) is None:
            raise OSError(
                f"'{file}' was changed or removed while the job ran: run it again, it goes on with the pieces that are "
                'whole, and the result that was there before is as it was'
            )
        return piece

    def done(self) -> list[tuple[range, dict[str, Any]]]:
        r"""Returns up to four of the pieces that are there, from the first to the last."""
        found = [(rows, file) for rows, file in self if file.is_file()]
        pieces = [(rows, self.read(file)) for rows, file in found[:: max(1, len(found) // 4)][:4]]
        return [(rows, piece) for rows, piece in pieces if piece is not None]

    def restart(self) -> None:
        r"""Throws all pieces away."""
        shutil.rmtree(self.folder)
        write_bytes(self.folder / 'key.txt', self.key.encode())

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)  # the result is there: what is left is thrown away next time

    def _kind(self, file: Path) -> str:
        return f'lirdrec_pyg piece {file.stem} of {self.key}'


def batches(
    inputs: Sequence[Any], rows: range, prepare: Callable[[Any], Ready], batch_size: int, piece: dict[str, Any]
) -> Iterator[tuple[list[int], list[Any]]]:
    r"""Yields the inputs of a piece that are there, ready and in batches, each with their places in the piece; writes
    into the piece how many are blank and which are unreadable."""
    piece |= {'blank': 0, 'unreadable': []}
    places: list[int] = []
    batch: list[Any] = []
    for place, row in enumerate(rows):
        ready = prepare(inputs[row])
        piece['blank'] += ready.blank
        if ready.unreadable:
            piece['unreadable'].append(f'row {row}: {ready.unreadable}')
        if ready.value is not None:
            places.append(place)
            batch.append(ready.value)
        if len(batch) == batch_size or (batch and place == len(rows) - 1):
            yield places, batch
            places, batch = [], []


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


def identify(argument: str, encoder: object) -> Identity:
    r"""Tells an encoder from others: by what it says of itself, if it has a ``name`` and ``revision`` or ``settings``,
    else by its class, attributes and code. A plain function, and an object that holds one, is known by its name only.
    """
    name = getattr(encoder, 'name', None)
    revision, settings = getattr(encoder, 'revision', None), getattr(encoder, 'settings', None)
    if settings is not None:
        taken = [key for key in settings if not isinstance(key, str) or key in ENTRIES]
        if taken:
            raise ValueError(
                f"'settings' of '{argument}' need names that are not the manifest's own (got {taken}): rename them, it "
                f'has {sorted(ENTRIES)}'
            )
    says = name is not None and (revision is not None or settings is not None)
    name = str(name or getattr(encoder, '__qualname__', type(encoder).__qualname__))
    entries = {'encoder': name, 'revision': revision, **(settings or {})}
    _render(entries)  # what JSON can't hold is refused before the work
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
    content = json.loads(_render(content))
    content['manifest_sha256'] = digest(_render(content))
    write_bytes(path, _render(content))
    return content


def _render(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, default=str).encode()


def finished(manifest_path: Path, key: str, **files: Path) -> dict[str, Any] | None:
    r"""Returns the manifest of a result that is made of the same and that is, with its files, as it was written, else
    :obj:`None`. ``files`` are named by the manifest's entries for their digests."""
    try:
        raw = manifest_path.read_bytes() if manifest_path.is_file() else b''
        known = json.loads(raw)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(known, dict) or known.get('key') != key or _render(known) != raw:
        return None
    others = {name: entry for name, entry in known.items() if name != 'manifest_sha256'}
    if known.get('manifest_sha256') != digest(_render(others)):
        return None
    return known if all(known.get(entry, '') == content_of(path) for entry, path in files.items()) else None


def content_of(path: Path) -> str | None:
    r"""Returns the digest of a file, :obj:`None` if there is none."""
    return file_digest(path) if path.is_file() else None


def check_job(argument: str, name: str, count: int, batch_size: int, ids: Sequence[str] | None) -> list[str] | None:
    r"""Raises if a job can't be done as asked; returns the ids as a list of plain strings."""
    try:
        check_modality_name(name)
    except ValueError as error:
        raise ValueError(f"'{argument}' needs to be a name: {error}") from None
    if count == 0 or batch_size < 1:
        raise ValueError(f"inputs and 'batch_size' need to be positive (got {count} and {batch_size})")
    if ids is None:
        return None
    out = [str(one) for one in listed('ids', ids)]
    if len(out) != count:
        raise ValueError(f"'ids' needs to name each of the {count} inputs (got {len(out)})")
    return out


def listed(argument: str, values: Any) -> list[Any]:
    r"""Returns one value an item, in the order of the items, whatever the index of a column."""
    if isinstance(values, str | bytes | PathLike | Mapping | AbstractSet) or getattr(values, 'ndim', 1) != 1:
        raise ValueError(
            f"'{argument}' needs to be a sequence with an entry for each item (got {type(values).__name__} "
            f'{str(values)[:80]!r}): give a list, even of one'
        )
    return list(values)
