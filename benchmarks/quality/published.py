r"""Models as the framework of the published splits has them. They are for comparison with the figures of the literature
alone."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks.quality.variants import Ablated
from lirdrec_pyg import LightGCN, Recommender
from lirdrec_pyg.nn import BPRMF
from lirdrec_pyg.typing import USER


def norms(model: Any, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
    r"""Returns the sum of the norms, not squared, of the batch's three blocks of vectors, by the size of the batch."""
    vectors = model.vectors(data)
    blocks = vectors.user[user], vectors.item[pos], vectors.item[neg]
    return torch.stack([block.norm() for block in blocks]).sum() / len(user)


class PublishedLightGCN(LightGCN):
    r"""LightGCN whose penalty is the norm of the batch's vectors, not its square: at any weight of its grid there is
    next to none."""

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        return Recommender.loss(self, data, user, pos, neg) + self.reg_weight * norms(self, data, user, pos, neg)


class PublishedBPRMF(BPRMF):
    r"""Matrix factorisation with the same penalty."""

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        return Recommender.loss(self, data, user, pos, neg) + self.reg_weight * norms(self, data, user, pos, neg)


class ItemIDs(Ablated):
    r"""LIRDRec's pipeline with a vector for each item in the place of its content. The data needs no features."""

    def __init__(self, num_users: int, num_items: int, **kwargs: Any) -> None:
        super().__init__(num_users, {'none': 1}, num_items=num_items, own=False, shared=False, item_ids=True, **kwargs)
        self.shared_encoder = torch.nn.Identity()

    @classmethod
    def sizes(cls, data: HeteroData) -> dict[str, Any]:
        return {'num_users': data[USER].num_nodes, 'num_items': data['item'].num_nodes}

    def content(self, data: HeteroData, index: Tensor | None = None, features: Any = None) -> Tensor:
        assert self.item is not None
        return (self.item if index is None else self.item[index]).unsqueeze(1)


MODELS = {model.__name__: model for model in (PublishedLightGCN, PublishedBPRMF, ItemIDs)}
