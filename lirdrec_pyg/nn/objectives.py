from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def bpr_loss(pos_score: Tensor, neg_score: Tensor) -> Tensor:
    r"""The Bayesian personalised ranking loss of `"BPR" <https://arxiv.org/abs/1205.2618>`_,
    :math:`\frac{1}{B} \sum \mathrm{softplus}(s^- - s^+)`.

    Shapes:
        - **pos_score**, **neg_score:** :math:`(B)`
        - **output:** a scalar
    """
    return F.softplus(neg_score - pos_score).mean()


def mean_square_norm(user: Tensor, item: Tensor) -> Tensor:
    r"""The L2 penalty of `"LIRDRec" <https://arxiv.org/abs/2505.04960>`_, over the final representations of all users
    and items: :math:`\mathrm{mean}(\mathbf{U}^2) + \mathrm{mean}(\mathbf{I}^2)`.

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, D)`
        - **item:** :math:`(|\mathcal{I}|, D)`
        - **output:** a scalar
    """
    return user.square().mean() + item.square().mean()


def softmax_loss(
    user: Tensor,
    item: Tensor,
    target: Tensor,
    temperature: float = 0.2,
    max_elements: int | None = None,
    index: Tensor | None = None,
    candidates: Tensor | None = None,
) -> Tensor:
    r"""The (sampled) softmax loss of `"On the Effectiveness of Sampled Softmax Loss for Item Recommendation"
    <https://arxiv.org/abs/2201.02327>`_,

    .. math::
        -\frac{1}{B} \sum_{b=1}^{B} \log \frac{\exp(\mathbf{u}_b^\top \mathbf{i}_{t_b} / \tau)}
        {\sum_{j=1}^{N} \exp(\mathbf{u}_b^\top \mathbf{i}_j / \tau)} .

    The scores are made in blocks of rows, whose gradients are taken in the same pass: the :math:`B \times N` scores are
    never in memory at once.

    A user that has several positives in the batch needs its scores but once: give each user once, and ``index``.

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
    if max_elements is None:
        max_elements = 2**21 if user.device.type == 'cpu' else 2**27
    return _Softmax.apply(user, item, target, temperature, max(1, max_elements // item.size(0)), index, candidates)


class _Softmax(torch.autograd.Function):
    @staticmethod
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
        count = user.new_ones(user.size(0)) if index is None else index.bincount(minlength=user.size(0)).to(user.dtype)
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
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad_user, grad_item = ctx.saved_tensors
        return grad_user * grad, grad_item * grad, None, None, None, None, None
