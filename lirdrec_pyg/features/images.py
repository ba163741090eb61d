import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lirdrec_pyg._io import file_digests
from lirdrec_pyg.features._encode import EncodedFeatures, Encoder, Unreadable, encode
from lirdrec_pyg.features.encoders import library

Paths = Sequence[str | os.PathLike[str] | None]


def encode_images(
    paths: Paths,
    encoder: Encoder,
    folder: str | os.PathLike[str],
    modality: str = 'image',
    *,
    root: str | os.PathLike[str] | None = None,
    ids: Sequence[str] | None = None,
    batch_size: int = 32,
    shard_size: int = 1024,
    half: bool = False,
    resume: bool = True,
    progress: bool = True,
) -> EncodedFeatures:
    r"""Encodes images as :func:`~lirdrec_pyg.features.encode_texts` does texts. An image that is not there or can't be
    read is counted, listed in the manifest and marked in the mask; its row is zero, never a mean of others.

    Args:
        paths (sequence of path or None): The files of the images, in the order of the items.
        encoder (callable): Takes a list of RGB :class:`PIL.Image.Image` and returns a matrix with a row for each,
            *e.g.*, :class:`~lirdrec_pyg.features.TransformersImageEncoder`.
        folder (path): Where to write.
        modality (str, optional): The name of the modality. (default: ``'image'``)
        root (path, optional): The folder that relative ``paths`` start from.
        ids, batch_size, shard_size, half, resume, progress (optional): As for texts. Images count by the content of
            their files: one that arrives later, or changes, is encoded.

    Raises:
        ValueError: If a path is neither a path nor :obj:`None`, the encoder returns something else than finite rows of
            one width, or no image can be encoded.
    """
    files = locate(paths, root)
    return encode(
        files,
        encoder,
        open_image,
        folder,
        modality,
        ids,
        batch_size,
        shard_size,
        half,
        resume,
        progress,
        lambda table: contents(files, table),
    )


def locate(paths: Paths, root: str | os.PathLike[str] | None) -> list[str | None]:
    r"""Returns the paths from ``root`` on, and :obj:`None` for empty ones."""
    paths = list(paths)
    for row, path in enumerate(paths):
        if not isinstance(path, str | os.PathLike | None):
            raise ValueError(f"'paths' needs to hold paths and None (got {path!r} in row {row})")
    return [None if not path else str(Path(path) if root is None else Path(root) / path) for path in paths]


def contents(files: Sequence[str | None], table: Path) -> list[str | None]:
    r"""Returns a digest of each file, an empty one where it is not there, and :obj:`None` where there is no path."""
    paths = list(dict.fromkeys(file for file in files if file is not None))
    found = dict(zip(paths, file_digests(paths, table), strict=True))
    return [None if file is None else found[file] or '' for file in files]


def open_image(path: str | None) -> Any:
    r"""Returns a file as an RGB image, :obj:`None` if there is no path; raises if it can't be read."""
    if path is None:
        return None
    Image = library('PIL.Image', 'pillow')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return (_to_8_bits(image, path) if image.mode.startswith('I') else image).convert('RGB')
    except (
        OSError, RuntimeError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning,
    ) as error:  # fmt: skip
        raise Unreadable(f'{path} ({type(error).__name__})') from error


def _to_8_bits(image: Any, path: str) -> Any:
    # Grey values of 16 bits, which Pillow would clip at 255.
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise Unreadable(f'{path} (values from {low} to {high}, beyond 16 bits)')
    Image = library('PIL.Image', 'pillow')
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
