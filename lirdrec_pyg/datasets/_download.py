r"""Downloads of large files that a broken connection does not start again from the first byte."""

import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lirdrec_pyg._io import file_digest, locked, naming

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

    It goes on only where the server says that the file is still the same (``<path>.part.json`` has its ``ETag`` or
    date), or a checksum tells in the end. Certificates are verified. If another process downloads into the folder, it
    waits, and takes what that one got.

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
        OSError: If it can't be written. What came is kept.
        ValueError: If its checksum is another one. The file is then removed.
    """
    if not url.startswith(('http://', 'https://')):
        raise ValueError(f"'url' needs to start with 'http://' or 'https://' (got {url!r})")
    path.parent.mkdir(parents=True, exist_ok=True)
    before = _stamp(path)
    part, notes = path.with_name(f'{path.name}.part'), path.with_name(f'{path.name}.part.json')
    with locked(path.parent):
        if path.is_file() and (_stamp(path) != before if checksum is None else file_digest(path) == checksum.lower()):
            return  # of the process that had the lock
        resumed = _fetch_all(url, path, checksum is not None, progress, retries, wait, timeout)
        if checksum is not None and resumed and file_digest(part) != checksum.lower():  # what was there was stale
            part.unlink()
            _fetch_all(url, path, True, progress, retries, wait, timeout)
        if checksum is not None and (found := file_digest(part)) != checksum.lower():
            part.unlink()
            notes.unlink(missing_ok=True)
            raise ValueError(f"the sha256 of '{url}' needs to be {checksum.lower()} (got {found})")
        os.replace(part, path)
        notes.unlink(missing_ok=True)


def _stamp(path: Path) -> tuple[int, int] | None:
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.is_file() else None


def _fetch_all(url: str, path: Path, checked: bool, progress: bool, retries: int, wait: float, timeout: float) -> bool:
    r"""Fetches the file in as many attempts as it takes, and returns whether one went on where another ended."""
    part = path.with_name(f'{path.name}.part')
    resumed = part.is_file()
    for attempt in range(retries + 1):
        try:
            _fetch(url, part, path.name, checked, progress, timeout)
            break
        except BROKEN as error:
            resumed = True
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500
            final |= isinstance(getattr(error, 'reason', None), ssl.SSLCertVerificationError)
            if final or attempt == retries:
                raise ConnectionError(
                    f"can't download '{url}' ({error}): try again, which goes on where this attempt ended, or get "
                    f"'{path.name}' elsewhere and put it into '{path.parent}'"
                ) from error
            time.sleep(wait * 2**attempt)
    return resumed


def _fetch(url: str, part: Path, name: str, checked: bool, progress: bool, timeout: float) -> None:
    r"""Fetches the file or the rest of it."""
    notes = part.with_name(f'{part.name}.json')
    known = _read_notes(notes, url)
    start = part.stat().st_size if part.is_file() and (known.get('version') or checked) else 0
    headers = {'Accept-Encoding': 'identity'}
    if start:
        headers['Range'] = f'bytes={start}-'
        if known.get('version'):
            headers['If-Range'] = known['version']
    try:
        response = urllib.request.build_opener(_Redirects).open(
            urllib.request.Request(url, headers=headers), timeout=timeout
        )
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        if error.headers.get('Content-Range') == f'bytes */{start}':
            return  # it was whole already
        part.unlink()
        raise ConnectionError(f"'{part}' held {start} bytes, which is no part of the file") from error
    with response:
        version, total = _version(response.headers), None
        if response.status == 206:
            match = re.fullmatch(r'bytes (\d+)-(\d+)/(\d+)', response.headers.get('Content-Range') or '')
            total = int(match[3]) if match else None
            same = version is None or version == known.get('version', version)
            if match is None or int(match[1]) != start or not same or known.get('total') not in (None, total):
                part.unlink(missing_ok=True)
                raise ConnectionError(f"the answer is of another part than asked for ({match and match[0]}), or the "
                                      'file changed')  # fmt: skip
        elif response.status == 200:
            start = 0  # the server sends the whole file
            length = response.headers.get('Content-Length')
            total = None if length is None else int(length)
        else:
            raise ConnectionError(f'the answer is {response.status} {response.reason}')
        with (
            naming(part),
            part.open('ab' if start else 'wb') as file,
            tqdm(total=total, initial=start, unit='B', unit_scale=True, desc=name, disable=not progress) as bar,
        ):
            if not start:
                notes.unlink(missing_ok=True)
                if version is not None:
                    notes.write_text(json.dumps({'url': url, 'version': version, 'total': total}))
            while block := _read(response):
                file.write(block)
                bar.update(len(block))
    size = part.stat().st_size
    if total is not None and size != total:
        if size > total:
            part.unlink()
        raise ConnectionError(f'{size} of {total} bytes came')


def _read(response: Any) -> bytes:
    try:
        return response.read(1 << 18)
    except OSError as error:  # else it would count as one of writing
        raise http.client.HTTPException(str(error) or type(error).__name__) from error


def _read_notes(notes: Path, url: str) -> dict[str, Any]:
    try:
        known = json.loads(notes.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and known.get('url') == url else {}


def _version(headers: Any) -> str | None:
    r"""Returns what tells the file from later ones at that address: a strong ``ETag``, or the date."""
    etag = headers.get('ETag')
    return etag if etag and not etag.startswith('W/') else headers.get('Last-Modified')


class _Redirects(urllib.request.HTTPRedirectHandler):
    r"""Refuses to leave the web, or what is encrypted."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        allowed = ('https://',) if req.full_url.startswith('https://') else ('http://', 'https://')
        if not newurl.lower().startswith(allowed):
            raise urllib.error.HTTPError(
                req.full_url, code, f'it redirects to {newurl!r}, which is not {allowed[0]}', headers, fp
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)
