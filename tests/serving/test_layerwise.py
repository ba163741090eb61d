import copy

import numpy as np
import pytest
import torch

from lirdrec_pyg import LIRDRec
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import PWC, AttentionFusion
from lirdrec_pyg.serving import encode_layerwise
from lirdrec_pyg.training import MappedFeatures
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph, RecentItems
from lirdrec_pyg.typing import ITEM

LAYOUTS = ['csr', 'EdgeIndex', 'edge_index']


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


DEVICES = [('csr', 'meta'), ('edge_index', 'meta'), *(pytest.param(layout, 'cuda', marks=cuda) for layout in LAYOUTS)]


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


def without_features(train):
    train = copy.copy(train)
    for key in [key for key in train[ITEM].keys() if key.startswith('x_') or key == 'spectrum']:  # noqa: SIM118
        del train[ITEM][key]
    return train


@pytest.mark.parametrize('fusion', [PWC(), AttentionFusion()])
@pytest.mark.parametrize(('power', 'recent_items'), [(1, 0), (0.5, 0), (0, 3)])
def test_layerwise_inference_is_that_of_the_whole(splits, tmp_path, fusion, power, recent_items):
    train, _ = splits
    train = RecentItems(3)(train)
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, fusion=fusion, recent_items=recent_items).eval()
    model.set_power(power)
    expected = model.encode(train)
    for data, features in [(train, None), (without_features(train), mapped(train, tmp_path))]:
        for ours, whole in zip(encode_layerwise(model, data, features, batch_size=17), expected, strict=True):
            torch.testing.assert_close(ours, whole.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('layout', 'device'), DEVICES)
def test_layerwise_inference_is_on_the_device_of_the_model(splits, tmp_path, layout, device):
    train = InteractionGraph(layout)(RecentItems(3)(splits[0]))
    has = torch.arange(train[ITEM].num_nodes) % 3 > 0
    files = mapped(train, tmp_path, masks={'image': has})
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, recent_items=3).eval()
    for data, features in [(train, None), (without_features(train), files)]:
        expected = encode_layerwise(model, data, features, batch_size=17)
        found = encode_layerwise(copy.deepcopy(model).to(device), data, features, batch_size=17)
        for ours, z in zip(found, expected, strict=True):
            assert (ours.device.type, ours.shape) == (device, z.shape)
            if device == 'cuda':
                torch.testing.assert_close(ours.cpu(), z, rtol=1e-5, atol=1e-5)
    assert train[ITEM].x_text.device.type == 'cpu'


def test_layerwise_inference_refuses_modalities_in_another_order(splits, tmp_path):
    train, _ = splits
    model = LIRDRec.from_data(train, hidden_channels=8)
    features = mapped(train, tmp_path, ('text', 'image'))
    order = r"in its order, {'image': 16, 'text': 8} \(got {'text': 8, 'image': 16}\)"
    with pytest.raises(ValueError, match=order):
        encode_layerwise(model, without_features(train), features)


def test_layerwise_inference_takes_the_modalities_of_data_in_any_order(splits):
    train, _ = splits
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8).eval()
    other = copy.copy(train)
    del other[ITEM].x_image, other[ITEM].spectrum
    other[ITEM].x_image = train[ITEM].x_image
    other = DCT()(other)
    assert not torch.equal(other[ITEM].spectrum, train[ITEM].spectrum)
    assert torch.equal(encode_layerwise(model, other).item, encode_layerwise(model, train).item)
