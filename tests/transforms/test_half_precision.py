import pytest
import torch

from lirdrec_pyg.transforms import HalfPrecision
from lirdrec_pyg.typing import ITEM


@pytest.mark.parametrize(
    ('edge_weight', 'dtype'), [(None, torch.bfloat16), (True, torch.bfloat16), (False, torch.float)]
)
def test_shares_the_indices_and_leaves_the_data_alone(splits, edge_weight, dtype):
    train = splits[0]
    half = HalfPrecision(edge_weight)(train)
    assert half[ITEM].x_image.dtype == half[ITEM].spectrum.dtype == torch.bfloat16
    assert train[ITEM].x_image.dtype == train[ITEM].spectrum.dtype == torch.float
    for edge_type in train.edge_types:
        old, new = train[edge_type].adj_t, half[edge_type].adj_t
        assert new.dtype == dtype and old.dtype == torch.float32
        assert new.col_indices().data_ptr() == old.col_indices().data_ptr()
        assert torch.equal(new.to_dense().float(), old.to_dense().to(dtype).float())
