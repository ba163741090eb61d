from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, ModuleDict
from torch.nn.init import xavier_normal_
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.kernels import dropout
from lirdrec_pyg.nn.models.id_based import IDRecommender
from lirdrec_pyg.nn.objectives import Objective
from lirdrec_pyg.nn.propagation import Propagation, edges
from lirdrec_pyg.typing import Embeddings, modality_features


class BM3(IDRecommender):
    r"""Self-supervised learning without negatives, from the `"Bootstrap Latent Representations for Multi-modal
    Recommendation" <https://arxiv.org/abs/2207.05969>`_ paper.

    .. math::
        \mathbf{h}_u = \frac{1}{L + 1} \sum_{l=0}^L (\hat{\mathbf{A}}^l \mathbf{e})_u, \quad
        \mathbf{h}_i = \frac{1}{L + 1} \sum_{l=0}^L (\hat{\mathbf{A}}^l \mathbf{e})_i + \mathbf{e}_i, \quad
        \mathbf{h}_m = \mathbf{W}_m \mathbf{x}_m + \mathbf{b}_m

    The online view of each is its prediction :math:`\tilde{\mathbf{h}} = \mathbf{W} \mathbf{h} + \mathbf{b}`, the
    target view :math:`\dot{\mathbf{h}}` is :math:`\mathbf{h}` after dropout, without gradient. With the distance
    :math:`C(\mathbf{a}, \mathbf{b}) = 1 - \cos(\mathbf{a}, \mathbf{b})`, averaged over the batch's interactions
    :math:`(u, i)`, the loss reconstructs interactions and aligns each modality with the item and with itself:

    .. math::
        \mathcal{L} = C(\tilde{\mathbf{h}}_u, \dot{\mathbf{h}}_i) + C(\tilde{\mathbf{h}}_i, \dot{\mathbf{h}}_u) + \alpha
        \sum_m \big( C(\tilde{\mathbf{h}}_m, \dot{\mathbf{h}}_i) + C(\tilde{\mathbf{h}}_m, \dot{\mathbf{h}}_m) \big) +
        \lambda \Omega

    The score is the inner product of :math:`\tilde{\mathbf{h}}_u` and :math:`\tilde{\mathbf{h}}_i`: content acts
    through the loss alone, so that an item without interactions is scored by an embedding that was never trained.

    As in the released implementation, :math:`\alpha` weighs all alignments and :math:`\Omega = (\|\mathbf{H}_u\|_F +
    \|\mathbf{H}_i\|_F) / |\mathcal{I}|` is over all users and items, where the paper has squared norms. The released
    implementation also trains the features :math:`\mathbf{x}_m`, and draws dropout once a node instead of once a row
    of the batch.

    The released launcher has no one default. It trains a grid, of one or two layers, dropout 0.3 or 0.5 and
    :math:`\lambda` of 0.1 or 0.01, and reports the run that is best on the test split. Its first is
    ``num_layers=1, dropout=0.3, reg_weight=0.1``. Published figures that do not name their settings can be of any.

    .. code-block:: python

        model = BM3.from_data(train, seed=0)
        fit(model, train, val, epochs=2)

    Args:
        num_users (int): The number of users.
        num_items (int): The number of items.
        in_channels (mapping of str to int): The width of each modality.
        hidden_channels (int, optional): The width of the embeddings. (default: :obj:`64`)
        num_layers (int, optional): The number of layers :math:`L`. (default: :obj:`2`)
        dropout (float, optional): The dropout probability of target views. (default: :obj:`0.5`)
        align_weight (float, optional): :math:`\alpha`. (default: :obj:`2.0`)
        reg_weight (float, optional): :math:`\lambda`. (default: :obj:`0.1`)
        objective (Objective, optional): What takes the place of the reconstruction of interactions, the first two
            terms. (default: these terms, without negatives)

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, d)`
        - **item:** :math:`(|\mathcal{I}|, d)`

    Raises:
        ValueError: If ``dropout`` is not in :math:`[0, 1)`.
    """

    generator: torch.Generator | None = None  # of a training run

    def __init__(
        self,
        num_users: int,
        num_items: int,
        in_channels: Mapping[str, int],
        hidden_channels: int = 64,
        num_layers: int = 2,
        dropout: float = 0.5,
        align_weight: float = 2.0,
        reg_weight: float = 0.1,
        objective: Objective | None = None,
    ) -> None:

        super().__init__(num_users, num_items, hidden_channels, hidden_channels, objective)
        if not 0 <= dropout < 1:
            raise ValueError(f"'dropout' needs to be in [0, 1) (got {dropout})")
        self.in_channels = dict(in_channels)
        self.dropout = dropout
        self.align_weight = align_weight
        self.reg_weight = reg_weight
        self.projections = ModuleDict({name: Linear(width, hidden_channels) for name, width in in_channels.items()})
        self.predictor = Linear(hidden_channels, hidden_channels)
        self.propagation = Propagation(num_layers, num_item_layers=0)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for lin in [*self.projections.values(), self.predictor]:
            lin.reset_parameters()  # type: ignore[operator]
            xavier_normal_(lin.weight)  # type: ignore[arg-type]

    def embed(self, data: HeteroData) -> Embeddings:
        user, item = self._propagate(data)
        return Embeddings(self.predictor(user), self.predictor(item))

    def _propagate(self, data: HeteroData) -> Embeddings:
        vectors = self.vectors(data)
        user, item = self.layer_mean(vectors, edges(data))
        return Embeddings(user, item + vectors.item)

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        h_user, h_item = self._propagate(data)
        penalty = (h_user.norm() + h_item.norm()) / h_item.size(0)
        u, i = h_user.index_select(0, user), h_item.index_select(0, pos)
        u_target, i_target = self._target(u), self._target(i)
        if self.objective is None:
            loss = _distance(self.predictor(u), i_target) + _distance(self.predictor(i), u_target)
        else:
            online = Embeddings(self.predictor(h_user), self.predictor(h_item))
            loss = self.objective(self.batch(data, online, user, pos, neg))
        for name, projection in self.projections.items():
            h = projection(modality_features(data, name)[0][pos].to(self.item.dtype))
            predicted = self.predictor(h)
            loss = loss + self.align_weight * (_distance(predicted, i_target) + _distance(predicted, self._target(h)))
        return loss + self.reg_weight * penalty

    def _target(self, h: Tensor) -> Tensor:
        return dropout(h.detach(), self.dropout, self.training, self.generator)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(a, b, dim=-1).mean()
