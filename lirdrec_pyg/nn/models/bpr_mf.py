from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.models.id_based import IDRecommender
from lirdrec_pyg.nn.objectives import BPR, Objective, squared_norm
from lirdrec_pyg.typing import Embeddings


class BPRMF(IDRecommender):
    r"""Matrix factorisation, from the `"BPR: Bayesian Personalized Ranking from Implicit Feedback"
    <https://arxiv.org/abs/1205.2618>`_ paper: ID embeddings alone, no graph and no content.

    .. math::
        \hat{s}_{ui} = \mathbf{p}_u^\top \mathbf{q}_i, \quad
        \mathcal{L} = \frac{1}{B} \sum_{(u, i, j)} \Big( -\ln \sigma(\hat{s}_{ui} - \hat{s}_{uj}) + \frac{\lambda}{2}
        \big( \|\mathbf{p}_u\|^2 + \|\mathbf{q}_i\|^2 + \|\mathbf{q}_j\|^2 \big) \Big)

    .. code-block:: python

        model = BPRMF.from_data(train, seed=0)
        fit(model, train, val, epochs=2)

    Args:
        num_users (int): The number of users.
        num_items (int): The number of items.
        hidden_channels (int, optional): The width of the embeddings. (default: :obj:`64`)
        reg_weight (float, optional): :math:`\lambda`. (default: :obj:`1e-4`)
        objective (Objective, optional): What training minimises. (default: :class:`~lirdrec_pyg.nn.BPR`)

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, d)`
        - **item:** :math:`(|\mathcal{I}|, d)`
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        hidden_channels: int = 64,
        reg_weight: float = 1e-4,
        objective: Objective | None = None,
    ) -> None:
        super().__init__(num_users, num_items, hidden_channels, hidden_channels, objective or BPR())
        self.reg_weight = reg_weight
        self.reset_parameters()

    def embed(self, data: HeteroData) -> Embeddings:
        return self.vectors(data)

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        assert self.objective is not None
        batch = self.batch(data, self.embed(data), user, pos, neg)
        return self.objective(batch) + self.reg_weight * squared_norm(*batch.triplets())  # type: ignore[no-any-return]
