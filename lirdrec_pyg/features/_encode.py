import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from lirdrec_pyg.features._shards import Shards, check_job, digest, finished, identity, manifest, sha256, write

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
    stamps: Mapping[str, object],
) -> EncodedFeatures:
    r"""Encodes inputs piece by piece. ``prepare`` makes an input ready, returns :obj:`None` if there is none, or raises
    :class:`Unreadable`; ``stamps`` are the states of the files that inputs name."""
    ids = check_job('modality', modality, len(inputs), batch_size, ids)
    folder = Path(folder)
    key = digest([*inputs, ids, identity(encoder), half, stamps])
    path, mask = folder / f'{modality}_feat.npy', folder / f'{modality}_mask.npy'
    manifest_path = folder / f'{modality}_manifest.json'
    if resume and (known := finished(manifest_path, key, sha256=path, mask_sha256=mask)) is not None:
        has = np.load(mask) if mask.is_file() else np.ones(len(inputs), dtype=bool)
        return EncodedFeatures(_load(path), torch.from_numpy(has), path, known)

    shards = Shards(folder, modality, key, len(inputs), shard_size, resume)
    width, unreadable = 0, []
    has = np.zeros(len(inputs), dtype=bool)
    bar = tqdm(total=len(inputs), desc=modality, unit='item', disable=not progress)
    for rows, file in shards:
        file = file.with_suffix('.npz')
        if not file.is_file():
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **_encode_rows(inputs, rows, encoder, prepare, batch_size, half))
            write(file, buffer.getvalue())
        with np.load(file) as piece:
            has[rows.start : rows.stop] = piece['has']
            unreadable += json.loads(str(piece['unreadable']))
            if piece['x'].shape[1]:
                if width not in (0, piece['x'].shape[1]):
                    raise ValueError(f"'encoder' needs to return rows of one width (got {width} and "
                                     f'{piece["x"].shape[1]})')  # fmt: skip
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
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        out = np.lib.format.open_memmap(temporary, mode='w+', dtype=dtype, shape=(len(inputs), width))
        for rows, file in shards:
            with np.load(file.with_suffix('.npz')) as piece:
                out[rows.start : rows.stop] = piece['x'] if piece['x'].shape[1] else 0
        out.flush()
        del out
        if has.all():
            mask.unlink(missing_ok=True)
        else:
            content = io.BytesIO()
            np.save(content, has)
            write(mask, content.getvalue())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    entries = manifest(
        manifest_path,
        ids,
        len(inputs),
        modality=modality,
        **identity(encoder),
        dim=width,
        dtype=np.dtype(dtype).name,
        missing=int((~has).sum()) - len(unreadable),
        unreadable=len(unreadable),
        unreadable_examples=unreadable[:10],
        sha256=sha256(path),
        mask_sha256=sha256(mask),  # None: all items have features
        key=key,
    )
    shards.remove()
    return EncodedFeatures(_load(path), torch.from_numpy(has), path, entries)


def _load(path: Path) -> Tensor:
    return torch.from_numpy(np.load(path).astype(np.float32, copy=False))


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
