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
