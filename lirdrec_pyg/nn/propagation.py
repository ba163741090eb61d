from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData
from torch_geometric.nn import LGConv
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import is_torch_sparse_tensor, spmm

from lirdrec_pyg.nn import kernels
from lirdrec_pyg.typing import INTERACTS, REV_INTERACTS, SIMILAR_TO

Edges = tuple[Adj, OptTensor]  # adjacency, weight (None where the adjacency carries it)


class WeightedLGConv(LGConv):
    r"""PyG's :class:`~torch_geometric.nn.LGConv` on weights that are already normalised, with the fastest kernel for
    the layout of the adjacency matrix and for bipartite graphs.

    .. code-block:: python

        conv = WeightedLGConv()
        print(conv(torch.randn(64, 8), train['user', 'interacts', 'item'].adj_t).shape)  # (48, 8)

    Shapes:
        - **input:** source features :math:`(N, D)`; one of ``adj_t`` :math:`(M, N)` as CSR or
          :class:`torch_sparse.SparseTensor`, a :class:`torch_geometric.EdgeIndex`, or ``edge_index``
          :math:`(2, |\mathcal{E}|)`, the last two with weights :math:`(|\mathcal{E}|)`; ``size`` :math:`(N, M)`
        - **output:** target features :math:`(M, D)`

    The output has the precision of the features. The product is taken in that of the features or the weights, whichever
    is higher. A CSR matrix in bfloat16 is the exception, on CPU: rows are gathered rounded to it, added up in single
    precision, and the sums are rounded. This takes half the time.
    """

    SUPPORTS_FUSED_EDGE_INDEX = True

    def __init__(self) -> None:
        super().__init__(normalize=False)

    @kernels.without_autocast
    def forward(
        self, x: Tensor, edge_index: Adj, edge_weight: OptTensor = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        # propagate_type: (x: Tensor, edge_weight: OptTensor)
        return self.propagate(edge_index, x=x, edge_weight=edge_weight, size=size).to(x.dtype)

    def message_and_aggregate(self, adj_t: Adj, x: Tensor, edge_weight: OptTensor = None) -> Tensor:
        weight = edge_weight if isinstance(adj_t, EdgeIndex) else adj_t
        dtype = x.dtype if weight is None else _common_dtype(x, weight)
        x = x.to(dtype)
        if isinstance(adj_t, EdgeIndex):
            return adj_t.matmul(x, None if edge_weight is None else edge_weight.to(dtype), transpose=True)
        if is_torch_sparse_tensor(adj_t) and adj_t.layout == torch.sparse_csr and not x.is_cuda:
            # A CSR product is a bag of weighted rows, and torch's kernel for that is the faster one on CPU.
            return torch.nn.functional.embedding_bag(
                adj_t.col_indices(),
                x,
                adj_t.crow_indices(),
                mode='sum',
                per_sample_weights=adj_t.values().to(dtype),
                include_last_offset=True,
            )
        return spmm(adj_t.to(dtype), x)


class Propagation(Module):
    r"""Linear graph propagation without weights to learn, on :class:`~torch_geometric.nn.LGConv`.

    On the bipartite graph it sums the layers of `LightGCN <https://arxiv.org/abs/2002.02126>`_,
    :math:`\sum_{l=0}^{L} \hat{\mathbf{A}}^l \mathbf{z}`, by Horner's rule :math:`\mathbf{y} \leftarrow \mathbf{z} +
    \hat{\mathbf{A}} \mathbf{y}`. On the item graph it takes :math:`\mathbf{S}^n \mathbf{z}`.

    With adjacency matrices, no layer is saved for the backward pass. It is the same sum, applied to the gradient, since
    :math:`\hat{\mathbf{A}}` is symmetric. On plain edges, such as those of a sampled sub-graph, autograd takes over.

    .. code-block:: python

        to_item, to_user = train['user', 'interacts', 'item'], train['item', 'rev_interacts', 'user']
        user, item = torch.randn(64, 8), torch.randn(48, 8)
        propagation = Propagation(num_layers=2)
        layers = list(propagation.layers(user, item, (to_item.adj_t, None), (to_user.adj_t, None)))
        user, item = propagation(user, item, (to_item.adj_t, None), (to_user.adj_t, None))  # the sum of the layers
        near = propagation.smooth(item, (train['item', 'similar_to', 'item'].adj_t, None))

    Args:
        num_layers (int): The number of layers :math:`L` on the bipartite graph.
        num_item_layers (int, optional): The number of layers :math:`n` on the item graph. (default: :obj:`1`)
    """

    def __init__(self, num_layers: int, num_item_layers: int = 1) -> None:
        super().__init__()
        for name, value in [('num_layers', num_layers), ('num_item_layers', num_item_layers)]:
            if value < 0:
                raise ValueError(f"'{name}' needs to be non-negative (got {value})")
        self.num_layers = num_layers
        self.num_item_layers = num_item_layers
        self.conv = WeightedLGConv()

    def forward(
        self, user: Tensor, item: Tensor, to_item: Edges, to_user: Edges, normalize: bool = False
    ) -> tuple[Tensor, Tensor]:
        r"""Returns the sums of the layers on the bipartite graph, for users and items.

        Args:
            user (Tensor): User features :math:`(|\mathcal{U}|, D)`, or views of them :math:`(|\mathcal{U}|, |V|, d)`.
            item (Tensor): Item features :math:`(|\mathcal{I}|, D)`, or views :math:`(|\mathcal{I}|, |V|, d)`.
            to_item (tuple): Adjacency and weight of ``interacts`` (a row per item).
            to_user (tuple): Adjacency and weight of ``rev_interacts`` (a row per user).
            normalize (bool, optional): Whether each row of features, or each view of it, gets unit length first.
                (default: :obj:`False`)
        """
        if self.num_layers == 0 or _is_plain(to_item[0]):
            if normalize:
                user, item = kernels.normalize(user), kernels.normalize(item)
            out = _horner(self.conv, self.num_layers, user.flatten(1), item.flatten(1), to_item, to_user)
            return out[0].view_as(user), out[1].view_as(item)
        return _SymmetricSum.apply(self.conv, self.num_layers, user, item, to_item, to_user, normalize)

    def smooth(self, item: Tensor, similar: Edges | None, similar_t: Edges | None = None) -> Tensor:
        r"""Returns what flows along the item graph, :math:`\mathbf{S}^n \mathbf{z}`.

        Args:
            item (Tensor): Item features :math:`(|\mathcal{I}|, D)`.
            similar (tuple): Adjacency and weight of ``similar_to`` (a row per target).
            similar_t (tuple, optional): The transpose, for the backward pass. (default: autograd's own)

        Raises:
            ValueError: If there is no item graph.
        """
        if similar is None:
            raise ValueError(
                f"'data' needs the relation {SIMILAR_TO}: apply `ItemKNNGraph()` to it, or build the model with "
                f'`num_item_layers=0` (got {self.num_item_layers})'
            )
        size = (item.size(0), item.size(0))
        for _ in range(self.num_item_layers):
            if similar_t is None or _is_plain(similar[0]):
                item = self.conv(item, *similar, size=size)
            else:
                item = _Product.apply(self.conv, item, similar, similar_t)
        return item

    def layers(self, user: Tensor, item: Tensor, to_item: Edges, to_user: Edges) -> Iterator[tuple[Tensor, Tensor]]:
        r"""Yields each layer on the bipartite graph, :math:`\hat{\mathbf{A}}^l \mathbf{z}` for users and items."""
        size = (user.size(0), item.size(0))
        yield user, item
        for _ in range(self.num_layers):
            user, item = self.conv(item, *to_user, size=size[::-1]), self.conv(user, *to_item, size=size)
            yield user, item

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(num_layers={self.num_layers}, num_item_layers={self.num_item_layers})'


class Graph(NamedTuple):
    r"""The edges that a model propagates on, each an adjacency and a weight.

    Args:
        to_item (tuple): Those of ``interacts`` (a row per item).
        to_user (tuple): Those of ``rev_interacts`` (a row per user).
        similar (tuple, optional): Those of ``similar_to`` (a row per target).
        similar_t (tuple, optional): Their transpose, for a faster backward pass.
    """

    to_item: Edges
    to_user: Edges
    similar: Edges | None = None
    similar_t: Edges | None = None

    def to(self, device: torch.device) -> 'Graph':
        r"""Returns the graph on a device."""
        return Graph(*(None if pair is None else _edges_to(pair, device) for pair in self))  # type: ignore[arg-type]


def edges(data: HeteroData) -> Graph:
    r"""Returns the edges of the data, in the layout that it holds.

    Raises:
        ValueError: If there are none, or they are of another number of nodes than the data has.
    """
    if REV_INTERACTS not in data.edge_types:
        raise ValueError(f"'data' needs the relation {REV_INTERACTS}: apply `InteractionGraph()` to the training split")
    return Graph(_edges(data, INTERACTS), _edges(data, REV_INTERACTS), *item_edges(data, SIMILAR_TO))


def item_edges(data: HeteroData, relation: tuple[str, str, str]) -> tuple[Edges | None, Edges | None]:
    r"""Returns the edges of a relation between items, and their transpose, as far as the data has them."""
    if relation not in data.edge_types:
        return None, None
    store = data[relation]
    return _edges(data, relation), (store.adj, store.get('adj_weight')) if 'adj' in store else None


def _edges_to(pair: Edges, device: torch.device) -> Edges:
    adj, weight = pair
    return adj.to(device), None if weight is None else weight.to(device)


def _edges(data: HeteroData, relation: tuple[str, str, str]) -> Edges:
    store = data[relation]
    if 'adj_t' not in store:
        return store.edge_index, store.edge_weight
    size, found = (data[relation[2]].num_nodes, data[relation[0]].num_nodes), _size(store.adj_t)
    if found != size and None not in found:
        raise ValueError(
            f"'adj_t' of {relation} needs to be of shape {size} (got {found}): apply `InteractionGraph()` after what "
            'changes the nodes'
        )
    return store.adj_t, store.get('adj_t_weight')


def _size(adj: Any) -> tuple[int | None, ...]:
    r"""Returns the number of targets and of sources, as far as they are known."""
    if isinstance(adj, EdgeIndex):
        return adj.sparse_size()[::-1]
    return tuple(adj.shape if isinstance(adj, Tensor) else adj.sparse_sizes())


def _common_dtype(x: Tensor, weight: Any) -> torch.dtype:
    r"""Returns the precision in which the products of features and weights are taken."""
    dtype: torch.dtype = weight.dtype if isinstance(weight, Tensor) else weight.dtype()  # of a `SparseTensor`
    is_half = dtype == torch.bfloat16 and isinstance(weight, Tensor) and weight.layout == torch.sparse_csr
    return dtype if is_half else torch.promote_types(x.dtype, dtype)


def _is_plain(adj: Adj) -> bool:
    return isinstance(adj, Tensor) and not isinstance(adj, EdgeIndex) and not is_torch_sparse_tensor(adj)


def _horner(
    conv: WeightedLGConv,
    num_layers: int,
    user: Tensor,
    item: Tensor,
    to_item: Edges,
    to_user: Edges,
    inplace: bool = False,
) -> tuple[Tensor, Tensor]:
    size = (user.size(0), item.size(0))
    out_user, out_item = user, item
    for _ in range(num_layers):
        from_item, from_user = conv(out_item, *to_user, size=size[::-1]), conv(out_user, *to_item, size=size)
        if inplace:
            out_user, out_item = from_item.add_(user), from_user.add_(item)
        else:
            out_user, out_item = user + from_item, item + from_user
    return out_user, out_item


class _SymmetricSum(torch.autograd.Function):
    @staticmethod
    @kernels.without_autocast
    def forward(
        ctx: Any, conv: Any, num_layers: int, user: Tensor, item: Tensor, to_item: Any, to_user: Any, normalize: bool
    ) -> Any:
        ctx.args = conv, num_layers, to_item, to_user
        if normalize:
            (user, user_norm), (item, item_norm) = kernels.normalized(user), kernels.normalized(item)
            ctx.save_for_backward(user, user_norm, item, item_norm)
        return _horner_views(conv, num_layers, user, item, to_item, to_user)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    @kernels.without_autocast
    def backward(ctx: Any, grad_user: Tensor, grad_item: Tensor) -> Any:
        conv, num_layers, to_item, to_user = ctx.args
        user, item = _horner_views(conv, num_layers, grad_user.contiguous(), grad_item.contiguous(), to_item, to_user)
        if ctx.saved_tensors:
            user = kernels.normalized_backward_(user, *ctx.saved_tensors[:2])
            item = kernels.normalized_backward_(item, *ctx.saved_tensors[2:])
        return None, None, user, item, None, None, None


def _horner_views(conv: Any, num_layers: int, user: Tensor, item: Tensor, to_item: Any, to_user: Any) -> Any:
    u, i = user.flatten(1), item.flatten(1)
    half = _dtype(to_item[0], u.dtype)
    if half == u.dtype:
        out_user, out_item = _horner(conv, num_layers, u, i, to_item, to_user, inplace=True)
    else:  # the features themselves join the sum unrounded
        size = (u.size(0), i.size(0))
        half_user, half_item = _horner(conv, num_layers - 1, u.to(half), i.to(half), to_item, to_user, inplace=True)
        out_user = conv(half_item, *to_user, size=size[::-1]).to(u.dtype).add_(u)
        out_item = conv(half_user, *to_item, size=size).to(i.dtype).add_(i)
    return out_user.view_as(user), out_item.view_as(item)


def _dtype(adj: Adj, default: torch.dtype) -> torch.dtype:
    r"""Returns the precision in which the layers are propagated."""
    is_half = isinstance(adj, Tensor) and not isinstance(adj, EdgeIndex) and adj.dtype == torch.bfloat16
    return torch.bfloat16 if is_half else default


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, conv: Any, x: Tensor, adj: Any, adj_t: Any) -> Tensor:
        ctx.args = conv, adj_t
        return conv(x, *adj)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> Any:
        conv, adj_t = ctx.args
        return None, conv(grad.contiguous(), *adj_t), None, None
