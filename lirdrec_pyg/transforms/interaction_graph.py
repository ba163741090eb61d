from copy import copy
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform
from torch_geometric.utils import degree

from lirdrec_pyg._segments import EPS, csr_matrix, pointers
from lirdrec_pyg.typing import INTERACTS, ITEM, REV_INTERACTS, USER, check, item_graphs

Layout = Literal['csr', 'SparseTensor', 'EdgeIndex', 'edge_index']


class InteractionGraph(BaseTransform):
    r"""Makes the interactions of a training split a graph to propagate on: adds the relation
    ``('item', 'rev_interacts', 'user')``, the symmetric normalisation of `LightGCN
    <https://arxiv.org/abs/2002.02126>`_ as ``edge_weight`` of both directions, and every relation's adjacency matrix in
    the layout that the propagation is to use.

    .. math::
        w_{ui} = \frac{1}{\sqrt{(\deg u + \varepsilon)(\deg i + \varepsilon)}}, \quad \varepsilon = 10^{-7}

    ``adj_t`` is rectangular and holds a row per target: :math:`(|\mathcal{I}|, |\mathcal{U}|)` for ``interacts``,
    :math:`(|\mathcal{U}|, |\mathcal{I}|)` for ``rev_interacts`` and :math:`(|\mathcal{I}|, |\mathcal{I}|)` for
    ``similar_to`` and ``similar_by_<modality>``, if there. These are directed, and get their transpose ``adj``, too,
    for the backward pass.

    .. code-block:: python

        train, val, test = FixedSplit()(data)
        train = InteractionGraph()(train)
        print(train['user', 'interacts', 'item'].adj_t.shape)  # (48, 64), a row for each item

    Args:
        layout (str, optional): How ``adj_t`` is stored, which chooses the kernel: ``'csr'`` (:class:`torch.Tensor`),
            ``'SparseTensor'`` (needs ``torch-sparse``), ``'EdgeIndex'`` (:class:`torch_geometric.EdgeIndex`, weights in
            ``edge_weight``), or ``'edge_index'`` (no ``adj_t`` at all, weights in ``edge_weight``). All agree in value.
            (default: ``'csr'``)

    Raises:
        ValueError: If the layout is unknown, there are no interactions, or one is repeated.
    """

    def __init__(self, layout: Layout = 'csr') -> None:
        if layout not in get_args(Layout):
            raise ValueError(f"'layout' needs to be one of {list(get_args(Layout))} (got '{layout}')")
        self.layout: Layout = layout

    def forward(self, data: HeteroData) -> HeteroData:
        data = copy(check(data, unique=True))
        num_users, num_items = data[USER].num_nodes, data[ITEM].num_nodes
        user, item = edge_index = data[INTERACTS].edge_index
        if edge_index.numel() == 0:
            raise ValueError("'edge_index' of the interactions needs at least one edge (got none)")
        deg_user = degree(user, num_users, dtype=torch.float32) + EPS
        deg_item = degree(item, num_items, dtype=torch.float32) + EPS
        weight = deg_user.pow(-0.5)[user] * deg_item.pow(-0.5)[item]

        data[INTERACTS].edge_weight = weight
        data[REV_INTERACTS].edge_index = edge_index.flip(0)
        data[REV_INTERACTS].edge_weight = weight
        self._write(data[INTERACTS], (num_users, num_items))
        self._write(data[REV_INTERACTS], (num_items, num_users))
        for relation in item_graphs(data):
            store = data[relation]
            self._write(store, (num_items, num_items))
            if self.layout != 'edge_index':
                flipped = store.edge_index.flip(0)
                store.adj = adjacency(flipped, store.edge_weight, (num_items, num_items), self.layout)
                if self.layout == 'EdgeIndex':
                    store.adj, store.adj_weight = store.adj
        return data

    def _write(self, store: Any, size: tuple[int, int]) -> None:
        for key in ('adj_t', 'adj', 'adj_weight'):
            if key in store:
                del store[key]
        if self.layout == 'EdgeIndex':
            store.adj_t, store.adj_t_weight = adjacency(store.edge_index, store.edge_weight, size, self.layout)
        elif self.layout != 'edge_index':
            store.adj_t = adjacency(store.edge_index, store.edge_weight, size, self.layout)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(layout='{self.layout}')"


def adjacency(edge_index: Tensor, edge_weight: Tensor, size: tuple[int, int], layout: Layout) -> Any:
    r"""Returns the matrix with a row per target and a column per source of the given edges.

    Args:
        edge_index (Tensor): The edges (source, target).
        edge_weight (Tensor): Their weights.
        size ((int, int)): The number of sources and of targets.
        layout (str): ``'csr'``, ``'SparseTensor'`` or ``'EdgeIndex'``; the last returns the edges, sorted by target,
            together with their weights.
    """
    perm = (edge_index[1] * size[0] + edge_index[0]).argsort()
    (source, target), value = edge_index[:, perm], edge_weight[perm]
    if layout == 'csr':
        return csr_matrix(pointers(target, size[1]), source, value, size[::-1])
    if layout == 'SparseTensor':
        try:
            from torch_sparse import SparseTensor
        except ImportError as error:
            raise ImportError(
                "layout='SparseTensor' needs torch-sparse: pip install --no-build-isolation torch-scatter torch-sparse"
            ) from error
        return SparseTensor(row=target, col=source, value=value, sparse_sizes=(size[1], size[0]), is_sorted=True)
    edges = EdgeIndex(torch.stack([source, target]), sparse_size=size, sort_order='col')
    return edges, value
