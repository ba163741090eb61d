import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.models.id_based import IDRecommender
from lirdrec_pyg.nn.objectives import BPR, Objective, squared_norm
from lirdrec_pyg.nn.propagation import Propagation, edges
from lirdrec_pyg.typing import Embeddings


class LightGCN(IDRecommender):
    r"""The baseline with ID embeddings and no content, from the `"LightGCN: Simplifying and Powering Graph Convolution
    Network for Recommendation" <https://arxiv.org/abs/2002.02126>`_ paper.

    .. math::
        \mathbf{z} = \frac{1}{L + 1} \sum_{l=0}^{L} \hat{\mathbf{A}}^l \mathbf{e}

    It is trained by BPR, or another objective, plus :math:`\frac{\lambda}{2B}` times the squared norm of the batch's
    embeddings :math:`\mathbf{e}`.

    .. code-block:: python

        model = LightGCN.from_data(train, seed=0, num_layers=2)
        fit(model, train, val, epochs=2)

    Args:
        num_users (int): The number of users.
        num_items (int): The number of items.
        hidden_channels (int, optional): The width of the embeddings. (default: :obj:`64`)
        num_layers (int, optional): The number of layers :math:`L`. (default: :obj:`3`)
        reg_weight (float, optional): :math:`\lambda`. (default: :obj:`1e-4`)
        objective (Objective, optional): What training minimises. (default: :class:`~lirdrec_pyg.nn.BPR`)
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        hidden_channels: int = 64,
        num_layers: int = 3,
        reg_weight: float = 1e-4,
        objective: Objective | None = None,
    ) -> None:

        super().__init__(num_users, num_items, hidden_channels, hidden_channels, objective or BPR())
        self.reg_weight = reg_weight
        self.propagation = Propagation(num_layers, num_item_layers=0)
        self.reset_parameters()

    def embed(self, data: HeteroData) -> Embeddings:
        return self.layer_mean(self.vectors(data), edges(data))

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        vectors = self.vectors(data)
        items = torch.cat([pos, neg])
        penalty = squared_norm(vectors.user.index_select(0, user), vectors.item.index_select(0, items))
        return super().loss(data, user, pos, neg) + self.reg_weight * penalty
