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
    max_elements: int = 2**21,
) -> Tensor:
    r"""The (sampled) softmax loss of `"On the Effectiveness of Sampled Softmax Loss for Item Recommendation"
    <https://arxiv.org/abs/2201.02327>`_,

    .. math::
        -\frac{1}{B} \sum_{b=1}^{B} \log \frac{\exp(\mathbf{u}_b^\top \mathbf{i}_{t_b} / \tau)}
        {\sum_{j=1}^{N} \exp(\mathbf{u}_b^\top \mathbf{i}_j / \tau)} .

    The scores are made in blocks of rows, whose gradients are taken in the same pass: the :math:`B \times N` scores are
    never in memory at once.

    Args:
        user (torch.Tensor): The users of a batch, normalised by the caller where the scores should be cosines.
        item (torch.Tensor): The candidates: all items, or a sample of them.
        target (torch.Tensor): For each user the row of its positive in ``item``.
        temperature (float, optional): :math:`\tau`. (default: :obj:`0.2`)
        max_elements (int, optional): The number of scores in memory at once. (default: 8 MiB of them, few enough to
            stay in a cache)

    Shapes:
        - **user:** :math:`(B, D)`
        - **item:** :math:`(N, D)`
        - **target:** :math:`(B)`
        - **output:** a scalar
    """
    return _Softmax.apply(user, item, target, temperature, max(1, max_elements // item.size(0)))


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, user: Tensor, item: Tensor, target: Tensor, temperature: float, block: int) -> Tensor:
        grads = any(ctx.needs_input_grad)
        positive = item.index_select(0, target)
        grad_user, grad_item = torch.empty_like(user), torch.zeros_like(item)
        total = -(user * positive).sum(dtype=torch.float64) / temperature
        for u, grad in zip(user.split(block), grad_user.split(block), strict=True):
            score = (u / temperature) @ item.t()
            top = score.amax(dim=1, keepdim=True)
            mass = score.sub_(top).exp_().sum(dim=1, keepdim=True)  # of which the scores are now shares
            total += (mass.log() + top).sum(dtype=torch.float64)
            if grads:
                torch.mm(score, item, out=grad).div_(mass)
                grad_item.addmm_(score.t(), u / mass)
        if grads:
            scale = 1 / (temperature * user.size(0))
            grad_user.sub_(positive).mul_(scale)
            grad_item.index_add_(0, target, user, alpha=-1).mul_(scale)
        ctx.save_for_backward(grad_user, grad_item)
        return (total / user.size(0)).to(user.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad_user, grad_item = ctx.saved_tensors
        return grad_user * grad, grad_item * grad, None, None, None
