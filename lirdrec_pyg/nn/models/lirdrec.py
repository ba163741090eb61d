from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import ModuleDict, Parameter
from torch.nn.init import xavier_normal_
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.encoder import ModalityEncoder
from lirdrec_pyg.nn.fusion import PWC, PWCVariant
from lirdrec_pyg.nn.kernels import normalize, rows_and_mean_square, sparse_rows
from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.nn.objectives import bpr_loss, softmax_loss
from lirdrec_pyg.nn.propagation import Edges, Propagation, edges
from lirdrec_pyg.nn.recent_items import RecentItemsEncoder
from lirdrec_pyg.typing import INTERACTS, ITEM, SIMILAR_TO, USER, Embeddings, modalities, modality_features


class LIRDRec(Recommender):
    r"""The ID-free multimodal recommender from the `"Learning Item Representations Directly from Multimodal Features
    for Effective Recommendation" <https://arxiv.org/abs/2505.04960>`_ paper.

    With one view for each modality :math:`m`, which encodes :math:`\mathbf{x}_m`, and a shared one, which encodes the
    spectrum of all, each user has a free vector :math:`\mathbf{p}_{uv}` a view, and an item nothing but its content:

    .. math::
        \mathbf{z}^{(0)} &= \Vert_v \, \mathrm{normalize} [\mathbf{P}_v; \mathbf{H}_v], \quad
        \mathbf{z} = \sum_{l=0}^L \hat{\mathbf{A}}^l \mathbf{z}^{(0)} \\
        \mathbf{u} &= \mathrm{PWC}(\mathbf{z}_u), \quad \mathbf{i} = \mathbf{z}_i + (\mathbf{S} \mathbf{z})_i

    It is trained by BPR on inner products plus :math:`\lambda (\mathrm{mean}(\mathbf{U}^2) +
    \mathrm{mean}(\mathbf{I}^2))`. No parameter has a row per item: items without interactions are served like others.

    With ``loss='softmax'``, ours and not the paper's, BPR gives way to the
    :func:`~lirdrec_pyg.nn.objectives.softmax_loss` over cosines, which needs far fewer epochs. The length of an embedding, on which this loss does not depend, still
    grows with an item's interactions: it helps to rank what is known (``scoring='dot'``), but keeps items that nobody
    has bought far behind (``scoring='cosine'`` does not). Any exponent :math:`\alpha` of that length, one for the first
    and zero for the second, scores by :math:`\mathbf{u}^\top \mathbf{i} \, \Vert \mathbf{i} \Vert^{\alpha - 1}`.

    With ``history``, ours as well, the model is sequential: a user's latest items join its embedding
    (:class:`~lirdrec_pyg.nn.RecentItemsEncoder`), in training those before the interaction at hand, at
    inference the last.
    The data needs :class:`~lirdrec_pyg.transforms.RecentItems`.

    Args:
        num_users (int): The number of users.
        in_channels (mapping of str to int): The width of each modality, in the data's order.
        hidden_channels (int, optional): The width :math:`d` of a view. (default: :obj:`64`)
        num_layers (int, optional): The number of layers :math:`L` on the interactions. (default: :obj:`2`)
        num_item_layers (int, optional): The number of layers on the item graph. (default: :obj:`1`)
        reg_weight (float, optional): :math:`\lambda`. (default: :obj:`1e-4`)
        pwc (str, optional): The variant of :class:`~lirdrec_pyg.nn.PWC`. (default: ``'released'``)
        pwc_init (float, optional): Its :math:`a_0`. (default: :obj:`0.9`)
        pwc_decay (float, optional): Its :math:`b`. (default: :obj:`0.9`)
        pwc_rate (float, optional): Its :math:`\tau`. (default: :obj:`0.1`)
        dropout (float, optional): The dropout probability within the encoders. (default: :obj:`0.0`)
        loss (str, optional): The objective, ``'bpr'`` or ``'softmax'``. (default: ``'bpr'``)
        temperature (float, optional): The temperature of the softmax. (default: :obj:`0.2`)
        num_negatives (int or str, optional): The negatives of the softmax, which a batch shares: ``'batch'``
            for one another's positives, or a number of uniform items beside these. Items without interactions are
            never among them, which would teach the model to avoid what is new. (default: all other items)
        scoring (str or float, optional): Whether scores are inner products, ``'dot'``, or ``'cosine'``, or the exponent
            :math:`\alpha` of the length of an item. (default: ``'dot'``)
        history (int, optional): The number of latest items that join a user's embedding. (default: :obj:`0`)
        sparse (bool, optional): If set to :obj:`True`, the gradient of the users' vectors is sparse on a sampled
            sub-graph: use :class:`~lirdrec_pyg.training.minibatch.LazyAdam`. (default: :obj:`False`)

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
        pwc: PWCVariant = 'released',
        pwc_init: float = 0.9,
        pwc_decay: float = 0.9,
        pwc_rate: float = 0.1,
        dropout: float = 0.0,
        loss: Literal['bpr', 'softmax'] = 'bpr',
        temperature: float = 0.2,
        num_negatives: int | Literal['batch'] | None = None,
        scoring: Literal['dot', 'cosine'] | float = 'dot',
        history: int = 0,
        sparse: bool = False,
    ) -> None:
        super().__init__(
            num_users=num_users,
            in_channels=dict(in_channels),
            hidden_channels=hidden_channels,
            num_layers=num_layers,
            num_item_layers=num_item_layers,
            reg_weight=reg_weight,
            pwc=pwc,
            pwc_init=pwc_init,
            pwc_decay=pwc_decay,
            pwc_rate=pwc_rate,
            dropout=dropout,
            loss=loss,
            temperature=temperature,
            num_negatives=num_negatives,
            scoring=scoring,
            history=history,
            sparse=sparse,
        )
        if len(in_channels) == 0:
            raise ValueError("'in_channels' needs at least one modality (got none)")
        if loss not in ('bpr', 'softmax'):
            raise ValueError(f"'loss' needs to be 'bpr' or 'softmax' (got {loss!r})")
        exponent = {'dot': 1.0, 'cosine': 0.0}.get(scoring) if isinstance(scoring, str) else float(scoring)
        if exponent is None or not 0 <= exponent < float('inf'):
            raise ValueError(f"'scoring' needs to be 'dot', 'cosine' or a non-negative exponent (got {scoring!r})")
        if temperature <= 0:
            raise ValueError(f"'temperature' needs to be positive (got {temperature})")
        if history < 0:
            raise ValueError(f"'history' needs to be non-negative (got {history})")
        if not (num_negatives in (None, 'batch') or (isinstance(num_negatives, int) and num_negatives > 0)):
            raise ValueError(f"'num_negatives' needs to be positive, 'batch' or None (got {num_negatives!r})")
        self.num_users = num_users
        self.in_channels = dict(in_channels)
        self.hidden_channels = hidden_channels
        self.reg_weight = reg_weight
        self.objective = loss
        self.temperature = temperature
        self.num_negatives = num_negatives
        self.exponent = exponent
        self.sparse = sparse
        self.num_views = len(in_channels) + 1

        self.user = Parameter(torch.empty(num_users, self.num_views, hidden_channels))
        d = hidden_channels
        self.encoders = ModuleDict(
            {name: ModalityEncoder(width, 4 * d, d, dropout) for name, width in in_channels.items()}
        )
        self.shared_encoder = ModalityEncoder(sum(in_channels.values()), 4 * d, d, dropout)
        self.propagation = Propagation(num_layers, num_item_layers)
        self.pwc = PWC(hidden_channels, self.num_views, num_users, pwc, pwc_init, pwc_decay, pwc_rate)
        self.history = RecentItemsEncoder(self.num_views * hidden_channels, history) if history else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for view in range(self.num_views):
            xavier_normal_(self.user.data[:, view])
        for encoder in [*self.encoders.values(), self.shared_encoder]:
            encoder.reset_parameters()  # type: ignore[operator]
        self.pwc.reset_parameters()
        if self.history is not None:
            self.history.reset_parameters()

    @classmethod
    def _sizes(cls, data: HeteroData) -> dict[str, Any]:
        widths = {name: data[ITEM][f'x_{name}'].size(1) for name in modalities(data)}
        spectrum_of(data, widths)
        return {'num_users': data[USER].num_nodes, 'in_channels': widths}

    def forward(
        self,
        xs: Mapping[str, Tensor],
        spectrum: Tensor,
        to_item: Edges,
        to_user: Edges,
        similar: Edges | None = None,
        similar_t: Edges | None = None,
        masks: Mapping[str, Tensor | None] | None = None,
        user_id: Tensor | None = None,
        history: Tensor | None = None,
    ) -> Embeddings:
        r"""Encodes from explicit tensors.

        Args:
            xs (mapping of str to Tensor): The features :math:`(|\mathcal{I}|, C_m)` of each modality.
            spectrum (Tensor): Their spectra :math:`(|\mathcal{I}|, \sum_m C_m)`.
            to_item (tuple): Adjacency and weight of ``interacts`` (a row per item).
            to_user (tuple): Adjacency and weight of ``rev_interacts`` (a row per user).
            similar (tuple, optional): Adjacency and weight of ``similar_to``.
            similar_t (tuple, optional): Its transpose, for a faster backward pass.
            masks (mapping of str to Tensor, optional): Which items have each modality :math:`(|\mathcal{I}|)`.
            user_id (Tensor, optional): The ids of the users, if these are not all users in order.
            history (Tensor, optional): The latest items of the users, for a sequential model.
        """
        item = self.encode_items(xs, spectrum, masks)
        user, item = self.propagate(item, to_item, to_user, similar, similar_t, user_id)
        user = self.pwc(user, user_id)
        return Embeddings(user if self.history is None else self.history(user, item, history), item)

    def encode_items(
        self, xs: Mapping[str, Tensor], spectrum: Tensor, masks: Mapping[str, Tensor | None] | None = None
    ) -> Tensor:
        r"""Returns the views of items before propagation, :math:`(N, |V|, d)`, zero where one lacks the modality.

        Args:
            xs (mapping of str to Tensor): The features :math:`(N, C_m)` of each modality.
            spectrum (Tensor): Their spectra :math:`(N, \sum_m C_m)`.
            masks (mapping of str to Tensor, optional): Which items have each modality :math:`(N)`.
        """
        views = []
        for name, encoder in self.encoders.items():
            h, mask = encoder(xs[name]), (masks or {}).get(name)
            views.append(h if mask is None else h * mask.unsqueeze(-1).to(h.dtype))
        return torch.stack([*views, self.shared_encoder(spectrum)], dim=1)

    def propagate(
        self,
        item: Tensor,
        to_item: Edges,
        to_user: Edges,
        similar: Edges | None = None,
        similar_t: Edges | None = None,
        user_id: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Returns the users' views :math:`(|\mathcal{U}|, |V|, d)`, not fused yet, and the items
        :math:`(|\mathcal{I}|, |V| d)`, given the views of the items and the graph as in :meth:`forward`."""
        if similar is None and self.propagation.num_item_layers > 0:
            raise ValueError(
                f"'data' needs the relation {SIMILAR_TO}: apply `ItemKNNGraph()` to it, or build the model with "
                f'`num_item_layers=0` (got {self.propagation.num_item_layers})'
            )
        user, item = self.propagation(self._users(user_id), item, to_item, to_user, normalize=True)
        item = item.flatten(1)
        if similar is not None:
            item = self.propagation.propagate_items(item, similar, similar_t)
        return user, item

    def _users(self, user_id: Tensor | None) -> Tensor:
        if user_id is None:
            return self.user
        return sparse_rows(self.user, user_id) if self.sparse else self.user.index_select(0, user_id)

    def encode(self, data: HeteroData) -> Embeddings:
        return Embeddings(*(self.finish(z) for z in self(*self._inputs(data))))

    def finish(self, z: Tensor) -> Tensor:
        r"""Returns the embeddings, whose inner products are the scores, of the length that ``scoring`` asks for."""
        if self.exponent == 1:
            return z
        out = normalize(z)
        return out if self.exponent == 0 else out * torch.linalg.vector_norm(z, dim=-1, keepdim=True) ** self.exponent

    def _inputs(self, data: HeteroData) -> tuple[Any, ...]:
        r"""Returns the arguments of :meth:`forward`."""
        xs, masks = {}, {}
        for name, width in self.in_channels.items():
            xs[name], masks[name] = modality_features(data, name)
            if xs[name].size(1) != width:
                raise ValueError(f"'x_{name}' needs to have {width} columns (got {xs[name].size(1)})")
        spectrum = spectrum_of(data, self.in_channels)
        user_id = data[USER].get('n_id')
        if user_id is None and data[USER].num_nodes != self.num_users:
            raise ValueError(f"'data' needs to have {self.num_users} users (got {data[USER].num_nodes})")
        return xs, spectrum, *edges(data), masks, user_id, self.histories(data)

    def histories(self, data: HeteroData, of: Any = USER) -> Tensor | None:
        r"""Returns the latest items of all users, or before all interactions, where the model is sequential."""
        if self.history is None:
            return None
        history = data[of].get('recent_items')
        if history is None or history.size(1) != self.history.length:
            got = 'none' if history is None else f'of length {history.size(1)}'
            raise ValueError(f"'data' needs histories: apply `RecentItems({self.history.length})` to it (got {got})")
        if 'n_id' in data[USER]:
            raise ValueError("'history' needs the whole graph, whose items histories name (got a sampled sub-graph)")
        return history  # type: ignore[no-any-return]

    def _history_before(self, data: HeteroData, user: Tensor, item: Tensor) -> Tensor:
        r"""Returns the items that the users had when they came to the given ones, :math:`(B, n)`."""
        history = self.histories(data, INTERACTS)
        assert history is not None
        known = data[INTERACTS].edge_index[0] * data[ITEM].num_nodes + data[INTERACTS].edge_index[1]  # sorted
        wanted = user * data[ITEM].num_nodes + item
        edge = torch.searchsorted(known, wanted).clamp(max=known.numel() - 1)
        if not known.is_cuda and not torch.equal(known[edge], wanted):
            raise ValueError("'pos' needs to be training interactions, before which there is a history (got others)")
        return history.index_select(0, edge)

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        xs, spectrum, to_item, to_user, similar, similar_t, masks, user_id, _ = self._inputs(data)
        item = self.encode_items(xs, spectrum, masks)
        views, z_item = self.propagate(item, to_item, to_user, similar, similar_t, user_id)
        index = None
        if self.objective == 'softmax' and self.history is None and user.device.type == 'cpu':
            user, index = user.unique(return_inverse=True)  # each is scored once, whatever its positives
        u, reg_user = rows_and_mean_square(views, user, self.pwc.weight(views, user_id))
        if self.history is not None:
            u = self.history(u, z_item, self._history_before(data, user, pos))
        z_item = z_item.unsqueeze(1)
        if self.objective == 'bpr':
            rows, reg_item = rows_and_mean_square(z_item, torch.cat([pos, neg]))
            i, j = rows.chunk(2)
            loss = bpr_loss((u * i).sum(dim=-1), (u * j).sum(dim=-1))
        else:
            items, target, mask = self._candidates(data, pos)
            i, reg_item = rows_and_mean_square(z_item, items)
            loss = softmax_loss(normalize(u), normalize(i), target, self.temperature, index=index, candidates=mask)
        return loss + self.reg_weight * (reg_user + reg_item)

    def _candidates(self, data: HeteroData, pos: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        r"""Returns the items of the softmax, where among them the positives are, and which of them take part."""
        if self.num_negatives == 'batch':
            return *pos.unique(return_inverse=True), None
        if 'n_id' in data[USER]:
            raise ValueError(f"'num_negatives' needs to be 'batch' on a sampled sub-graph (got {self.num_negatives})")
        seen = torch.zeros(data[ITEM].num_nodes, dtype=torch.bool, device=pos.device)
        seen.index_fill_(0, data[INTERACTS].edge_index[1], True).index_fill_(0, pos, True)
        if self.num_negatives is None and pos.device.type != 'cpu':  # all in place, without waiting for their number
            return torch.arange(seen.numel(), device=pos.device), pos, seen
        items = seen.nonzero().view(-1)
        if self.num_negatives is None:
            return items, (seen.cumsum(0) - 1)[pos], None
        drawn = items[torch.randint(items.numel(), (self.num_negatives,), device=pos.device)]
        items, target = pos.unique(return_inverse=True)
        return torch.cat([items, drawn[torch.isin(drawn, items, invert=True)]]), target, None

    @property
    def fit_defaults(self) -> dict[str, float]:
        return {'lr': 1e-4, 'patience': 20} if self.objective == 'bpr' else {'lr': 1e-3, 'patience': 10}

    def on_epoch_start(self, epoch: int) -> None:
        self.pwc.on_epoch_start(epoch)

    @torch.no_grad()
    def load_official_state_dict(self, state: Mapping[str, Tensor]) -> None:
        r"""Takes the ``state_dict`` of the released implementation, whose modalities are image and text.

        Args:
            state (mapping of str to Tensor): Its parameters, unchanged.

        Raises:
            ValueError: If this model does not have the modalities ``image`` and ``text`` in that order, the released
                variant of PWC and the same sizes, or ``state`` lacks a parameter.
        """
        if list(self.in_channels) != ['image', 'text'] or self.pwc.variant != 'released':
            raise ValueError(
                "the released implementation has the modalities ['image', 'text'] and pwc='released' "
                f"(got {list(self.in_channels)} and '{self.pwc.variant}')"
            )
        views: list[tuple[str, str, str, Any]] = [
            ('v', 'v_preference', 'a', self.encoders['image']),
            ('t', 't_preference', 'b', self.encoders['text']),
            ('s', 'id_preference', 'c', self.shared_encoder),
        ]
        pairs: list[tuple[str, Tensor]] = [('fusion_module.theta', self.pwc.theta)]
        for v, (key, table, net, encoder) in enumerate(views):
            pairs.append((table, self.user[:, v]))
            pairs += [(f'{key}_MLP.{name}', getattr(encoder.lin1, name)) for name in ('weight', 'bias')]
            pairs.append((f'{key}_MLP_1.weight', encoder.lin2.weight))
            for layer, index in [('fc1', 0), ('fc2', 2)]:
                lin: Any = self.pwc.nets[v][index]  # type: ignore[index]
                pairs += [(f'fusion_module.weco_{net}.{layer}.{n}', getattr(lin, n)) for n in ('weight', 'bias')]
        for name, param in pairs:
            if name not in state:
                raise ValueError(f"'state' lacks the parameter '{name}' of the released implementation")
            if state[name].shape != param.shape:
                raise ValueError(f"'{name}' needs to be of shape {tuple(param.shape)} (got {tuple(state[name].shape)})")
        for name, param in pairs:
            param.copy_(state[name])

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.num_users}, {self.in_channels}, '
            f'hidden_channels={self.hidden_channels}, num_layers={self.propagation.num_layers}, '
            f"num_item_layers={self.propagation.num_item_layers}, pwc='{self.pwc.variant}')"
        )


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
