import numpy as np
import pytest

from lirdrec_pyg.features import encode_images

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


def test_an_image_that_arrives_later_is_encoded(pictures, tmp_path):
    kwargs = {'root': pictures, 'progress': False}
    first = encode_images(PATHS, mean_color, tmp_path / 'out', **kwargs)
    Image.new('RGB', (5, 5), (0, 0, 255)).save(pictures / 'nowhere.png')
    out = encode_images(PATHS, mean_color, tmp_path / 'out', **kwargs)
    assert not first.has[5] and out.has[5]
    assert out.x[5].tolist() == [0, 0, 255]
    assert out.manifest['unreadable'] == 2
