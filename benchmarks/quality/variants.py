r"""Models, a fusion and an objective that only the experiments need: LIRDRec that lacks a part, or has one more."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import ModuleDict, Parameter
from torch.nn.init import xavier_normal_
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn import MGCN, Batch, Fusion, LIRDRec, SampledSoftmax
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
MODELS = {'LearnedRotation': LearnedRotation, 'Ablated': Ablated, 'MGCN': MixedMGCN, 'PublishedMGCN': MGCN}
