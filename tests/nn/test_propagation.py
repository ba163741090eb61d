import pytest
import torch

from lirdrec_pyg.nn import Propagation
from lirdrec_pyg.nn.propagation import edges
from lirdrec_pyg.transforms import FixedSplit, HalfPrecision, InteractionGraph
from lirdrec_pyg.typing import INTERACTS, SIMILAR_TO

LAYOUTS = ['csr', 'EdgeIndex', 'edge_index', pytest.param('SparseTensor', marks=pytest.mark.torch_sparse)]


def run(train, layout, user, item):
    conv = Propagation(num_layers=3, num_item_layers=2)
    user, item = user.clone().requires_grad_(), item.clone().requires_grad_()
    to_item, to_user, similar, similar_t = edges(InteractionGraph(layout)(train))
    out_user, out_item = conv(user, item, to_item, to_user)
    out_item = out_item + conv.smooth(out_item, similar, similar_t)
    (out_user.sin().sum() + out_item.cos().sum()).backward()
    return out_user, out_item, user.grad, item.grad


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layouts_agree_with_dense_powers(data, layout):
    train = FixedSplit()(data)[0]
    user, item = torch.randn(64, 5), torch.randn(48, 5)
    graph = InteractionGraph()(train)
    adj = torch.zeros(112, 112)
    adj[64:, :64] = graph[INTERACTS].adj_t.to_dense()
    adj = adj + adj.t()
    s = graph[SIMILAR_TO].adj_t.to_dense()
    z = torch.cat([user, item]).requires_grad_()
    out = sum(torch.linalg.matrix_power(adj, power) @ z for power in range(4))
    expected = out[:64], out[64:] + s @ s @ out[64:]
    (expected[0].sin().sum() + expected[1].cos().sum()).backward()
    for got, want in zip(run(train, layout, user, item), [*expected, z.grad[:64], z.grad[64:]], strict=True):
        assert torch.allclose(got, want, atol=1e-4)


@pytest.mark.parametrize('num_layers', [0, 1, 3])
def test_gathering_in_bfloat16_keeps_single_precision_around_it(data, num_layers):
    train = InteractionGraph()(FixedSplit()(data)[0])
    conv = Propagation(num_layers)
    found = []
    for graph in (train, HalfPrecision()(train)):
        torch.manual_seed(0)
        user, item = torch.randn(64, 3, 4, requires_grad=True), torch.randn(48, 3, 4, requires_grad=True)
        to_item, to_user, similar, similar_t = edges(graph)
        out_user, out_item = conv(user, item, to_item, to_user, normalize=True)
        out_item = out_item.flatten(1) + conv.smooth(out_item.flatten(1), similar, similar_t)
        (out_user.sin().sum() + out_item.cos().sum()).backward()
        found.append([out_user.detach(), out_item.detach(), user.grad, item.grad])
    assert edges(train)[0][0].dtype == torch.float32 and to_item[0].dtype == torch.bfloat16
    for exact, half in zip(*found, strict=True):
        assert half.dtype == torch.float32
        assert 0 < (half - exact).abs().max() < 0.02 * exact.abs().max() or num_layers == 0


def test_gradcheck(data):
    train = InteractionGraph()(FixedSplit()(data)[0])
    for store in train.edge_stores:
        for key in ('adj_t', 'adj'):
            if key in store:
                store[key] = store[key].double()
    to_item, to_user, similar, similar_t = edges(train)
    conv = Propagation(num_layers=2)

    def function(user, item):
        user, item = conv(user, item, to_item, to_user)
        return user, item + conv.smooth(item, similar, similar_t)

    args = torch.randn(64, 1).double().requires_grad_(), torch.randn(48, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(function, args)


@pytest.mark.parametrize('layout', ['csr', 'edge_index'])
def test_normalizing_views_on_the_way_is_normalizing_before(data, layout):
    train = InteractionGraph(layout)(FixedSplit()(data)[0])
    to_item, to_user, *_ = edges(train)
    inputs = [torch.randn(train[node].num_nodes, 3, 4, requires_grad=True) for node in ('user', 'item')]
    conv = Propagation(2)
    noise = [torch.randn_like(x) for x in inputs]
    outs = conv(*inputs, to_item, to_user, normalize=True)
    before = [torch.nn.functional.normalize(x, dim=-1).flatten(1) for x in inputs]
    expected = [x.unflatten(1, (3, 4)) for x in conv(*before, to_item, to_user)]
    grads = []
    for out in (outs, expected):
        loss = sum((x * n).sum() for x, n in zip(out, noise, strict=True))
        grads.append(torch.autograd.grad(loss, inputs))
    for out, other in zip([*outs, *grads[0]], [*expected, *grads[1]], strict=True):
        assert torch.allclose(out, other, atol=1e-5)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', [torch.double, torch.half, torch.bfloat16])
def test_features_of_another_precision_than_the_weights(data, layout, dtype):
    train = FixedSplit()(data)[0]
    user, item = torch.randn(64, 5).to(dtype), torch.randn(48, 5).to(dtype)
    tol = 1e-6 if dtype == torch.double else 2e-2
    for got, want in zip(run(train, layout, user, item), run(train, layout, user.float(), item.float()), strict=True):
        assert got.dtype == dtype
        assert (got.double() - want.double()).abs().max() < tol * want.abs().max()


@pytest.mark.parametrize('layout', LAYOUTS)
def test_autocast_changes_neither_layers_nor_gradients(data, layout):
    train = FixedSplit()(data)[0]
    user, item = torch.randn(64, 5), torch.randn(48, 5)
    expected = run(train, layout, user, item)
    with torch.autocast('cpu', torch.bfloat16):
        out = run(train, layout, user, item)
    assert all(torch.equal(x, y) for x, y in zip(out, expected, strict=True))


def test_no_layers_and_refusals(data):
    conv = Propagation(num_layers=0, num_item_layers=0)
    user, item = torch.randn(3, 2), torch.randn(4, 2)
    out = conv(user, item, (None, None), (None, None))
    assert torch.equal(out[0], user)
    assert torch.equal(out[1], item)
    with pytest.raises(ValueError, match=r'apply `ItemKNNGraph\(\)` to it'):
        conv.smooth(item, None)
    with pytest.raises(ValueError, match="'num_layers' needs to be non-negative"):
        Propagation(-1)
    with pytest.raises(ValueError, match='apply `InteractionGraph'):
        edges(data)


def test_repr():
    assert str(Propagation(2)) == 'Propagation(num_layers=2, num_item_layers=1)'
