import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from lirdrec_pyg._io import digest, file_digest, in_turn, replacing, save_array
from lirdrec_pyg.features._shards import (
    Ready,
    Shards,
    batches,
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

    .. code-block:: python

        out = encode_texts(['a cup', None], SentenceTransformerEncoder(), 'features')
        print(out.x.shape, out.has, out.path, out.manifest['missing'])

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


def encode(
    inputs: Sequence[Any],
    encoder: Encoder,
    prepare: Callable[[Any], Ready],
    folder: str | os.PathLike[str],
    modality: str,
    ids: Sequence[str] | None,
    batch_size: int,
    shard_size: int,
    half: bool,
    resume: bool,
    progress: bool,
    contents: Callable[[Path], Sequence[object]],
    mask_blank: bool = False,
) -> EncodedFeatures:
    r"""Encodes inputs piece by piece.

    ``prepare`` makes an input ready. ``contents`` returns what tells each input from others; the file that it is given
    may keep digests. ``mask_blank`` says that ``prepare`` leaves blank inputs out.
    """
    ids = check_job('modality', modality, len(inputs), batch_size, ids)
    folder = Path(folder)
    encoder_is = identify('encoder', encoder)
    key = digest(contents(folder / f'.{modality}_files.json'), ids, encoder_is.key, half, mask_blank)
    path, mask = folder / f'{modality}_feat.npy', folder / f'{modality}_mask.npy'
    manifest_path = folder / f'{modality}_manifest.json'

    def agrees(stored: dict[int, npt.NDArray[Any]]) -> bool:
        return encoder_is.whole or _agrees(encoder, [prepare(inputs[row]).value for row in stored], stored, batch_size)

    def compute(rows: range) -> dict[str, Any]:
        return _encode_rows(inputs, rows, encoder, prepare, batch_size, half)

    with in_turn(folder / f'.{modality}.lock'):
        if resume and (known := finished(manifest_path, key, sha256=path, mask_sha256=mask)) is not None:
            has = np.load(mask) if mask.is_file() else np.ones(len(inputs), dtype=bool)
            x = np.load(path)
            if agrees({row: x[row] for row in probes(np.flatnonzero(has).tolist(), inputs, 8)}):
                return EncodedFeatures(_tensor(x), torch.from_numpy(has), path, known)
            warn_of_another('encoder', path)
            resume = False

        shards = Shards(folder, modality, key, len(inputs), shard_size, resume)
        stored = {}
        for rows, piece in [] if encoder_is.whole else shards.done():
            places = piece['has'].nonzero().flatten().tolist()
            stored.update({rows[place]: piece['x'][place].numpy() for place in places})
        if stored and not agrees({row: stored[row] for row in probes(list(stored), inputs, 8)}):
            warn_of_another('encoder', shards.folder)
            shards.restart()

        width, blank, unreadable = 0, 0, []
        has = np.zeros(len(inputs), dtype=bool)
        bar = tqdm(total=len(inputs), desc=modality, unit='item', disable=not progress)
        for rows, file in shards:
            piece = shards.get(rows, file, compute)
            has[rows.start : rows.stop] = piece['has']
            blank += piece['blank']
            unreadable += piece['unreadable']
            width = _one_width({width, piece['x'].size(1)} - {0})
            bar.update(len(rows))
        bar.close()
        if width == 0:
            first = f', first: {unreadable[0]}' if unreadable else ''
            raise ValueError(
                f"none of the {len(inputs)} inputs of modality '{modality}' can be encoded ({len(unreadable)} of them "
                f'are unreadable{first})'
            )

        dtype = np.dtype(np.float16 if half else np.float32)
        with replacing(path) as temporary:
            with temporary.open('wb') as out:
                header = {'descr': dtype.str, 'fortran_order': False, 'shape': (len(inputs), width)}
                np.lib.format.write_array_header_1_0(out, header)
                for rows, file in shards:
                    x = shards.again(file)['x'].numpy()
                    out.write(x.tobytes() if x.shape[1] else bytes(len(rows) * width * dtype.itemsize))
            x, sha256 = np.load(temporary), file_digest(temporary)
            if has.all():
                mask.unlink(missing_ok=True)
            else:
                with replacing(mask) as temporary_mask:
                    save_array(temporary_mask, has)
        entries = manifest(
            manifest_path,
            ids,
            len(inputs),
            modality=modality,
            **encoder_is.entries,
            dim=width,
            dtype=dtype.name,
            missing=int((~has).sum()) - len(unreadable) - (blank if mask_blank else 0),
            blank=blank,
            unreadable=len(unreadable),
            unreadable_examples=unreadable[:10],
            sha256=sha256,
            mask_sha256=content_of(mask),  # None: all items have features
            key=key,
        )
        shards.remove()
    return EncodedFeatures(_tensor(x), torch.from_numpy(has), path, entries)


def _tensor(x: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(x.astype(np.float32, copy=False))


def _one_width(widths: set[int]) -> int:
    if len(widths) > 1:
        raise ValueError(f"'encoder' needs to return rows of one width (got {sorted(widths)})")
    return max(widths, default=0)


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
    inputs: Sequence[Any], rows: range, encoder: Encoder, prepare: Callable[[Any], Ready], batch_size: int, half: bool
) -> dict[str, Any]:
    piece: dict[str, Any] = {}
    has, outs = torch.zeros(len(rows), dtype=torch.bool), []
    for places, batch in batches(inputs, rows, prepare, batch_size, piece):
        has[places] = True
        outs.append(_call(encoder, batch))
    width = _one_width({out.shape[1] for out in outs})
    x = torch.zeros(len(rows), width, dtype=torch.half if half else torch.float)
    if outs:
        x[has] = torch.from_numpy(np.concatenate(outs)).to(x.dtype)  # what half precision can't hold becomes Inf
    bad = ~x.isfinite().all(dim=1)
    if bad.any():
        row = rows[int(bad.int().argmax())]
        raise ValueError(f"'encoder' needs to return finite values (got NaN or Inf for row {row} in {x.numpy().dtype})")
    return {**piece, 'x': x, 'has': has}


def _call(encoder: Encoder, batch: list[Any]) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        out = encoder(batch)
    array = out.detach().float().cpu().numpy() if isinstance(out, Tensor) else np.asarray(out, dtype=np.float32)
    if array.ndim != 2 or len(array) != len(batch) or array.shape[1] == 0:
        raise ValueError(f"'encoder' needs to return a row for each of {len(batch)} inputs (got shape {array.shape})")
    return array
