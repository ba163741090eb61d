import json

import numpy as np
import pytest
import torch

from lirdrec_pyg.features import caption_images, encode_images

Image = pytest.importorskip('PIL.Image')


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for name, color in [('red', (255, 0, 0)), ('green', (0, 255, 0)), ('grey', 128)]:
        Image.new('L' if name == 'grey' else 'RGB', (40, 30), color).save(folder / f'{name}.png')
    Image.effect_noise((64, 64), 50).save(folder / 'cut.jpg')
    (folder / 'cut.jpg').write_bytes((folder / 'cut.jpg').read_bytes()[:300])
    (folder / 'text.png').write_text('not an image')
    return folder


PATHS = ['red.png', None, 'cut.jpg', 'green.png', 'text.png', 'nowhere.png', 'grey.png', '']


def mean_color(images):
    assert all(image.mode == 'RGB' for image in images)
    return np.stack([np.asarray(image).mean(axis=(0, 1)) for image in images])


def test_unreadable_images_are_counted_and_masked(pictures, tmp_path):
    out = encode_images(PATHS, mean_color, tmp_path / 'out', root=pictures, shard_size=3, progress=False)
    assert out.has.tolist() == [True, False, False, True, False, False, True, False]
    assert out.x[0].tolist() == [255, 0, 0]
    assert out.x[6].tolist() == [128, 128, 128]
    assert not out.x[~out.has].any()  # zero, and no mean of others
    assert (out.manifest['missing'], out.manifest['unreadable']) == (2, 3)
    assert [example.partition(':')[0] for example in out.manifest['unreadable_examples']] == ['row 2', 'row 4', 'row 5']
    assert 'FileNotFoundError' in out.manifest['unreadable_examples'][2]
    assert out.manifest['encoder'] == 'mean_color'
    assert np.load(tmp_path / 'out' / 'image_mask.npy').tolist() == out.has.tolist()


def test_a_decompression_bomb_is_unreadable(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    with pytest.raises(ValueError, match='3 of them are unreadable'):
        encode_images(['red.png'] * 3, mean_color, tmp_path, root=pictures, progress=False)


def test_captions_resume_and_become_features(pictures, tmp_path):
    calls = []

    def captioner(images):
        calls.append(len(images))
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        return [f' {"red" if image.getpixel((0, 0))[0] > 200 else "other"} thing ' for image in images]

    fail_at = 2
    kwargs = {'root': pictures, 'shard_size': 2, 'progress': False, 'ids': list('abcdefgh')}
    with pytest.raises(KeyboardInterrupt):
        caption_images(PATHS, captioner, tmp_path / 'out', **kwargs)
    fail_at = 0
    calls.clear()
    out = caption_images(PATHS, captioner, tmp_path / 'out', **kwargs)
    assert calls == [1, 1]  # the first piece was done
    assert out.texts == ['red thing', None, None, 'other thing', None, None, 'other thing', None]
    assert json.loads(out.path.read_text()) == out.texts
    assert (out.manifest['missing'], out.manifest['unreadable']) == (2, 3)
    from lirdrec_pyg.features import encode_texts

    features = encode_texts(
        out.texts, lambda texts: torch.tensor([[float(len(text))] for text in texts]), tmp_path / 'out', 'caption',
        progress=False,
    )  # fmt: skip
    assert features.has.tolist() == [True, False, False, True, False, False, True, False]
    assert (tmp_path / 'out' / 'caption_feat.npy').is_file()
    with pytest.raises(ValueError, match="'captioner' needs to return a text for each of 1 images \\(got 0\\)"):
        caption_images(['red.png'], lambda images: [], tmp_path / 'bad', root=pictures, progress=False)
