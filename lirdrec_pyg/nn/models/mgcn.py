from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Linear, ModuleDict, Sequential, Tanh
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.kernels import normalize, on_host, softmax_loss
from lirdrec_pyg.nn.models.id_based import IDRecommender
from lirdrec_pyg.nn.objectives import BPR, Objective, squared_norm
from lirdrec_pyg.nn.propagation import Propagation, edges, item_edges
from lirdrec_pyg.typing import Embeddings, modality_features, similar_by


class MGCN(IDRecommender):
    r"""ID embeddings that content gates, on two graphs, from the `"Multi-View Graph Convolutional Network for
    Multimedia Recommendation" <https://arxiv.org/abs/2308.03588>`_ paper.

    Behaviour :math:`\mathbf{z}` is LightGCN's mean of layers on the interactions. The *purifier* lets a modality
    choose among an item's ID features, the *item view* carries these along its item graph and on to the users
    (:math:`\hat{\mathbf{R}}` is the normalised interaction matrix):

    .. math::
        \mathbf{h}_{i,m} = (\mathbf{S}_m^n [\mathbf{e} \odot \sigma(\mathbf{W}_m (\mathbf{V}_m \mathbf{x}_m +
        \mathbf{a}_m) + \mathbf{b}_m)])_i, \quad \mathbf{h}_{u,m} = (\hat{\mathbf{R}} \mathbf{h}_m)_u

    For users and items alike, the *fuser* splits these into what the modalities share, by attention, and what is
    special to each, which behaviour gates:

    .. math::
        \mathbf{c} = \sum_m \mathrm{softmax}_m \big( \mathbf{q}^\top \tanh(\mathbf{W} \mathbf{h}_m + \mathbf{b}) \big)
        \, \mathbf{h}_m, \quad
        \mathbf{s} = \frac{1}{|\mathcal{M}| + 1} \Big( \mathbf{c} + \sum_m \sigma(\mathbf{U}_m \mathbf{z} +
        \mathbf{d}_m) \odot (\mathbf{h}_m - \mathbf{c}) \Big)

    The embedding is :math:`\mathbf{z} + \mathbf{s}`. The model is trained by BPR, or another objective, plus
    :math:`\frac{\lambda}{2B}` times the squared norm of the batch's embeddings, plus :math:`\alpha` times InfoNCE of
    temperature :math:`\tau` from :math:`\mathbf{s}` to :math:`\mathbf{z}`, among the batch's users and among its
    positive items, each of which is a candidate once.

    :math:`\mathbf{S}_m` is the data's ``similar_by_<modality>``, which :class:`~lirdrec_pyg.transforms.ModalityGraphs`
    makes, weighted by similarity and normalised. The released implementation also trains the features
    :math:`\mathbf{x}_m`, and has a user (or item) of several interactions of a batch among the negatives of itself.
    Its factor of :math:`\mathbf{s}`, a third for two modalities, and its contrast within the batch are followed.

    .. code-block:: python

        train, val, test = FixedSplit()(ModalityGraphs(k=4)(data))
        train = InteractionGraph()(train)
        model = MGCN.from_data(train, seed=0)
        fit(model, train, val, epochs=2)

    Args:
        num_users (int): The number of users.
        num_items (int): The number of items.
        in_channels (mapping of str to int): The width of each modality.
        hidden_channels (int, optional): The width :math:`d` of the embeddings. (default: :obj:`64`)
        num_layers (int, optional): The number of layers on the interactions. (default: :obj:`2`)
        num_item_layers (int, optional): The number of layers :math:`n` on the item graphs; zero leaves them out.
            (default: :obj:`1`)
        contrast_weight (float, optional): :math:`\alpha`. (default: :obj:`1e-3`)
        temperature (float, optional): :math:`\tau`. (default: :obj:`0.2`)
        reg_weight (float, optional): :math:`\lambda`. (default: :obj:`1e-4`)
        objective (Objective, optional): What training minimises. (default: :class:`~lirdrec_pyg.nn.BPR`)

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, d)`
        - **item:** :math:`(|\mathcal{I}|, d)`

    Raises:
        ValueError: If the data lack an item graph.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        in_channels: Mapping[str, int],
        hidden_channels: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        contrast_weight: float = 1e-3,
        temperature: float = 0.2,
        reg_weight: float = 1e-4,
        objective: Objective | None = None,
    ) -> None:

        super().__init__(num_users, num_items, hidden_channels, hidden_channels, objective or BPR())
        d = hidden_channels
        self.in_channels = dict(in_channels)
        self.contrast_weight = contrast_weight
        self.temperature = temperature
        self.reg_weight = reg_weight
        self.gates = ModuleDict({name: Sequential(Linear(c, d), Linear(d, d)) for name, c in in_channels.items()})
        self.query = Sequential(Linear(d, d), Tanh(), Linear(d, 1, bias=False))
        self.preference = Linear(d, len(in_channels) * d)  # of all modalities at once
        self.propagation = Propagation(num_layers, num_item_layers)
        self.lift = Propagation(num_layers=1, num_item_layers=0)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for module in [*self.gates.modules(), *self.query, self.preference]:
            if isinstance(module, Linear):
                module.reset_parameters()

    def embed(self, data: HeteroData) -> Embeddings:
        behaviour, side = self._views(data)
        return Embeddings(behaviour.user + side.user, behaviour.item + side.item)

    def _views(self, data: HeteroData) -> tuple[Embeddings, Embeddings]:
        r"""Returns what behaviour tells and what content does."""
        graph, vectors = edges(data), self.vectors(data)
        behaviour = self.layer_mean(vectors, graph)
        gates = [
            gate(modality_features(data, name)[0].to(self.item.dtype)).sigmoid() for name, gate in self.gates.items()
        ]
        h_item = self.neighbors([vectors.item * gate for gate in gates], data)
        # One layer from users that start at zero: they get the normalised sum over their items, the items nothing.
        h_user = h_item.new_zeros(vectors.user.size(0), h_item.size(1))
        h_user, h_item = self.lift(h_user, h_item, graph.to_item, graph.to_user)
        return behaviour, Embeddings(self._fuse(h_user, behaviour.user), self._fuse(h_item, behaviour.item))

    def neighbors(self, h: list[Tensor], data: HeteroData) -> Tensor:
        r"""Returns what flows along the item graphs, :math:`(|\mathcal{I}|, |M| d)`, given the items of each
        modality."""
        if self.propagation.num_item_layers == 0:
            return torch.cat(h, dim=-1)
        out = []
        for name, x in zip(self.in_channels, h, strict=True):
            similar, similar_t = item_edges(data, similar_by(name))
            if similar is None:
                raise ValueError(
                    f"'data' needs the relation {similar_by(name)}: apply `ModalityGraphs()` to it, or build the model "
                    f'with `num_item_layers=0` (got {self.propagation.num_item_layers})'
                )
            out.append(self.propagation.smooth(x, similar, similar_t))
        return torch.cat(out, dim=-1)

    def _fuse(self, h: Tensor, z: Tensor) -> Tensor:
        h = h.unflatten(1, (len(self.in_channels), -1))  # [N, M, d]
        shared = (self.query(h).softmax(dim=1) * h).sum(dim=1, keepdim=True)
        special = self.preference(z).sigmoid().view_as(h) * (h - shared)
        return torch.cat([shared, special], dim=1).mean(dim=1)

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        assert self.objective is not None
        behaviour, side = self._views(data)
        z = Embeddings(behaviour.user + side.user, behaviour.item + side.item)
        batch = self.batch(data, z, user, pos, neg)
        loss = self.objective(batch) + self.reg_weight * squared_norm(*batch.triplets())
        contrast = self.contrast(side.user, behaviour.user, user) + self.contrast(side.item, behaviour.item, pos)
        return loss + self.contrast_weight * contrast  # type: ignore[no-any-return]

    def contrast(self, a: Tensor, b: Tensor, index: Tensor) -> Tensor:
        r"""Returns the loss that contrasts the rows of a batch, the mean over all that it has, without all scores in
        memory. On CPU each row is taken once; elsewhere, to find them would wait for the device, and each weighs its
        share."""
        if on_host(index):
            rows, index = index.unique(return_inverse=True)
            a, b = normalize(a.index_select(0, rows)), normalize(b.index_select(0, rows))
            return softmax_loss(a, b, index, self.temperature, index=index)
        share = 1 / a.new_zeros(a.size(0)).index_add_(0, index, torch.ones_like(index, dtype=a.dtype))[index]
        a, b = normalize(a.index_select(0, index)), normalize(b.index_select(0, index))
        target = torch.arange(index.size(0), device=index.device)
        return softmax_loss(a, b, target, self.temperature, candidates=share)
