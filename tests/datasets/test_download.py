import hashlib
import http.server
import re
import shutil
import signal
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from lirdrec_pyg.datasets import _download
from lirdrec_pyg.datasets._download import download

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    r"""Serves :obj:`CONTENT`; the mode of the server says how badly."""

    def do_GET(self):
        server, start = self.server, 0
        requested = self.headers.get('Range')
        server.ranges.append(requested)
        if server.mode == 'missing':
            return self.send_error(404)
        if server.mode == 'busy' and len(server.ranges) == 1:
            return self.send_error(503)
        if server.mode.startswith('redirect '):
            self.send_response(302)
            self.send_header('Location', server.mode.partition(' ')[2])
            self.send_header('Content-Length', '0')
            return self.end_headers()
        if server.mode == 'silent':
            return time.sleep(1)
        etag, if_range = getattr(server, 'etag', None), self.headers.get('If-Range')
        server.validators.append(if_range)
        content = server.content
        if requested and server.mode in ('elsewhere', 'no content range', 'shorter'):
            start = int(requested[6:-1])
            end = min(start + 300_000, len(content)) if server.mode == 'shorter' else len(content)
            first = 7 if server.mode == 'elsewhere' else start
            self.send_response(206)
            if server.mode != 'no content range':
                self.send_header('Content-Range', f'bytes {first}-{end - 1}/{len(content)}')
            self.send_header('Content-Length', str(end - start))
            if etag:
                self.send_header('ETag', etag)
            self.end_headers()
            return self.wfile.write(content[start:end])
        if requested and server.mode != 'no ranges' and if_range in (None, etag):
            start = int(re.fullmatch(r'bytes=(\d+)-', requested)[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(content)}')
                self.send_header('Content-Length', '0')
                return self.end_headers()
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        else:
            self.send_response(200)
        if etag:
            self.send_header('ETag', etag)
        if server.mode != 'no length':
            self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        end = start + 400_000 if server.mode == 'breaks' else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.mode, server.ranges, server.validators, server.content, server.etag = '', [], [], CONTENT, None
    server.url = f'http://127.0.0.1:{server.server_address[1]}/file.gz'
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize('mode', ['', 'no length', 'busy'])
def test_download(server, tmp_path, mode):
    server.mode = mode
    download(server.url, tmp_path / 'file.gz', checksum=DIGEST.upper(), wait=0)
    assert (tmp_path / 'file.gz').read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ['file.gz']
    assert server.ranges == [None] * (2 if mode == 'busy' else 1)


def test_download_goes_on_after_a_broken_connection(server, tmp_path):
    server.mode = 'breaks'
    download(server.url, tmp_path / 'file.gz', checksum=DIGEST, progress=False, wait=0)
    assert (tmp_path / 'file.gz').read_bytes() == CONTENT
    assert server.ranges == [None, 'bytes=400000-', 'bytes=800000-']


def test_download_goes_on_in_a_later_call(server, tmp_path, capsys):
    server.mode, path = 'breaks', tmp_path / 'file.gz'
    message = rf"400000 of 1048576 bytes came.*get 'file.gz' elsewhere and put it into '{tmp_path}'"
    with pytest.raises(ConnectionError, match=message):
        download(server.url, path, progress=False, retries=0)
    assert not path.exists()
    assert (tmp_path / 'file.gz.part').read_bytes() == CONTENT[:400_000]
    server.mode = ''
    download(server.url, path, checksum=DIGEST, progress=False)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, 'bytes=400000-']
    assert capsys.readouterr().err == ''


def test_download_from_a_server_without_ranges_starts_again(server, tmp_path):
    server.mode = 'no ranges'
    (tmp_path / 'file.gz.part').write_bytes(b'part of something else')
    download(server.url, tmp_path / 'file.gz', checksum=DIGEST, wait=0)
    assert (tmp_path / 'file.gz').read_bytes() == CONTENT


@pytest.mark.parametrize('part', [CONTENT, CONTENT + b'more'], ids=['whole', 'too long'])
def test_download_of_a_part_that_needs_no_more_bytes(server, tmp_path, part):
    (tmp_path / 'file.gz.part').write_bytes(part)
    download(server.url, tmp_path / 'file.gz', checksum=DIGEST, wait=0)
    assert (tmp_path / 'file.gz').read_bytes() == CONTENT
    assert len(server.ranges) == (1 if part == CONTENT else 2)


def test_download_checks_the_checksum(server, tmp_path):
    with pytest.raises(ValueError, match=rf"sha256 of '{server.url}' needs to be {'0' * 64} \(got {DIGEST}\)"):
        download(server.url, tmp_path / 'file.gz', checksum='0' * 64)
    assert list(tmp_path.iterdir()) == []


def test_download_errors(server, tmp_path):
    server.mode = 'missing'
    with pytest.raises(ConnectionError, match=r'404: Not Found\).*put it into'):
        download(server.url, tmp_path / 'file.gz')
    assert len(server.ranges) == 1  # not worth a retry
    with pytest.raises(ConnectionError, match=r"can't download 'http://127.0.0.1:9/x' \(.*refused"):
        download('http://127.0.0.1:9/x', tmp_path / 'x', retries=1, wait=0)
    with pytest.raises(ValueError, match=r"'url' needs to start with 'http://' or 'https://' \(got 'file:///etc/x'\)"):
        download('file:///etc/x', tmp_path / 'x')


def break_off(server, path, etag='"1"'):
    r"""Leaves the first 400,000 bytes of a file with that tag."""
    server.mode, server.etag = 'breaks', etag
    with pytest.raises(ConnectionError, match='400000 of 1048576 bytes came'):
        download(server.url, path, progress=False, retries=0)
    server.mode, server.ranges, server.validators = '', [], []


@pytest.mark.parametrize('changed', [False, True])
def test_a_file_that_changed_in_between_is_begun_again(server, tmp_path, changed):
    path = tmp_path / 'file.gz'
    break_off(server, path)
    if changed:
        server.content, server.etag = CONTENT[::-1], '"2"'
    download(server.url, path, progress=False)
    assert path.read_bytes() == server.content
    assert server.ranges == ['bytes=400000-'] and server.validators == ['"1"']
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('etag', [None, 'W/"1"'])
def test_what_may_be_another_file_is_begun_again(server, tmp_path, etag):
    break_off(server, tmp_path / 'file.gz', etag)
    server.content = CONTENT[::-1]
    download(server.url, tmp_path / 'file.gz', progress=False)
    assert (tmp_path / 'file.gz').read_bytes() == server.content
    assert server.ranges == [None]


def test_a_part_of_another_address_is_begun_again(server, tmp_path):
    break_off(server, tmp_path / 'file.gz')
    download(server.url + '?other', tmp_path / 'file.gz', progress=False)
    assert server.ranges == [None]


@pytest.mark.parametrize(
    ('mode', 'ranges'),
    [
        ('shorter', ['bytes=400000-', 'bytes=700000-', 'bytes=1000000-']),
        ('elsewhere', ['bytes=400000-', None]),
        ('no content range', ['bytes=400000-', None]),
        ('no ranges', ['bytes=400000-']),
    ],
)
@pytest.mark.parametrize('checksum', [None, DIGEST])
def test_answers_to_resumed_requests(server, tmp_path, mode, ranges, checksum):
    break_off(server, tmp_path / 'file.gz')
    server.mode = mode
    download(server.url, tmp_path / 'file.gz', checksum=checksum, progress=False, wait=0)
    assert (tmp_path / 'file.gz').read_bytes() == CONTENT
    assert server.ranges == ranges


def test_a_tag_that_changed_in_an_answer(server, tmp_path):
    break_off(server, tmp_path / 'file.gz')
    server.mode, server.etag = 'shorter', '"2"'  # it does not heed If-Range
    download(server.url, tmp_path / 'file.gz', progress=False, wait=0)
    assert (tmp_path / 'file.gz').read_bytes() == CONTENT
    assert server.ranges == ['bytes=400000-', None]


@pytest.mark.parametrize('part', [b'stale' * 1000, bytes(len(CONTENT)), bytes(2 * len(CONTENT))])
@pytest.mark.parametrize('checksum', [None, DIGEST])
def test_a_stale_part_is_no_part_of_the_file(server, tmp_path, part, checksum):
    (tmp_path / 'file.gz.part').write_bytes(part)
    download(server.url, tmp_path / 'file.gz', checksum=checksum, progress=False, wait=0)
    assert (tmp_path / 'file.gz').read_bytes() == CONTENT


@pytest.mark.parametrize('place', ['ftp://127.0.0.1/x', 'file:///etc/passwd', 'data:,x'])
def test_redirects_to_other_schemes(server, tmp_path, place):
    server.mode = f'redirect {place}'
    with pytest.raises(ConnectionError, match=re.escape(place)):
        download(server.url, tmp_path / 'file.gz', progress=False, wait=0)
    assert list(tmp_path.iterdir()) == [] and len(server.ranges) == 1


def test_redirects_to_what_is_not_encrypted():
    handler, request = _download._Redirects(), urllib.request.Request('https://127.0.0.1/x')
    with pytest.raises(urllib.error.HTTPError, match='which is not https://'):
        handler.redirect_request(request, None, 302, 'Found', {}, 'http://127.0.0.1/x')
    assert handler.redirect_request(request, None, 302, 'Found', {}, 'https://127.0.0.1/y').full_url.endswith('/y')


def test_two_at_one_file(server, tmp_path):
    paths = [tmp_path / 'file.gz'] * 6
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda path: download(server.url, path, checksum=DIGEST, progress=False), paths))
    assert paths[0].read_bytes() == CONTENT and len(server.ranges) == 1
    assert list(tmp_path.iterdir()) == paths[:1]


def test_a_silent_server(server, tmp_path):
    server.mode = 'silent'
    with pytest.raises(ConnectionError, match='timed out'):
        download(server.url, tmp_path / 'file.gz', progress=False, retries=0, timeout=0.1)


def test_certificates_are_verified(tmp_path):
    if shutil.which('openssl') is None:
        pytest.skip('needs openssl')
    subprocess.run(
        ['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '9',
         '-keyout', 'key.pem', '-out', 'cert.pem', '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / 'cert.pem', tmp_path / 'key.pem')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.mode, server.ranges, server.validators, server.content, server.etag = '', [], [], CONTENT, None
    server.handle_error = lambda *args: None
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    try:
        with pytest.raises(ConnectionError, match='CERTIFICATE_VERIFY_FAILED'):
            download(f'https://127.0.0.1:{server.server_address[1]}/x', tmp_path / 'x', progress=False)
        assert server.ranges == [] and not (tmp_path / 'x').exists()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_no_room(server, tmp_path):
    resource = pytest.importorskip('resource')
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, limits[1]))
    server.etag = '"1"'
    try:
        with pytest.raises(OSError, match=r"file.gz.part' was not written, .* \(File too large"):
            download(server.url, tmp_path / 'file.gz', progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    download(server.url, tmp_path / 'file.gz', progress=False)  # goes on
    assert (tmp_path / 'file.gz').read_bytes() == CONTENT and server.ranges[1] == f'bytes={1 << 19}-'
