from copy import copy

import pytest
import torch

from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.transforms import DCT, FlushDenormals
from lirdrec_pyg.transforms.flush_denormals import flush_denormals
from lirdrec_pyg.typing import ITEM


def test_what_is_flushed_is_no_more_than_a_sum_forgets():
    x = torch.randn(10, 4)
    assert flush_denormals(x) is x
    x[7] = torch.tensor([1e-18, -1e-18, 1e-34, -1e-34])
    assert flush_denormals(x, rows=3)[7].tolist() == pytest.approx([1e-18, -1e-18, 0, 0])
    assert torch.equal(flush_denormals(x)[:7], x[:7])
    for kept in [torch.zeros(2, 3), torch.empty(0, 3), torch.tensor([[1, 0]]), torch.tensor([[float('nan'), 1e-34]])]:
        assert flush_denormals(kept) is kept


def test_the_data_itself_is_left_alone():
    data = DCT()(FakeMultimodal(num_users=150, num_items=120, seed=0)[0])
    traced = copy(data)
    traced[ITEM].x_text = data[ITEM].x_text.clone()
    traced[ITEM].x_text[:, 3] = 1e-34
    traced[ITEM].spectrum = data[ITEM].spectrum * 1e-34
    traced[ITEM].spectrum[:, 0] = 1
    out = FlushDenormals()(traced)
    assert out[ITEM].x_text[:, 3].eq(0).all() and out[ITEM].x_text[:, 4].equal(data[ITEM].x_text[:, 4])
    assert out[ITEM].spectrum[:, 1:].eq(0).all()
    assert out[ITEM].x_image is data[ITEM].x_image
    assert traced[ITEM].x_text[:, 3].gt(0).all() and traced[ITEM].spectrum.ne(0).all()
