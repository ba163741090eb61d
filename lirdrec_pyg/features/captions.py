import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from lirdrec_pyg.features._encode import Unreadable
from lirdrec_pyg.features._shards import Shards, check_job, digest, finished, identity, manifest, sha256, write
from lirdrec_pyg.features.images import Paths, locate, open_image, stamps


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
    key = digest([*files, ids, identity(captioner), stamps(files)])
    path, manifest_path = folder / f'{name}_texts.json', folder / f'{name}_texts_manifest.json'
    if resume and (known := finished(manifest_path, key, sha256=path)) is not None:
        return Captions(json.loads(path.read_text(encoding='utf-8')), path, known)

    shards = Shards(folder, f'{name}_texts', key, len(files), shard_size, resume)
    texts: list[str | None] = []
    unreadable: list[str] = []
    bar = tqdm(total=len(files), desc=name, unit='image', disable=not progress)
    for rows, file in shards:
        file = file.with_suffix('.json')
        if not file.is_file():
            write(file, json.dumps(_caption_rows(files, rows, captioner, batch_size)).encode())
        piece = json.loads(file.read_text())
        texts += piece['texts']
        unreadable += piece['unreadable']
        bar.update(len(rows))
    bar.close()
    write(path, json.dumps(texts, indent=0, ensure_ascii=False).encode())
    entries = manifest(
        manifest_path,
        ids,
        len(files),
        **identity(captioner),
        missing=sum(text is None for text in texts) - len(unreadable),
        unreadable=len(unreadable),
        unreadable_examples=unreadable[:10],
        sha256=sha256(path),
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
            out = captioner([image for _, image in batch])
            if len(out) != len(batch):
                raise ValueError(f"'captioner' needs to return a text for each of {len(batch)} images (got {len(out)})")
            for (place, _), text in zip(batch, out, strict=True):
                texts[place] = text.strip()
            batch = []
    return {'texts': texts, 'unreadable': unreadable}
