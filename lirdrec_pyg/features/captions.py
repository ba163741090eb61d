import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from lirdrec_pyg._io import digest, in_turn, write_bytes
from lirdrec_pyg.features._shards import (
    Shards,
    batches,
    check_job,
    finished,
    identify,
    manifest,
    probes,
    warn_of_another,
)
from lirdrec_pyg.features.images import Paths, contents, locate, opener
from lirdrec_pyg.features.texts import visible


class Captions(NamedTuple):
    r"""Texts made of images.

    .. code-block:: python

        out = caption_images(['cup.jpg', None], TransformersCaptioner(), 'features')
        print(out.texts, out.path)  # a text and None, features/caption.json

    Args:
        texts (list of str or None): A text for each image; :obj:`None` where there is none, or an empty one.
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
    mask_blank: bool = False,
    resume: bool = True,
    progress: bool = True,
) -> Captions:
    r"""Has a multimodal language model describe images, and writes ``<name>_texts.json`` and
    ``<name>_texts_manifest.json``: the first half of the route from images to texts to features of the `"LIRDRec"
    <https://arxiv.org/abs/2505.04960>`_ paper, whose second half is :func:`~lirdrec_pyg.features.encode_texts`.

    .. code-block:: python

        captioner = TransformersCaptioner(prompt='Describe this product.')
        captions = caption_images(['cup.jpg', None], captioner, 'features')
        encode_texts(captions.texts, SentenceTransformerEncoder(), 'features', modality='caption')

    Args:
        paths (sequence of path or None): The files of the images, in the order of the items.
        captioner (callable): Takes a list of RGB :class:`PIL.Image.Image` and returns a text for each, *e.g.*,
            :class:`~lirdrec_pyg.features.TransformersCaptioner`.
        folder (path): Where to write.
        name (str, optional): The start of the names of the files. (default: ``'caption'``)
        root (path, optional): The folder that relative ``paths`` start from.
        ids, batch_size, shard_size, mask_blank, resume, progress (optional): As for images.

    Raises:
        ValueError: If a path is neither a path nor :obj:`None`, or the captioner does not return a text for each image.
    """
    files = locate(paths, root)
    ids = check_job('name', name, len(files), batch_size, ids)
    folder = Path(folder)
    captioner_is = identify('captioner', captioner)
    key = digest(contents(files, folder / f'.{name}_files.json'), ids, captioner_is.key, mask_blank)
    path, manifest_path = folder / f'{name}_texts.json', folder / f'{name}_texts_manifest.json'
    prepare = opener(mask_blank)

    def agrees(stored: dict[int, str]) -> bool:
        rows = probes(list(stored), files, 4)
        if captioner_is.whole or not rows:
            return True
        batch = [prepare(files[row]).value for row in rows]
        found = [
            text for start in range(0, len(rows), batch_size) for text in _call(captioner, batch[start:][:batch_size])
        ]
        return 2 * sum(text == stored[row] for row, text in zip(rows, found, strict=True)) >= len(rows)  # models waver

    def compute(rows: range) -> dict[str, Any]:
        piece: dict[str, Any] = {'texts': [None] * len(rows)}
        for places, batch in batches(files, rows, prepare, batch_size, piece):
            for place, text in zip(places, _call(captioner, batch), strict=True):
                piece['texts'][place] = text
        return piece

    with in_turn(folder / f'.{name}_texts.lock'):
        if resume and (known := finished(manifest_path, key, sha256=path)) is not None:
            texts: list[str | None] = json.loads(path.read_bytes())
            if agrees({row: text for row, text in enumerate(texts) if text is not None}):
                return Captions(texts, path, known)
            warn_of_another('captioner', path)
            resume = False

        shards = Shards(folder, f'{name}_texts', key, len(files), shard_size, resume)
        stored = {}
        for rows, piece in shards.done():
            found = zip(rows, piece['texts'], strict=True)
            stored.update({row: text for row, text in found if text is not None})
        if not agrees(stored):
            warn_of_another('captioner', shards.folder)
            shards.restart()

        texts, blank, unreadable = [], 0, []
        bar = tqdm(total=len(files), desc=name, unit='image', disable=not progress)
        for rows, file in shards:
            piece = shards.get(rows, file, compute)
            texts += piece['texts']
            blank += piece['blank']
            unreadable += piece['unreadable']
            bar.update(len(rows))
        bar.close()
        content = json.dumps(texts, indent=0, ensure_ascii=False).encode()
        write_bytes(path, content)
        entries = manifest(
            manifest_path,
            ids,
            len(files),
            **captioner_is.entries,
            missing=texts.count(None) - len(unreadable) - (blank if mask_blank else 0),
            blank=blank,
            unreadable=len(unreadable),
            unreadable_examples=unreadable[:10],
            sha256=hashlib.sha256(content).hexdigest(),
            key=key,
        )
        shards.remove()
    return Captions(texts, path, entries)


def _call(captioner: Callable[[list[Any]], list[str]], batch: list[Any]) -> list[str | None]:
    out = captioner(batch)
    if isinstance(out, str) or len(out) != len(batch):
        got = repr(out) if isinstance(out, str) else len(out)
        raise ValueError(f"'captioner' needs to return a text for each of {len(batch)} images (got {got})")
    if odd := [text for text in out if not isinstance(text, str)]:
        raise ValueError(f"'captioner' needs to return strings (got {odd[0]!r})")
    return [visible(text.strip()) for text in out]
