import pytest
import torch

from lirdrec_pyg import LIRDRec
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.training import LazyAdam, MiniBatches
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph


@pytest.fixture(scope='module')
def splits():
    data = ItemKNNGraph(k=4)(DCT()(FakeMultimodal(num_users=150, num_items=120, seed=0)[0]))
    train, val, _ = FixedSplit()(data)
    return InteractionGraph()(train), val


def test_lazy_adam_is_adam_where_every_row_has_a_gradient():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, 2, 3, generator=generator)
    params = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    lazy, adam = LazyAdam([params[0]], lr=0.1), torch.optim.Adam([params[1]], lr=0.1)
    for _ in range(4):
        grad = torch.randn(start.shape, generator=generator)
        order = torch.randperm(5, generator=generator)
        params[0].grad = torch.sparse_coo_tensor(order[None], grad[order], start.shape, check_invariants=True)
        params[1].grad = grad
        lazy.step()
        adam.step()
        torch.testing.assert_close(*params)
    index = torch.tensor([[1, 3]])
    before = params[0].detach().clone()
    params[0].grad = torch.sparse_coo_tensor(index, torch.ones(2, 2, 3), start.shape, check_invariants=True)
    lazy.step()
    moved = (params[0] != before).flatten(1).any(dim=1)
    assert moved.tolist() == [False, True, False, True, False]


@pytest.mark.parametrize('kwargs', [{'weight_decay': 0.5}, {'amsgrad': True}, {'maximize': True}])
def test_lazy_adam_refuses_what_it_does_not_do(kwargs):
    params = [torch.nn.Parameter(torch.ones(2))]
    (name,) = kwargs
    with pytest.raises(ValueError, match=rf"'{name}' needs to be left out"):
        LazyAdam(params, **kwargs)
    with pytest.raises(ValueError, match=rf"'{name}' needs to be left out"):
        LazyAdam([{'params': params, **kwargs}])
    LazyAdam(params, **{name: type(value)(0) for name, value in kwargs.items()})


def test_sparse_gradients_are_those_of_the_rows(splits):
    train, _ = splits
    batch, *triplets = next(iter(MiniBatches(train, [3, 2, 2], batch_size=16)))
    grads = []
    for sparse in (False, True):
        model = LIRDRec.from_data(train, seed=0, hidden_channels=8, sparse=sparse)
        model.loss(batch, *triplets).backward()
        assert model.user.grad.is_sparse == sparse
        grads.append(model.user.grad.to_dense())
    torch.testing.assert_close(*grads)
