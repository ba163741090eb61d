import json
import os

import pytest
import torch

from lirdrec_pyg.features import caption_images, encode_texts

Image = pytest.importorskip('PIL.Image')
REDS = [10, 20, None, 30, -1, 40, 50, 60]  # None: no path; -1: a file that is no image


class Reader:
    r"""Writes down how red an image is."""

    name, settings = 'reader', {'prompt': 'How red is it?'}

    def __init__(self, fail_at=None):
        self.calls, self.fail_at = [], fail_at

    def __call__(self, images):
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append(len(images))
        return [f' red {image.getpixel((0, 0))[0]} ' for image in images]


@pytest.fixture
def paths(tmp_path):
    out = []
    for number, red in enumerate(REDS):
        out.append(None if red is None else tmp_path / f'{number}.png')
        if red == -1:
            out[-1].write_text('not an image')
        elif red is not None:
            Image.new('RGB', (8, 8), (red, 0, 0)).save(out[-1])
    return out


EXPECTED = [f'red {red}' if red and red > 0 else None for red in REDS]


@pytest.mark.parametrize('shard_size', [3, 2])
def test_a_job_that_dies_goes_on_in_the_same_order(paths, tmp_path, shard_size):
    kwargs = {'batch_size': 2, 'progress': False, 'ids': list('abcdefgh')}
    with pytest.raises(KeyboardInterrupt):
        caption_images(paths, Reader(fail_at=1), tmp_path / 'out', shard_size=3, **kwargs)
    assert not (tmp_path / 'out' / 'caption_texts.json').exists()
    reader = Reader()
    if shard_size == 3:
        out = caption_images(paths, reader, tmp_path / 'out', shard_size=3, **kwargs)
        assert reader.calls == [2, 2]  # the first piece was done
    else:  # pieces of another size do not fit
        with pytest.warns(UserWarning, match='holds pieces of another job'):
            out = caption_images(paths, reader, tmp_path / 'out', shard_size=2, **kwargs)
        assert sum(reader.calls) == 6
    assert out.texts == EXPECTED
    assert json.loads(out.path.read_text()) == out.texts
    assert sorted(os.listdir(tmp_path / 'out')) == ['caption_texts.json', 'caption_texts_manifest.json']


def test_manifest_and_what_is_done_is_not_done_again(paths, tmp_path):
    out = caption_images(paths, Reader(), tmp_path / 'out', progress=False)
    assert out.manifest == json.loads((tmp_path / 'out' / 'caption_texts_manifest.json').read_text())
    assert (out.manifest['encoder'], out.manifest['prompt']) == ('reader', 'How red is it?')
    assert (out.manifest['count'], out.manifest['missing'], out.manifest['unreadable']) == (8, 1, 1)
    assert out.manifest['unreadable_examples'][0].startswith('row 4: ')
    reader = Reader()
    assert caption_images(paths, reader, tmp_path / 'out', progress=False) == out
    assert reader.calls == []
    reader.settings = {'prompt': 'And now?'}
    caption_images(paths, reader, tmp_path / 'out', progress=False)
    assert reader.calls == [6]
    caption_images(paths, reader, tmp_path / 'out', resume=False, progress=False)
    assert reader.calls == [6, 6]


def test_captions_become_features(paths, tmp_path):
    texts = caption_images(paths, Reader(), tmp_path / 'out', progress=False).texts
    out = encode_texts(
        texts, lambda batch: torch.tensor([[float(text.split()[1])] for text in batch]), tmp_path / 'out', 'caption',
        progress=False,
    )  # fmt: skip
    assert out.x.flatten().tolist() == [10, 20, 0, 30, 0, 40, 50, 60]
    assert out.has.tolist() == [text is not None for text in EXPECTED]
    assert out.path.name == 'caption_feat.npy'


def test_an_empty_caption_is_none_and_half_a_character_is_marked(paths, tmp_path):
    def captioner(images):
        return [' ', '\u200b', 'a \ud83d cup', '\ud83d\ude00', 'x', 'y']

    out = caption_images(paths, captioner, tmp_path / 'out', progress=False)
    assert out.texts == [None, None, None, 'a \ufffd cup', None, '\U0001f600', 'x', 'y']
    assert out.texts == json.loads(out.path.read_text(encoding='utf-8'))
    assert (out.manifest['missing'], out.manifest['unreadable']) == (3, 1)


def test_refuses(paths, tmp_path):
    for captioner, kwargs, message in [
        (lambda images: [], {}, r"'captioner' needs to return a text for each of 6 images \(got 0\)"),
        (Reader(), {'batch_size': 0}, r"'batch_size' need to be positive \(got 8 and 0\)"),
        (lambda images: 'abcdef', {}, r"'captioner' needs to return a text for each of 6 images \(got 'abcdef'\)"),
        (lambda images: [None] * 6, {}, r"'captioner' needs to return strings \(got None\)"),
        (Reader(), {'name': '../caption'}, "'name' needs to be a name"),
        (Reader(), {'ids': ['a']}, r"'ids' needs to name each of the 8 inputs \(got 1\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            caption_images(paths, captioner, tmp_path / 'out', progress=False, **kwargs)
