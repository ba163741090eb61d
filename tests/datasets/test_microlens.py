import gzip

import numpy as np
import pytest

from lirdrec_pyg.datasets import MicroLens
from lirdrec_pyg.typing import INTERACTS, ITEM, USER


def write(folder, suffix='tsv'):
    if suffix == 'tsv':
        (folder / 'toy_pairs.tsv').write_text('1\t10 2 3\n7\t3 2\n')
    else:
        (folder / 'toy_pairs.csv').write_text('userID,videoID,timestamp\n1,10,5\n1,2,6\n1,3,7\n7,3,1\n7,2,2\n')
    (folder / 'toy_titles.csv').write_text('item,title\n2,"two, # fun"\n10,ten\n11,nobody saw it\n')


@pytest.mark.parametrize('suffix', ['tsv', 'csv'])
def test_both_forms(tmp_path, suffix):
    write(tmp_path, suffix)
    data = MicroLens(str(tmp_path), 'toy')[0]
    assert data[USER].raw_id == ['1', '7']
    assert data[ITEM].raw_id == ['2', '3', '10', '11']
    assert data[ITEM].title == ['two, # fun', '', 'ten', 'nobody saw it']
    assert data[INTERACTS].edge_index.tolist() == [[0, 0, 0, 1, 1], [2, 0, 1, 1, 0]]
    assert data[INTERACTS].time.tolist() == ([0, 1, 2, 0, 1] if suffix == 'tsv' else [5, 6, 7, 1, 2])
    assert repr(MicroLens(str(tmp_path), 'toy')) == 'MicroLens(toy)'


def test_features_masks_covers_and_cache(tmp_path):
    write(tmp_path)
    (tmp_path / 'toy_covers').mkdir()
    (tmp_path / 'toy_covers' / '10.jpg').write_bytes(b'')
    path = tmp_path / 'image_feat.npy'
    np.save(path, np.ones((4, 3)))
    np.save(tmp_path / 'image_mask.npy', np.array([True, True, False, True]))
    dataset = MicroLens(str(tmp_path), 'toy', features={'image': str(path)})
    data = dataset[0]
    assert data[ITEM].has_image.tolist() == [True, True, False, True]
    assert data[ITEM].x_image[2].tolist() == [0, 0, 0]
    assert data[ITEM].image[2].endswith('10.jpg')
    assert data[ITEM].image[0] is None
    again = MicroLens(str(tmp_path), 'toy', features={'image': str(path)})
    assert again.processed_dir == dataset.processed_dir
    assert MicroLens(str(tmp_path), 'toy').processed_dir != dataset.processed_dir


def test_refuses_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="toy_pairs.tsv': .*needs to hold"):
        MicroLens(str(tmp_path), 'toy')
    write(tmp_path)
    (tmp_path / 'toy_pairs.tsv').write_text('1\t10 2 3\n7 3 2\n')
    with pytest.raises(ValueError, match="line 2 of .* needs to be a user, a tab and its items \\(got '7 3 2'\\)"):
        MicroLens(str(tmp_path), 'toy')


@pytest.mark.parametrize('time', ['5.5', '-1', '1e9'])
def test_pairs_without_a_header_keep_their_first_row(tmp_path, time):
    write(tmp_path)
    (tmp_path / 'toy_pairs.csv').write_text(f'1,10,{time}\n1,2,2e9\n')
    data = MicroLens(str(tmp_path), 'toy')[0]
    assert data[INTERACTS].time.tolist() == [float(time), 2e9]


@pytest.mark.parametrize(
    ('text', 'said'),
    [('', 'at least one interaction'), ('1,10,2020-01-01\n1,2,2e9\n', 'time'), ('1,10,nan\n1,2,3\n', 'time')],
)
def test_refuses_no_interactions_and_dates(tmp_path, text, said):
    write(tmp_path)
    (tmp_path / 'toy_pairs.csv').write_text(text)
    with pytest.raises(ValueError, match=said):
        MicroLens(str(tmp_path), 'toy')


def test_titles_with_commas_need_quotes(tmp_path):
    write(tmp_path)
    path = tmp_path / 'toy_titles.csv'
    path.write_text('10,"ten, or ""10"""\n\n2\n3,"of two\nlines"\n')
    assert MicroLens(str(tmp_path), 'toy')[0][ITEM].title == ['', 'of two\nlines', 'ten, or "10"']
    for text, line in [('10,hello, world\n2,y\n', 1), ('item,title\n10,"a\nb"\n2,hello, world\n', 4)]:
        path.write_text(text)
        message = rf"line {line} of '.*toy_titles.csv' needs 2 fields \(got 3: '\d+,hello, .*\): quote a field"
        with pytest.raises(ValueError, match=message):
            MicroLens(str(tmp_path), 'toy')
    path.write_text('10,ten\n2,"two\n')
    with pytest.raises(ValueError, match=r"line 2 of '.*titles.csv' needs to be valid CSV \(unexpected end of data"):
        MicroLens(str(tmp_path), 'toy')


@pytest.mark.parametrize('mask', [np.ones(4, dtype=np.int64), np.ones(4, dtype=np.uint8), np.ones(3, dtype=bool)])
def test_refuses_masks_that_are_not_bool_of_each_item(tmp_path, mask):
    write(tmp_path)
    np.save(tmp_path / 'image_feat.npy', np.ones((4, 3)))
    np.save(tmp_path / 'image_mask.npy', mask)
    with pytest.raises(ValueError, match=rf"image_mask.npy' needs to be bool of shape \(4,\) \(got {mask.dtype} of"):
        MicroLens(str(tmp_path), 'toy', features={'image': str(tmp_path / 'image_feat.npy')})


def test_covers_that_come_later_are_seen(tmp_path):
    write(tmp_path)
    assert 'image' not in MicroLens(str(tmp_path), 'toy')[0][ITEM]
    (tmp_path / 'toy_covers').mkdir()
    for name in ('10', '2'):
        path = tmp_path / 'toy_covers' / f'{name}.jpg'
        path.write_bytes(b'')
        assert str(path) in MicroLens(str(tmp_path), 'toy')[0][ITEM].image


def test_tables_that_are_packed_or_of_another_encoding(tmp_path):
    write(tmp_path, 'csv')
    plain = MicroLens(str(tmp_path), 'toy')[0]
    for suffix in ('pairs', 'titles'):
        path = tmp_path / f'toy_{suffix}.csv'
        path.write_bytes(gzip.compress(path.read_bytes().replace(b'\n', b'\r\n')))
    packed = MicroLens(str(tmp_path), 'toy')[0]
    assert packed[ITEM].title == plain[ITEM].title
    assert packed[INTERACTS].edge_index.equal(plain[INTERACTS].edge_index)
    path = tmp_path / 'toy_titles.csv'
    path.write_bytes('10,dîner\n'.encode('cp1252'))
    with pytest.raises(ValueError, match=r"line 1 of '.*toy_titles.csv' needs to be in utf-8 .*: 'cp1252' would fit"):
        MicroLens(str(tmp_path), 'toy')
    assert 'dîner' in MicroLens(str(tmp_path), 'toy', encoding='cp1252')[0][ITEM].title


def test_errors_name_the_line_of_the_pairs(tmp_path):
    write(tmp_path)
    path = tmp_path / 'toy_pairs.csv'
    for text, message in [
        (
            'user,item,timestamp\n1,10,5\n1,2,soon\n',
            r"line 3 of '.*toy_pairs.csv': 'time' needs to be a number or a date",
        ),
        ('1,10,5\n1,2\n', r"line 2 of '.*toy_pairs.csv' needs 3 fields \(got 2: '1,2'\)"),
        ('1,10,5\n1,"2,5\n', r"line 2 of '.*toy_pairs.csv' needs to be valid CSV"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            MicroLens(str(tmp_path), 'toy')


def test_refuses_names_that_modalities_can_not_have(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match=r"the name of a modality .* \(got 'items'\)"):
        MicroLens(str(tmp_path), 'toy', features={'items': str(tmp_path / 'x.npy')})
