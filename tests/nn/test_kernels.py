import pytest
import torch
import torch.nn.functional as F

from lirdrec_pyg.nn import kernels
from lirdrec_pyg.nn.kernels import hidden_layer, normalize, rows_and_mean_square, view_linear


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
