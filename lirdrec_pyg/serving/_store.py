r"""The folder of a saved retriever: generations that are whole, and what changed since one of them."""

import json
import logging
import platform
import re
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lirdrec_pyg._io import file_digest, locked, naming, replacing, save_array, write_bytes
from lirdrec_pyg.serving import _seen
from lirdrec_pyg.serving._catalogue import Catalogue, Content, check_sizes, ids_of
from lirdrec_pyg.serving._columns import Column, as_column
from lirdrec_pyg.serving._index import Index, as_rows
from lirdrec_pyg.serving._state import Rows
from lirdrec_pyg.typing import ITEM, USER

FORMAT = 2  # of a saved retriever; the one before had no columns and no changes
GENERATION = 'data-[0-9a-f]{12}'  # the name of a folder with what was saved at once
MERGED = 0.1  # the share of rows past which all is written again

logger = logging.getLogger('lirdrec_pyg')


class Base(NamedTuple):
    r"""A whole generation that changes are written beside.

    Args:
        folder (Path): The folder of the retriever.
        data (str): The name of the generation within.
        sha256 (dict): The checksums of its files.
        stamps (dict): Their sizes and times, by which it shows that somebody has touched them.
    """

    folder: Path
    data: str
    sha256: dict[str, str]
    stamps: dict[str, tuple[int, int]]


def save(folder: Path, catalogue: Catalogue, about: dict[str, Any], base: Base | None, whole: bool) -> Base:
    r"""Writes all, or what changed since the base; returns the base of what is there then.

    Raises:
        OSError: If there is no room or no right to write. What was in the folder is whole.
    """
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder) as alone:
            before = manifest_of(folder)
            kept = {before.get('data'), (before.get('base') or {}).get('data')} - {None}
            if whole or base is None or base.folder != folder.resolve() or not _goes_on(base, before, catalogue):
                base = None
            data = folder / f'data-{uuid.uuid4().hex[:12]}'
            about = _versions() | about
            about = {'format': FORMAT, 'base': base and {'data': base.data, 'sha256': base.sha256}, **about}
            with replacing(data, folder=True) as temporary:
                (_write_whole if base is None else _write_changes)(temporary, catalogue)
                (temporary / 'about.json').write_text(json.dumps(about))
                checksums = {path.name: file_digest(path) for path in sorted(temporary.iterdir())}
                written = sum(path.stat().st_size for path in temporary.iterdir())
            try:
                manifest = {**about, 'data': data.name, 'sha256': checksums}
                write_bytes(folder / 'manifest.json', json.dumps(manifest, indent=2).encode() + b'\n')
            except BaseException:
                shutil.rmtree(data, ignore_errors=True)
                raise
            what = 'all' if base is None else f'what changed since {base.data}'
            logger.info("'%s': wrote %s, %.1f MB", folder, what, written / 1e6)
            if base is None:
                base = _made_base(data, checksums)
                catalogue.dirty = {USER: set(), ITEM: set(), 'seen': set()}
            kept |= {data.name, base.data}
            for path in folder.iterdir() if alone else []:  # what is older, and what killed saves left
                name = re.fullmatch(rf'({GENERATION})|\.{GENERATION}\.[0-9a-f]{{12}}\.tmp', path.name)
                if name and path.is_dir() and name[1] not in kept:
                    shutil.rmtree(path, ignore_errors=True)
            return base


def load(folder: Path, manifest: dict[str, Any]) -> tuple[dict[str, Any], Content, Index | None, Base, dict[str, Any]]:
    r"""Returns what is said of a retriever, what it holds, its index, its base and the rows that changed since.

    Raises:
        ValueError: If the folder is not whole or of another format.
    """
    if manifest.get('format', FORMAT) not in range(1, FORMAT + 1):
        raise ValueError(f"'{folder}' needs to be of format {FORMAT} (got {manifest['format']})")
    damaged = ValueError(
        f"'{folder}' is no saved retriever: its manifest.json is missing or damaged; save the retriever again"
    )
    try:
        about = {key: value for key, value in manifest.items() if key not in ('data', 'sha256')}
        for key in ('index', 'checkpoint', 'settings', 'format'):
            about[key]
        data, checksums = _named(folder, manifest)
        own = manifest.get('base')
        base, base_checksums = (data, checksums) if own is None else _named(folder, own)
    except (KeyError, TypeError) as error:
        raise damaged from error
    indexed, columns = about['index'] != 'Flat', bool(about.get('columns'))
    needed = [f'{USER}.npy', f'{ITEM}.npy', 'seen.npy', 'ids.json'] + ['columns.json'] * columns
    _verify(base, base_checksums, [*needed, *['index.faiss'] * indexed], damaged)
    if own is not None:
        _verify(data, checksums, [*needed, f'{USER}_rows.npy', f'{ITEM}_rows.npy', 'seen_rows.npy'], damaged)
    if 'about.json' in checksums:  # it was not there at first
        if json.loads((data / 'about.json').read_bytes()) != about:
            raise damaged
    elif own is not None:
        raise damaged
    content = _read(base, columns)
    check_sizes(content)
    index = None
    if indexed:
        import faiss

        index = Index(faiss.read_index(str(base / 'index.faiss')))
        size = len(content.x[ITEM])
        if index.forgets:
            size = sum(raw is not None for raw in content.ids[ITEM]) + len(content.stale)
        found, expected = (index.faiss.ntotal, index.faiss.d), (size, content.x[ITEM].size(1))
        if found != expected:
            raise ValueError(f"'{base / 'index.faiss'}' needs to be of {expected} embeddings (got {found})")
    dirty: dict[str, Any] = {USER: set(), ITEM: set(), 'seen': set()}
    if own is not None:
        content, dirty = _changed(content, _read(data, columns), data, index)
    return about, content, index, _made_base(base, base_checksums), dirty


def manifest_of(folder: Path) -> dict[str, Any]:
    r"""Returns the manifest of a folder, an empty one if it is missing or damaged."""
    try:
        manifest = json.loads((folder / 'manifest.json').read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _made_base(data: Path, checksums: dict[str, str]) -> Base:
    return Base(data.parent.resolve(), data.name, checksums, _stamps(data, checksums))


def _stamps(data: Path, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    r"""Returns the size and time of files; one that is not there has none."""
    found = {name: data / name for name in names}
    states = {name: path.stat() for name, path in found.items() if path.is_file()}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in states.items()}


def _named(folder: Path, what: dict[str, Any]) -> tuple[Path, dict[str, str]]:
    return folder / re.fullmatch(GENERATION, what['data'])[0], dict(what['sha256'])  # type: ignore[index]


def _verify(data: Path, checksums: dict[str, str], needed: list[str], damaged: ValueError) -> None:
    for name in [*needed, *{'about.json'}.intersection(checksums)]:
        if name not in checksums:
            raise damaged
        if not (data / name).is_file() or file_digest(data / name) != checksums[name]:
            raise ValueError(
                f"'{data / name}' is missing, truncated or changed: its sha256 needs to be {checksums[name]}"
            )


def _goes_on(base: Base, manifest: dict[str, Any], catalogue: Catalogue) -> bool:
    r"""Whether changes may be written beside the base: it is there, and they are few."""
    there = manifest.get('base') or manifest
    if (there.get('data'), there.get('sha256')) != (base.data, base.sha256) or catalogue.dirty is None:
        return False
    if _stamps(base.folder / base.data, base.sha256) != base.stamps:
        return False
    changed = sum(len(rows) for rows in catalogue.dirty.values())
    return changed <= MERGED * sum(len(catalogue.state.rows(kind).ids) for kind in (USER, ITEM))


def _write_whole(folder: Path, catalogue: Catalogue) -> None:
    content, index = catalogue.content(), catalogue.state.index
    for name, x in [*content.x.items(), ('seen', content.seen)]:
        save_array(folder / f'{name}.npy', x.numpy())
    _write_values(folder, content.ids, content.columns, content.stale)
    if index is not None:
        import faiss

        with (folder / 'index.faiss').open('wb') as file:  # FAISS itself ignores an error of closing a file
            writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
            faiss.write_index(index.faiss, writer)


def _write_changes(folder: Path, catalogue: Catalogue) -> None:
    r"""Writes the rows that changed since the base, and the histories that did."""
    assert catalogue.dirty is not None
    state, ids = catalogue.state, {}
    rows = {name: as_rows(sorted(some)) for name, some in catalogue.dirty.items()}
    rows['seen'] = rows['seen'][rows['seen'] < len(state.user.ids)]
    for kind in (USER, ITEM):
        own: Rows = state.rows(kind)
        ids[kind] = as_column(ids_of(own))[rows[kind].numpy()].tolist()
        save_array(folder / f'{kind}.npy', own.x[rows[kind]].numpy())
    columns = {name: values[rows[ITEM].numpy()] for name, values in state.item.columns.items()}
    _write_values(folder, ids, columns, [])
    key = state.key[_seen.among(state.key >> _seen.BITS, rows['seen'])]
    save_array(folder / 'seen.npy', _seen.pairs(key).numpy())
    for name, some in rows.items():
        save_array(folder / f'{name}_rows.npy', some.numpy())


def _write_values(folder: Path, ids: dict[str, list[Any]], columns: dict[str, Column], stale: list[int]) -> None:
    (folder / 'ids.json').write_text(json.dumps(ids | {'stale': stale}))
    if columns:
        (folder / 'columns.json').write_text(json.dumps({name: list(own) for name, own in columns.items()}))


def _read(data: Path, columns: bool) -> Content:
    x = {kind: torch.from_numpy(np.load(data / f'{kind}.npy', allow_pickle=False)) for kind in (USER, ITEM)}
    seen = torch.from_numpy(np.load(data / 'seen.npy', allow_pickle=False))
    ids = json.loads((data / 'ids.json').read_bytes())
    values = json.loads((data / 'columns.json').read_bytes()) if columns else {}
    known = {
        name: as_column([tuple(value) if isinstance(value, list) else value for value in own])
        for name, own in values.items()
    }
    return Content(x, {kind: ids[kind] for kind in (USER, ITEM)}, known, seen, ids.get('stale', []))


def _changed(
    content: Content, changes: Content, data: Path, index: Index | None
) -> tuple[Content, dict[str, set[int]]]:
    r"""Returns a content with other rows, and which they are."""
    rows = {
        name: torch.from_numpy(np.load(data / f'{name}_rows.npy', allow_pickle=False)) for name in (USER, ITEM, 'seen')
    }
    x, ids, columns = dict(content.x), dict(content.ids), dict(content.columns)
    for kind in (USER, ITEM):
        size = max(len(x[kind]), int(rows[kind].max()) + 1 if len(rows[kind]) else 0)
        x[kind] = _put(x[kind], rows[kind], changes.x[kind], size)
        column = np.concatenate([as_column(ids[kind]), np.empty(size - len(ids[kind]), dtype=object)])
        column[rows[kind].numpy()] = as_column(changes.ids[kind])
        ids[kind] = column.tolist()
        for name in columns if kind == ITEM else ():
            column = np.concatenate([columns[name], np.empty(size - len(columns[name]), dtype=object)])
            column[rows[kind].numpy()] = changes.columns[name]
            columns[name] = column
    user, item = content.seen
    stays = ~_seen.among(user, torch.cat([rows['seen'], rows[USER]])) & ~_seen.among(item, rows[ITEM])
    seen = torch.cat([content.seen[:, stays], changes.seen], dim=1)
    if index is not None and index.forgets:
        index.remove(torch.cat([as_rows(content.stale), rows[ITEM]]))
        come = rows[ITEM][as_rows([i for i, raw in enumerate(changes.ids[ITEM]) if raw is not None])]
        index.add(x[ITEM][come], come)
    elif index is not None:
        come = torch.arange(len(content.x[ITEM]), len(x[ITEM]))
        index.add(x[ITEM][come], come)
    return Content(x, ids, columns, seen, []), {name: set(some.tolist()) for name, some in rows.items()}


def _put(x: Tensor, rows: Tensor, more: Tensor, size: int) -> Tensor:
    x = torch.cat([x, x.new_zeros(size - len(x), x.size(1))])
    x[rows] = more
    return x


def _versions() -> dict[str, Any]:
    import faiss

    versions = {'faiss': faiss.__version__, 'torch': torch.__version__, 'numpy': np.__version__}
    return {'versions': versions | {'python': platform.python_version()}}
