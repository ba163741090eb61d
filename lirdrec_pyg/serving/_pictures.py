import base64
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lirdrec_pyg.features.images import open_image

Images = str | os.PathLike[str] | Mapping[Any, Any] | Callable[[str], Any]
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.gif', '.avif', '.bmp')
WIDTH, HEIGHT = 168, 240  # the most pixels of a thumbnail: a tile is about as wide
QUALITY = 72


class Thumbnail(NamedTuple):
    name: str
    width: int
    height: int
    url: str


class Pictures:
    r"""Thumbnails of items as ``data:`` URLs. Equal ones are held once, and there are at most ``most``.

    Args:
        images (path, mapping or callable): Where the picture of a raw id is; see
            :func:`~lirdrec_pyg.serving.report`.
        most (int): How many thumbnails there may be.
    """

    def __init__(self, images: Images | None, most: int) -> None:
        self.most = most
        self.thumbnails: list[Thumbnail] = []
        self.missing: list[str] = []  # raw ids of items without a picture
        self.unreadable: list[str] = []
        self.left_out = 0
        self._names: dict[str, str | None] = {}  # by raw id
        self._same: dict[str, str] = {}  # by URL
        self._find = None if images is None else finder(images)
        if self._find is not None:
            try:
                import PIL  # noqa: F401
            except ImportError as error:
                raise ImportError("'images' need pillow: pip install 'lirdrec-pyg[report]'") from error

    def __bool__(self) -> bool:
        return self._find is not None

    def __iter__(self) -> Iterator[Thumbnail]:
        return iter(self.thumbnails)

    def name(self, raw_id: str) -> str | None:
        r"""Returns the name of the thumbnail of an item, if it has one."""
        if self._find is None:
            return None
        if raw_id not in self._names:
            self._names[raw_id] = self._make(raw_id)
        return self._names[raw_id]

    def _make(self, raw_id: str) -> str | None:
        assert self._find is not None
        path = self._find(raw_id)
        if path is None or path == '' or not os.path.exists(path):
            self.missing.append(raw_id)
            return None
        if len(self.thumbnails) >= self.most:
            self.left_out += 1
            return None
        try:
            image = open_image(os.fspath(path))
            image.thumbnail((WIDTH, HEIGHT))
            out = io.BytesIO()
            image.save(out, 'JPEG', quality=QUALITY, optimize=True)
        except Exception:  # decoders raise anything
            self.unreadable.append(raw_id)
            return None
        url = 'data:image/jpeg;base64,' + base64.b64encode(out.getvalue()).decode()
        if url not in self._same:
            self._same[url] = f'p{len(self.thumbnails)}'
            self.thumbnails.append(Thumbnail(self._same[url], image.width, image.height, url))
        return self._same[url]

    @property
    def ratio(self) -> float:
        r"""How wide most thumbnails are for their height, between upright and lying."""
        ratios = sorted(one.width / one.height for one in self.thumbnails)
        return round(min(max(ratios[len(ratios) // 2], 2 / 3), 3 / 2), 3) if ratios else 1.0

    def warn(self) -> None:
        r"""Tells of pictures that can't be read, and if there is none at all."""
        if self.unreadable:
            warnings.warn(
                f'{len(self.unreadable)} pictures could not be read (first: that of item {self.unreadable[0]!r}): '
                'the page shows their items without one',
                stacklevel=3,
            )
        if self and not self.thumbnails and self.missing:
            warnings.warn(
                f"'images' has no picture of the {len(self.missing)} items shown (first: {self.missing[0]!r}): it "
                "needs to be a folder with '<raw id>.jpg', a mapping of raw ids to paths, or a function",
                stacklevel=3,
            )


def finder(images: Images) -> Callable[[str], Any]:
    r"""Returns a function that gives the path of the picture of a raw id, or :obj:`None`.

    Raises:
        FileNotFoundError: If a folder is not there.
        TypeError: If it is neither a path, a mapping nor a function.
    """
    if isinstance(images, (str, os.PathLike)):
        if not Path(images).is_dir():
            raise FileNotFoundError(f"'images' needs to be a folder that is there (got '{os.fspath(images)}')")
        found: dict[str, tuple[int, str]] = {}
        for entry in os.scandir(images):
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in SUFFIXES:
                best = (SUFFIXES.index(suffix.lower()), entry.path)
                found[stem] = min(found.get(stem, best), best)
        return lambda raw_id: found[raw_id][1] if raw_id in found else None
    if isinstance(images, Mapping):
        paths = {str(raw_id): path for raw_id, path in images.items()}
        return paths.get
    if callable(images):
        return images
    kind = 'a sequence' if isinstance(images, Sequence) else type(images).__name__
    raise TypeError(
        f"'images' needs to be a folder, a mapping of raw ids to paths, or a function (got {kind}): of a list in the "
        'order of the items, make `dict(zip(data["item"].raw_id, paths))`'
    )
