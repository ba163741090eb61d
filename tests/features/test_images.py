import os

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


@pytest.mark.parametrize('error', [RuntimeError, EOFError, ZeroDivisionError, MemoryError, KeyError, AssertionError])
def test_an_image_whose_decoder_fails_is_unreadable(tmp_path, monkeypatch, error):
    def decode(self):
        raise error('Failed to decode frame 0')  # as Pillow does for some damaged AVIF files

    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    Image.new('RGB', (8, 8)).save(tmp_path / 'b.bmp')
    monkeypatch.setattr('PIL.BmpImagePlugin.BmpImageFile.load', decode)
    out = encode_images(['a.png', 'b.bmp'], mean_color, tmp_path / 'out', root=tmp_path, progress=False)
    assert out.has.tolist() == [True, False]
    assert error.__name__ in out.manifest['unreadable_examples'][0]


def seen(paths, folder, **kwargs):
    r"""Returns the pixels that an encoder and a captioner are given of each image, and what is said of the others."""
    found = []

    def encoder(images):
        found.extend(np.asarray(image).tolist() for image in images)
        return np.ones((len(images), 1))

    out = encode_images([None, *paths], encoder, folder, progress=False, **kwargs)
    images, found = found, []
    kwargs = {'batch_size': 1, 'progress': False, **kwargs}
    captions = caption_images([None, *paths], lambda images: [f'{encoder(images)}'], folder, **kwargs)
    assert found == images
    counts = ('missing', 'unreadable', 'unreadable_examples', 'blank')
    assert [captions.manifest[name] for name in counts] == [out.manifest[name] for name in counts]
    return images, out.manifest


def some(path, pixels, **kwargs):
    Image.fromarray(np.array(pixels, dtype=np.uint8)).save(path, **kwargs)
    return path


@pytest.mark.parametrize('suffix', ['png', 'tiff', 'webp'])
def test_a_picture_is_turned_as_it_is_shown(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    flips = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.swapaxes(0, 1),
        6: pixels.swapaxes(0, 1)[::-1], 7: pixels[::-1, ::-1].swapaxes(0, 1), 8: pixels.swapaxes(0, 1)[:, ::-1],
    }  # fmt: skip
    paths = []
    for orientation, stored in flips.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        paths.append(some(tmp_path / f'{orientation}.{suffix}', stored, exif=exif, lossless=True))
    images, _ = seen(paths, tmp_path / 'out')
    assert images == [pixels.tolist()] * 8


def test_exif_that_is_broken_does_not_matter(tmp_path):
    path = some(tmp_path / 'a.png', [[1, 2]], exif=b'Exif\x00\x00MM\x00*\x00\x00\xff\xff broken')
    images, manifest = seen([path], tmp_path / 'out')
    assert images == [[[[1] * 3, [2] * 3]]] and manifest['unreadable'] == 0


def test_what_is_transparent_is_white_whatever_is_hidden_under_it(tmp_path):
    shoe, hat = np.zeros((2, 2, 2, 4), dtype=np.uint8)
    shoe[1, :, 3] = hat[0, :, 3] = 255
    hidden = shoe.copy()
    hidden[0, :, :3] = 77
    half = np.array([[[0, 0, 0, 128], [255, 0, 0, 0]]])
    paths = [some(tmp_path / f'{i}.png', pixels) for i, pixels in enumerate([shoe, hat, hidden, half])]
    paths.append(some(tmp_path / 'grey.png', [[9, 8]], transparency=8))
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), 'L').convert('P')
    palette.putpalette([10, 20, 30, 40, 50, 60])
    for name in ('palette.png', 'palette.gif'):
        palette.save(tmp_path / name, transparency=1)
        paths.append(tmp_path / name)
    Image.fromarray(np.array([[257, 514]], dtype='<u2')).save(tmp_path / '16.png', transparency=514)
    images, _ = seen([*paths, tmp_path / '16.png'], tmp_path / 'out')
    white, black = [255] * 3, [0] * 3
    assert images[0] == images[2] == [[white] * 2, [black] * 2]
    assert images[1] == [[black] * 2, [white] * 2]
    assert images[3] == [[[127] * 3, white]]
    assert images[4] == [[[9] * 3, white]]
    assert images[5] == images[6] == [[[10, 20, 30], white]]
    assert images[7][0][1] == white or 'transparency' not in Image.open(tmp_path / '16.png').info


@pytest.mark.parametrize(
    ('dtype', 'values', 'expected'),
    [
        ('<f4', [0, 0.5, 1], [0, 128, 255]),
        ('<f4', [0, 128, 255], [0, 128, 255]),
        ('<i4', [0, 128, 255], [0, 128, 255]),
        ('<i4', [0, 257, 65535], [0, 1, 255]),
        ('<f4', [0, 1, 256], None),
        ('<f4', [-0.1, 0, 1], None),
        ('<f4', [0, 1, float('nan')], None),
    ],
)
def test_numbers_of_a_tiff_are_what_they_look_like(tmp_path, dtype, values, expected):
    Image.fromarray(np.array([values], dtype=dtype)).save(tmp_path / 'a.tiff')
    images, manifest = seen([tmp_path / 'a.tiff', some(tmp_path / 'b.png', [[1, 2]])], tmp_path / 'out')
    assert images[:-1] == ([] if expected is None else [[[[value] * 3 for value in expected]]])
    assert manifest['unreadable'] == (expected is None)


def test_only_pictures_are_opened_and_no_program_runs(tmp_path, monkeypatch):
    def run(*args, **kwargs):
        raise AssertionError('a program was started')

    monkeypatch.setattr('subprocess.Popen', run)
    monkeypatch.setattr('PIL.EpsImagePlugin.Ghostscript', run)
    Image.init()
    monkeypatch.setattr('PIL.Image.EXTENSION', dict(Image.EXTENSION))  # SPIDER keeps the name '.jpg' for itself
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    paths = []
    for kind in ('EPS', 'SPIDER', 'PCX', 'TGA', 'PDF', 'XBM'):
        paths.append(tmp_path / f'{kind}.jpg')
        picture.convert('1' if kind == 'XBM' else 'F' if kind == 'SPIDER' else 'L').save(paths[-1], kind)
    for number, content in enumerate([b'%!PS-Adobe-3.0 showpage', b'\xd7\xcd\xc6\x9a' + bytes(40), b'', bytes(1024)]):
        paths.append(tmp_path / f'{number}.png')
        paths[-1].write_bytes(content)
    picture.save(tmp_path / 'picture.eps', 'PNG')  # its content counts
    images, manifest = seen([*paths, tmp_path / 'picture.eps'], tmp_path / 'out')
    assert (len(images), manifest['unreadable']) == (1, len(paths))


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs pipes')
def test_only_regular_files_are_opened(tmp_path):
    (tmp_path / 'folder.png').mkdir()
    os.mkfifo(tmp_path / 'pipe.png')
    (tmp_path / 'device.png').symlink_to('/dev/zero')
    (tmp_path / 'loop.png').symlink_to(tmp_path / 'loop.png')
    (tmp_path / 'link.png').symlink_to(some(tmp_path / 'a.png', [[1, 2]]))
    names = ['folder.png', 'pipe.png', 'device.png', 'loop.png', 'a\0.png', 'a' * 300, 'link.png']
    images, manifest = seen([tmp_path / name for name in names], tmp_path / 'out')
    assert (len(images), manifest['unreadable'], manifest['missing']) == (1, 6, 1)
    assert all('no regular file' in text for text in manifest['unreadable_examples'][:3])


def test_images_of_one_colour_are_counted_and_masked_if_asked(tmp_path):
    pixels = [[[[1, 2, 3]]], [[[255] * 3] * 4] * 4, [[[0] * 3, [1] * 3]], [[[255, 255, 255, 9], [0, 0, 0, 0]]]]
    paths = [some(tmp_path / f'{i}.png', image) for i, image in enumerate(pixels)]
    (tmp_path / 'broken.png').touch()
    paths.append(tmp_path / 'broken.png')
    images, manifest = seen(paths, tmp_path / 'out')
    assert len(images) == 4 and (manifest['blank'], manifest['missing'], manifest['unreadable']) == (3, 1, 1)
    images, manifest = seen(paths, tmp_path / 'out', mask_blank=True)
    assert len(images) == 1 and (manifest['blank'], manifest['missing'], manifest['unreadable']) == (3, 1, 1)
    out = encode_images(paths, mean_color, tmp_path / 'out', mask_blank=True, progress=False)
    assert out.has.tolist() == [False, False, True, False, False]


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


@pytest.mark.parametrize('job', [encode_images, caption_images])
def test_refuses_one_path_for_many(tmp_path, job):
    for paths in ('red.png', tmp_path / 'red.png', {'red.png'}, {'red.png': 1}, pd.DataFrame({'a': ['red.png']})):
        with pytest.raises(ValueError, match="'paths' needs to be a sequence with an entry for each item"):
            job(paths, mean_color, tmp_path, progress=False)
