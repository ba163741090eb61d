import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from lirdrec_pyg._io import digest, replacing, write_bytes
from lirdrec_pyg.features._shards import (
    Shards,
    check_job,
    content_of,
    finished,
    identify,
    manifest,
    probes,
    warn_of_another,
)

Encoder = Callable[[list[Any]], Any]  # a batch of inputs -> a matrix with a row for each


class EncodedFeatures(NamedTuple):
    r"""Features of all items.

    Args:
        x (torch.Tensor): The features; zero rows where an item has none.
        has (torch.Tensor): Which items have them.
        path (Path): The file of the features; ``<modality>_mask.npy`` beside it, if there is one, is ``has``.
        manifest (dict): What they were made of: the content of ``<modality>_manifest.json``.

    Shapes:
        - **x:** :math:`(N, C)`
        - **has:** :math:`(N)`
    """

    x: Tensor
    has: Tensor
    path: Path
    manifest: dict[str, Any]


class Unreadable(Exception):
    r"""An input is there but can't be read."""


def encode(
    inputs: Sequence[Any],
    encoder: Encoder,
    prepare: Callable[[Any], Any],
    folder: str | os.PathLike[str],
    modality: str,
    ids: Sequence[str] | None,
    batch_size: int,
    shard_size: int,
    half: bool,
    resume: bool,
    progress: bool,
    contents: Callable[[Path], Sequence[object]],
) -> EncodedFeatures:
    r"""Encodes inputs piece by piece.

    ``prepare`` makes an input ready, returns :obj:`None` if there is none, or raises :class:`Unreadable`. ``contents``
    returns what tells each input from others; the file that it is given may keep digests.
    """
    ids = check_job('modality', modality, len(inputs), batch_size, ids)
    folder = Path(folder)
    encoder_is = identify(encoder)
    key = digest(contents(folder / f'.{modality}_files.json'), ids, encoder_is.key, half)
    path, mask = folder / f'{modality}_feat.npy', folder / f'{modality}_mask.npy'
    manifest_path = folder / f'{modality}_manifest.json'

    def agrees(stored: dict[int, npt.NDArray[Any]]) -> bool:
        return encoder_is.whole or _agrees(encoder, [prepare(inputs[row]) for row in stored], stored, batch_size)

    if resume and (known := finished(manifest_path, key, sha256=path, mask_sha256=mask)) is not None:
        has = np.load(mask) if mask.is_file() else np.ones(len(inputs), dtype=bool)
        x = np.load(path, mmap_mode='r')
        if agrees({row: x[row] for row in probes(np.flatnonzero(has).tolist(), inputs, 8)}):
            return EncodedFeatures(_load(path), torch.from_numpy(has), path, known)
        warn_of_another('encoder', path)
        resume = False

    shards = Shards(folder, modality, key, len(inputs), shard_size, '.npz', resume)
    stored = {}
    for rows, file in [] if encoder_is.whole else shards.done():
        if (piece := _read_piece(file)) is not None:
            stored.update({rows[place]: piece['x'][place] for place in np.flatnonzero(piece['has']).tolist()})
    if stored and not agrees({row: stored[row] for row in probes(list(stored), inputs, 8)}):
        warn_of_another('encoder', shards.folder)
        shards.restart()

    width, unreadable = 0, []
    has = np.zeros(len(inputs), dtype=bool)
    bar = tqdm(total=len(inputs), desc=modality, unit='item', disable=not progress)
    for rows, file in shards:
        if (piece := _read_piece(file)) is None:
            buffer = io.BytesIO()
            piece = _encode_rows(inputs, rows, encoder, prepare, batch_size, half)
            np.savez(buffer, allow_pickle=False, **piece)
            write_bytes(file, buffer.getvalue())
        has[rows.start : rows.stop] = piece['has']
        unreadable += json.loads(str(piece['unreadable']))
        if piece['x'].shape[1]:
            if width not in (0, piece['x'].shape[1]):
                raise ValueError(f"'encoder' needs to return rows of one width (got {width} and {piece['x'].shape[1]})")
            width = piece['x'].shape[1]
        bar.update(len(rows))
    bar.close()
    if width == 0:
        first = f', first: {unreadable[0]}' if unreadable else ''
        raise ValueError(
            f"none of the {len(inputs)} inputs of modality '{modality}' can be encoded ({len(unreadable)} of them are "
            f'unreadable{first})'
        )

    dtype = np.float16 if half else np.float32
    with replacing(path) as temporary, temporary.open('wb') as out:
        header = {'descr': np.dtype(dtype).str, 'fortran_order': False, 'shape': (len(inputs), width)}
        np.lib.format.write_array_header_1_0(out, header)
        for rows, file in shards:
            with np.load(file) as piece:
                x = piece['x']
            out.write(x.tobytes() if x.shape[1] else bytes(len(rows) * width * np.dtype(dtype).itemsize))
        if has.all():
            mask.unlink(missing_ok=True)
        else:
            content = io.BytesIO()
            np.save(content, has)
            write_bytes(mask, content.getvalue())
    entries = manifest(
        manifest_path,
        ids,
        len(inputs),
        modality=modality,
        **encoder_is.entries,
        dim=width,
        dtype=np.dtype(dtype).name,
        missing=int((~has).sum()) - len(unreadable),
        unreadable=len(unreadable),
        unreadable_examples=unreadable[:10],
        sha256=content_of(path),
        mask_sha256=content_of(mask),  # None: all items have features
        key=key,
    )
    shards.remove()
    return EncodedFeatures(_load(path), torch.from_numpy(has), path, entries)


def _load(path: Path) -> Tensor:
    return torch.from_numpy(np.load(path).astype(np.float32, copy=False))


def _read_piece(file: Path) -> dict[str, npt.NDArray[Any]] | None:
    r"""Returns the content of a piece, :obj:`None` if there is none or it is damaged."""
    try:
        with np.load(file) as piece:
            return {name: piece[name] for name in ('x', 'has', 'unreadable')}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _agrees(encoder: Encoder, batch: list[Any], stored: dict[int, npt.NDArray[Any]], batch_size: int) -> bool:
    r"""Whether an encoder gives what is stored, up to the noise between an input alone and among others."""
    expected = np.stack([row.astype(np.float32) for row in stored.values()])
    outs = [_call(encoder, batch[start : start + batch_size]) for start in range(0, len(batch), batch_size)]
    if any(out.shape[1] != expected.shape[1] for out in outs):
        return False
    found = np.concatenate(outs)
    noise = _distance(np.concatenate([_call(encoder, [one]) for one in batch[:2]]), found[:2])
    half = next(iter(stored.values())).dtype == np.float16
    return _distance(found, expected) <= min(0.05, 4 * noise + (1e-3 if half else 1e-4))


def _distance(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> float:
    r"""Returns the largest distance of two rows in terms of the length of the second."""
    return float((np.linalg.norm(x - y, axis=1) / np.maximum(np.linalg.norm(y, axis=1), 1e-6)).max())


def _encode_rows(
    inputs: Sequence[Any], rows: range, encoder: Encoder, prepare: Callable[[Any], Any], batch_size: int, half: bool
) -> dict[str, npt.NDArray[Any]]:
    has = np.zeros(len(rows), dtype=bool)
    unreadable, outs = [], []
    batch: list[Any] = []
    for row in [*rows, None]:
        if row is not None:
            try:
                ready = prepare(inputs[row])
            except Unreadable as error:
                unreadable.append(f'row {row}: {error}')
                continue
            if ready is not None:
                has[row - rows.start] = True
                batch.append(ready)
        if batch and (row is None or len(batch) == batch_size):
            outs.append(_call(encoder, batch))
            batch = []
    x = np.zeros((len(rows), outs[0].shape[1] if outs else 0), dtype=np.float16 if half else np.float32)
    if outs:
        if len({out.shape[1] for out in outs}) > 1:
            raise ValueError(f"'encoder' needs to return rows of one width (got {sorted({o.shape[1] for o in outs})})")
        with np.errstate(over='ignore'):  # what half precision can't hold becomes Inf
            x[has] = np.concatenate(outs)
        bad = ~np.isfinite(x).all(axis=1)
        if bad.any():
            row = rows[int(bad.argmax())]
            raise ValueError(f"'encoder' needs to return finite values (got NaN or Inf for row {row} in {x.dtype})")
    return {'x': x, 'has': has, 'unreadable': np.array(json.dumps(unreadable))}


def _call(encoder: Encoder, batch: list[Any]) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        out = encoder(batch)
    array = out.detach().float().cpu().numpy() if isinstance(out, Tensor) else np.asarray(out, dtype=np.float32)
    if array.ndim != 2 or len(array) != len(batch):
        raise ValueError(f"'encoder' needs to return a row for each of {len(batch)} inputs (got shape {array.shape})")
    return array
