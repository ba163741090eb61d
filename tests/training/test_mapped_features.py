import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.training import MappedFeatures
from lirdrec_pyg.transforms import DCT, PCA, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import ITEM


@pytest.fixture(scope='module')
def splits():
    data = ItemKNNGraph(k=4)(DCT()(FakeMultimodal(num_users=150, num_items=120, seed=0)[0]))
    train, val, _ = FixedSplit()(data)
    return InteractionGraph()(train), val


def mapped(train, folder, names=('image', 'text'), **kwargs):
    paths = {}
    for name in names:
        paths[name] = folder / f'{name}_feat.npy'
        np.save(paths[name], train[ITEM][f'x_{name}'].numpy())
    return MappedFeatures(paths, train[ITEM].num_nodes, **kwargs)


def test_mapped_features_read_rows_alone(splits, tmp_path):
    train, _ = splits
    has = torch.rand(train[ITEM].num_nodes, generator=torch.Generator().manual_seed(0)) > 0.5
    features = mapped(train, tmp_path, masks={'image': has})
    index = torch.tensor([7, 3, 7, 119])
    xs, spectrum, masks = features.rows(index)
    assert torch.equal(xs['image'], train[ITEM].x_image[index])
    assert torch.equal(masks['image'], has[index])
    assert masks['text'] is None
    width = features.in_channels['image']
    expected = train[ITEM].spectrum[index].clone()
    expected[:, :width][~has[index]] = 0
    torch.testing.assert_close(spectrum, expected, rtol=1e-5, atol=1e-6)
    assert all(isinstance(x, np.memmap) for x in features._x.values())


def test_mapped_features_refuse_bad_files(tmp_path):
    path = tmp_path / 'x.npy'
    with pytest.raises(FileNotFoundError, match="no features of 'text'"):
        MappedFeatures({'text': path}, 5)
    with pytest.raises(ValueError, match='at least one modality'):
        MappedFeatures({}, 5)
    np.save(path, np.zeros((4, 3), dtype=np.float32))
    with pytest.raises(ValueError, match=r'a row for each of the 5 items \(got 4\)'):
        MappedFeatures({'text': path}, 5)
    np.save(path, np.zeros(4))
    with pytest.raises(ValueError, match='matrix of floats'):
        MappedFeatures({'text': path}, 4)
    np.save(path, np.zeros((40, 30), dtype=np.float32))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match='cut off'):
        MappedFeatures({'text': path}, 4)
    x = np.zeros((4, 3), dtype=np.float16)
    x[2, 1] = np.nan
    np.save(path, x)
    with pytest.raises(ValueError, match=r'1 bad rows, first: item 2'):
        MappedFeatures({'text': path}, 4).rows(torch.tensor([3, 2]))
    for large in (1e39, 3e38):  # whose spectrum is not finite
        np.save(path, np.array([[0.0, 0.0], [large, -large]]))
        with pytest.raises(ValueError, match=r'1 bad rows, first: item 1'), np.errstate(over='ignore'):
            MappedFeatures({'text': path}, 2).rows(torch.tensor([0, 1]))


def test_mapped_features_refuse_items_that_do_not_exist(tmp_path):
    path = tmp_path / 'x.npy'
    np.save(path, np.zeros((5, 3), dtype=np.float32))
    features = MappedFeatures({'text': path}, 4)  # the file is longer
    for index, got in [([-1], '-1'), ([1, 4], '4')]:
        with pytest.raises(ValueError, match=rf"'index' need to be in \[0, 3\] \(got {got}\)"):
            features.rows(torch.tensor(index))
    for index in ([0.9], [True], [[1]]):
        with pytest.raises(ValueError, match=r"'index' needs to be integers of shape \[N\]"):
            features.rows(torch.tensor(index))


def test_mapped_features_compress_by_blocks(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = {'image': torch.randn(90, 5, generator=generator) @ torch.randn(5, 200, generator=generator)}
    x['text'] = torch.randn(90, 12, generator=generator)
    for name, value in x.items():
        np.save(tmp_path / f'{name}.npy', value.numpy())
    has = torch.arange(80) % 3 > 0
    features = MappedFeatures({name: tmp_path / f'{name}.npy' for name in x}, 80, masks={'image': has})
    small = features.compress(tmp_path / 'small', batch_size=32)
    data = HeteroData()
    data[ITEM].x_image, data[ITEM].has_image, data[ITEM].x_text = x['image'][:80], has, x['text'][:80]
    data = DCT()(PCA()(data))
    xs, spectrum, _ = small.rows(torch.arange(80))
    assert small.in_channels == {'image': data[ITEM].x_image.size(1), 'text': 12}
    torch.testing.assert_close(xs['image'], data[ITEM].x_image, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(spectrum, data[ITEM].spectrum, rtol=1e-4, atol=1e-4)
    assert [path.name for path in (tmp_path / 'small').iterdir()] == ['image_feat.npy']  # text is narrow
    assert features.compress(tmp_path, {'text': 4}).in_channels == {'image': 200, 'text': 4}
    with pytest.raises(ValueError, match="names the unknown modality 'audio'"):
        features.compress(tmp_path, {'audio': 4})
