import contextlib
import os
import stat
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lirdrec_pyg._io import file_digests
from lirdrec_pyg.features._encode import EncodedFeatures, Encoder, encode
from lirdrec_pyg.features._shards import Ready, listed
from lirdrec_pyg.features.encoders import library

Paths = Sequence[str | os.PathLike[str] | None]
# What may be opened, whatever a file is called: pictures, that say by their first bytes what they are and run nothing.
FORMATS = ('AVIF', 'BMP', 'DIB', 'GIF', 'ICO', 'JPEG', 'JPEG2000', 'PNG', 'PPM', 'QOI', 'TIFF', 'WEBP')
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: 'FLIP_LEFT_RIGHT', 3: 'ROTATE_180', 4: 'FLIP_TOP_BOTTOM', 5: 'TRANSPOSE', 6: 'ROTATE_270', 7: 'TRANSVERSE',
    8: 'ROTATE_90',
}  # fmt: skip


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
    mask_blank: bool = False,
    resume: bool = True,
    progress: bool = True,
) -> EncodedFeatures:
    r"""Encodes images as :func:`~lirdrec_pyg.features.encode_texts` does texts. An image that is not there or can't be
    read is counted, listed in the manifest and marked in the mask; its row is zero, never a mean of others.

    The encoder is given what a person sees: the first frame, turned as EXIF says, on white where it is transparent,
    grey values of more than 8 bits and floats scaled. Only regular files are opened, and only formats of pictures,
    which the content tells, whatever the name says.

    .. code-block:: python

        out = encode_images(['cup.jpg', None], TransformersImageEncoder(), 'features')
        print(out.x.shape, out.has)  # one row for each item; the second has no image

    Args:
        paths (sequence of path or None): The files of the images, in the order of the items.
        encoder (callable): Takes a list of RGB :class:`PIL.Image.Image` and returns a matrix with a row for each,
            *e.g.*, :class:`~lirdrec_pyg.features.TransformersImageEncoder`.
        folder (path): Where to write.
        modality (str, optional): The name of the modality. (default: ``'image'``)
        root (path, optional): The folder that relative ``paths`` start from.
        mask_blank (bool, optional): Whether items whose image has one colour only, as placeholders do, count as having
            none. How many there are, ``blank`` in the manifest says in any case. (default: :obj:`False`)
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
        opener(mask_blank),
        folder,
        modality,
        ids,
        batch_size,
        shard_size,
        half,
        resume,
        progress,
        lambda table: contents(files, table),
        mask_blank,
    )


def locate(paths: Paths, root: str | os.PathLike[str] | None) -> list[str | None]:
    r"""Returns the paths from ``root`` on, and :obj:`None` for empty ones."""
    paths = listed('paths', paths)
    for row, path in enumerate(paths):
        if not isinstance(path, str | os.PathLike | None):
            raise ValueError(f"'paths' needs to hold paths and None (got {path!r} in row {row})")
    return [None if not path else str(Path(path) if root is None else Path(root) / path) for path in paths]


def contents(files: Sequence[str | None], table: Path) -> list[str | None]:
    r"""Returns a digest of each file, an empty one where it is not there, and :obj:`None` where there is no path."""
    paths = list(dict.fromkeys(file for file in files if file is not None))
    found = dict(zip(paths, file_digests(paths, table), strict=True))
    return [None if file is None else found[file] or '' for file in files]


class _Refused(Exception):
    r"""A file is not what is asked for."""


def opener(mask_blank: bool) -> Callable[[str | None], Ready]:
    r"""Returns what makes a file an RGB image, which is nothing for no path, what can't be read and, if asked, one of a
    single colour."""
    library('PIL.Image', 'pillow')

    def prepare(path: str | None) -> Ready:
        if path is None:
            return Ready(None)
        try:
            image = open_image(path)
        except Exception as error:  # decoders raise anything
            why = str(error) if isinstance(error, _Refused) else type(error).__name__
            return Ready(None, unreadable=f'{path} ({why})')
        blank = all(low == high for low, high in image.getextrema())
        return Ready(None if blank and mask_blank else image, blank)

    return prepare


def open_image(path: str) -> Any:
    r"""Returns a regular file as the RGB image that a person sees; raises anything if it can't be read."""
    Image = library('PIL.Image', 'pillow')
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise _Refused('no regular file')
    Image.init()
    with warnings.catch_warnings(), open(path, 'rb', opener=_open) as file:
        warnings.simplefilter('ignore')
        warnings.simplefilter('error', Image.DecompressionBombWarning)
        image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
        image.load()
        turn = None
        with contextlib.suppress(Exception):  # who shows an image does not mind what else is wrong in its EXIF
            turn = TURNS.get(image.getexif().get(ORIENTATION))
        if image.mode.startswith('I') or image.mode == 'F':
            image = _to_8_bits(image)
        if image.has_transparency_data:
            image = image.convert('RGBA')
            image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
        image = image.convert('RGB')
        return image if turn is None else image.transpose(Image.Transpose[turn])


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, 'O_NONBLOCK', 0))  # a pipe that took the file's place is empty


def _to_8_bits(image: Any) -> Any:
    r"""Scales grey values of 16 bits, which Pillow would clip at 255. Floats are from 0 to 1 or as of 8 bits, those of
    32 bits in a TIFF as of 8 bits, if they fit, or as of 16."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    limits = [1, 255] if image.mode == 'F' else [255, 65535] if (image.mode, image.format) == ('I', 'TIFF') else [65535]
    if not 0 <= low <= high <= limits[-1]:
        raise _Refused(f'values from {low} to {high}, beyond {"0 to 255" if image.mode == "F" else "16 bits"}')
    limit = next(limit for limit in limits if high <= limit)
    Image = library('PIL.Image', 'pillow')
    values = np.where(values == image.info.get('transparency'), limit, values)  # on white
    return Image.fromarray(np.rint(values * (255 / limit)).astype(np.uint8))
