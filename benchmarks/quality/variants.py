r"""Models, a fusion and an objective that only the experiments need: LIRDRec that lacks a part, or has one more."""

import copy
from collections.abc import Mapping
from typing import Any

import scipy.fft
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module, ModuleDict, Parameter
from torch.nn.init import xavier_normal_
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn import (
    BPR,
    MGCN,
    PWC,
    Batch,
    Fusion,
    LIRDRec,
    PaperPWC,
    RecentItemsEncoder,
    SampledSoftmax,
    SoftmaxLIRDRec,
)
from lirdrec_pyg.nn.kernels import normalize, softmax_loss
from lirdrec_pyg.typing import ITEM, SIMILAR_TO


class LearnedRotation(LIRDRec):
    r"""LIRDRec whose shared encoder reads an orthogonal transform of the features that is learned. Is a fixed one
    worse? Use it with ``transform='none'``."""

    def __init__(self, num_users: int, in_channels: Mapping[str, int], **kwargs: Any) -> None:
        super().__init__(num_users, in_channels, **kwargs)
        width = sum(self.in_channels.values())
        rotation = torch.nn.Linear(width, width, bias=False)
        torch.nn.init.eye_(rotation.weight)
        self.rotation = torch.nn.utils.parametrizations.orthogonal(rotation, orthogonal_map='cayley')

    def encode_shared(self, spectrum: Tensor) -> Tensor:
        return super().encode_shared(self.rotation(spectrum))


class DCTInLoop(LIRDRec):
    r"""LIRDRec that makes the spectrum anew in each step, as an implementation with the transform in its model does.
    Use it with ``transform='none'``, in single precision."""

    def encode_shared(self, spectrum: Tensor) -> Tensor:
        parts = spectrum.split(list(self.in_channels.values()), dim=1)
        made = [torch.from_numpy(scipy.fft.dct(x.numpy(), type=2, norm='ortho', axis=1)) for x in parts]
        return super().encode_shared(torch.cat(made, dim=1))


class ScaledBPR(BPR):
    r"""BPR on scores times a factor that is trained, too. It is one at first.

    .. math::
        \mathcal{L} = \frac{1}{B} \sum_{(u, i, j)} \mathrm{softplus}(e^\theta (s_{uj} - s_{ui}))
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = Parameter(torch.tensor(0.0))

    def forward(self, batch: Batch) -> Tensor:
        user, pos, neg = batch.triplets()
        return F.softplus(self.log_scale.exp() * (user * (neg - pos)).sum(dim=-1)).mean()


class RecentPWC(Module):
    r"""Progressive weight copying over a user's recent items, in the place of
    :class:`~lirdrec_pyg.nn.RecentItemsEncoder`: a chunk for each position, the latest item first.

    .. math::
        \mathbf{q} = \mathrm{normalize}(\mathbf{u}) + \mathbf{W} \sum_{j=1}^{n} w_{uj} \,
        \mathrm{normalize}(\mathbf{i}_j)

    Each user has weights of its own. A network for each position predicts them, and they are copied from epoch to epoch
    as those of the views are. The state starts as the weights of the encoder do, 1, 0.6, 0.36, …, so that they are
    progressive in time. A user with fewer than :math:`n` items has fewer terms, whose weights sum to one.

    Args:
        channels (int): The width :math:`D` of the embeddings.
        length (int): The number of items :math:`n`.
        num_users (int): The number of users.
        fusion (PWC or PaperPWC): What weighs.
    """

    def __init__(self, channels: int, length: int, num_users: int, fusion: PWC | PaperPWC) -> None:
        super().__init__()
        like = RecentItemsEncoder(channels, length)
        self.length, self.lin = length, like.lin
        self.register_buffer('prior', like.theta.detach().softmax(dim=0))
        self.fusion = copy.deepcopy(fusion)
        self.fusion.build(channels, length, num_users)
        self.batch_users: Tensor | None = None  # of the batch, where these are not all in order
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.fusion.reset_parameters()
        prior: Tensor = self.get_buffer('prior')
        self.fusion.theta.copy_(prior.log() if isinstance(self.fusion, PWC) else prior)
        self.fusion.last_weight.copy_(prior)

    def forward(self, user: Tensor, item: Tensor, recent: Tensor) -> Tensor:
        known = recent >= 0
        item = normalize(item)
        rows = item.index_select(0, recent.clamp(min=0).flatten()).view(*recent.shape, -1)  # [N, n, D]
        weight = self.fusion.weight(rows, self.batch_users)
        if self.training:
            self.fusion.remember(weight.detach(), self.batch_users)
        weight = weight * known
        weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return normalize(user) + self.lin((weight.unsqueeze(1) @ rows).squeeze(1))


class SequentialPWC(SoftmaxLIRDRec):
    r"""LIRDRec with the softmax, whose recent items are weighed by progressive weight copying.

    Args:
        num_users (int): The number of users.
        in_channels (mapping of str to int): The width of each modality, in the data's order.
        recent_items (int): The number of recent items.
        time_fusion (str): ``'released'`` (:class:`~lirdrec_pyg.nn.PWC`) or ``'ema'``
            (:class:`~lirdrec_pyg.nn.PaperPWC`).
        **kwargs (optional): The other arguments of :class:`SoftmaxLIRDRec`.
    """

    def __init__(
        self, num_users: int, in_channels: Mapping[str, int], *, recent_items: int, time_fusion: str, **kwargs: Any
    ) -> None:
        super().__init__(num_users, in_channels, recent_items=recent_items, **kwargs)
        fusion = {'released': PWC, 'ema': PaperPWC}[time_fusion]()
        self.recent: Any = RecentPWC(self.num_views * self.hidden_channels, recent_items, num_users, fusion)

    def on_epoch_start(self, epoch: int) -> None:
        super().on_epoch_start(epoch)
        self.recent.fusion.on_epoch_start(epoch)

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        self.recent.batch_users = user
        try:
            return super().loss(data, user, pos, neg)
        finally:
            self.recent.batch_users = None


class Concatenation(Fusion):
    r"""Concatenates the views as they are."""

    def weight(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        return x.new_ones(x.shape[:2])


class Ablated(LIRDRec):
    r"""LIRDRec that lacks a part, or has a view more.

    Args:
        num_users (int): The number of users.
        in_channels (mapping of str to int): The width of each modality, in the data's order.
        num_items (int): The number of items.
        own (bool, optional): Whether each modality has a view. (default: :obj:`True`)
        shared (bool, optional): Whether there is the shared view. (default: :obj:`True`)
        one_user_table (bool, optional): Whether a user has one vector, which serves all views. (default: :obj:`False`)
        item_ids (bool, optional): Whether there is a view of a vector for each item. (default: :obj:`False`)
        fusion (Fusion, optional): What weighs the views of a user. (default: :class:`~lirdrec_pyg.nn.PWC`)
        **kwargs (optional): The other arguments of :class:`LIRDRec`.
    """

    def __init__(
        self,
        num_users: int,
        in_channels: Mapping[str, int],
        *,
        num_items: int,
        own: bool = True,
        shared: bool = True,
        one_user_table: bool = False,
        item_ids: bool = False,
        fusion: Fusion | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_users, in_channels, **kwargs)
        if fusion is not None:  # only now, so that the initial weights before are those of the whole model
            self.hparams['fusion'], self.fusion = fusion, copy.deepcopy(fusion)
        self.shared = shared
        self.num_views = own * len(self.in_channels) + shared + item_ids
        if not own:
            self.encoders = ModuleDict()
        self.fusion.build(self.hidden_channels, self.num_views, num_users)
        self.fusion.reset_parameters()
        tables = 1 if one_user_table else self.num_views
        self.user = Parameter(torch.empty(num_users, tables, self.hidden_channels))
        for table in self.user.data.unbind(dim=1):
            table.copy_(xavier_normal_(torch.empty(table.shape)))
        self.item = Parameter(torch.empty(num_items, self.hidden_channels)) if item_ids else None
        if self.item is not None:
            xavier_normal_(self.item)

    def tables(self) -> Mapping[str, str]:
        return {**super().tables(), **({} if self.item is None else {'item': ITEM})}

    def user_vectors(self, data: HeteroData) -> Tensor:
        return super().user_vectors(data).expand(-1, self.num_views, -1).contiguous()

    def content(self, data: HeteroData, index: Tensor | None = None, features: Any = None) -> Tensor:
        views = super().content(data, index, features)
        views = views if self.shared else views[:, :-1]
        if self.item is None:
            return views
        own = self.item if index is None else self.item[index]
        return torch.cat([views, own.unsqueeze(1)], dim=1)


class UniformBesideBatch(SampledSoftmax):
    r"""The softmax over the positives of the batch and some uniform items, without a correction, as rows of before the
    estimate have it."""

    def __init__(self, temperature: float = 0.2, num_negatives: int = 4096) -> None:
        super().__init__(temperature, 'batch')
        self.number = num_negatives

    def candidates(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        seen = batch.seen().index_fill(0, batch.pos, True).nonzero().view(-1)
        drawn = seen[torch.randint(seen.numel(), (self.number,), device=seen.device, generator=self.generator)]
        items, target, _ = super().candidates(batch)
        return torch.cat([items, drawn[torch.isin(drawn, items, invert=True)]]), target, None


class MixedMGCN(MGCN):
    r"""MGCN as rows of before it was as published: all modalities share the item graph that is mixed from them, and a
    batch's rows are contrasted as often as it has them."""

    def neighbors(self, h: list[Tensor], data: HeteroData) -> Tensor:
        out = torch.cat(h, dim=-1)
        if self.propagation.num_item_layers == 0:
            return out
        store = data[SIMILAR_TO]
        return self.propagation.smooth(out, (store.adj_t, None), (store.adj, None))

    def contrast(self, a: Tensor, b: Tensor, index: Tensor) -> Tensor:
        rows, index, count = index.unique(return_inverse=True, return_counts=True)
        a, b = normalize(a.index_select(0, rows)), normalize(b.index_select(0, rows))
        return softmax_loss(a, b, index, self.temperature, index=index, candidates=count)


# `MGCN` of the rows is what it was when they were made.
MODELS = {
    'LearnedRotation': LearnedRotation,
    'DCTInLoop': DCTInLoop,
    'SequentialPWC': SequentialPWC,
    'Ablated': Ablated,
    'MGCN': MixedMGCN,
    'PublishedMGCN': MGCN,
}
