import math

import pytest
import torch
from torch_geometric.data import HeteroData

from lirdrec_pyg.transforms import DCT


def make(**features: torch.Tensor) -> HeteroData:
    data = HeteroData()
    for name, x in features.items():
        data['item'][name] = x
    data['item'].num_nodes = len(next(iter(features.values())))
    return data


def test_dct_is_the_orthonormal_type_two_sum():
    x = torch.randn(5, 7)
    n = torch.arange(7)
    basis = torch.stack([torch.cos(math.pi * (2 * n + 1) * k / 14) for k in range(7)]) * math.sqrt(2 / 7)
    basis[0] /= math.sqrt(2)
    assert torch.allclose(basis @ basis.t(), torch.eye(7), atol=1e-6)
    out = DCT()(make(x_image=x))
    assert torch.allclose(out['item'].spectrum, x @ basis.t(), atol=1e-5)


def test_dct_concatenates_modalities_and_leaves_the_input_alone():
    data = make(x_image=torch.randn(4, 6), x_text=torch.randn(4, 3).half())
    out = DCT()(data)
    assert out['item'].spectrum.shape == (4, 9)
    assert out['item'].spectrum.dtype == torch.float32
    assert 'spectrum' not in data['item']
    assert torch.equal(out['item'].spectrum[:, 6:], DCT(modalities=['text'])(data)['item'].spectrum)
    one = make(x_image=data['item'].x_image[2:3], x_text=data['item'].x_text[2:3])
    assert torch.allclose(DCT()(one)['item'].spectrum, out['item'].spectrum[2:3], atol=1e-6)


def test_dct_of_a_missing_row_is_zero():
    x = torch.ones(3, 4)
    out = DCT()(make(x_image=x, has_image=torch.tensor([True, False, True])))
    assert out['item'].spectrum[1].abs().sum() == 0
    assert out['item'].spectrum[0].abs().sum() > 0


def test_dct_refuses():
    x = torch.ones(3, 4)
    x[2, 1] = float('nan')
    with pytest.raises(ValueError, match=r"'x_image' needs to be finite .* first: row 2"):
        DCT()(make(x_image=x))
    with pytest.raises(ValueError, match="unknown modality 'audio'"):
        DCT(['audio'])(make(x_image=torch.ones(3, 4)))
    with pytest.raises(ValueError, match='at least one modality'):
        DCT()(make(title=torch.ones(3)))


def test_dct_repr():
    assert str(DCT()) == 'DCT(modalities=None)'
    assert str(DCT(['text'])) == "DCT(modalities=['text'])"
