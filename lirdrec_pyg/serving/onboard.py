r"""New items and new users for a trained :class:`~lirdrec_pyg.nn.LIRDRec`, without training."""

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData
from torch_geometric.utils import coalesce

from lirdrec_pyg.nn.kernels import normalize
from lirdrec_pyg.nn.models.lirdrec import LIRDRec
from lirdrec_pyg.nn.propagation import edges
from lirdrec_pyg.transforms.dct import DCT
from lirdrec_pyg.transforms.interaction_graph import InteractionGraph, Layout
from lirdrec_pyg.transforms.item_knn_graph import ItemKNNGraph, exact_knn, shares
from lirdrec_pyg.typing import (
    INTERACTS,
    ITEM,
    REV_INTERACTS,
    SIMILAR_TO,
    check,
    check_array,
    check_count,
    check_nodes,
    modalities,
    modality_features,
)


def onboard_items(
    data: HeteroData,
    features: Mapping[str, Tensor],
    raw_id: Sequence[str] | None = None,
    title: Sequence[str] | None = None,
    masks: Mapping[str, Tensor] | None = None,
    k: int = 10,
    weights: Mapping[str, float] | None = None,
) -> tuple[HeteroData, Tensor]:
    r"""Appends items that nobody has interacted with yet to data, with all that a model reads of them: features,
    their spectrum (:class:`~lirdrec_pyg.transforms.DCT`) and edges of the item graph.

    The edges are those of :class:`~lirdrec_pyg.transforms.ItemKNNGraph`, by exact search among old and new items, but
    only the ones *into* the new items. So no old item sees a new one, and no existing embedding changes.
    The adjacency matrices of :class:`~lirdrec_pyg.transforms.InteractionGraph` are made anew in their layout.

    Args:
        data (HeteroData): The data, which stays as it is. What else its items have, *e.g.*, ``cold``, is not known of
            new items and is left out of the result.
        features (mapping of str to Tensor): The features :math:`(N, C_m)` of each modality of the new items. A
            modality that is left out is missing for all of them.
        raw_id (sequence of str, optional): Their raw ids, needed where the data has raw ids.
        title (sequence of str, optional): Their titles. (default: empty, where the data has titles)
        masks (mapping of str to Tensor, optional): Which of them have each modality :math:`(N)`. (default: all)
        k (int, optional): The ``k`` of the item graph. (default: :obj:`10`)
        weights (mapping of str to float, optional): The mixing weights of the item graph. (default: equal)

    Returns:
        The extended data and the node ids of the new items.

    Raises:
        ValueError: If features do not fit the data or one another or are not finite, raw ids are not new, or ``k`` is
            not in :math:`[1, |\mathcal{I}|]`, old and new items together.
    """
    data = check(data)
    num_old = data[ITEM].num_nodes
    new = _check(data, features, masks or {})
    num_new = new[ITEM].num_nodes
    if 'spectrum' in data[ITEM]:
        new = DCT()(new)
    texts = {'raw_id': raw_id, 'title': [''] * num_new if title is None else title}

    data = copy(data)
    store = data[ITEM]
    for name in modalities(new):
        if f'has_{name}' in new[ITEM] and f'has_{name}' not in store:
            store[f'has_{name}'] = torch.ones(num_old, dtype=torch.bool)
    for key in list(store.keys()):
        if key in texts:
            store[key] = [*store[key], *_texts(key, texts[key], num_new)]
        elif key.startswith(('x_', 'has_')) or key == 'spectrum':
            rows = new[ITEM].get(key, torch.ones(num_new, dtype=torch.bool))
            if rows.shape[1:] != store[key].shape[1:]:
                raise ValueError(f"'{key}' needs to have {store[key].size(1)} columns (got {rows.size(1)})")
            store[key] = torch.cat([store[key], rows.to(store[key].dtype)])
        elif store.is_node_attr(key):
            del store[key]
    store.num_nodes = num_old + num_new
    if 'raw_id' in store and len(set(store.raw_id)) < store.num_nodes:
        repeated = next(raw for raw, count in Counter(store.raw_id).items() if count > 1)
        raise ValueError(f"'raw_id' needs to be new and unique (got {repeated!r} again)")

    if SIMILAR_TO in data.edge_types:
        edge_index, edge_weight = _edges_into(data, num_old, k, weights)
        similar = data[SIMILAR_TO]
        similar.edge_index = torch.cat([similar.edge_index, edge_index], dim=1)
        similar.edge_weight = torch.cat([similar.edge_weight, edge_weight])
    if REV_INTERACTS in data.edge_types:
        data = InteractionGraph(_layout(data))(data)
    return data, torch.arange(num_old, num_old + num_new)


@torch.no_grad()
def item_layers(model: LIRDRec, data: HeteroData, known: Tensor | None = None) -> Tensor:
    r"""Returns the layers :math:`\mathbf{z}^{(l)}_i`, :math:`l = 0, \ldots, L`, of all items on the interactions: what
    new items and users are made of. Once computed they serve until the model or the interactions change.

    Args:
        model (LIRDRec): The trained model.
        data (HeteroData): The training split.
        known (Tensor, optional): The layers of the first items, where only the items after these are to be encoded,
            which :func:`onboard_items` added. (default: none)

    Shapes:
        - **output:** :math:`(L + 1, |\mathcal{I}|, |V| d)`, on the device of the model, wherever the data is

    Raises:
        ValueError: If an item after the known ones has interactions, or these or the modalities don't fit the model.
    """
    data = check(data)
    model.check_ids(data)
    num_items = data[ITEM].num_nodes
    item = data[INTERACTS].edge_index[1]
    if known is not None:
        rows = min(num_items, known.size(1)) if known.dim() == 3 else num_items
        known = check_array(known, (model.propagation.num_layers + 1, rows, model.user[0].numel()), 'layers')
        if int(item.max()) >= known.size(1):
            raise ValueError(f"items after the 'known' {known.size(1)} can't have interactions (got {int(item.max())})")
        known = known.to(model.user.device)
        if known.size(1) == num_items:
            return known
        new = normalize(model.content(data, torch.arange(known.size(1), num_items))).flatten(1)
        return torch.cat([known, torch.cat([new.unsqueeze(0), new.new_zeros(len(known) - 1, *new.shape)])], dim=1)
    user, item = (normalize(z).flatten(1) for z in (model.user, model.content(data)))
    graph = edges(data).to(model.user.device)
    return torch.stack([z for _, z in model.propagation.layers(user, item, graph.to_item, graph.to_user)])


@torch.no_grad()
def encode_new_items(
    model: LIRDRec, data: HeteroData, new: Tensor, layers: Tensor | None = None, borrow: float = 0.0
) -> Tensor:
    r"""Returns the embeddings of new items, by default equal to those of ``model(data)``.

    An item without interactions is its content, :math:`\mathbf{z}_i = \mathbf{z}^{(0)}_i`, plus what the item graph
    brings: given the :func:`item_layers` of the others, only the new rows pass through the encoders. What other items
    have from their users it lacks; with :math:`\beta > 0` it borrows that of its neighbours who have some:

    .. math::
        \mathbf{z}_i = \mathbf{z}^{(0)}_i + \beta \, \frac{\sum_{j: \deg j > 0} S_{ij} \sum_{l=1}^L \mathbf{z}^{(l)}_j}
        {\sum_{j: \deg j > 0} S_{ij}}

    Args:
        model (LIRDRec): The trained model.
        data (HeteroData): The data that :func:`onboard_items` returned.
        new (Tensor): The node ids of the new items :math:`(N)`.
        layers (Tensor, optional): The layers of all items, or of all but those added last. (default: compute them)
        borrow (float, optional): :math:`\beta`; with one, a new item is as near to users as its neighbours are.
            (default: :obj:`0.0`)

    Shapes:
        - **output:** :math:`(N, |V| d)`, on the device of the model, wherever the data is

    Raises:
        ValueError: If ``borrow`` is negative or not finite, an item does not exist, or the layers do not fit.
    """
    if not 0 <= borrow < float('inf'):
        raise ValueError(f"'borrow' needs to be non-negative (got {borrow}): give a finite number such as 1.0")
    new = check_nodes(new, data[ITEM].num_nodes, 'new')
    layers = item_layers(model, data, layers)
    z = layers.sum(dim=0)
    if borrow > 0 and SIMILAR_TO in data.edge_types:
        z = z + borrow * _of_neighbours(data, layers[1:].sum(dim=0))
    z = model.add_neighbors(z, edges(data).to(z.device))
    return model.scale(z[new.to(z.device)])


def _of_neighbours(data: HeteroData, x: Tensor) -> Tensor:
    r"""Returns, for each item without interactions, the mean of :obj:`x` over its neighbours who have some, weighted as
    the item graph weighs them, and zero for the other items."""
    seen = torch.zeros(data[ITEM].num_nodes, dtype=torch.bool, device=x.device)
    seen[data[INTERACTS].edge_index[1].to(x.device)] = True
    source, target = data[SIMILAR_TO].edge_index.to(x.device)
    keep = seen[source] & ~seen[target]
    source, target, weight = source[keep], target[keep], data[SIMILAR_TO].edge_weight.to(x.device)[keep]
    weight = weight / weight.new_zeros(len(seen)).index_add_(0, target, weight)[target]
    return torch.zeros_like(x).index_add_(0, target, weight.unsqueeze(1) * x[source])


def _check(data: HeteroData, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> HeteroData:
    r"""Returns the new items alone, with all modalities of the data."""
    names = modalities(data)
    for argument, given in [('features', features), ('masks', masks)]:
        for name in given:
            if name not in names:
                raise ValueError(f"'{argument}' names the unknown modality '{name}' (the data has {names})")
    sizes = {len(x) for x in [*features.values(), *masks.values()]}
    if len(sizes) != 1 or 0 in sizes:
        rows = {name: len(x) for name, x in features.items()} | {f'{name} mask': len(x) for name, x in masks.items()}
        raise ValueError(f"'features' need the same number of rows, at least one, for all modalities (got {rows})")
    (num_new,) = sizes
    new = HeteroData()
    for name in names:
        old = modality_features(data, name)[0]
        new[ITEM][f'x_{name}'] = features.get(name, old.new_zeros(num_new, old.size(1)))
        new[ITEM][f'has_{name}'] = masks.get(name, torch.full((num_new,), name in features))
    new = copy(check(new, interactions=False))
    for name in names:
        (old, has_old), (x, has) = modality_features(data, name), modality_features(new, name)
        assert has is not None
        if x.size(1) != old.size(1):
            raise ValueError(f"'x_{name}' needs to have {old.size(1)} columns (got {tuple(x.shape)})")
        new[ITEM][f'x_{name}'] = x * has.unsqueeze(1)
        if has_old is None and has.all():
            del new[ITEM][f'has_{name}']
    return new


def _texts(key: str, values: Sequence[str] | None, num_new: int) -> Sequence[str]:
    if values is None or len(values) != num_new:
        raise ValueError(f"'{key}' needs one for each of the {num_new} new items (got {len(values or [])})")
    return values


def _edges_into(data: HeteroData, first: int, k: int, weights: Mapping[str, float] | None) -> tuple[Tensor, Tensor]:
    r"""Returns the edges of :class:`ItemKNNGraph` into the items from the given one on."""
    k = check_count(k, data[ITEM].num_nodes)
    mixing = ItemKNNGraph(k, weights).mixing_weights(data)
    present, share = shares(data, mixing)

    edge_indices, edge_weights = [torch.empty(2, 0, dtype=torch.long)], [torch.empty(0)]
    for m, name in enumerate(mixing):
        ids = present[name].nonzero().view(-1)
        rows = (ids >= first).nonzero().view(-1)
        if len(rows) == 0:
            continue
        near = torch.from_numpy(exact_knn(modality_features(data, name)[0][ids].float().numpy(), k, rows=rows.numpy()))
        target = ids[rows].unsqueeze(1).expand_as(near).flatten()
        edge_indices.append(torch.stack([ids[near.flatten()], target]))
        edge_weights.append(share[m, target] / near.size(1))
    return coalesce(
        torch.cat(edge_indices, dim=1), torch.cat(edge_weights), data[ITEM].num_nodes, 'sum', sort_by_row=False
    )


def _layout(data: HeteroData) -> Layout:
    adj: Any = data[INTERACTS].get('adj_t')
    if adj is None:
        return 'edge_index'
    if isinstance(adj, EdgeIndex):
        return 'EdgeIndex'
    return 'csr' if isinstance(adj, Tensor) else 'SparseTensor'
