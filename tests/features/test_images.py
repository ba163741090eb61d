import numpy as np
import pandas as pd
import pytest

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


def test_an_image_that_arrives_later_is_encoded(pictures, tmp_path):
    kwargs = {'root': pictures, 'progress': False}
    first = encode_images(PATHS, mean_color, tmp_path / 'out', **kwargs)
    Image.new('RGB', (5, 5), (0, 0, 255)).save(pictures / 'nowhere.png')
    out = encode_images(PATHS, mean_color, tmp_path / 'out', **kwargs)
    assert not first.has[5] and out.has[5]
    assert out.x[5].tolist() == [0, 0, 255]
    assert out.manifest['unreadable'] == 2


def test_an_image_whose_decoder_fails_is_unreadable(tmp_path, monkeypatch):
    def decode(self):
        raise RuntimeError('Failed to decode frame 0')  # as Pillow does for some damaged AVIF files

    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    Image.new('RGB', (8, 8)).save(tmp_path / 'b.bmp')
    monkeypatch.setattr('PIL.BmpImagePlugin.BmpImageFile.load', decode)
    out = encode_images(['a.png', 'b.bmp'], mean_color, tmp_path / 'out', root=tmp_path, progress=False)
    assert out.has.tolist() == [True, False]
    assert 'RuntimeError' in out.manifest['unreadable_examples'][0]


@pytest.mark.parametrize(('name', 'dtype'), [('a.png', '<u2'), ('a.tiff', '<u2'), ('a.tiff', '>u2'), ('a.tiff', '<i4')])
def test_grey_of_16_bits_is_scaled(tmp_path, name, dtype):
    values = np.array([[0, 257, 128 * 257], [65535, 65535 - 257, 30000]])
    Image.fromarray(values.astype(dtype)).save(tmp_path / name)
    assert Image.open(tmp_path / name).mode in ('I', 'I;16', 'I;16B')
    out = encode_images([name], lambda images: np.asarray(images[0])[..., 0].reshape(1, -1), tmp_path / 'out',
                        root=tmp_path, progress=False)  # fmt: skip
    assert out.x.tolist() == [[0, 1, 128, 255, 254, 117]]


@pytest.mark.parametrize('value', [-1, 65536])
def test_grey_beyond_16_bits_is_unreadable(tmp_path, value):
    Image.new('I', (2, 2), value).save(tmp_path / 'a.tiff')
    with pytest.raises(ValueError, match=f'values from {value} to {value}, beyond 16 bits'):
        encode_images(['a.tiff'], mean_color, tmp_path / 'out', root=tmp_path, progress=False)


@pytest.mark.parametrize('job', [encode_images, caption_images])
@pytest.mark.parametrize('value', [float('nan'), pd.NA, 3])
def test_refuses_what_is_no_path(tmp_path, job, value):
    with pytest.raises(ValueError, match=rf"'paths' needs to hold paths and None \(got {value!r} in row 1\)"):
        job(pd.Series(['red.png', value], dtype=object), mean_color, tmp_path, progress=False)
