from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import LeakyReLU, Linear, Sequential
from torch_geometric.data import HeteroData
from torch_geometric.utils import degree

from lirdrec_pyg.nn.kernels import normalize
from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.nn.objectives import Batch, Objective, draw
from lirdrec_pyg.nn.propagation import Propagation, edges
from lirdrec_pyg.typing import INTERACTS, USER, Embeddings, modality_features


class InfoNCE(Objective):
    r"""The contrastive loss over cosines that :class:`AlphaRec` is trained by: a positive should score above some
    random items :math:`\mathcal{N}`.

    .. math::
        \mathcal{L} = -\frac{1}{B} \sum_{(u, i)} \log \frac{\exp(\cos(\mathbf{u}, \mathbf{i}) / \tau)}
        {\exp(\cos(\mathbf{u}, \mathbf{i}) / \tau) + \sum_{j \in \mathcal{N}} \exp(\cos(\mathbf{u}, \mathbf{j}) / \tau)}

    The sum is that of the items drawn, however many there are of others: :class:`~lirdrec_pyg.nn.SampledSoftmax`
    estimates that of all items. They are drawn from those with training interactions, without replacement, once for the
    whole batch, whereas the released implementation draws some for each user, and none that it interacted with.

    .. code-block:: python

        model = LightGCN.from_data(train, seed=0, objective=InfoNCE(num_negatives=16))

    Args:
        temperature (float, optional): :math:`\tau`. (default: :obj:`0.15`)
        num_negatives (int, optional): The number of items drawn. (default: :obj:`256`)

    Raises:
        ValueError: If an argument is not positive.
    """

    def __init__(self, temperature: float = 0.15, num_negatives: int = 256) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"'temperature' needs to be positive (got {temperature})")
        if not num_negatives > 0:
            raise ValueError(f"'num_negatives' needs to be positive (got {num_negatives})")
        self.temperature = temperature
        self.num_negatives = num_negatives

    def forward(self, batch: Batch) -> Tensor:
        user, index = batch.distinct_users()
        drawn = draw(batch, self.num_negatives, self.generator)
        item = normalize(batch.items(torch.cat([batch.pos, drawn.items])))
        user = normalize(user)
        rows = user if index is None else user.index_select(0, index)
        positive = (rows * item[: len(rows)]).sum(dim=1, keepdim=True) / self.temperature
        negative = (user @ item[len(rows) :].t()) / self.temperature
        negative = negative if index is None else negative.index_select(0, index)
        out = drawn.items == batch.pos.unsqueeze(1)  # the positive counts once
        negative = negative.masked_fill(out if drawn.mask is None else out | ~drawn.mask, float('-inf'))
        return (torch.cat([positive, negative], dim=1).logsumexp(dim=1, keepdim=True) - positive).mean()


class AlphaRec(Recommender):
    r"""Language features in place of IDs, of users and of items, from the `"Language Representations Can be What
    Recommenders Need: Findings and Potentials" <https://arxiv.org/abs/2407.05441>`_ paper.

    .. math::
        \mathbf{x}_u = \frac{1}{|\mathcal{I}_u|} \sum_{i \in \mathcal{I}_u} \mathbf{x}_i, \quad
        \mathbf{e} = \mathbf{W}_2 \, \phi (\mathbf{W}_1 \mathbf{x} + \mathbf{b}_1) + \mathbf{b}_2, \quad
        \mathbf{z} = \frac{1}{L + 1} \sum_{l=0}^{L} \hat{\mathbf{A}}^l \mathbf{e}, \quad
        \hat{s}_{ui} = \cos(\mathbf{z}_u, \mathbf{z}_i)

    where :math:`\phi` is a leaky rectifier, and :math:`\mathcal{I}_u` are the training interactions: a user is the mean
    of its items, and one network maps both. No parameter has a row per user or item. That scores are cosines is a power
    of zero (:meth:`~lirdrec_pyg.nn.Recommender.set_power`).

    In the paper, features are those of a language model, and :math:`\mathbf{W}_1` has 4.7 million weights whatever
    their width: 1,536 hidden units for 3,072 features.

    .. code-block:: python

        model = AlphaRec.from_data(train, seed=0)
        fit(model, train, val, epochs=2)

    Args:
        in_channels (mapping of str to int): The width of each modality.
        hidden_channels (int, optional): The width of the embeddings. (default: :obj:`64`)
        mlp_channels (int, optional): The width between the two layers of the network. (default: :obj:`1536`)
        num_layers (int, optional): The number of layers :math:`L` on the interactions. (default: :obj:`2`)
        modalities (sequence of str, optional): What is read, joined as it is. (default: :obj:`('text',)`)
        objective (Objective, optional): What training minimises. (default: :class:`~lirdrec_pyg.nn.InfoNCE`)

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, d)`
        - **item:** :math:`(|\mathcal{I}|, d)`

    Raises:
        ValueError: If ``modalities`` names an unknown one or none, or the data is a sampled sub-graph, which does not
            have all items of a user.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        hidden_channels: int = 64,
        mlp_channels: int = 1536,
        num_layers: int = 2,
        modalities: Sequence[str] = ('text',),
        objective: Objective | None = None,
    ) -> None:
        super().__init__(objective or InfoNCE())
        if isinstance(modalities, str) or len(modalities) == 0 or any(name not in in_channels for name in modalities):
            raise ValueError(f"'modalities' needs to name some of {list(in_channels)} (got {modalities!r})")
        self.in_channels = dict(in_channels)
        self.modalities = list(modalities)
        self.propagation = Propagation(num_layers, num_item_layers=0)
        width = sum(in_channels[name] for name in modalities)
        self.mlp = Sequential(Linear(width, mlp_channels), LeakyReLU(), Linear(mlp_channels, hidden_channels))
        self.reset_parameters()
        self.set_power(0.0)

    def reset_parameters(self) -> None:
        r"""Sets the parameters to their initial state."""
        for layer in (self.mlp[0], self.mlp[2]):
            layer.reset_parameters()  # type: ignore[operator]

    @property
    def fit_defaults(self) -> dict[str, float]:
        assert self.objective is not None
        return {'lr': 5e-4, 'patience': 20} | self.objective.fit_defaults

    def embed(self, data: HeteroData) -> Embeddings:
        graph = edges(data)
        user, item = self.features(data)
        user, item = self.propagation(self.mlp(user), self.mlp(item), graph.to_item, graph.to_user)
        scale = 1 / (self.propagation.num_layers + 1)
        return Embeddings(user * scale, item * scale)

    def features(self, data: HeteroData) -> Embeddings:
        r"""Returns the features of users, the mean of those of their items, and of items."""
        if 'n_id' in data[USER]:
            raise ValueError("'data' needs to be the whole graph, with all items of a user (got a sampled sub-graph)")
        dtype = self.mlp[0].weight.dtype
        xs = [modality_features(data, name)[0].to(dtype) for name in self.modalities]  # type: ignore[arg-type]
        item = torch.cat(xs, dim=1)
        edge_index, num_users = data[INTERACTS].edge_index, data[USER].num_nodes
        count = degree(edge_index[0], num_users, dtype=item.dtype).clamp_(min=1)
        ones = item.new_ones(edge_index.size(1))
        history = torch.sparse_coo_tensor(edge_index, ones, (num_users, len(item)), check_invariants=False)
        return Embeddings((history @ item) / count.unsqueeze(1), item)
