import pytest
import torch
from torch_geometric.data import HeteroData

from lirdrec_pyg.transforms import PCA


def make(n=50, width=12, has=None):
    data = HeteroData()
    data['item'].x_image = torch.randn(n, 4) @ torch.randn(4, width) + 3
    data['item'].x_text = torch.randn(n, 3)
    if has is not None:
        data['item'].has_image = has
        data['item'].x_image[~has] = 0
    data['item'].num_nodes = n
    return data


def test_equals_the_svd_and_leaves_narrow_modalities():
    data = make()
    out = PCA(5)(data)
    x = data['item'].x_image
    u, s, _ = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)
    expected = (u * s)[:, :4]
    got = out['item'].x_image
    assert got.shape == (50, 5)
    assert torch.allclose(got[:, :4].abs(), expected.abs(), atol=1e-4)
    assert torch.allclose(got[:, 4], torch.zeros(50), atol=1e-3)  # of rank four
    centred = x - x.mean(dim=0)
    assert torch.allclose(got @ got.t(), centred @ centred.t(), atol=1e-3)
    assert out['item'].x_text is data['item'].x_text
    assert data['item'].x_image is x
    assert torch.equal(PCA(5)(data)['item'].x_image, got)


def test_takes_integers():
    data = make()
    data['item'].x_image = torch.randint(9, (50, 12))
    expected = make()
    expected['item'].x_image = data['item'].x_image.float()
    assert torch.equal(PCA(5)(data)['item'].x_image, PCA(5)(expected)['item'].x_image)


def test_items_without_the_modality_take_no_part():
    has = torch.rand(50) > 0.3
    data = make(has=has)
    out = PCA(4)(data)['item'].x_image
    assert (out[~has] == 0).all()
    only = HeteroData()
    only['item'].x_image = data['item'].x_image[has]
    assert torch.allclose(out[has], PCA(4)(only)['item'].x_image, atol=1e-5)


def test_refuses():
    with pytest.raises(ValueError, match=r"'num_components' needs to be positive \(got 0\)"):
        PCA(0)
    with pytest.raises(ValueError, match="at most the 3 items with modality 'image'"):
        PCA(4)(make(n=3))
    with pytest.raises(ValueError, match="unknown modality 'audio'"):
        PCA({'audio': 4})(make())
    data = make()
    data['item'].x_image[7, 0] = float('nan')
    with pytest.raises(ValueError, match='first: row 7'):
        PCA(4)(data)
    with pytest.raises(ValueError, match=r"'num_components' needs to be positive \(got -1\)"):
        PCA({'image': 4, 'text': -1})
    assert repr(PCA({'image': 64})) == "PCA(num_components={'image': 64})"


def test_number_for_each_modality():
    data = make()
    both = PCA({'image': 5, 'text': 2})(data)
    assert torch.equal(both['item'].x_image, PCA(5)(data)['item'].x_image)
    assert torch.equal(both['item'].x_text, PCA(2)(data)['item'].x_text)
    assert PCA({'text': 2})(data)['item'].x_image is data['item'].x_image
