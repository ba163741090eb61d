from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Linear, ModuleDict, Parameter
from torch.nn.init import normal_, zeros_
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.models.id_based import IDRecommender, ids, rows
from lirdrec_pyg.nn.models.recommender import seen_items
from lirdrec_pyg.nn.objectives import BPR, Batch, Objective, squared_norm
from lirdrec_pyg.typing import ITEM, USER, Embeddings, modality_features


class VBPR(IDRecommender):
    r"""Matrix factorisation on IDs and content side by side, from the `"VBPR: Visual Bayesian Personalized Ranking from
    Implicit Feedback" <https://arxiv.org/abs/1510.01784>`_ paper.

    .. math::
        \hat{s}_{ui} = \boldsymbol{\gamma}_u^\top \boldsymbol{\gamma}_i + \boldsymbol{\theta}_u^\top \mathbf{E}
        \mathbf{f}_i + \beta_i + \boldsymbol{\beta}'^\top \mathbf{f}_i

    where :math:`\mathbf{f}_i` joins the features of all modalities. The paper's terms of the user alone change no
    ranking and are left out. The model is trained by BPR, or another objective, plus :math:`\frac{\lambda}{2B}` times
    the squared norm of the batch's embeddings, *i.e.*, of :math:`[\boldsymbol{\gamma}_i; \mathbf{E} \mathbf{f}_i]` for
    an item.

    As in the implementation of the MMRec framework, there are no biases :math:`\beta` by default and content is of all
    modalities, not the image alone. That implementation penalises the norm, not its square, and adds to
    :math:`\mathbf{E} \mathbf{f}_i` a constant, which cancels in every difference of scores.

    .. code-block:: python

        model = VBPR.from_data(train, seed=0)
        fit(model, train, val, epochs=2)

    Args:
        num_users (int): The number of users.
        num_items (int): The number of items.
        in_channels (mapping of str to int): The width of each modality.
        hidden_channels (int, optional): The width :math:`d` of IDs and of content, each. (default: :obj:`64`)
        bias (bool, optional): Whether to have the paper's biases :math:`\beta_i` and :math:`\boldsymbol{\beta}'`.
            (default: :obj:`False`)
        reg_weight (float, optional): :math:`\lambda`. (default: :obj:`1e-4`)
        objective (Objective, optional): What training minimises. (default: :class:`~lirdrec_pyg.nn.BPR`)

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, 2d)`, or :math:`2d + 1` with biases
        - **item:** :math:`(|\mathcal{I}|, 2d)`, or :math:`2d + 1` with biases
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        in_channels: Mapping[str, int],
        hidden_channels: int = 64,
        bias: bool = False,
        reg_weight: float = 1e-4,
        objective: Objective | None = None,
    ) -> None:

        super().__init__(num_users, num_items, 2 * hidden_channels, hidden_channels, objective or BPR())
        self.in_channels = dict(in_channels)
        self.hidden_channels = hidden_channels
        self.bias = bias
        self.reg_weight = reg_weight
        self.item_bias = Parameter(torch.empty(num_items, 1)) if bias else None
        # One matrix on the joint features is a sum of one a modality; its last column is that of the bias.
        self.projections = ModuleDict(
            {name: Linear(width, hidden_channels + bias, bias=False) for name, width in in_channels.items()}
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.item_bias is not None:
            zeros_(self.item_bias)
        fan = sum(self.in_channels.values()) + self.hidden_channels
        for projection in self.projections.values():
            normal_(projection.weight, std=(2 / fan) ** 0.5)  # type: ignore[arg-type]

    def tables(self) -> Mapping[str, str]:
        return {**super().tables(), **({'item_bias': ITEM} if self.bias else {})}

    def embed(self, data: HeteroData) -> Embeddings:
        return Embeddings(self._users(data), self._items(data))

    def _users(self, data: HeteroData, index: Tensor | None = None) -> Tensor:
        user = rows(self.user, ids(data, USER, index))
        return torch.cat([user, torch.ones_like(user[:, :1])], dim=1) if self.bias else user

    def _items(self, data: HeteroData, index: Tensor | None = None) -> Tensor:
        own = ids(data, ITEM, index)
        xs = {name: rows(modality_features(data, name)[0], index).to(self.item.dtype) for name in self.in_channels}
        content = sum(projection(xs[name]) for name, projection in self.projections.items())
        if self.item_bias is not None:
            content[:, -1:] += rows(self.item_bias, own)
        return torch.cat([rows(self.item, own), content], dim=1)

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        assert self.objective is not None
        # Only the items of the batch are encoded, and those that the objective asks for.
        batch = Batch(user, pos, neg, lambda i: self._users(data, i), lambda i: self._items(data, i), seen_items(data))
        penalty = squared_norm(*(z[:, : 2 * self.hidden_channels] for z in batch.triplets()))
        return self.objective(batch) + self.reg_weight * penalty  # type: ignore[no-any-return]
