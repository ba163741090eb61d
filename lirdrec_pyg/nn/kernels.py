r"""Steps of the model with backward passes of their own. They go over the large tensors as few times as possible. Each
has the value and the gradient of the formula in its docstring."""

import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SLOPE = 0.01  # of the leaky rectifier
HOSTS = ('cpu',)  # none in tests of the other form on CPU
Step = TypeVar('Step', bound=Callable[..., Any])


def on_host(x: Tensor) -> bool:
    r"""Whether a tensor is in memory that Python reads without waiting, on CPU.

    There a step may find sizes in the data, and leave out what changes nothing. Elsewhere it has the form that a
    recorded step needs: no size depends on values, nothing waits for the device, and what changes by epoch is read from
    buffers. Both forms have the same value.

    .. code-block:: python

        print(on_host(torch.ones(3)))  # True
    """
    return x.device.type in HOSTS


def without_autocast(step: Step) -> Step:
    r"""Returns a step that works in the precision of its inputs, also within :class:`torch.autocast`.

    A forward pass within the context and a backward pass outside of it would otherwise differ in precision.

    .. code-block:: python

        @without_autocast
        def product(x: Tensor, y: Tensor) -> Tensor:
            return x @ y
    """

    @functools.wraps(step)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        device = next((arg.device.type for arg in args if isinstance(arg, Tensor)), 'cpu')
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return step(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return step(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


def dropout(x: Tensor, p: float, training: bool, generator: torch.Generator | None = None) -> Tensor:
    r"""Returns :func:`torch.nn.functional.dropout`, drawn from a generator of one's own.

    .. code-block:: python

        x = dropout(torch.ones(4, 8), 0.5, training=True, generator=torch.Generator().manual_seed(0))

    Args:
        x (Tensor): The input.
        p (float): The share that becomes zero.
        training (bool): Whether to do anything.
        generator (torch.Generator, optional): The generator. (default: torch's global one)
    """
    if generator is None or not training or p == 0:
        return F.dropout(x, p, training)
    return x * torch.empty_like(x).bernoulli_(1 - p, generator=generator).div_(1 - p)


def hidden_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""Returns :math:`\mathrm{LeakyReLU}(\mathbf{x} \mathbf{W}^\top + \mathbf{b})`.

    The products are taken in the precision of ``x``. On CPU two libraries can take them, oneDNN and MKL. Each product
    uses the one that is faster for it.

    .. code-block:: python

        h = hidden_layer(train['item'].x_image, torch.randn(32, 16), torch.zeros(32))  # (48, 32)

    Shapes:
        - **x:** :math:`(N, C)`
        - **weight:** :math:`(H, C)`
        - **bias:** :math:`(H)`
        - **output:** :math:`(N, H)`
    """
    if x.requires_grad:
        return F.leaky_relu(F.linear(x, weight.to(x.dtype), bias.to(x.dtype)), SLOPE)
    return _HiddenLayer.apply(x, weight, bias)


class _HiddenLayer(torch.autograd.Function):
    @staticmethod
    @without_autocast
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out = linear(x, weight.to(x.dtype), bias.to(x.dtype), slope=SLOPE)
        ctx.save_for_backward(x, out)
        ctx.dtype = weight.dtype
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, out = ctx.saved_tensors
        grad = torch.ops.aten.leaky_relu_backward(grad, out, SLOPE, True)
        grad_weight = _transposed_product(grad, x)
        grad_bias = (grad.new_ones(1, grad.size(0)) @ grad).view(-1)  # faster than a sum, and accumulates as precisely
        return None, grad_weight.to(ctx.dtype), grad_bias.to(ctx.dtype)


def _transposed_product(grad: Tensor, x: Tensor) -> Tensor:
    r"""Returns :math:`\mathbf{G}^\top \mathbf{x}`, on CPU by the faster library, after a copy it would make anyway."""
    if on_host(x):
        if x.dtype == torch.bfloat16 and not has_half_products():
            return linear(grad.t().contiguous(), x.t())
        if x.dtype == torch.bfloat16 and x.size(1) > 256:  # the copy, too, is fastest as a product
            return linear(linear(torch.eye(grad.size(1), dtype=grad.dtype, device=grad.device), grad), x.t())
        if x.size(1) > 256 and not is_intel():
            return linear(grad.t().contiguous(), x.t())
    return grad.t() @ x


@functools.cache
def is_intel() -> bool:
    r"""Whether this CPU is of the make that torch's default library for products, MKL, is best on.

    .. code-block:: python

        print(is_intel())
    """
    try:
        return 'GenuineIntel' in Path('/proc/cpuinfo').read_text()
    except OSError:
        return 'Intel' in platform.processor()


def has_half_products() -> bool:
    r"""Whether this CPU takes products in bfloat16; one without takes them in single precision, see :func:`linear`.

    .. code-block:: python

        print(has_half_products())
    """
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, slope: float = 1.0) -> Tensor:
    r"""Returns :math:`\mathbf{x} \mathbf{W}^\top + \mathbf{b}` without a gradient. Negative entries are multiplied by
    :obj:`slope`.

    On CPU the faster library is used. That is oneDNN where there is AVX-512 and MKL is not at its best, else torch's
    default. Where the CPU has no products in bfloat16, such inputs are cast to float32, some rows at a time.

    .. code-block:: python

        y = linear(torch.randn(48, 16), torch.randn(8, 16), torch.zeros(8))  # (48, 8)
    """
    onednn = on_host(x) and torch.backends.mkldnn.is_available()
    half, wide = x.dtype == torch.bfloat16, torch.backends.cpu.get_cpu_capability() == 'AVX512'
    if onednn and half and not has_half_products():
        out = _linear_by_rows(x, weight, bias)
    elif onednn and (half or (wide and x.dtype == torch.float32 and (slope != 1 or not is_intel()))):
        after = ('none', []) if slope == 1 else ('leaky_relu', [slope])
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *after, '')
    else:
        out = F.linear(x, weight, bias)
    return out if slope == 1 else F.leaky_relu_(out, slope)


def _linear_by_rows(x: Tensor, weight: Tensor, bias: Tensor | None, rows: int = 1024) -> Tensor:
    out = x.new_empty(x.size(0), weight.size(0))
    if x.numel() >= weight.numel():
        weight, bias = weight.float(), None if bias is None else bias.float()
        for o, part in zip(out.split(rows), x.split(rows), strict=True):
            o.copy_(F.linear(part.float(), weight, bias))
    else:
        x = x.float()
        for o, part in zip(out.split(rows, dim=1), weight.split(rows), strict=True):
            o.copy_(F.linear(x, part.float()))
        if bias is not None:
            out += bias
    return out


def normalize(x: Tensor, eps: float = 1e-12) -> Tensor:
    r"""Returns :math:`\mathbf{x} / \max(\Vert \mathbf{x} \Vert_2, \epsilon)` along the last axis.

    .. code-block:: python

        print(normalize(torch.randn(4, 8)).norm(dim=-1))  # ones
    """
    return _Normalize.apply(x, eps)


class _Normalize(torch.autograd.Function):
    @staticmethod
    @without_autocast
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        out, norm = normalized(x, eps)
        ctx.save_for_backward(out, norm)
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> Any:
        return normalized_backward_(grad.clone(), *ctx.saved_tensors), None


def normalized(x: Tensor, eps: float = 1e-12) -> tuple[Tensor, Tensor]:
    r"""Returns what :func:`normalize` does, and the norms, without a gradient.

    .. code-block:: python

        out, norm = normalized(torch.randn(4, 8))
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(eps)
    return x / norm, norm


def normalized_backward_(grad: Tensor, out: Tensor, norm: Tensor, block: int = 2048) -> Tensor:
    r"""Returns the gradient of the input of :func:`normalized`, made in place of that of its output, by blocks that
    stay in the cache.

    .. code-block:: python

        out, norm = normalized(torch.randn(4, 8))
        grad = normalized_backward_(torch.ones(4, 8), out, norm)
    """
    block = block if on_host(grad) else max(1, grad.size(0))
    for g, o, n in zip(grad.split(block), out.split(block), norm.split(block), strict=True):
        dot = (g * o).sum(dim=-1, keepdim=True)
        g.addcmul_(o, dot, value=-1).div_(n)
    return grad


def rows_and_mean_square(x: Tensor, index: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Weighs the views of all nodes and returns the rows of some of them, and the mean square over all,

    .. math::
        \mathbf{y}_n = \big\Vert_v \, w_{nv} \mathbf{x}_{nv}, \quad \mathbf{y}_\mathrm{index}, \quad
        \mathrm{mean}(\mathbf{Y}^2),

    without :math:`\mathbf{Y}` in memory.

    .. code-block:: python

        rows, square = rows_and_mean_square(torch.randn(64, 3, 8), torch.tensor([0, 5]))  # (2, 24) and a number

    Args:
        x (torch.Tensor): The views of all nodes.
        index (torch.Tensor): The nodes whose rows are wanted, any number of times each.
        weight (torch.Tensor, optional): The weights of the views. (default: one)

    Shapes:
        - **x:** :math:`(N, |V|, d)`
        - **index:** :math:`(B)`
        - **weight:** :math:`(N, |V|)`
        - **output:** :math:`(B, |V| d)` and a scalar
    """
    return _RowsAndMeanSquare.apply(x, index, None if weight is None else weight.to(x.dtype))


class _RowsAndMeanSquare(torch.autograd.Function):
    @staticmethod
    @without_autocast
    def forward(ctx: Any, x: Tensor, index: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        square = torch.linalg.vector_norm(x, dim=-1).square_()  # [N, V]
        rows = x.index_select(0, index)
        if weight is not None:
            rows = rows * weight.index_select(0, index).unsqueeze(-1)
        ctx.save_for_backward(x, index, weight, square)
        total = square.sum() if weight is None else (weight * weight * square).sum()
        return rows.flatten(1), total / x.numel()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    @without_autocast
    def backward(ctx: Any, grad_rows: Tensor, grad_mean: Tensor) -> Any:
        x, index, weight, square = ctx.saved_tensors
        scale = grad_mean * (2 / x.numel())
        grad_rows = grad_rows.view(-1, *x.shape[1:])
        if weight is None:
            return (x * scale).index_add_(0, index, grad_rows), None, None
        rows = x.index_select(0, index)
        grad_weight = (weight * square).mul_(scale)
        grad_weight.index_add_(0, index, (grad_rows * rows).sum(dim=-1))
        grad = x * (weight * weight * scale).unsqueeze(-1)
        grad.index_add_(0, index, grad_rows * weight.index_select(0, index).unsqueeze(-1))
        return grad, None, grad_weight


def view_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""Returns :math:`\mathbf{x}_v \mathbf{W}_v^\top + \mathbf{b}_v` for each view.

    The gradient has the layout of :obj:`x`. So it adds up with others without a pass over scattered rows.

    .. code-block:: python

        h = view_linear(torch.randn(64, 3, 8), torch.randn(3, 4, 8), torch.zeros(3, 4))  # (3, 64, 4)

    Shapes:
        - **x:** :math:`(N, |V|, d)`
        - **weight:** :math:`(|V|, H, d)`
        - **bias:** :math:`(|V|, H)`
        - **output:** :math:`(|V|, N, H)`
    """
    return _ViewLinear.apply(x, weight.to(x.dtype), bias.to(x.dtype))


class _ViewLinear(torch.autograd.Function):
    @staticmethod
    @without_autocast
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias.unsqueeze(1), x.transpose(0, 1), weight.transpose(1, 2))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        grad_x = x.new_empty(x.shape)
        torch.bmm(grad, weight, out=grad_x.transpose(0, 1))
        return grad_x, torch.bmm(grad.transpose(1, 2), x.transpose(0, 1)), grad.sum(dim=1)


class _SparseRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.size = table.size()
        ctx.save_for_backward(index)
        return table.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return torch.sparse_coo_tensor(index.unsqueeze(0), grad, ctx.size, check_invariants=False), None


def sparse_rows(table: Tensor, index: Tensor) -> Tensor:
    r"""Returns rows of a table, which may have any shape. The table's gradient is sparse.

    .. code-block:: python

        table = torch.nn.Parameter(torch.randn(64, 8))
        sparse_rows(table, torch.tensor([3, 3, 5])).sum().backward()
        print(table.grad.is_sparse)  # True
    """
    return _SparseRows.apply(table, index)  # type: ignore[no-any-return]


def softmax_loss(
    user: Tensor,
    item: Tensor,
    target: Tensor,
    temperature: float = 0.2,
    max_elements: int | None = None,
    index: Tensor | None = None,
    candidates: Tensor | None = None,
) -> Tensor:
    r"""Returns the (sampled) softmax loss of `"On the Effectiveness of Sampled Softmax Loss for Item Recommendation"
    <https://arxiv.org/abs/2201.02327>`_,

    .. math::
        -\frac{1}{B} \sum_{b=1}^{B} \log \frac{\exp(\mathbf{u}_b^\top \mathbf{i}_{t_b} / \tau)}
        {\sum_{j=1}^{N} \exp(\mathbf{u}_b^\top \mathbf{i}_j / \tau)} .

    The scores are made in blocks of rows, whose gradients are taken in the same pass: the :math:`B \times N` scores are
    never in memory at once.

    A user that has several positives in the batch needs its scores but once: give each user once, and ``index``.

    .. code-block:: python

        user, item = normalize(embeddings.user), normalize(embeddings.item)
        loss = softmax_loss(user, item, target=torch.arange(64) % 48)  # the positive of each user

    Args:
        user (torch.Tensor): The users of a batch, normalised by the caller where the scores should be cosines.
        item (torch.Tensor): The candidates: all items, or a sample of them.
        target (torch.Tensor): The row of each positive in ``item``.
        temperature (float, optional): :math:`\tau`. (default: :obj:`0.2`)
        max_elements (int, optional): The number of scores in memory at once. (default: 8 MiB of them, few enough to
            stay in a cache, on CPU; 512 MiB, enough to keep it busy, on a GPU)
        index (torch.Tensor, optional): The row of the user of each positive in ``user``. (default: their order)
        candidates (torch.Tensor, optional): Which rows of ``item`` are candidates, a bool mask, or how many times each
            is one; positives need to be. A selection of them beforehand takes less time, but waits for the device where
            its size is not known. (default: all, once)

    Shapes:
        - **user:** :math:`(B, D)`, or :math:`(|\mathcal{U}|, D)` with ``index``
        - **item:** :math:`(N, D)`
        - **target**, **index:** :math:`(B)`
        - **candidates:** :math:`(N)`
        - **output:** a scalar
    """
    dtype = torch.promote_types(user.dtype, item.dtype)
    user, item = user.to(dtype), item.to(dtype)
    if max_elements is None:
        max_elements = 2**21 if on_host(user) else 2**27
    return _Softmax.apply(user, item, target, temperature, max(1, max_elements // item.size(0)), index, candidates)


class _Softmax(torch.autograd.Function):
    @staticmethod
    @without_autocast
    def forward(
        ctx: Any,
        user: Tensor,
        item: Tensor,
        target: Tensor,
        temperature: float,
        block: int,
        index: Tensor | None,
        candidates: Tensor | None,
    ) -> Tensor:
        grads = any(ctx.needs_input_grad)
        own = user if index is None else user.index_select(0, index)
        count = user.new_ones(user.size(0)) if index is None else _counts(index, user.size(0)).to(user.dtype)
        offset = None if candidates is None else candidates.to(item.dtype).log()  # minus infinity for none
        positive = item.index_select(0, target)
        grad_user, grad_item = torch.empty_like(user), torch.zeros_like(item)
        total = -(own * positive).sum(dtype=torch.float64) / temperature
        for u, grad, n in zip(user.split(block), grad_user.split(block), count.view(-1, 1).split(block), strict=True):
            score = (u / temperature) @ item.t()
            if offset is not None:
                score += offset
            top = score.amax(dim=1, keepdim=True)
            mass = score.sub_(top).exp_().sum(dim=1, keepdim=True)  # of which the scores are now shares
            total += (n * (mass.log() + top)).sum(dtype=torch.float64)
            if grads:
                torch.mm(score, item, out=grad).mul_(n / mass)
                grad_item.addmm_(score.t(), u * (n / mass))
        if grads:
            scale = 1 / (temperature * target.size(0))
            if index is None:
                grad_user.sub_(positive)
            else:
                grad_user.index_add_(0, index, positive, alpha=-1)
            grad_user.mul_(scale)
            grad_item.index_add_(0, target, own, alpha=-1).mul_(scale)
        ctx.save_for_backward(grad_user, grad_item)
        return (total / target.size(0)).to(user.dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad_user, grad_item = ctx.saved_tensors
        return grad_user * grad, grad_item * grad, None, None, None, None, None


def _counts(index: Tensor, size: int) -> Tensor:
    r"""Returns :func:`torch.bincount` without waiting for the device."""
    return index.new_zeros(size).index_add_(0, index, torch.ones_like(index))


def sampled_softmax_loss(
    user: Tensor,
    positive: Tensor,
    negative: Tensor,
    hit: Tensor,
    num_items: int | Tensor,
    temperature: float = 0.2,
    max_elements: int | None = None,
    index: Tensor | None = None,
    candidates: Tensor | None = None,
) -> Tensor:
    r"""Returns the softmax loss over :math:`M` items, whose sum is estimated from :math:`N` of them, drawn without
    replacement:

    .. math::
        -\frac{1}{B} \sum_{b=1}^{B} \log \frac{\exp(s_b)}
        {\exp(s_b) + r_b \sum_{j \in \mathcal{N}, j \neq i_b} \exp(s_{bj})},
        \quad r_b = \frac{M - 1}{N - |\{ i_b \} \cap \mathcal{N}|},

    where :math:`s` are inner products divided by :math:`\tau`. The factor :math:`r_b` corrects for the sampling
    probability, as in `"Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language Model"
    <https://doi.org/10.1109/TNN.2007.912312>`_: the expected denominator is that of all items. As in
    :func:`softmax_loss`, scores are made in blocks, and once for each user.

    .. code-block:: python

        user, item = normalize(embeddings.user), normalize(embeddings.item)
        hit = torch.full((64,), -1)  # no positive is among the items drawn
        loss = sampled_softmax_loss(user, item[:1].expand(64, -1), item[5:15], hit, num_items=48)

    Args:
        user (torch.Tensor): The users of a batch.
        positive (torch.Tensor): The item of each triplet.
        negative (torch.Tensor): The items drawn, which all triplets share.
        hit (torch.Tensor): Whether the item of each triplet is among those drawn.
        num_items (int or torch.Tensor): :math:`M`, the number of items from which they were drawn, or a scalar that
            holds it.
        temperature (float, optional): :math:`\tau`. (default: :obj:`0.2`)
        max_elements (int, optional): The number of scores in memory at once. (default: as in :func:`softmax_loss`)
        index (torch.Tensor, optional): The row of the user of each triplet in ``user``, ascending where that saves a
            sort. (default: their order)
        candidates (torch.Tensor, optional): Which rows of ``negative`` count as drawn, a bool mask. (default: all)

    Shapes:
        - **user:** :math:`(B, D)`, or :math:`(|\mathcal{U}|, D)` with ``index``
        - **positive:** :math:`(B, D)`
        - **negative:** :math:`(N, D)`
        - **hit**, **index:** :math:`(B)`
        - **candidates:** :math:`(N)`
        - **output:** a scalar
    """
    dtype = torch.promote_types(user.dtype, negative.dtype)
    if max_elements is None:
        max_elements = 2**21 if on_host(user) else 2**27
    user, positive, negative = user.to(dtype), positive.to(dtype), negative.to(dtype)
    if not on_host(user):  # which would wait to learn where the triplets of a block of users end
        user, index = user if index is None else user.index_select(0, index), None
    if index is not None:
        order = index.argsort(stable=True)
        index, positive, hit = index[order], positive.index_select(0, order), hit[order]
    block = max(1, max_elements // max(negative.size(0), 1))
    return _Estimate.apply(  # type: ignore[no-any-return]
        user, positive, negative, hit, num_items, temperature, block, index, candidates
    )


class _Estimate(torch.autograd.Function):
    @staticmethod
    @without_autocast
    def forward(
        ctx: Any,
        user: Tensor,
        positive: Tensor,
        negative: Tensor,
        hit: Tensor,
        num_items: int | Tensor,
        temperature: float,
        block: int,
        index: Tensor | None,
        candidates: Tensor | None,
    ) -> Tensor:
        scale = 1 / (temperature * positive.size(0))
        drawn = negative.size(0) if candidates is None else candidates.sum()
        rate = (num_items - 1) / (drawn - hit.to(user.dtype)).clamp_(min=1)  # where none is left, any
        offset = None if candidates is None else candidates.to(user.dtype).log()  # minus infinity for none
        grad_user, grad_negative = torch.empty_like(user), torch.zeros_like(negative)
        grad_positive = torch.empty_like(positive)
        starts = list(range(0, user.size(0), block))
        if index is None:  # a triplet each
            index, bounds = torch.arange(user.size(0), device=user.device), [*starts, user.size(0)]
        else:
            bounds = [*torch.searchsorted(index, torch.tensor(starts, device=index.device)).tolist(), len(index)]
        total = user.new_zeros((), dtype=torch.float64)
        for n, first in enumerate(starts):
            u, grad, part = user[first : first + block], grad_user[first : first + block], slice(*bounds[n : n + 2])
            own, i, r, known = index[part] - first, positive[part], rate[part], hit[part]
            u_own = u.index_select(0, own)
            s = (u_own * i).sum(dim=1) / temperature
            score = (u / temperature) @ negative.t()
            if offset is not None:
                score += offset
            top = score.amax(dim=1).scatter_reduce(0, own, s, 'amax')  # of drawn items and positives
            mass = score.sub_(top.unsqueeze(1)).exp_().sum(dim=1)
            e = (s - top[own]).exp()
            z = e + r * (mass[own] - known * e).clamp_(min=0)
            total += (z.log() + top[own] - s).sum(dtype=torch.float64)
            share = (r / z).unsqueeze(1)
            weight = torch.zeros_like(mass).index_add_(0, own, r / z).unsqueeze(1)
            torch.mm(score, negative, out=grad).mul_(weight)
            grad_negative.addmm_(score.t(), u * weight)
            rest = (e / z).unsqueeze(1) - 1 - (known * e).unsqueeze(1) * share  # what was drawn again is no negative
            grad.index_add_(0, own, i * rest)
            grad_positive[part] = u_own * rest
        ctx.save_for_backward(grad_user.mul_(scale), grad_positive.mul_(scale), grad_negative.mul_(scale))
        return (total / positive.size(0)).to(user.dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> Any:
        return *(saved * grad for saved in ctx.saved_tensors), *[None] * 6
