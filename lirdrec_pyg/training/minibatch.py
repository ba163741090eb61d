r"""Training on sampled sub-graphs, for graphs and features that full propagation can't hold."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkLoader
from torch_geometric.utils import degree

from lirdrec_pyg.nn import LIRDRec
from lirdrec_pyg.nn.propagation import edges
from lirdrec_pyg.training import processes
from lirdrec_pyg.training.mapped_features import MappedFeatures
from lirdrec_pyg.training.neighbor_sampler import UniformNeighborSampler
from lirdrec_pyg.training.sampler import BPRSampler
from lirdrec_pyg.transforms.flush_denormals import FlushDenormals
from lirdrec_pyg.transforms.interaction_graph import adjacency
from lirdrec_pyg.typing import INTERACTS, ITEM, REV_INTERACTS, SIMILAR_TO, USER, Embeddings, check, modalities

Batch = tuple[HeteroData, Tensor, Tensor, Tensor]


class MiniBatches:
    r"""The triplets of :class:`~lirdrec_pyg.BPRSampler`, each batch with a sub-graph around it, sampled by PyG's
    :class:`~torch_geometric.loader.LinkLoader`. It is a ``loader`` for :func:`~lirdrec_pyg.fit`.

    A batch is a :class:`~torch_geometric.data.HeteroData` of the same contract as the whole, with ``n_id`` for both
    types. It holds the features of its items alone, and the edge weights of the whole graph.

    Each layer of the model needs one hop: first those on the item graph, then those on the interactions. With all
    neighbours (``-1``) the embeddings of the batch and the gradient of the BPR loss are those of the whole graph. The
    regulariser is that of the nodes in the sub-graph. A hop of ``0`` samples nothing: its layer is left out.

    With fewer neighbours, the sum over them would be smaller than at inference. So each of the :math:`s_v` sampled
    neighbours of a node counts for more, such that they stand for all :math:`\deg v`:

    .. math::
        \hat{w}_{uv} = \frac{\deg v}{s_v} w_{uv}

    On average over the samples, a layer is then that of the whole graph. An edge leads to the node that sampled it
    alone. Without rescaling, and with all neighbours, it leads in both directions.

    .. code-block:: python

        model = LIRDRec.from_data(train, seed=0)
        fit(model, train, val, epochs=2, loader=MiniBatches(train, [10, 10, 5], batch_size=128))

    Args:
        data (HeteroData): The training split, with ``InteractionGraph()`` applied.
        num_neighbors (sequence of int): How many interactions of a node are sampled at each hop, at least one hop for
            each layer of the model. ``-1`` takes all.
        num_item_layers (int, optional): The number of layers on the item graph, of which all edges are taken.
            (default: :obj:`1`)
        batch_size (int, optional): The number of triplets in a step, in each of several processes.
            (default: :obj:`2048`)
        seed (int, optional): The seed of triplets and sub-graphs. (default: :obj:`0`)
        features (MappedFeatures, optional): Features that ``data`` does not hold. (default: those of ``data``)
        rescale (bool, optional): Whether sampled neighbours count as all. With all neighbours this changes nothing.
            (default: :obj:`True`)
        num_candidates (int, optional): The number of items drawn for each batch, uniformly among those with
            interactions, from which a :class:`~lirdrec_pyg.nn.SampledSoftmax` then estimates the sum over all.
            (default: :obj:`0`)

    Raises:
        ValueError: If ``num_neighbors`` is too short, or ``data`` lacks ``InteractionGraph()`` or features.
    """

    sampled = True

    def __init__(
        self,
        data: HeteroData,
        num_neighbors: Sequence[int],
        num_item_layers: int = 1,
        batch_size: int = 2048,
        seed: int = 0,
        features: MappedFeatures | None = None,
        rescale: bool = True,
        num_candidates: int = 0,
    ) -> None:
        data = check(data, unique=True)
        if len(num_neighbors) <= num_item_layers:
            raise ValueError(
                f"'num_neighbors' needs more than {num_item_layers} hops, those on the item graph (got {num_neighbors})"
            )
        if features is None and not modalities(data):
            raise ValueError("'data' needs `data['item'].x_<modality>`, or give 'features' (got neither)")
        edges(data)  # raises where there is no graph
        edge_index = data[INTERACTS].edge_index
        if not torch.equal(data[REV_INTERACTS].edge_index.flip(0), edge_index):
            raise ValueError(
                f'the edges of {REV_INTERACTS} need to be the interactions in the same order (got others): apply '
                '`InteractionGraph()` again'
            )
        self.data, self.features = FlushDenormals()(data), features
        self._settings: dict[str, Any] = {
            'num_neighbors': list(num_neighbors),
            'num_item_layers': num_item_layers,
            'batch_size': batch_size,
            'rescale': rescale,
            'num_candidates': num_candidates,
        }
        self.num_candidates = num_candidates
        self._seen = edge_index[1].unique()
        self.num_users, self.num_items = data[USER].num_nodes, data[ITEM].num_nodes
        self.sampler = BPRSampler(edge_index, self.num_users, self.num_items, batch_size * processes.count(), seed)

        graph = HeteroData()
        graph[USER].num_nodes, graph[ITEM].num_nodes = self.num_users, self.num_items
        hops = {INTERACTS: list(num_neighbors), REV_INTERACTS: list(num_neighbors)}
        if SIMILAR_TO in data.edge_types and num_item_layers > 0:
            hops[SIMILAR_TO] = [-1] * num_item_layers + [0] * (len(num_neighbors) - num_item_layers)
        for relation in hops:
            graph[relation].edge_index = data[relation].edge_index
        self._graph, self._hops = graph, hops
        self._sampled = any(count > 0 for count in num_neighbors)
        self.rescale = rescale and self._sampled
        self._degree = {
            INTERACTS: degree(edge_index[1], self.num_items),
            REV_INTERACTS: degree(edge_index[0], self.num_users),
        }
        self._neighbors = UniformNeighborSampler(graph, hops)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        batches = [processes.share(batch) for batch in self.sampler]
        # Of the triplets' generator, whose state a checkpoint holds, and another one for each process.
        draw = int(torch.randint(2**62, (), generator=self.sampler.generator))
        self._neighbors.generator.manual_seed(draw + processes.rank())
        pairs = [self._pairs(*batch) for batch in batches]
        stops = np.cumsum([0] + [pair.size(1) for pair in pairs])
        loader = LinkLoader(
            self._graph,
            self._neighbors,
            edge_label_index=(INTERACTS, torch.cat(pairs, dim=1)),
            batch_sampler=[range(a, b) for a, b in itertools.pairwise(stops)],
        )
        for sample, (users, *_) in zip(loader, batches, strict=True):
            user, item = sample[INTERACTS].edge_label_index
            pos, neg, candidates = item.split([len(users), len(users), len(item) - 2 * len(users)])
            yield self._batch(sample, candidates), user[: len(users)], pos, neg

    def _pairs(self, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        r"""Returns the pairs to sample around: positives, negatives, and the candidates with anybody."""
        drawn = self._seen[:0]
        if self.num_candidates > 0:
            order = torch.randperm(self._seen.numel(), generator=self._neighbors.generator)
            drawn = self._seen[order[: self.num_candidates]]
        item = torch.cat([pos, neg, drawn])
        return torch.stack([torch.cat([user, user, user[:1].expand(len(drawn))]), item])

    def _batch(self, sample: HeteroData, candidates: Tensor) -> HeteroData:
        users, items = sample[USER].n_id, sample[ITEM].n_id
        batch = HeteroData()
        batch[USER].n_id, batch[ITEM].n_id = users, items
        batch[USER].num_nodes, batch[ITEM].num_nodes = size = len(users), len(items)
        e_id = {relation: sample[relation].e_id for relation in (INTERACTS, REV_INTERACTS)}
        if self.num_candidates > 0:
            batch[ITEM].candidate = torch.zeros(size[1], dtype=torch.bool).index_fill_(0, candidates, True)
            batch[ITEM].num_seen = self._seen.numel()
        if self.rescale:
            for relation, nodes in [(INTERACTS, items), (REV_INTERACTS, users)]:
                target = sample[relation].edge_index[1]
                scale = self._degree[relation][nodes] / degree(target, len(nodes)).clamp_(min=1)
                batch[relation].edge_index = sample[relation].edge_index
                batch[relation].edge_weight = self.data[relation].edge_weight[e_id[relation]] * scale[target]
        else:
            # Both directions of each interaction: e_id counts the interactions in the same order for both.
            both = torch.cat([sample[INTERACTS].edge_index, sample[REV_INTERACTS].edge_index.flip(0)], dim=1)
            ids, inverse = torch.cat([e_id[INTERACTS], e_id[REV_INTERACTS]]).unique(return_inverse=True)
            edge_index = both.new_empty(2, len(ids))
            edge_index[:, inverse] = both
            weight = self.data[INTERACTS].edge_weight[ids]
            for relation, index, shape in [
                (INTERACTS, edge_index, size),
                (REV_INTERACTS, edge_index.flip(0), size[::-1]),
            ]:
                batch[relation].edge_index, batch[relation].edge_weight = index, weight
                batch[relation].adj_t = adjacency(index, weight, shape, 'csr')
        if SIMILAR_TO in self._hops:
            store, index = batch[SIMILAR_TO], sample[SIMILAR_TO].edge_index
            store.edge_index, store.edge_weight = index, self.data[SIMILAR_TO].edge_weight[sample[SIMILAR_TO].e_id]
            store.adj_t = adjacency(index, store.edge_weight, (size[1], size[1]), 'csr')
            store.adj = adjacency(index.flip(0), store.edge_weight, (size[1], size[1]), 'csr')
        if self.features is None:
            for key, value in self.data[ITEM].items():
                if key.startswith(('x_', 'has_')) or key == 'spectrum':
                    batch[ITEM][key] = value[items]
        else:
            xs, batch[ITEM].spectrum, masks = self.features.rows(items)
            for name, x in xs.items():
                batch[ITEM][f'x_{name}'] = x
                if (mask := masks[name]) is not None:
                    batch[ITEM][f'has_{name}'] = mask
        return batch

    def check(self, model: Module) -> None:
        r"""Checks that a model fits: :func:`~lirdrec_pyg.fit` does so before it trains.

        Raises:
            ValueError: If the model is no :class:`~lirdrec_pyg.nn.LIRDRec`, has other users or modalities, or more
                layers than there are hops.
        """
        if not isinstance(model, LIRDRec):
            raise ValueError(f"'model' needs to be a LIRDRec for mini-batches (got {type(model).__name__})")
        if model.num_users != self.num_users:
            raise ValueError(f"'model' needs to have {self.num_users} users (got {model.num_users})")
        if self.features is not None:
            model.check_features(self.features)
        num_layers, num_item_layers = model.propagation.num_layers, model.propagation.num_item_layers
        if self._settings['num_item_layers'] < num_item_layers:
            raise ValueError(
                f"'num_item_layers' needs to be at least {num_item_layers}, as in the model "
                f'(got {self._settings["num_item_layers"]})'
            )
        if len(self._hops[INTERACTS]) < num_layers + num_item_layers:
            raise ValueError(
                f"'num_neighbors' needs {num_layers + num_item_layers} hops, as the model has {num_layers} layers on "
                f'interactions and {num_item_layers} on the item graph, and 0 leaves one out '
                f'(got {self._hops[INTERACTS]})'
            )

    def encode(self, model: LIRDRec) -> Embeddings:
        r"""Returns the embeddings of all users and items, see
        :meth:`~lirdrec_pyg.nn.LIRDRec.encode_layerwise`."""
        return model.encode_layerwise(self.data, self.features)

    def identity(self) -> dict[str, Any]:
        r"""Returns all that the batches depend on beside the training data."""
        features = None if self.features is None else self.features.identity()
        return {**self._settings, 'seed': self.sampler.seed, 'features': features}

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the state from which the next epoch's triplets are drawn."""
        return self.sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        r"""Restores what :meth:`state_dict` returned."""
        self.sampler.load_state_dict(state_dict)

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.num_users}, {self.num_items}, '
            f'num_neighbors={self._hops[INTERACTS]}, batch_size={self._settings["batch_size"]})'
        )
