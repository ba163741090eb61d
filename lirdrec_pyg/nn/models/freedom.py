import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module, ModuleDict
from torch_geometric.data import HeteroData
from torch_geometric.utils import degree

from lirdrec_pyg._segments import EPS
from lirdrec_pyg.nn.models.id_based import IDRecommender
from lirdrec_pyg.nn.objectives import BPR, Objective
from lirdrec_pyg.nn.propagation import Edges, Graph, Propagation, edges
from lirdrec_pyg.typing import INTERACTS, USER, Embeddings, modality_features


class FREEDOM(IDRecommender):
    r"""ID embeddings on a frozen item graph and a denoised interaction graph, from the `"A Tale of Two Graphs: Freezing
    and Denoising Graph Structures for Multimodal Recommendation" <https://arxiv.org/abs/2211.06924>`_ paper.

    .. math::
        \mathbf{u} = \frac{1}{L + 1} \sum_{l=0}^L (\hat{\mathbf{A}}^l \mathbf{e})_u, \quad
        \mathbf{i} = \frac{1}{L + 1} \sum_{l=0}^L (\hat{\mathbf{A}}^l \mathbf{e})_i + (\mathbf{S}^n \mathbf{e})_i

    :math:`\mathbf{S}` is the data's ``similar_to``, which :class:`~lirdrec_pyg.transforms.ItemKNNGraph` mixes from the
    modalities (the paper's setting: ``k=10``, image 0.1, text 0.9). In training, each epoch propagates on interactions
    drawn anew without replacement, a share :math:`1 - \rho` of all with probability :math:`\propto 1 / \sqrt{\deg u
    \deg i}`, normalised by what is left of the degrees; ``model(data)`` takes all interactions. The loss adds BPR
    on projections of each modality to that on the embeddings; another objective takes the place of both:

    .. math::
        \mathcal{L} = \mathcal{L}_\mathrm{BPR}(\mathbf{u}, \mathbf{i}) + \lambda \sum_m
        \mathcal{L}_\mathrm{BPR}(\mathbf{u}, \mathbf{W}_m \mathbf{x}_m)

    Items without interactions are served by the embeddings of their neighbours in the item graph. The released
    implementation also trains the features :math:`\mathbf{x}_m` and adds a constant to their projections, which cancels
    in the loss; here they are frozen and there is none.

    .. code-block:: python

        model = FREEDOM.from_data(train, seed=0)  # train has the graph of ItemKNNGraph()
        fit(model, train, val, epochs=2)

    Args:
        num_users (int): The number of users.
        num_items (int): The number of items.
        in_channels (mapping of str to int): The width of each modality.
        hidden_channels (int, optional): The width of the embeddings. (default: :obj:`64`)
        num_layers (int, optional): The number of layers :math:`L` on the interactions. (default: :obj:`2`)
        num_item_layers (int, optional): The number of layers :math:`n` on the item graph; zero leaves it out.
            (default: :obj:`1`)
        dropout (float, optional): The share :math:`\rho` of interactions left out. (default: :obj:`0.8`)
        dropout_seed (int, optional): The seed of their choice: that of epoch :math:`t` depends on ``dropout_seed + t``
            alone. (default: :obj:`0`)
        reg_weight (float, optional): :math:`\lambda`. (default: :obj:`1e-3`)
        objective (Objective, optional): What training minimises. (default: :class:`~lirdrec_pyg.nn.BPR`)

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, d)`
        - **item:** :math:`(|\mathcal{I}|, d)`

    Raises:
        ValueError: If ``dropout`` is not in :math:`[0, 1)`, or the data lack the item graph.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        in_channels: Mapping[str, int],
        hidden_channels: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        dropout: float = 0.8,
        dropout_seed: int = 0,
        reg_weight: float = 1e-3,
        objective: Objective | None = None,
    ) -> None:

        super().__init__(num_users, num_items, hidden_channels, hidden_channels, objective or BPR())
        if not 0 <= dropout < 1:
            raise ValueError(f"'dropout' needs to be in [0, 1) (got {dropout})")
        self.in_channels = dict(in_channels)
        self.dropout = dropout
        self.dropout_seed = dropout_seed
        self.reg_weight = reg_weight
        self.projections = ModuleDict(
            {name: Linear(width, hidden_channels, bias=False) for name, width in in_channels.items()}
        )
        self.propagation = Propagation(num_layers, num_item_layers)
        self._epoch = 0
        self._pruned: tuple[Tensor, Edges, Edges] | None = None  # of which interactions, both directions
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for projection in self.projections.values():
            projection.reset_parameters()  # type: ignore[operator]

    def on_epoch_start(self, epoch: int) -> None:
        self._epoch, self._pruned = epoch, None

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {'_pruned': None}  # copies draw it again

    def embed(self, data: HeteroData) -> Embeddings:
        return self._embed(data, edges(data))

    def _embed(self, data: HeteroData, graph: Graph) -> Embeddings:
        vectors = self.vectors(data)
        user, item = self.layer_mean(vectors, graph)
        if self.propagation.num_item_layers > 0:
            item = item + self.propagation.smooth(vectors.item, graph.similar, graph.similar_t)
        return Embeddings(user, item)

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        assert self.objective is not None
        graph = edges(data)
        if self.dropout > 0:
            to_item, to_user = self._prune(data)
            graph = graph._replace(to_item=to_item, to_user=to_user)
        batch = self.batch(data, self._embed(data, graph), user, pos, neg)
        loss: Tensor = self.objective(batch)
        for name, projection in self.projections.items():
            x = modality_features(data, name)[0]

            def project(index: Tensor, x: Tensor = x, projection: Module = projection) -> Tensor:
                return projection(x[index].to(self.item.dtype))  # type: ignore[no-any-return]

            loss = loss + self.reg_weight * self.objective(batch.with_items(project))
        return loss

    def _prune(self, data: HeteroData) -> tuple[Edges, Edges]:
        r"""Returns ``to_item`` and ``to_user`` of this epoch's interactions, drawn at its first step."""
        if 'n_id' in data[USER]:
            raise ValueError("'data' needs to be the whole graph where 'dropout' is positive (got a sampled sub-graph)")
        store = data[INTERACTS]
        if self._pruned is None or self._pruned[0] is not store.edge_index:
            self._pruned = store.edge_index, *self._draw(store.edge_index, store.edge_weight)
        return self._pruned[1:]

    def _draw(self, edge_index: Tensor, edge_weight: Tensor) -> tuple[Edges, Edges]:
        size = self.user.size(0), self.item.size(0)
        order = (edge_index[0] * size[1] + edge_index[1]).argsort()  # the draw does not depend on the order
        generator = torch.Generator().manual_seed(self.dropout_seed + self._epoch)
        # The smallest of exponential variables of rates w are a sample without replacement of probabilities ∝ w.
        key = torch.empty(len(order)).exponential_(generator=generator).to(edge_weight.device) / edge_weight[order]
        num_kept = int(len(order) * (1 - self.dropout))
        user, item = edge_index[:, order[key.topk(num_kept, largest=False).indices]]
        deg_user, deg_item = degree(user, size[0]) + EPS, degree(item, size[1]) + EPS
        weight = deg_user.pow(-0.5)[user] * deg_item.pow(-0.5)[item]
        adj = torch.sparse_coo_tensor(torch.stack([user, item]), weight, size, check_invariants=False)
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'Sparse CSR tensor support is in beta state')
            return (adj.t().to_sparse_csr(), None), (adj.to_sparse_csr(), None)
