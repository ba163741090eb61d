import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from lirdrec_pyg._io import digest, write_bytes
from lirdrec_pyg.features._encode import Unreadable
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
from lirdrec_pyg.features.images import Paths, contents, locate, open_image


class Captions(NamedTuple):
    r"""Texts made of images.

    Args:
        texts (list of str or None): A text for each image; :obj:`None` where there is none.
        path (Path): The JSON file that holds them.
        manifest (dict): What they were made of.
    """

    texts: list[str | None]
    path: Path
    manifest: dict[str, Any]


def caption_images(
    paths: Paths,
    captioner: Callable[[list[Any]], list[str]],
    folder: str | os.PathLike[str],
    name: str = 'caption',
    *,
    root: str | os.PathLike[str] | None = None,
    ids: Sequence[str] | None = None,
    batch_size: int = 8,
    shard_size: int = 256,
    resume: bool = True,
    progress: bool = True,
) -> Captions:
    r"""Has a multimodal language model describe images, and writes ``<name>_texts.json`` and
    ``<name>_texts_manifest.json``: the first half of the route from images to texts to features of the `"LIRDRec"
    <https://arxiv.org/abs/2505.04960>`_ paper, whose second half is :func:`~lirdrec_pyg.features.encode_texts`.

    .. code-block:: python

        captions = caption_images(paths, TransformersCaptioner(prompt='Describe this product.'), folder)
        encode_texts(captions.texts, SentenceTransformerEncoder(), folder, modality='caption')

    Args:
        paths (sequence of path or None): The files of the images, in the order of the items.
        captioner (callable): Takes a list of RGB :class:`PIL.Image.Image` and returns a text for each, *e.g.*,
            :class:`~lirdrec_pyg.features.TransformersCaptioner`.
        folder (path): Where to write.
        name (str, optional): The start of the names of the files. (default: ``'caption'``)
        root (path, optional): The folder that relative ``paths`` start from.
        ids, batch_size, shard_size, resume, progress (optional): As for images.

    Raises:
        ValueError: If a path is neither a path nor :obj:`None`, or the captioner does not return a text for each image.
    """
    files = locate(paths, root)
    ids = check_job('name', name, len(files), batch_size, ids)
    folder = Path(folder)
    captioner_is = identify(captioner)
    key = digest(contents(files, folder / f'.{name}_files.json'), ids, captioner_is.key)
    path, manifest_path = folder / f'{name}_texts.json', folder / f'{name}_texts_manifest.json'

    def agrees(stored: dict[int, str]) -> bool:
        rows = probes(list(stored), files, 4)
        if captioner_is.whole or not rows:
            return True
        batch = [open_image(files[row]) for row in rows]
        found = [
            text for start in range(0, len(rows), batch_size) for text in _call(captioner, batch[start:][:batch_size])
        ]
        return 2 * sum(text == stored[row] for row, text in zip(rows, found, strict=True)) >= len(rows)  # models waver

    if resume and (known := finished(manifest_path, key, sha256=path)) is not None:
        texts: list[str | None] = json.loads(path.read_text(encoding='utf-8'))
        if agrees({row: text for row, text in enumerate(texts) if text is not None}):
            return Captions(texts, path, known)
        warn_of_another('captioner', path)
        resume = False

    shards = Shards(folder, f'{name}_texts', key, len(files), shard_size, '.json', resume)
    stored = {}
    for rows, file in shards.done():
        if (piece := _read_piece(file)) is not None:
            found = zip(rows, piece['texts'], strict=True)
            stored.update({row: text for row, text in found if text is not None})
    if not agrees(stored):
        warn_of_another('captioner', shards.folder)
        shards.restart()

    texts, unreadable = [], []
    bar = tqdm(total=len(files), desc=name, unit='image', disable=not progress)
    for rows, file in shards:
        if (piece := _read_piece(file)) is None:
            piece = _caption_rows(files, rows, captioner, batch_size)
            write_bytes(file, json.dumps(piece).encode())
        texts += piece['texts']
        unreadable += piece['unreadable']
        bar.update(len(rows))
    bar.close()
    write_bytes(path, json.dumps(texts, indent=0, ensure_ascii=False).encode())
    entries = manifest(
        manifest_path,
        ids,
        len(files),
        **captioner_is.entries,
        missing=sum(text is None for text in texts) - len(unreadable),
        unreadable=len(unreadable),
        unreadable_examples=unreadable[:10],
        sha256=content_of(path),
        key=key,
    )
    shards.remove()
    return Captions(texts, path, entries)


def _caption_rows(
    files: Sequence[str | None], rows: range, captioner: Callable[[list[Any]], list[str]], batch_size: int
) -> dict[str, list[Any]]:
    texts: list[str | None] = [None] * len(rows)
    unreadable = []
    batch: list[tuple[int, Any]] = []
    for row in [*rows, None]:
        if row is not None:
            try:
                image = open_image(files[row])
            except Unreadable as error:
                unreadable.append(f'row {row}: {error}')
                continue
            if image is not None:
                batch.append((row - rows.start, image))
        if batch and (row is None or len(batch) == batch_size):
            for (place, _), text in zip(batch, _call(captioner, [image for _, image in batch]), strict=True):
                texts[place] = text
            batch = []
    return {'texts': texts, 'unreadable': unreadable}


def _call(captioner: Callable[[list[Any]], list[str]], batch: list[Any]) -> list[str]:
    out = captioner(batch)
    if len(out) != len(batch):
        raise ValueError(f"'captioner' needs to return a text for each of {len(batch)} images (got {len(out)})")
    return [text.strip() for text in out]


def _read_piece(file: Path) -> dict[str, list[Any]] | None:
    r"""Returns the content of a piece, :obj:`None` if there is none or it is damaged."""
    try:
        piece: dict[str, list[Any]] = json.loads(file.read_bytes())
        return piece
    except (OSError, ValueError):
        return None
