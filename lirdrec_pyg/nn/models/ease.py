import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, Embeddings


class EASE(Recommender):
    r"""A linear model of items by one another, in closed form, from the `"Embarrassingly Shallow Autoencoders for
    Sparse Data" <https://arxiv.org/abs/1905.03375>`_ paper. It has no content and nothing to train.

    .. math::
        \hat{\mathbf{S}} = \mathbf{X} \mathbf{B}, \quad \mathbf{B} = \arg\min_{\mathrm{diag}(\mathbf{B}) = 0} \Vert
        \mathbf{X} - \mathbf{X} \mathbf{B} \Vert_F^2 + \lambda \Vert \mathbf{B} \Vert_F^2 = \mathbf{I} - \mathbf{P} \,
        \mathrm{diag}(\mathbf{P})^{-1}, \quad \mathbf{P} = (\mathbf{X}^\top \mathbf{X} + \lambda \mathbf{I})^{-1}

    where :math:`\mathbf{X}` are the interactions, zeros and ones. A user's embedding is its row of :math:`\mathbf{X}`,
    an item's is its column of :math:`\mathbf{B}`: both are as wide as there are items, and the inverse takes cubic
    time. It is for catalogues of some ten thousand items. Items without interactions score zero.

    .. code-block:: python

        print(evaluate(EASE(reg_weight=10.0)(train), test, k=10))  # nothing to train

    Args:
        reg_weight (float, optional): :math:`\lambda`; some hundreds for large data. (default: :obj:`100.0`)
        max_elements (int, optional): How many numbers embeddings may have. (default: :math:`2^{29}`, 2 GiB of them)

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, |\mathcal{I}|)`
        - **item:** :math:`(|\mathcal{I}|, |\mathcal{I}|)`

    Raises:
        ValueError: If ``reg_weight`` is not positive, or embeddings would have more numbers than ``max_elements``.
    """

    def __init__(self, reg_weight: float = 100.0, max_elements: int = 2**29) -> None:
        super().__init__()
        if not 0 < reg_weight < float('inf'):
            raise ValueError(f"'reg_weight' needs to be positive (got {reg_weight})")
        self.reg_weight = reg_weight
        self.max_elements = max_elements

    def embed(self, data: HeteroData) -> Embeddings:
        num_users, num_items = data[USER].num_nodes, data[ITEM].num_nodes
        if (num_users + num_items) * num_items > self.max_elements:
            raise ValueError(
                f"'data' needs to be small enough for ({num_users} users + {num_items} items) x {num_items} items <= "
                f"{self.max_elements} numbers (got {(num_users + num_items) * num_items}): raise 'max_elements' where "
                'there is memory for them'
            )
        edge_index = data[INTERACTS].edge_index
        x = torch.zeros(num_users, num_items, device=edge_index.device)
        x[edge_index[0], edge_index[1]] = 1
        sparse = torch.sparse_coo_tensor(
            edge_index, torch.ones_like(edge_index[0], dtype=torch.float), x.size(), check_invariants=False
        )
        gram = (sparse.t() @ x).double()  # counts: exact in single precision up to 2 ** 24 users
        gram.diagonal().add_(self.reg_weight)
        p = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        weight = (p / p.diagonal()).neg_()
        weight.diagonal().zero_()
        return Embeddings(x, weight.t().to(x.dtype).contiguous())

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        return user.new_zeros((), dtype=torch.float32)
