import hashlib
import http.server
import re
import threading

import pytest

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
        if requested and server.mode != 'no ranges':
            start = int(re.fullmatch(r'bytes=(\d+)-', requested)[1])
            if start >= len(CONTENT):
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(CONTENT)}')
                self.send_header('Content-Length', '0')
                return self.end_headers()
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}')
        else:
            self.send_response(200)
        if server.mode != 'no length':
            self.send_header('Content-Length', str(len(CONTENT) - start))
        self.end_headers()
        end = start + 400_000 if server.mode == 'breaks' else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.mode, server.ranges = '', []
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
