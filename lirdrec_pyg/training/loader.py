from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.training.processes import share
from lirdrec_pyg.training.sampler import BPRSampler
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, Embeddings

GraphBatch = tuple[HeteroData, Tensor, Tensor, Tensor]  # graph, users, positives, negatives


class Loader(Protocol):
    r"""Batches, each with the graph on which to encode it.

    .. code-block:: python

        loader = WholeGraph(train, batch_size=128)
        for batch, user, pos, neg in loader:  # the graph on which to encode, and triplets
            print(model.loss(batch, user, pos, neg))
    """

    sampled: bool  # whether a batch has a sub-graph of its own, which differs between processes

    def __iter__(self) -> Iterator[GraphBatch]:
        r"""One epoch of (graph, users, positives, negatives), ids local to the graph."""

    def check(self, model: Any) -> None:
        r"""Raises a :class:`ValueError` if the model can't be trained on these batches."""

    def encode(self, model: Any) -> Embeddings:
        r"""Returns the embeddings of all users and items."""

    def identity(self) -> dict[str, Any]:
        r"""Returns all that the batches depend on beside the training data, as plain values."""

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the state from which the next epoch is drawn."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        r"""Restores it."""


class WholeGraph:
    r"""The triplets of :class:`~lirdrec_pyg.BPRSampler`, each batch on the whole graph. Of several processes, each
    takes its share of every batch.

    .. code-block:: python

        fit(model, train, val, epochs=2, loader=WholeGraph(train, batch_size=128, seed=1))

    Args:
        data (HeteroData): The training split, with ``InteractionGraph()`` applied.
        batch_size (int, optional): The number of triplets in a step, of all processes together. (default: :obj:`2048`)
        seed (int, optional): The seed of the triplets. (default: :obj:`0`)
    """

    sampled = False

    def __init__(self, data: HeteroData, batch_size: int = 2048, seed: int = 0) -> None:
        self.data = data
        sizes = data[USER].num_nodes, data[ITEM].num_nodes
        self.sampler = BPRSampler(data[INTERACTS].edge_index, *sizes, batch_size=batch_size, seed=seed)

    def __iter__(self) -> Iterator[GraphBatch]:
        for batch in self.sampler:
            user, pos, neg = share(batch)
            yield self.data, user, pos, neg

    def __len__(self) -> int:
        return len(self.sampler)

    def check(self, model: Recommender) -> None: ...

    def encode(self, model: Recommender) -> Embeddings:
        return model(self.data)  # type: ignore[no-any-return]

    def identity(self) -> dict[str, Any]:
        return {'batch_size': self.sampler.batch_size, 'seed': self.sampler.seed}

    def state_dict(self) -> dict[str, Any]:
        return self.sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sampler.load_state_dict(state_dict)
