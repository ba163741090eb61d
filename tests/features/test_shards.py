r"""What is stored is given back only if it was made of the same by the same."""

import functools
import json
import os
import shutil
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lirdrec_pyg.features import caption_images, encode_images, encode_texts
from lirdrec_pyg.features._shards import probes

TEXTS = [f'{"abcdefg"[i % 7] * (i + 1)}{i}' for i in range(40)]
Image = pytest.importorskip('PIL.Image')


class Enc:
    r"""An encoder that says nothing of itself."""

    def __init__(self, letter='a', **more):
        self.letter, self.more = letter, more

    def __call__(self, texts):
        return torch.tensor([[float(text.count(self.letter)), float(len(text))] for text in texts])


class Model(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.lin = torch.nn.Linear(1, 2)
        torch.nn.init.constant_(self.lin.weight, weight)
        torch.nn.init.zeros_(self.lin.bias)

    def forward(self, texts):
        return self.lin(torch.tensor([[float(len(text))] for text in texts]))


def count(texts, letter, cut=1000):
    return torch.tensor([[float(text[:cut].count(letter)), 1.0] for text in texts])


class Holder:
    r"""An encoder that holds a function, so its attributes don't tell it."""

    def __init__(self, letter):
        self.function = lambda texts: count(texts, letter)

    def __call__(self, texts):
        return self.function(texts)


def encode(folder, encoder, texts=TEXTS, **kwargs):
    return encode_texts(texts, encoder, folder, **{'batch_size': 3, 'shard_size': 7, 'progress': False, **kwargs})


def lambda_(letter):
    return lambda texts: count(texts, letter)


PAIRS = [
    (Enc('a'), Enc('b')),
    (Enc(x=1), Enc(x=2)),
    (Model(1.0), Model(2.0)),
    (lambda_('a'), lambda_('b')),
    (functools.partial(count, letter='a'), functools.partial(count, letter='b')),
    (functools.partial(count, letter='c'), functools.partial(count, letter='c', cut=3)),
    (Enc('a').__call__, Enc('b').__call__),
    (Holder('a'), Holder('b')),
]


@pytest.mark.filterwarnings('ignore:.*(gives other results|holds pieces)')
@pytest.mark.parametrize(('first', 'second'), PAIRS)
@pytest.mark.parametrize('half', [False, True])
def test_another_encoder_computes_again(tmp_path, first, second, half):
    for encoder in (first, second, first):
        out = encode(tmp_path, encoder, half=half)
        assert torch.equal(out.x, encoder(TEXTS).detach())
        assert torch.equal(torch.from_numpy(np.load(out.path)).float(), out.x)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            state = os.stat(out.path)
            assert torch.equal(encode(tmp_path, encoder, half=half).x, out.x)
            assert os.stat(out.path) == state


@pytest.mark.filterwarnings('ignore:.*holds pieces')
@pytest.mark.parametrize(('first', 'second'), PAIRS)
def test_another_encoder_goes_on_with_no_pieces(tmp_path, first, second):
    class Stop(Exception):
        pass

    def start(encoder):
        calls = []

        @functools.wraps(encoder)
        def stopping(texts):
            calls.append(texts)
            if len(calls) > 8:
                raise Stop
            return encoder(texts)

        return stopping

    with pytest.raises(Stop):
        encode(tmp_path, start(lambda_('a')))
    assert list((tmp_path / '.text_shards').glob('*.pt'))
    with pytest.warns(UserWarning, match='gives other results than those in'):
        out = encode(tmp_path, start_like(second))
    assert torch.equal(out.x, second(TEXTS).detach())


def start_like(encoder):
    r"""Returns a function of the same name as that of the job that died."""

    @functools.wraps(lambda_('a'))
    def function(texts):
        return encoder(texts)

    return function


def test_a_warning_tells_of_another_function(tmp_path):
    encode(tmp_path, lambda_('a'))
    with pytest.warns(UserWarning, match=r"'encoder' gives other results than those in '.*text_feat.npy': all is"):
        encode(tmp_path, lambda_('b'))


def test_a_function_is_asked_for_few_texts(tmp_path):
    seen = []

    def encoder(texts):
        seen.extend(texts)
        return count(texts, 'a')

    encode(tmp_path, encoder)
    assert len(seen) == len(TEXTS)
    seen.clear()
    encode(tmp_path, encoder)
    assert len(seen) <= 10 and TEXTS[-1] in seen


def test_noise_between_batches_is_the_same_encoder(tmp_path):
    def noisy(texts):
        return count(texts, 'a') * (1 + 1e-3 * len(texts)) + 1

    first = encode(tmp_path, noisy)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert torch.equal(encode(tmp_path, noisy).x, first.x)


def test_an_encoder_that_never_gives_the_same_computes_again(tmp_path):
    calls = iter(range(100_000))

    def wavers(texts):
        return torch.tensor([[float(next(calls) % 97), 1.0] for _ in texts])

    encode(tmp_path, wavers)
    with pytest.warns(UserWarning, match='gives other results'):
        encode(tmp_path, wavers)


def test_the_code_of_an_encoder_counts(tmp_path):
    def make(power):
        class Power:
            def __call__(self, texts):
                return torch.tensor([[float(len(text)) ** power] for text in texts])

        return Power()

    for power in (1, 2):
        assert torch.equal(encode(tmp_path, make(power)).x, make(power)(TEXTS))


def test_what_an_encoder_says_of_itself_is_what_counts(tmp_path):
    class Named(Enc):
        name, settings = 'named', {'letter': 'a'}

    first = encode(tmp_path, Named('a'))
    assert torch.equal(encode(tmp_path, Named('a', loaded=object())).x, first.x)
    Named.settings = {'letter': 'b'}
    assert not torch.equal(encode(tmp_path, Named('b')).x, first.x)
    Named.settings = {'odd': object}
    assert json.loads((tmp_path / 'text_manifest.json').read_text())['letter'] == 'b'


def test_probes_are_spread_and_have_the_longest():
    inputs = ['a'] * 50
    inputs[13] = 'long'
    assert probes(range(50), inputs, 8)[0] == 0
    assert {13} < set(probes(range(50), inputs, 8))
    assert len(probes(range(50), inputs, 8)) <= 8
    assert probes([3], inputs, 8) == [3]
    assert probes([], inputs, 8) == []


def test_a_damaged_manifest_or_piece_is_made_again(tmp_path):
    first = encode(tmp_path, Enc())
    for content in (b'', b'{', b'[]', b'\xff\xfe', b'{"key": 1}'):
        (tmp_path / 'text_manifest.json').write_bytes(content)
        assert torch.equal(encode(tmp_path, Enc()).x, first.x)

    class Stops(Enc):
        name, revision = 'stops', '1'
        left = 4

        def __call__(self, texts):
            Stops.left -= 1
            if Stops.left < 0:
                raise KeyboardInterrupt
            return super().__call__(texts)

    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path, Stops())
    (piece,) = (tmp_path / '.text_shards').glob('*.pt')
    content = piece.read_bytes()
    for damaged in (b'', b'text', content[:100], content[:-1], content.replace(b'\x80?', b'\x00?')):
        piece.write_bytes(damaged)
        Stops.left = 4
        with pytest.raises(KeyboardInterrupt):
            encode(tmp_path, Stops())
        assert piece.read_bytes()[-100:] == content[-100:] and len(piece.read_bytes()) == len(content)
    Stops.left = 100
    assert torch.equal(encode(tmp_path, Stops()).x, first.x)


@pytest.mark.parametrize('job', ['encode', 'caption'])
def test_an_image_that_changed_within_its_time_stamp_is_noticed(tmp_path, job):
    path = tmp_path / 'a.bmp'  # its size does not depend on the content
    for red in (10, 20, 30):
        state = path.stat() if path.exists() else None
        Image.new('RGB', (4, 4), (red, 0, 0)).save(path)
        if state:
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
            assert path.stat().st_size == state.st_size
        if job == 'encode':
            out = encode_images([path], Red(), tmp_path / 'out', progress=False).x.tolist()
            assert out == [[red]]
        else:
            assert caption_images([path], Red(text=True), tmp_path / 'out', progress=False).texts == [f'{red}']


class Red:
    def __init__(self, text=False):
        self.text = text

    def __call__(self, images):
        reds = [image.getpixel((0, 0))[0] for image in images]
        return list(map(str, reds)) if self.text else np.array(reds, dtype=float)[:, None]


@pytest.mark.filterwarnings('ignore:.*(gives other results|holds pieces)')
def test_another_captioner_computes_again(tmp_path):
    paths = []
    for red in range(1, 10):
        paths.append(tmp_path / f'{red}.png')
        Image.new('RGB', (4, 4), (red, 0, 0)).save(paths[-1])
    kwargs = {'folder': tmp_path / 'out', 'batch_size': 2, 'shard_size': 4, 'progress': False}

    def make(prompt, stop=100):
        calls = []

        def captioner(images):
            calls.append(images)
            if len(calls) > stop:
                raise KeyboardInterrupt
            return [f'{prompt} {image.getpixel((0, 0))[0]}' for image in images]

        return captioner

    for prompt in ('a', 'b'):
        out = caption_images(paths, make(prompt), **kwargs)
        assert out.texts == [f'{prompt} {red}' for red in range(1, 10)]
    with pytest.raises(KeyboardInterrupt):
        caption_images(paths[:-1], make('c', stop=3), **kwargs)
    out = caption_images(paths[:-1], make('d'), **kwargs)
    assert out.texts == [f'd {red}' for red in range(1, 9)]
    state = os.stat(out.path)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert caption_images(paths[:-1], make('d'), **kwargs) == out
    assert os.stat(out.path) == state


def test_features_are_written_without_a_memory_map(tmp_path, monkeypatch):
    r"""A full disk is an error, and no signal that kills the process."""
    monkeypatch.delattr(np.lib.format, 'open_memmap')
    x = encode(tmp_path, Enc()).x
    assert np.load(Path(tmp_path) / 'text_feat.npy').tolist() == x.tolist()


class Slow(Enc):
    r"""Stops after some calls, so that pieces are left."""

    name, revision = 'slow', '1'

    def __init__(self, stop=100):
        self.stop, self.calls = stop, 0

    def __call__(self, texts):
        self.calls += 1
        if self.calls > self.stop:
            raise KeyboardInterrupt
        if isinstance(texts[0], str):
            return torch.tensor([[float(text.count('a')), float(len(text))] for text in texts])
        return [f'{image.getpixel((0, 0))[0]}' for image in texts]


def damaged(content, rng):
    r"""Yields a content with a bit changed, cut short, made longer, and of other kinds."""
    for place in rng.integers(0, len(content), 40).tolist():
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        yield bytes(changed)
    yield from (content[:place] for place in rng.integers(0, len(content), 8).tolist())
    yield from (content + b' ', b'', b'[' * 100_000, b'null', b'{"key": NaN}', b'\xff\xfe', b'PK\x03\x04' + bytes(90))


@pytest.mark.filterwarnings('ignore:.*holds pieces')
@pytest.mark.parametrize('job', ['encode', 'caption'])
def test_any_change_of_any_file_is_noticed(tmp_path, job):
    paths = []
    for red in range(1, 9):
        paths.append(tmp_path / f'{red}.bmp')
        Image.new('RGB', (2, 2), (red, 0, 0)).save(paths[-1])
    folder, whole, parts = tmp_path / 'out', tmp_path / 'whole', tmp_path / 'parts'

    def run(encoder):
        kwargs = {'batch_size': 2, 'shard_size': 4, 'progress': False}
        if job == 'encode':
            out = encode_texts(['a', 'bab', None, *TEXTS[:5]], encoder, folder, **kwargs)
            return out.x.tolist(), out.has.tolist(), out.manifest
        out = caption_images(paths, encoder, folder, **kwargs)
        return out.texts, out.manifest

    with pytest.raises(KeyboardInterrupt):
        run(Slow(stop=3))
    shutil.copytree(folder, parts)
    expected = run(Slow())
    shutil.copytree(folder, whole)
    rng = np.random.default_rng(0)
    for source in (whole, parts):
        for path in sorted(path for path in source.rglob('*') if path.is_file()):
            for content in damaged(path.read_bytes(), rng):
                shutil.rmtree(folder)
                shutil.copytree(source, folder)
                (folder / path.relative_to(source)).write_bytes(content)
                encoder = Slow()
                assert run(encoder) == expected
                assert encoder.calls >= (4 if source == whole else 3)
                assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
                    file.name: file.read_bytes() for file in whole.iterdir()
                }


@pytest.mark.filterwarnings('ignore:.*holds pieces')
def test_pieces_of_others_are_not_taken(tmp_path):
    for folder, texts in [('one', TEXTS), ('two', TEXTS[::-1])]:
        with pytest.raises(KeyboardInterrupt):
            encode(tmp_path / folder, Slow(stop=8), texts=texts)
    one, two = (sorted((tmp_path / folder / '.text_shards').glob('*.pt')) for folder in ('one', 'two'))
    shutil.copy(two[0], one[0])  # of another job
    shutil.copy(one[1], one[1].with_name('000002.pt'))  # of other rows
    assert torch.equal(encode(tmp_path / 'one', Slow()).x, Slow()(TEXTS))


@pytest.mark.filterwarnings('ignore:.*holds pieces')
def test_two_jobs_in_one_folder_take_turns(tmp_path):
    outs, told = {}, []

    class Waits(Enc):
        name = 'waits'

        def __init__(self, letter):
            super().__init__(letter)
            self.settings, self.first = {'letter': letter}, True

        def __call__(self, texts):
            if self.first:
                self.first = False
                started.set()
                go.wait(10)
            return super().__call__(texts)

    def work(letter):
        outs[letter] = encode(tmp_path, Waits(letter)).x

    started, go = threading.Event(), threading.Event()
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *args, **kwargs: (told.append(str(message)), go.set())
        warnings.simplefilter('always')
        threads = [threading.Thread(target=work, args=letter) for letter in 'ab']
        threads[0].start()
        started.wait(10)
        threads[1].start()
        for thread in threads:
            thread.join(20)
    assert any(f'process {os.getpid()} on ' in text and 'waits until that is done' in text for text in told)
    for letter in 'ab':
        assert torch.equal(outs[letter], Enc(letter)(TEXTS))
    assert torch.equal(torch.from_numpy(np.load(tmp_path / 'text_feat.npy')), outs['b'])
    assert sorted(os.listdir(tmp_path)) == ['text_feat.npy', 'text_manifest.json']


def test_no_room_is_an_error_that_says_what_was_not_written(tmp_path):
    resource = pytest.importorskip('resource')
    first = encode(tmp_path, Slow())
    texts, encoder = [f'{text} a' for text in TEXTS * 40], Slow(stop=10_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, hard))  # the pieces fit, the features don't
    try:
        with pytest.raises(OSError, match=r"'.*text_feat.npy' was not written, and what was there is whole"):
            encode(tmp_path, encoder, texts=texts, shard_size=400, batch_size=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert np.array_equal(np.load(first.path), first.x.numpy())
    calls = encoder.calls
    out = encode(tmp_path, encoder, texts=texts, shard_size=400, batch_size=100)
    assert encoder.calls == calls == 16  # what was computed is not lost
    assert torch.equal(out.x, encoder(texts))


def test_a_folder_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match=r"'.*file/out/.text_shards/key.txt' was not written, and what was there"):
        encode(tmp_path / 'file' / 'out', Slow())


def test_a_folder_that_is_removed_meanwhile_is_named(tmp_path):
    class Removes(Slow):
        def __call__(self, texts):
            if self.calls == 8:
                shutil.rmtree(tmp_path / 'out')
            return super().__call__(texts)

    with pytest.raises(OSError, match=r"'.*000000.pt' was changed or removed while the job ran: run it again"):
        encode(tmp_path / 'out', Removes())
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert torch.equal(encode(tmp_path / 'out', Slow()).x, Slow()(TEXTS))
