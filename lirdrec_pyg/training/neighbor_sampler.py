from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.sampler import BaseSampler, EdgeSamplerInput, HeteroSamplerOutput
from torch_geometric.typing import EdgeType

from lirdrec_pyg._segments import pointers, ranks

FEW = 24  # neighbours up to which a node draws one after the other


class UniformNeighborSampler(BaseSampler):
    r"""Samples neighbours uniformly and without replacement, in plain torch: a link sampler for PyG's
    :class:`~torch_geometric.loader.LinkLoader` that needs neither pyg-lib nor torch-sparse.

    Starting from the ends of the given edges, each hop looks at the nodes that came last. Each of them takes up to
    ``num_neighbors`` of its incoming edges, and the nodes at their other ends are those that the next hop looks at.

    .. code-block:: python

        relation = ('user', 'interacts', 'item')
        sampler = UniformNeighborSampler(train, {relation: [2], ('item', 'rev_interacts', 'user'): [2]})
        ends = EdgeSamplerInput(None, torch.tensor([0, 1]), torch.tensor([5, 6]), input_type=relation)
        print(sampler.sample_from_edges(ends).node['item'])

    Args:
        data (HeteroData): The graph, of which ``edge_index`` is read.
        num_neighbors (mapping of relation to sequence of int): How many edges of a relation a node takes at each hop;
            ``-1`` takes all.
        seed (int, optional): The seed of the sampler's own generator. (default: :obj:`0`)

    Shapes:
        - **node:** for each type the ids of the nodes, those of the given edges first
        - **row**, **col:** for each relation the local source and target of the sampled edges
        - **edge:** for each relation their positions in ``edge_index``
    """

    def __init__(self, data: HeteroData, num_neighbors: Mapping[EdgeType, Sequence[int]], seed: int = 0) -> None:
        self.num_neighbors = {relation: list(counts) for relation, counts in num_neighbors.items()}
        self.num_hops = max(map(len, self.num_neighbors.values()))
        self.generator = torch.Generator().manual_seed(seed)
        self._csr: dict[EdgeType, tuple[Tensor, Tensor, Tensor]] = {}
        for relation in self.num_neighbors:
            source, target = data[relation].edge_index
            perm = target.argsort(stable=True)
            self._csr[relation] = pointers(target, int(data[relation[2]].num_nodes)), source[perm], perm
        # The local id of each node: set while a batch is made, and taken back after it.
        self._local = {kind: torch.full((int(data[kind].num_nodes),), -1) for kind in data.node_types}

    @property
    def edge_permutation(self) -> None:
        r"""Nothing: edges are named by their positions in ``edge_index``."""
        return None

    def sample_from_nodes(self, index: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"'{self.__class__.__name__}' samples from edges")

    def sample_from_edges(self, index: EdgeSamplerInput, neg_sampling: Any = None) -> HeteroSamplerOutput:
        r"""Returns the sub-graph around some edges, whose ends come back as ``metadata[1]``, in local ids."""
        if neg_sampling is not None:
            raise ValueError(f"'neg_sampling' needs to be None: give negatives as edges (got {neg_sampling})")
        source_type, _, target_type = index.input_type
        nodes: dict[str, list[Tensor]] = {kind: [] for kind in self._local}
        ends = []
        for kind, ids in [(source_type, index.row), (target_type, index.col)]:
            self._add(nodes, kind, ids)
            ends.append(self._local[kind][ids])
        found: dict[EdgeType, list[tuple[Tensor, Tensor, Tensor]]] = {relation: [] for relation in self._csr}
        last = {kind: torch.cat(parts) if parts else torch.empty(0, dtype=torch.long) for kind, parts in nodes.items()}
        for hop in range(self.num_hops):
            new: dict[str, list[Tensor]] = {kind: [] for kind in self._local}
            for relation, counts in self.num_neighbors.items():
                if hop < len(counts) and counts[hop] != 0 and last[relation[2]].numel() > 0:
                    edges = self._sample(relation, last[relation[2]], counts[hop])
                    found[relation].append(edges)
                    new[relation[0]].append(edges[0])
            last = {}
            for kind, parts in new.items():
                before = len(nodes[kind])
                if parts:
                    self._add(nodes, kind, torch.cat(parts))
                last[kind] = torch.cat(nodes[kind][before:]) if nodes[kind][before:] else index.row[:0]
        row, col, edge = {}, {}, {}
        for relation, sampled in found.items():
            source, target, ids = map(torch.cat, zip(*sampled, strict=True)) if sampled else (index.row[:0],) * 3
            row[relation], col[relation] = self._local[relation[0]][source], self._local[relation[2]][target]
            edge[relation] = ids
        node = {kind: torch.cat(parts) if parts else index.row[:0] for kind, parts in nodes.items()}
        for kind, ids in node.items():
            self._local[kind][ids] = -1
        metadata = (index.input_id, torch.stack(ends), None, None)
        return HeteroSamplerOutput(node=node, row=row, col=col, edge=edge, metadata=metadata)

    def _add(self, nodes: dict[str, list[Tensor]], kind: str, ids: Tensor) -> None:
        r"""Gives a local id to those nodes that have none yet."""
        local = self._local[kind]
        ids = ids[local[ids] < 0].unique()
        start = sum(map(len, nodes[kind]))
        local[ids] = torch.arange(start, start + ids.numel())
        nodes[kind].append(ids)

    def _sample(self, relation: EdgeType, target: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns source, target and position of sampled edges into the given nodes."""
        ptr, source, perm = self._csr[relation]
        start, degree = ptr[target], ptr[target + 1] - ptr[target]
        many = degree > (count if count >= 0 else degree)
        few = (~many).nonzero().view(-1)
        owner = torch.repeat_interleave(few, degree[few])
        first = degree[few].cumsum(0) - degree[few]
        places = [start[owner] + torch.arange(owner.numel()) - torch.repeat_interleave(first, degree[few])]
        owners = [owner]
        if bool(many.any()):
            rows = many.nonzero().view(-1)
            draw = self._draw_few if count <= FEW else self._draw_many
            offset = draw(degree[rows], count)  # [N, count]
            places.append((start[rows].unsqueeze(1) + offset).flatten())
            owners.append(rows.repeat_interleave(count))
        at = torch.cat(places)
        return source[at], target[torch.cat(owners)], perm[at]

    def _draw_few(self, degree: Tensor, count: int) -> Tensor:
        r"""Returns distinct numbers below each degree by Floyd's method: the j-th is drawn among the first
        :math:`d - k + j + 1`, and where it is there already it becomes the last of these."""
        out = torch.empty(degree.numel(), count, dtype=torch.long)
        uniform = torch.rand(count, degree.numel(), generator=self.generator, dtype=torch.double)
        for j in range(count):
            last = degree - count + j
            drawn = (uniform[j] * (last + 1)).long()
            taken = (out[:, :j] == drawn.unsqueeze(1)).any(dim=1)
            out[:, j] = torch.where(taken, last, drawn)
        return out

    def _draw_many(self, degree: Tensor, count: int) -> Tensor:
        r"""Returns distinct numbers below each degree: the places of the smallest of as many random keys."""
        owner = torch.repeat_interleave(degree)
        key = torch.rand(owner.numel(), generator=self.generator, dtype=torch.double)
        rank, _ = ranks(owner, key.argsort())
        offset = torch.arange(owner.numel()) - (degree.cumsum(0) - degree)[owner]
        return offset[rank < count].view(-1, count)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(num_neighbors={self.num_neighbors})'
