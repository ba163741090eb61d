from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import ModuleDict, Parameter
from torch.nn.init import xavier_normal_
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.encoder import ModalityEncoder
from lirdrec_pyg.nn.fusion import PWC, Fusion
from lirdrec_pyg.nn.kernels import normalize, on_host, rows_and_mean_square, sparse_rows
from lirdrec_pyg.nn.models.recommender import Recommender, seen_items
from lirdrec_pyg.nn.objectives import BPR, Batch, Objective
from lirdrec_pyg.nn.propagation import Graph, Propagation, edges
from lirdrec_pyg.nn.recent_items import RecentItemsEncoder
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, Embeddings, check, modalities, modality_features

Content = tuple[dict[str, Tensor], Tensor, dict[str, Tensor | None]]  # features, spectrum, masks


class Features(Protocol):
    r"""Content that ``data`` does not hold, such as :class:`~lirdrec_pyg.MappedFeatures`."""

    @property
    def in_channels(self) -> dict[str, int]:
        r"""The width of each modality."""

    def rows(self, index: Tensor) -> Content:
        r"""Returns features, spectra and masks of some items."""


class LIRDRec(Recommender):
    r"""The ID-free multimodal recommender from the `"Learning Item Representations Directly from Multimodal Features
    for Effective Recommendation" <https://arxiv.org/abs/2505.04960>`_ paper.

    There is one view for each modality :math:`m`, which encodes :math:`\mathbf{x}_m`, and a shared one, which encodes
    the spectrum of all. A user has a free vector :math:`\mathbf{p}_{uv}` a view, an item nothing but its content:

    .. math::
        \mathbf{z}^{(0)} &= \Vert_v \, \mathrm{normalize} [\mathbf{P}_v; \mathbf{H}_v], \quad
        \mathbf{z} = \sum_{l=0}^L \hat{\mathbf{A}}^l \mathbf{z}^{(0)} \\
        \mathbf{u} &= \Vert_v \, w_{uv} \mathbf{z}_{uv}, \quad \mathbf{i} = \mathbf{z}_i + (\mathbf{S} \mathbf{z})_i

    The score is the inner product :math:`\mathbf{u}^\top \mathbf{i}`. The loss is that of the objective plus
    :math:`\lambda (\mathrm{mean}(\mathbf{U}^2) + \mathrm{mean}(\mathbf{I}^2))`. No parameter has a row per item.

    With ``recent_items``, which is ours and not the paper's, the model is sequential: a user's latest items join its
    embedding (:class:`~lirdrec_pyg.nn.RecentItemsEncoder`). In training these are the items before the interaction at
    hand. The data needs :class:`~lirdrec_pyg.transforms.RecentItems`.

    .. code-block:: python

        model = LIRDRec.from_data(train, seed=0, hidden_channels=8)
        fit(model, train, val, epochs=2)
        user, item = model(train)
        print(user.shape, item.shape)  # (64, 24) and (48, 24): three views of width 8
        print(list(model.parts(train)))  # what each view, and the item graph, brings to the score

    Args:
        num_users (int): The number of users.
        in_channels (mapping of str to int): The width of each modality, in the data's order.
        hidden_channels (int, optional): The width :math:`d` of a view. (default: :obj:`64`)
        num_layers (int, optional): The number of layers :math:`L` on the interactions. (default: :obj:`2`)
        num_item_layers (int, optional): The number of layers on the item graph. (default: :obj:`1`)
        reg_weight (float, optional): :math:`\lambda`. (default: :obj:`1e-4`)
        dropout (float, optional): The dropout probability within the encoders. (default: :obj:`0.0`)
        objective (Objective, optional): What training minimises. (default: :class:`~lirdrec_pyg.nn.BPR`)
        fusion (Fusion, optional): What weighs the views of a user, :math:`w_{uv}`.
            (default: :class:`~lirdrec_pyg.nn.PWC`, as released)
        recent_items (int, optional): The number of latest items that join a user's embedding. (default: :obj:`0`)
        sparse (bool, optional): Whether the gradient of the users' vectors is sparse on a sampled sub-graph. It needs
            :class:`~lirdrec_pyg.training.LazyAdam`. (default: :obj:`False`)
        spectral_filter (bool, optional): Whether each frequency of the spectrum has a weight that is trained, as in
            `SMORE <https://arxiv.org/abs/2412.14978>`_, but real. It asks what a fixed transform lacks.
            (default: :obj:`False`)

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, |V| d)`
        - **item:** :math:`(|\mathcal{I}|, |V| d)`
    """

    def __init__(
        self,
        num_users: int,
        in_channels: Mapping[str, int],
        hidden_channels: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        reg_weight: float = 1e-4,
        dropout: float = 0.0,
        objective: Objective | None = None,
        fusion: Fusion | None = None,
        recent_items: int = 0,
        sparse: bool = False,
        spectral_filter: bool = False,
    ) -> None:
        super().__init__(objective or BPR())
        if len(in_channels) == 0:
            raise ValueError("'in_channels' needs at least one modality (got none)")
        if recent_items < 0:
            raise ValueError(f"'recent_items' needs to be non-negative (got {recent_items})")
        self.num_users = num_users
        self.in_channels = dict(in_channels)
        self.hidden_channels = d = hidden_channels
        self.reg_weight = reg_weight
        self.sparse = sparse
        self.num_views = len(in_channels) + 1

        self.user = Parameter(torch.empty(num_users, self.num_views, d))
        self.encoders = ModuleDict(
            {name: ModalityEncoder(width, 4 * d, d, dropout) for name, width in in_channels.items()}
        )
        self.shared_encoder = ModalityEncoder(sum(in_channels.values()), 4 * d, d, dropout, spectral_filter)
        self.propagation = Propagation(num_layers, num_item_layers)
        self.fusion = self._own('fusion', fusion or PWC())
        self.fusion.build(d, self.num_views, num_users)
        self.fusion.reset_parameters()  # draws once more: a seed gives the weights of the published rows
        self.recent = RecentItemsEncoder(self.num_views * d, recent_items) if recent_items else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Sets the parameters to their initial state."""
        for view in range(self.num_views):
            xavier_normal_(self.user.data[:, view])
        for encoder in [*self.encoders.values(), self.shared_encoder]:
            encoder.reset_parameters()  # type: ignore[operator]
        self.fusion.reset_parameters()
        if self.recent is not None:
            self.recent.reset_parameters()

    @property
    def fit_defaults(self) -> dict[str, float]:
        assert self.objective is not None
        return {'lr': 1e-4, 'patience': 20} | self.objective.fit_defaults

    @classmethod
    def sizes(cls, data: HeteroData) -> dict[str, Any]:
        found = super().sizes(data)
        spectrum_of(data, found['in_channels'])
        return found

    def tables(self) -> Mapping[str, str]:
        return {'user': USER} | {f'fusion.{name}': USER for name in self.fusion.per_user}

    def on_epoch_start(self, epoch: int) -> None:
        self.fusion.on_epoch_start(epoch)

    # The pipeline: content -> propagate -> fuse. Training, inference, onboarding and folding-in take it from here.

    def content(self, data: HeteroData, index: Tensor | None = None, features: Features | None = None) -> Tensor:
        r"""Returns the views of items before propagation, :math:`(N, |V|, d)`, zero where one lacks the modality.

        Args:
            data (HeteroData): The data.
            index (Tensor, optional): The items to encode :math:`(N)`. (default: all)
            features (Features, optional): Where their content is, if ``data`` does not hold it.
        """
        if features is None:
            xs, spectrum, masks = self._features(data, index)
        else:
            self.check_features(features)
            xs, spectrum, masks = features.rows(torch.arange(data[ITEM].num_nodes) if index is None else index)
        device, views = self.user.device, []
        for name, encoder in self.encoders.items():
            h, mask = encoder(xs[name].to(device)), masks[name]
            views.append(h if mask is None else h * mask.to(device).unsqueeze(-1).to(h.dtype))
        return torch.stack([*views, self.encode_shared(spectrum.to(device))], dim=1)

    def check_features(self, features: Features) -> None:
        r"""Raises a :class:`ValueError` if the modalities are not those of the model, in its order: that of the
        spectrum."""
        if list(features.in_channels.items()) != list(self.in_channels.items()):
            raise ValueError(
                f'modalities need to be those of the model, in its order, {self.in_channels} (got '
                f'{features.in_channels})'
            )

    def encode_shared(self, spectrum: Tensor) -> Tensor:
        r"""Returns the shared view of items, :math:`(N, d)`, given their spectra :math:`(N, \sum_m C_m)`."""
        return self.shared_encoder(spectrum)  # type: ignore[no-any-return]

    def _features(self, data: HeteroData, index: Tensor | None) -> Content:
        xs, masks = {}, {}
        for name, width in self.in_channels.items():
            xs[name], masks[name] = modality_features(data, name)
            if xs[name].size(1) != width:
                raise ValueError(f"'x_{name}' needs to have {width} columns (got {xs[name].size(1)})")
        spectrum = spectrum_of(data, self.in_channels)
        if index is None:
            return xs, spectrum, masks
        return (
            {name: x[index] for name, x in xs.items()},
            spectrum[index],
            {name: None if mask is None else mask[index] for name, mask in masks.items()},
        )

    def propagate(self, content: Tensor, data: HeteroData, graph: Graph) -> tuple[Tensor, Tensor]:
        r"""Sums the layers on the interactions, and adds those on the item graph.

        Args:
            content (Tensor): The views of all items, :math:`(|\mathcal{I}|, |V|, d)`.
            data (HeteroData): The data.
            graph (Graph): Its edges.

        Returns:
            The users' views :math:`(|\mathcal{U}|, |V|, d)`, and the items :math:`(|\mathcal{I}|, |V| d)`.
        """
        user = self.user_vectors(data)
        user, item = self.propagation(user, content, graph.to_item, graph.to_user, normalize=True)
        return user, self.add_neighbors(item.flatten(1), graph)

    def user_vectors(self, data: HeteroData) -> Tensor:
        r"""Returns the free vectors of the users, :math:`(|\mathcal{U}|, |V|, d)`."""
        n_id = data[USER].get('n_id')
        if n_id is None:
            if data[USER].num_nodes != self.num_users:
                raise ValueError(f"'data' needs to have {self.num_users} users (got {data[USER].num_nodes})")
            return self.user
        return sparse_rows(self.user, n_id) if self.sparse else self.user.index_select(0, n_id)

    def add_neighbors(self, item: Tensor, graph: Graph) -> Tensor:
        r"""Returns :math:`\mathbf{z}_i + (\mathbf{S} \mathbf{z})_i` for all items."""
        if self.propagation.num_item_layers == 0:
            return item
        return item + self.propagation.smooth(item, graph.similar, graph.similar_t)

    def fuse(self, user: Tensor, item: Tensor, data: HeteroData) -> Tensor:
        r"""Returns the users :math:`(|\mathcal{U}|, |V| d)`, given their views and all items."""
        user = self.fusion(user, data[USER].get('n_id'))
        return user if self.recent is None else self.recent(user, item, self.recent_items(data))

    def embed(self, data: HeteroData) -> Embeddings:
        return self._embed(self.content(data), data, edges(data))

    def _embed(self, content: Tensor, data: HeteroData, graph: Graph) -> Embeddings:
        user, item = self.propagate(content, data, graph)
        return Embeddings(self.fuse(user, item, data), item)

    def parts(self, data: HeteroData) -> dict[str, Embeddings]:
        r"""Returns what the scores of ``model(data)`` are the sum of: embeddings by name, whose inner products add up
        to them.

        Each view :math:`v`, a modality or ``shared``, has a part of the item itself and, as ``<view>_neighbours``, one
        of its neighbours on the item graph. A sequential model has one more, ``recent_items``: their term
        :math:`\mathbf{r}` of the user :math:`\mathbf{q} = \mathbf{u} + \mathbf{r}`.

        .. math::
            \mathbf{q}^\top \mathbf{i} = \sum_v \mathbf{u}_v^\top \mathbf{z}_{iv} + \sum_v \mathbf{u}_v^\top
            (\mathbf{S} \mathbf{z})_{iv} + \mathbf{r}^\top \mathbf{i}

        Args:
            data (HeteroData): The training split, with ``InteractionGraph()`` applied.
        """
        data = check(data)
        self.check_ids(data)
        graph = edges(data)
        vectors = self.user_vectors(data), self.content(data)
        views, own = self.propagation(*vectors, graph.to_item, graph.to_user, normalize=True)
        item = self.add_neighbors(own.flatten(1), graph)
        user = fused = self.fusion(views, data[USER].get('n_id'))
        if self.recent is not None:
            user = self.recent(fused, item, self.recent_items(data))
            fused = normalize(fused)
        whole = Embeddings(user, item)
        factor = [self._factor(x) for x in whole]

        def part(user: Tensor, item: Tensor) -> Embeddings:
            return Embeddings(user * factor[0], item * factor[1])

        names = [*self.in_channels, 'shared']
        shape = self.num_views, self.hidden_channels
        fused_views, near = fused.unflatten(1, shape), (item - own.flatten(1)).unflatten(1, shape)
        found = {}
        for v, name in enumerate(names):
            found[name] = part(fused_views[:, v], own[:, v])
            if self.propagation.num_item_layers > 0:
                found[f'{name}_neighbours'] = part(fused_views[:, v], near[:, v])
        if self.recent is not None:
            found['recent_items'] = part(user - fused, item)
        return found

    def _factor(self, x: Tensor) -> Tensor:
        r"""Returns what :meth:`scale` multiplies each row by."""
        return x.norm(dim=-1, keepdim=True).clamp_min(1e-12) ** (self.number('power') - 1)

    def encode_layerwise(
        self, data: HeteroData, features: Features | None = None, batch_size: int = 16384
    ) -> Embeddings:
        r"""Returns what ``model(data)`` does. Items are encoded some at a time, so that no more than their features and
        hidden layers are in memory at once.

        Args:
            data (HeteroData): The training split, with ``InteractionGraph()`` applied. It stays on its device.
            features (Features, optional): Where the content is, if ``data`` does not hold it.
            batch_size (int, optional): The number of items encoded at once. (default: :obj:`16384`)
        """
        self.check_ids(data)
        with torch.no_grad():
            index = torch.arange(data[ITEM].num_nodes)
            content = torch.cat([self.content(data, part, features) for part in index.split(batch_size)])
            return self._embed(content, data, edges(data).to(content.device)).scaled(self.number('power'))

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        user_id = data[USER].get('n_id')
        views, z_item = self.propagate(self.content(data), data, edges(data))
        weight = self.fusion.weight(views, user_id)
        if self.training:
            self.fusion.remember(weight.detach(), user_id)
        squares: dict[str, Tensor] = {}  # the regulariser comes with the rows, in one pass

        def users(index: Tensor) -> Tensor:
            rows, squares['user'] = rows_and_mean_square(views, index, weight)
            return rows if self.recent is None else self.recent(rows, z_item, self.recent_items_before(data, user, pos))

        def items(index: Tensor) -> Tensor:
            rows, squares['item'] = rows_and_mean_square(z_item.unsqueeze(1), index)
            return rows

        assert self.objective is not None
        sequential, num_seen = self.recent is not None, data[ITEM].get('num_seen')
        loss = self.objective(Batch(user, pos, neg, users, items, seen_items(data), sequential, num_seen))
        for name, lookup, index in (('user', users, user), ('item', items, pos)):
            if name not in squares:  # an objective that did not ask
                lookup(index)
        return loss + self.reg_weight * (squares['user'] + squares['item'])  # type: ignore[no-any-return]

    def recent_items(self, data: HeteroData, of: Any = USER) -> Tensor:
        r"""Returns the latest items of all users, or those before all interactions, of a sequential model.

        Raises:
            ValueError: If the data lacks them, or is a sampled sub-graph.
        """
        assert self.recent is not None
        recent = data[of].get('recent_items')
        if recent is None or recent.size(1) != self.recent.length:
            got = 'none' if recent is None else f'of length {recent.size(1)}'
            raise ValueError(f"'data' needs recent items: apply `RecentItems({self.recent.length})` to it (got {got})")
        if 'n_id' in data[USER]:
            raise ValueError("'recent_items' needs the whole graph, whose items they are (got a sampled sub-graph)")
        return recent.to(self.user.device)  # type: ignore[no-any-return]

    def recent_items_before(self, data: HeteroData, user: Tensor, item: Tensor) -> Tensor:
        r"""Returns the items that the users had when they came to the given ones, :math:`(B, n)`."""
        recent = self.recent_items(data, INTERACTS)
        known = data[INTERACTS].edge_index[0] * data[ITEM].num_nodes + data[INTERACTS].edge_index[1]  # sorted
        wanted = user * data[ITEM].num_nodes + item
        edge = torch.searchsorted(known, wanted).clamp(max=known.numel() - 1)
        if on_host(known) and not torch.equal(known[edge], wanted):
            raise ValueError("'pos' needs to be training interactions, which have items before them (got others)")
        return recent.index_select(0, edge)

    @torch.no_grad()
    def load_official_state_dict(self, state: Mapping[str, Tensor]) -> None:
        r"""Takes the ``state_dict`` of the released implementation, whose modalities are image and text.

        Args:
            state (mapping of str to Tensor): Its parameters, unchanged.

        Raises:
            ValueError: If this model does not have the modalities ``image`` and ``text`` in that order, the released
                fusion and the same sizes, or ``state`` lacks a parameter.
        """
        pairs = list(self._official())
        for name, param in pairs:
            if name not in state:
                raise ValueError(f"'state' lacks the parameter '{name}' of the released implementation")
            if state[name].shape != param.shape:
                raise ValueError(f"'{name}' needs to be of shape {tuple(param.shape)} (got {tuple(state[name].shape)})")
        for name, param in pairs:
            param.copy_(state[name])

    def _official(self) -> Iterator[tuple[str, Tensor]]:
        r"""Yields the parameters under the names of the released implementation."""
        if list(self.in_channels) != ['image', 'text'] or not isinstance(self.fusion, PWC):
            raise ValueError(
                "the released implementation has the modalities ['image', 'text'] and the fusion PWC "
                f'(got {list(self.in_channels)} and {type(self.fusion).__name__})'
            )
        encoders: list[Any] = [*self.encoders.values(), self.shared_encoder]
        yield 'fusion_module.theta', self.fusion.theta
        for v, (encoder, key, table, net) in enumerate(zip(encoders, 'vts', ('v', 't', 'id'), 'abc', strict=True)):
            yield f'{table}_preference', self.user[:, v]
            for name in ('weight', 'bias'):
                yield f'{key}_MLP.{name}', getattr(encoder.lin1, name)
            yield f'{key}_MLP_1.weight', encoder.lin2.weight
            for layer, index in [('fc1', 0), ('fc2', 2)]:
                lin: Any = self.fusion.nets[v][index]  # type: ignore[index]
                for name in ('weight', 'bias'):
                    yield f'fusion_module.weco_{net}.{layer}.{name}', getattr(lin, name)


def spectrum_of(data: HeteroData, in_channels: Mapping[str, int]) -> Tensor:
    r"""Returns the spectra of the data, in the order of the given modalities."""
    names, width = modalities(data), sum(in_channels.values())
    if set(names) != set(in_channels):
        raise ValueError(f"'data' needs to have the modalities {list(in_channels)} (got {names})")
    spectrum = data[ITEM].get('spectrum')
    if spectrum is None:
        raise ValueError("'data' needs `data['item'].spectrum`: apply `DCT()` to it")
    if spectrum.size(1) != width:
        raise ValueError(f"'spectrum' needs to have {width} columns, one for each feature (got {spectrum.size(1)})")
    if names != list(in_channels):  # a copy, which the data that the model was built from never needs
        parts = dict(zip(names, spectrum.split([in_channels[name] for name in names], dim=1), strict=True))
        spectrum = torch.cat([parts[name] for name in in_channels], dim=1)
    return spectrum  # type: ignore[no-any-return]
