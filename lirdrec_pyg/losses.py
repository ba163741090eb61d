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
