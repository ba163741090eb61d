import pytest
import torch
import torch.nn.functional as F

from lirdrec_pyg.nn import kernels
from lirdrec_pyg.nn.kernels import hidden_layer, normalize, rows_and_mean_square, softmax_loss, view_linear


def agree(fast, slow, inputs, tol=1e-5):
    outs = [torch.cat([out.reshape(-1) for out in (out if isinstance(out, tuple) else (out,))]) for out in (fast, slow)]
    assert torch.allclose(*outs, atol=tol)
    noise = torch.randn_like(outs[0])
    grads = [torch.autograd.grad((out * noise).sum(), inputs) for out in outs]
    for grad, other in zip(*grads, strict=True):
        assert torch.allclose(grad, other, atol=tol * 10)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('channels', [30, 300])  # either product of the backward pass
def test_hidden_layer(dtype, channels):
    x, weight, bias = (torch.randn(*shape, dtype=dtype) for shape in [(40, channels), (16, channels), (16,)])
    inputs = [weight.requires_grad_(), bias.requires_grad_()]
    agree(hidden_layer(x, *inputs), F.leaky_relu(x @ weight.t() + bias), inputs)
    x.requires_grad_()
    agree(hidden_layer(x, *inputs), F.leaky_relu(x @ weight.t() + bias), [x, *inputs])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('width', [30, 300])
@pytest.mark.parametrize('machine', [(True, True), (True, False), (False, True), (False, False)])
def test_transposed_product_on_any_cpu(dtype, width, machine, monkeypatch):
    monkeypatch.setattr(kernels, 'is_intel', lambda: machine[0])
    if not machine[1]:
        monkeypatch.setattr(kernels, 'has_half_products', lambda: False)
    grad, x = torch.randn(50, 16).to(dtype), torch.randn(50, width).to(dtype)
    out = kernels._transposed_product(grad, x)
    assert out.dtype == dtype
    expected = grad.double().t() @ x.double()
    assert torch.allclose(out.double(), expected, rtol=2**-6, atol=2**-5 if dtype == torch.bfloat16 else 1e-4)


def test_hidden_layer_in_bfloat16_keeps_single_precision_gradients():
    x, weight, bias = torch.randn(40, 30), torch.randn(16, 30, requires_grad=True), torch.randn(16, requires_grad=True)
    out = hidden_layer(x.bfloat16(), weight, bias)
    assert out.dtype == torch.bfloat16
    grads = torch.autograd.grad(out.float().sum(), [weight, bias])
    expected = torch.autograd.grad(F.leaky_relu(x @ weight.t() + bias).sum(), [weight, bias])
    for grad, other in zip(grads, expected, strict=True):
        assert grad.dtype == torch.float32
        assert torch.allclose(grad, other, rtol=0.1, atol=0.5)


@pytest.mark.parametrize('sizes', [(3000, 16), (16, 3000)])  # either is taken some rows at a time
def test_linear_without_half_products(sizes, monkeypatch):
    monkeypatch.setattr(kernels, 'has_half_products', lambda: False)
    x, weight, bias = (torch.randn(*shape).bfloat16() for shape in [(sizes[0], 8), (sizes[1], 8), sizes[1:]])
    for b in (None, bias):
        out = kernels.linear(x, weight, b)
        assert out.dtype == torch.bfloat16
        expected = F.linear(x.float(), weight.float(), None if b is None else b.float())
        assert torch.allclose(out.float(), expected, rtol=2**-7, atol=2**-5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('half_products', [True, False])
def test_linear_then_leaky_relu(dtype, half_products, monkeypatch):
    if not half_products:
        monkeypatch.setattr(kernels, 'has_half_products', lambda: False)
    x, weight, bias = (torch.randn(*shape).to(dtype) for shape in [(300, 24), (32, 24), (32,)])
    out = kernels.linear(x, weight, bias, slope=0.01)
    assert out.dtype == dtype
    expected = F.leaky_relu(F.linear(x.double(), weight.double(), bias.double()), 0.01)
    assert (expected < 0).any()
    assert torch.allclose(out.double(), expected, rtol=2**-7, atol=2**-4 if dtype == torch.bfloat16 else 1e-5)


def test_normalize():
    x = torch.randn(12, 3, 8)
    x[4, 1] = 0
    x.requires_grad_()
    out = normalize(x)
    assert torch.allclose(out, F.normalize(x, dim=-1))
    noise = torch.randn_like(x)
    noise[4, 1] = 0
    grad, expected = (torch.autograd.grad((y * noise).sum(), x)[0] for y in (out, F.normalize(x, dim=-1)))
    assert torch.allclose(grad, expected, atol=1e-6)
    x = torch.randn(4, 2, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(normalize, x)


@pytest.mark.parametrize('weighted', [True, False])
def test_rows_and_mean_square(weighted):
    x = torch.randn(10, 3, 4, dtype=torch.double, requires_grad=True)
    weight = torch.rand(10, 3, dtype=torch.double, requires_grad=True) if weighted else None
    index = torch.tensor([1, 1, 7, 0, 1])
    y = (x if weight is None else x * weight.unsqueeze(-1)).flatten(1)
    inputs = [x, weight] if weighted else [x]
    agree(rows_and_mean_square(x, index, weight), (y[index], y.square().mean()), inputs, tol=1e-12)


def test_view_linear():
    x, weight, bias = torch.randn(12, 3, 8), torch.randn(3, 4, 8), torch.randn(3, 4)
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    (grad,) = torch.autograd.grad(view_linear(*inputs).sum(), x)
    assert grad.is_contiguous()
    agree(view_linear(*inputs), torch.einsum('nvd,vhd->vnh', x, weight) + bias.unsqueeze(1), inputs)


STEPS = {
    'hidden_layer': (hidden_layer, lambda x, w, b: F.leaky_relu(x @ w.t() + b), [(40, 30), (16, 30), (16,)]),
    'normalize': (normalize, lambda x: x / x.norm(dim=-1, keepdim=True), [(12, 3, 8)]),
    'rows_and_mean_square': (
        lambda x, w: torch.cat([y.flatten() for y in rows_and_mean_square(x, torch.tensor([1, 1, 7]), w)]),
        lambda x, w: torch.cat([(y := (x * w.unsqueeze(-1)).flatten(1))[[1, 1, 7]].flatten(), y.square().mean()[None]]),
        [(10, 3, 4), (10, 3)],
    ),
    'view_linear': (
        view_linear,
        lambda x, w, b: torch.einsum('nvd,vhd->vnh', x, w) + b.unsqueeze(1),
        [(12, 3, 8), (3, 4, 8), (3, 4)],
    ),
    'softmax_loss': (
        lambda user, item: softmax_loss(user, item, torch.arange(6)),
        lambda user, item: F.cross_entropy(user @ item.t() / 0.2, torch.arange(6)),
        [(6, 4), (9, 4)],
    ),
}


@pytest.mark.parametrize('backward', [True, False])
@pytest.mark.parametrize('name', STEPS)
def test_autocast_changes_neither_values_nor_gradients(name, backward):
    step, formula, shapes = STEPS[name]
    inputs = [torch.randn(shape) for shape in shapes]
    params = [x.requires_grad_() for x in (inputs[1:] if name == 'hidden_layer' else inputs)]
    expected = formula(*inputs)
    noise = torch.randn_like(expected)
    with torch.autocast('cpu', torch.bfloat16):
        out = step(*inputs)
    with torch.autocast('cpu', torch.bfloat16, enabled=backward):
        grads = torch.autograd.grad((out * noise).sum(), params)
    assert torch.allclose(out, expected, atol=1e-5)
    for grad, other in zip(grads, torch.autograd.grad((expected * noise).sum(), params), strict=True):
        assert torch.allclose(grad, other, atol=1e-4)


@pytest.mark.parametrize('first', [torch.double, torch.float])
@pytest.mark.parametrize('others', [torch.double, torch.float, torch.half])
@pytest.mark.parametrize('name', STEPS)
def test_inputs_of_two_precisions(name, first, others):
    step, formula, shapes = STEPS[name]
    inputs = [torch.randn(shape).to(others if i else first) for i, shape in enumerate(shapes)]
    params = [x.requires_grad_() for x in (inputs[1:] if name == 'hidden_layer' else inputs)]
    out, expected = step(*inputs), formula(*(x.double() for x in inputs))
    assert torch.allclose(out.double(), expected, rtol=1e-2, atol=1e-2)
    noise = torch.randn_like(expected)
    grads, exact = (torch.autograd.grad((y * noise).sum(), params, retain_graph=True) for y in (out, expected))
    for param, grad, other in zip(params, grads, exact, strict=True):
        assert grad.dtype == param.dtype and torch.allclose(grad, other, rtol=1e-2, atol=1e-2)
