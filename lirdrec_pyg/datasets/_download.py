r"""Downloads of large files that a broken connection does not start again from the first byte."""

import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from lirdrec_pyg._io import file_digest

BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def download(
    url: str,
    path: Path,
    *,
    checksum: str | None = None,
    progress: bool = True,
    retries: int = 3,
    wait: float = 1.0,
    timeout: float = 60.0,
) -> None:
    r"""Downloads a file to ``<path>.part``, from where an earlier attempt ended, and renames it when it is whole.

    Args:
        url (str): The address, ``http`` or ``https``.
        path (Path): Where to put the file.
        checksum (str, optional): Its sha256 in hexadecimal digits.
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)
        retries (int, optional): How often to go on after a broken connection. (default: :obj:`3`)
        wait (float, optional): The seconds before the first retry; they double with each. (default: :obj:`1.0`)
        timeout (float, optional): The seconds without an answer that count as broken. (default: :obj:`60.0`)

    Raises:
        ConnectionError: If the file can't be had; says where to put it.
        ValueError: If its checksum is another one. The file is then removed.
    """
    if not url.startswith(('http://', 'https://')):
        raise ValueError(f"'url' needs to start with 'http://' or 'https://' (got {url!r})")
    part = path.with_name(f'{path.name}.part')
    for attempt in range(retries + 1):
        try:
            _fetch(url, part, path.name, progress, timeout)
            break
        except BROKEN as error:
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if final or attempt == retries:
                raise ConnectionError(
                    f"can't download '{url}' ({error}): try again, which goes on where this attempt ended, or get "
                    f"'{path.name}' elsewhere and put it into '{path.parent}'"
                ) from error
            time.sleep(wait * 2**attempt)
    if checksum is not None and (found := file_digest(part)) != checksum.lower():
        part.unlink()
        raise ValueError(f"the sha256 of '{url}' needs to be {checksum.lower()} (got {found})")
    os.replace(part, path)


def _fetch(url: str, part: Path, name: str, progress: bool, timeout: float) -> None:
    start = part.stat().st_size if part.is_file() else 0
    headers = {'Accept-Encoding': 'identity', **({'Range': f'bytes={start}-'} if start else {})}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get('Content-Range') == f'bytes */{start}':
            return  # it was whole already
        part.unlink()
        raise ConnectionError(f"'{part}' held {start} bytes, which is no part of the file") from error
    with response:
        match = re.match(r'bytes (\d+)-', response.headers.get('Content-Range') or '')
        if response.status != 206 or match is None or int(match[1]) != start:
            start = 0  # the server sends the whole file
        length = response.headers.get('Content-Length')
        total = None if length is None else start + int(length)
        with (
            part.open('ab' if start else 'wb') as file,
            tqdm(total=total, initial=start, unit='B', unit_scale=True, desc=name, disable=not progress) as bar,
        ):
            while block := response.read(1 << 18):
                file.write(block)
                bar.update(len(block))
    size = part.stat().st_size
    if total is not None and size != total:
        raise ConnectionError(f'{size} of {total} bytes came')
