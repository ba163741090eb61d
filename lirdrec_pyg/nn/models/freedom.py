import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, ModuleDict, Parameter
from torch.nn.init import xavier_uniform_
from torch_geometric.data import HeteroData
from torch_geometric.utils import degree

from lirdrec_pyg._segments import EPS
from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.nn.objectives import bpr_loss
from lirdrec_pyg.nn.propagation import Edges, Propagation, edges
from lirdrec_pyg.typing import INTERACTS, ITEM, SIMILAR_TO, USER, Embeddings, modalities, modality_features


class FREEDOM(Recommender):
    r"""ID embeddings on a frozen item graph and a denoised interaction graph, from the `"A Tale of Two Graphs: Freezing
    and Denoising Graph Structures for Multimodal Recommendation" <https://arxiv.org/abs/2211.06924>`_ paper.

    .. math::
        \mathbf{u} = \frac{1}{L + 1} \sum_{l=0}^L (\hat{\mathbf{A}}^l \mathbf{e})_u, \quad
        \mathbf{i} = \frac{1}{L + 1} \sum_{l=0}^L (\hat{\mathbf{A}}^l \mathbf{e})_i + (\mathbf{S}^n \mathbf{e})_i

    :math:`\mathbf{S}` is the data's ``similar_to``, which :class:`~lirdrec_pyg.transforms.ItemKNNGraph` mixes from the
    modalities (the paper's setting: ``k=10``, image 0.1, text 0.9). In training, each epoch propagates on interactions
    drawn anew without replacement, a share :math:`1 - \rho` of all with probability :math:`\propto 1 / \sqrt{\deg u
    \deg i}`, normalised by what is left of the degrees; :meth:`encode` takes all interactions. The loss adds BPR on
    projections of each modality to that on the embeddings:

    .. math::
        \mathcal{L} = \mathcal{L}_\mathrm{BPR}(\mathbf{u}, \mathbf{i}) + \lambda \sum_m
        \mathcal{L}_\mathrm{BPR}(\mathbf{u}, \mathbf{W}_m \mathbf{x}_m)

    Items without interactions are served by the embeddings of their neighbours in the item graph. The released
    implementation also trains the features :math:`\mathbf{x}_m` and adds a constant to their projections, which cancels
    in the loss; here they are frozen and there is none.

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
    ) -> None:
        super().__init__(
            num_users=num_users,
            num_items=num_items,
            in_channels=dict(in_channels),
            hidden_channels=hidden_channels,
            num_layers=num_layers,
            num_item_layers=num_item_layers,
            dropout=dropout,
            dropout_seed=dropout_seed,
            reg_weight=reg_weight,
        )
        if not 0 <= dropout < 1:
            raise ValueError(f"'dropout' needs to be in [0, 1) (got {dropout})")
        self.in_channels = dict(in_channels)
        self.dropout = dropout
        self.dropout_seed = dropout_seed
        self.reg_weight = reg_weight
        self.user = Parameter(torch.empty(num_users, hidden_channels))
        self.item = Parameter(torch.empty(num_items, hidden_channels))
        self.projections = ModuleDict(
            {name: Linear(width, hidden_channels, bias=False) for name, width in in_channels.items()}
        )
        self.propagation = Propagation(num_layers, num_item_layers)
        self._epoch = 0
        self._pruned: tuple[Tensor, Edges, Edges] | None = None  # of which interactions, both directions
        self.reset_parameters()

    def reset_parameters(self) -> None:
        xavier_uniform_(self.user)
        xavier_uniform_(self.item)
        for projection in self.projections.values():
            projection.reset_parameters()  # type: ignore[operator]

    @classmethod
    def _sizes(cls, data: HeteroData) -> dict[str, Any]:
        widths = {name: data[ITEM][f'x_{name}'].size(1) for name in modalities(data)}
        return {'num_users': data[USER].num_nodes, 'num_items': data[ITEM].num_nodes, 'in_channels': widths}

    def on_epoch_start(self, epoch: int) -> None:
        self._epoch, self._pruned = epoch, None

    def encode(self, data: HeteroData) -> Embeddings:
        return self._propagate(data, *edges(data))

    def _propagate(
        self, data: HeteroData, to_item: Edges, to_user: Edges, similar: Edges | None, similar_t: Edges | None
    ) -> Embeddings:
        user: Tensor = self.user
        item: Tensor = self.item
        if 'n_id' in data[USER]:
            user, item = user[data[USER].n_id], item[data[ITEM].n_id]
        out_user, out_item = self.propagation(user, item, to_item, to_user)
        scale = 1 / (self.propagation.num_layers + 1)
        out_user, out_item = out_user * scale, out_item * scale
        if self.propagation.num_item_layers > 0:
            if similar is None:
                raise ValueError(f"'data' needs the relation {SIMILAR_TO}: apply `ItemKNNGraph()` to it")
            # `propagate_items` adds its input, which the paper does not.
            out_item = out_item + (self.propagation.propagate_items(item, similar, similar_t) - item)
        return Embeddings(out_user, out_item)

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        to_item, to_user, similar, similar_t = edges(data)
        if self.dropout > 0:
            to_item, to_user = self._prune(data)
        z_user, z_item = self._propagate(data, to_item, to_user, similar, similar_t)
        u, i, j = z_user.index_select(0, user), z_item.index_select(0, pos), z_item.index_select(0, neg)
        loss = bpr_loss((u * i).sum(dim=-1), (u * j).sum(dim=-1))
        for name, projection in self.projections.items():
            x = modality_features(data, name)[0]
            h_pos, h_neg = projection(x[pos].float()), projection(x[neg].float())
            loss = loss + self.reg_weight * bpr_loss((u * h_pos).sum(dim=-1), (u * h_neg).sum(dim=-1))
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

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.user.size(0)}, {self.item.size(0)}, {self.in_channels}, '
            f'hidden_channels={self.user.size(1)}, num_layers={self.propagation.num_layers}, '
            f'num_item_layers={self.propagation.num_item_layers}, dropout={self.dropout})'
        )
