r"""The raw files of the three Amazon releases, read as streams: reviews, metadata of items, and image features."""

import ast
import gzip
import html
import io
import json
import re
import warnings
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lirdrec_pyg.datasets._interactions import Array
from lirdrec_pyg.typing import LARGEST

MAX_LINE = 1 << 20  # bytes; the longest published ones are far below
LIMIT = 64 << 20  # bytes of a line that is not skipped, but ends the reading
RECORD = np.dtype([('asin', 'S10'), ('x', '<f4', (4096,))])  # of the image features
HIDDEN = re.compile(r'<!--|<(script|style)\b', re.IGNORECASE)  # what starts a part that nobody sees
END = {
    '': re.compile(r'-->'),
    'script': re.compile(r'</script\s*>', re.IGNORECASE),
    'style': re.compile(r'</style\s*>', re.IGNORECASE),
}
TAG = re.compile(r'</?[a-zA-Z!][^<>]*>')
LONG_REFERENCE = re.compile(r'&#[xX]?[0-9a-fA-F]{20}')
PAGE_SCRIPT = re.compile(r'\bvar\s[^;]{0,200}getTime\(\)')  # stands where some pages of 2018 have their texts


class Release(NamedTuple):
    r"""How one release names its files and the values in them."""

    names: dict[str, str]  # short name -> category
    urls: dict[str, str]  # 'reviews', 'metadata', 'images' -> URL
    review: tuple[str, str, str, str]  # user, item, rating, time
    ticks: int  # of the time in a second
    fields: dict[str, str]  # our name -> theirs
    images: tuple[str, ...]  # where the URLs of images are, the best first


SNAP = 'https://snap.stanford.edu/data/amazon/productGraph'
UCSD = 'https://mcauleylab.ucsd.edu/public_datasets/data'
LATER = {
    'sports': 'Sports_and_Outdoors',
    'clothing': 'Clothing_Shoes_and_Jewelry',
    'electronics': 'Electronics',
}
RELEASES = {
    '2014': Release(
        names={'baby': 'Baby', **LATER},
        urls={
            'reviews': f'{SNAP}/categoryFiles/reviews_{{}}_5.json.gz',
            'metadata': f'{SNAP}/categoryFiles/meta_{{}}.json.gz',
            'images': f'{SNAP}/image_features/categoryFiles/image_features_{{}}.b',
        },
        review=('reviewerID', 'asin', 'overall', 'unixReviewTime'),
        ticks=1,
        fields={name: name for name in ('title', 'brand', 'categories', 'description', 'price')},
        images=('imUrl',),
    ),
    '2018': Release(
        names=LATER,
        urls={
            'reviews': f'{UCSD}/amazon_v2/categoryFilesSmall/{{}}_5.json.gz',
            'metadata': f'{UCSD}/amazon_v2/metaFiles2/meta_{{}}.json.gz',
        },
        review=('reviewerID', 'asin', 'overall', 'unixReviewTime'),
        ticks=1,
        fields={'categories': 'category', 'features': 'feature'}
        | {name: name for name in ('title', 'brand', 'description', 'price')},
        images=('imageURLHighRes', 'imageURL', 'image'),
    ),
    '2023': Release(
        names={'baby': 'Baby_Products', **LATER},
        urls={
            'reviews': f'{UCSD}/amazon_2023/raw/review_categories/{{}}.jsonl.gz',
            'metadata': f'{UCSD}/amazon_2023/raw/meta_categories/meta_{{}}.jsonl.gz',
        },
        review=('user_id', 'parent_asin', 'rating', 'timestamp'),
        ticks=1000,
        fields={'brand': 'store'}
        | {name: name for name in ('title', 'categories', 'description', 'features', 'price')},
        images=('images',),
    ),
}


class Malformed(ValueError):
    r"""A line that can't be used; the message is the reason."""


class Lines:
    r"""The lines of a text file, plain or gzip, which counts those that turn out to be malformed.

    Raises:
        ValueError: If a gzip file is cut short or damaged, or a line is longer than ``LIMIT``; names the line that was
            reached.
    """

    def __init__(self, path: Path, progress: bool) -> None:
        self.path = path
        self.progress = progress
        self.number = 0  # of the line reached, from 1
        self.skipped = 0
        self.malformed: Counter[str] = Counter()  # by reason
        self.first: dict[str, list[int]] = {}  # line numbers

    def __iter__(self) -> Iterator[bytes]:
        name, size = self.path.name, self.path.stat().st_size
        with (
            self.path.open('rb') as raw,
            tqdm(total=size, unit='B', unit_scale=True, desc=name, disable=not self.progress) as bar,
        ):
            stream = io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 20) if self.path.suffix == '.gz' else raw
            try:
                while line := stream.readline(MAX_LINE + 1):
                    self.number += 1
                    length = len(line)
                    while length > MAX_LINE and not line.endswith(b'\n') and (more := stream.readline(MAX_LINE)):
                        length += len(more)
                        if length > LIMIT:
                            raise ValueError(f"line {self.number} of '{self.path}' needs to be at most {LIMIT} bytes "
                                             'long (got more): get it again')  # fmt: skip
                        if more.endswith(b'\n'):
                            break
                    if self.number % 8192 == 0:
                        bar.update(raw.tell() - bar.n)
                    if not line.isspace():
                        yield line
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(f"'{self.path}' is cut short or damaged after line {self.number} ({error}): get it "
                                 'again') from error  # fmt: skip
            bar.update(size - bar.n)

    def refuse(self, reason: object) -> None:
        r"""Counts the line reached as malformed."""
        self.malformed[str(reason)] += 1
        first = self.first.setdefault(str(reason), [])
        if len(first) < 5:
            first.append(self.number)

    def report(self) -> dict[str, Any]:
        r"""Returns what was counted."""
        reasons = {key: {'count': count, 'first_lines': self.first[key]} for key, count in self.malformed.items()}
        return {'lines': self.number, 'skipped': self.skipped, 'malformed': self.malformed.total(), 'reasons': reasons}

    def check(self, max_malformed: float) -> None:
        r"""Refuses more than a share of malformed lines, and warns of any."""
        count, read = self.malformed.total(), self.number - self.skipped
        if count:
            found = '; '.join(f'{n} {reason} (first: {self.first[reason]})' for reason, n in self.malformed.items())
            text = f"{count} of {read} lines of '{self.path}' are malformed: {found}"
            if count > max_malformed * read:
                raise ValueError(f"'max_malformed' is {max_malformed}, and {text}")
            warnings.warn(f'left out: {text}', stacklevel=2)


def parse(line: bytes) -> dict[str, Any]:
    r"""Returns the object of a line of JSON or, as in the metadata of 2014, the :class:`dict` of a Python literal."""
    if len(line) > MAX_LINE:
        raise Malformed(f'longer than {MAX_LINE} bytes')
    try:
        text = line.decode()
        record = ast.literal_eval(text) if text.startswith("{'") else json.loads(text)
    except UnicodeDecodeError:
        raise Malformed('not UTF-8') from None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise Malformed('not a JSON object or Python dict')
    return record


class Reviews(NamedTuple):
    r"""Interactions as codes, which are positions in the lists of ids."""

    user: Array
    item: Array
    time: Array  # seconds; those of 2023 have milliseconds, as fractions
    rating: Array
    user_ids: list[str]
    item_ids: list[str]
    low: int  # how many were left out as below `min_rating`


def read_reviews(lines: Lines, release: Release, min_rating: float | None) -> Reviews:
    r"""Reads the reviews, of which only four values are kept."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user, item, time, rating = array('i'), array('i'), array('q'), array('f')
    low = 0
    for line in lines:
        try:
            user_id, item_id, stars, ticks = _review(parse(line), release.review)
        except Malformed as error:
            lines.refuse(error)
            continue
        if min_rating is not None and stars < min_rating:
            low += 1
            continue
        user.append(users.setdefault(user_id, len(users)))
        item.append(items.setdefault(item_id, len(items)))
        time.append(ticks)
        rating.append(stars)
    codes, times = (np.asarray(user), np.asarray(item)), np.asarray(time)
    times = times if release.ticks == 1 else times / release.ticks
    return Reviews(*codes, times, np.asarray(rating), list(users), list(items), low)


def _review(record: Mapping[str, Any], keys: tuple[str, str, str, str]) -> tuple[str, str, float, int]:
    user, item, rating, time = map(record.get, keys)
    if not (user and isinstance(user, str)):
        raise Malformed(f"without '{keys[0]}'")
    if not (item and isinstance(item, str)):
        raise Malformed(f"without '{keys[1]}'")
    try:
        if isinstance(rating, bool) or isinstance(time, bool):
            raise TypeError
        rating, time = float(rating), int(time)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise Malformed(f"whose '{keys[2]}' or '{keys[3]}' is not a number") from None
    if not (0 <= rating <= 5 and 0 <= time < 10**15):
        raise Malformed(f"whose '{keys[2]}' or '{keys[3]}' is out of range")
    return user, item, rating, time


class Metadata(NamedTuple):
    r"""What is known of each item; lists in the order of the items."""

    title: list[str]
    text: list[str]
    image_url: list[str | None]
    found: Array
    repeated: int


def read_metadata(lines: Lines, release: Release, position: Mapping[str, int], fields: Sequence[str]) -> Metadata:
    r"""Reads the metadata of some items; of those that occur repeatedly, the first counts.

    Args:
        lines (Lines): The lines. Python literals of other items are skipped unparsed, if they start with the id.
        release (Release): The release.
        position (mapping of str to int): The position of each item.
        fields (sequence of str): The fields that make the text, in this order.
    """
    size, key, repeated = len(position), release.review[1], 0
    out = Metadata([''] * size, [''] * size, [None] * size, np.zeros(size, dtype=bool), 0)
    head = re.compile(rb"\{'%s': '(\w+)'" % key.encode())
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', category=DeprecationWarning)  # of backslashes in literals
        warnings.simplefilter('ignore', category=SyntaxWarning)
        for line in lines:
            match = head.match(line)
            if match and match[1].decode() not in position:
                lines.skipped += 1
                continue
            try:
                record = parse(line)
                item = record.get(key)
                if not (item and isinstance(item, str)):
                    raise Malformed(f"without '{key}'")
                row = position.get(item)
                if row is None:
                    continue
                if out.found[row]:
                    repeated += 1
                    continue
                title = flatten(record.get(release.fields['title']))
                text = ' '.join(filter(None, (flatten(record.get(release.fields[field])) for field in fields)))
                url = find_url([record.get(name) for name in release.images])
            except ValueError as error:
                lines.refuse(error)
            except RecursionError:
                lines.refuse('nested too deeply')
            else:
                out.title[row], out.text[row], out.image_url[row], out.found[row] = title, text, url, True
    return out._replace(repeated=repeated)


def flatten(value: object) -> str:
    r"""Returns the text of a string, a number, or a nested list of these, without HTML and on one line.

    Raises:
        Malformed: If a script, style or comment in it has no end, or a character reference is too long.
    """
    if isinstance(value, list | tuple):
        return ' '.join(filter(None, map(flatten, value)))
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:  # also not a number
        return ''
    text = str(value)
    if 'getTime()' in text and PAGE_SCRIPT.search(text):
        return ''
    if '<' in text:
        text = TAG.sub(' ', _without_hidden(text))
    if LONG_REFERENCE.search(text):
        raise Malformed('with a character reference of more than 20 digits')
    text = html.unescape(text).encode(errors='ignore').decode()  # half of a surrogate pair is no character
    return ' '.join(text.split())


def _without_hidden(text: str) -> str:
    r"""Returns a text without scripts, styles and comments, in linear time: it is gone through once."""
    parts, place = [], 0
    while match := HIDDEN.search(text, place):
        end = END[(match[1] or '').lower()].search(text, match.end())
        if end is None:
            raise Malformed('with a script, style or comment without an end')
        parts.append(text[place : match.start()])
        place = end.end()
    return ' '.join([*parts, text[place:]])


def find_url(value: object) -> str | None:
    r"""Returns the first address of an image in a string, a list, or a :class:`dict` of sizes."""
    if isinstance(value, str):
        return value if value.startswith(('http://', 'https://')) and '/no-img' not in value else None
    if isinstance(value, dict):
        value = [value.get(size) for size in ('hi_res', 'large', 'thumb')]
    return next(filter(None, map(find_url, value)), None) if isinstance(value, list) else None


def read_image_features(path: Path, position: Mapping[str, int], progress: bool) -> tuple[Tensor, Tensor, int]:
    r"""Reads the features of some items from a binary file of 10-byte ids, each before 4096 numbers of float32; of
    those that occur repeatedly, the first counts. Other items never take up memory.

    Returns:
        The features, zero where there are none, a mask of the items that have some, and how many were not finite or too
        large to sum.
    """
    size = path.stat().st_size
    if size % RECORD.itemsize:
        raise ValueError(f"'{path}' needs to be records of {RECORD.itemsize} bytes (got {size} bytes: it ends within "
                         f'record {size // RECORD.itemsize + 1}): get it again')  # fmt: skip
    rows = {raw.encode(): row for raw, row in position.items()}
    x, has, bad = np.zeros((len(rows), 4096), dtype=np.float32), np.zeros(len(rows), dtype=bool), 0
    with (
        path.open('rb') as file,
        tqdm(total=size, unit='B', unit_scale=True, desc=path.name, disable=not progress) as bar,
    ):
        while len(chunk := np.fromfile(file, RECORD, count=256)):
            for i, asin in enumerate(chunk['asin'].tolist()):
                row = rows.get(asin)
                if row is None or has[row]:
                    continue
                if (np.abs(chunk['x'][i]) <= LARGEST).all():
                    x[row], has[row] = chunk['x'][i], True
                else:
                    bad += 1
            bar.update(chunk.nbytes)
    if not has.any():
        raise ValueError(f"'{path}' has features of none of the {len(rows)} items")
    return torch.from_numpy(x), torch.from_numpy(has), bad
