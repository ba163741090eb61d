r"""New items for data: features, spectrum and edges of the item graph."""

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData
from torch_geometric.utils import coalesce

from lirdrec_pyg.transforms.dct import DCT
from lirdrec_pyg.transforms.interaction_graph import InteractionGraph, Layout
from lirdrec_pyg.transforms.item_knn_graph import ItemKNNGraph, exact_knn, shares
from lirdrec_pyg.typing import (
    INTERACTS,
    ITEM,
    REV_INTERACTS,
    SIMILAR_TO,
    check,
    check_count,
    modalities,
    modality_features,
)


def onboard_items(
    data: HeteroData,
    features: Mapping[str, Tensor],
    raw_id: Sequence[str] | None = None,
    title: Sequence[str] | None = None,
    masks: Mapping[str, Tensor] | None = None,
    k: int | None = None,
    weights: Mapping[str, float] | None = None,
) -> tuple[HeteroData, Tensor]:
    r"""Appends items that nobody has interacted with yet to data, with all that a model reads of them: features,
    their spectrum (:class:`~lirdrec_pyg.transforms.DCT`) and edges of the item graph.

    The edges are those of :class:`~lirdrec_pyg.transforms.ItemKNNGraph`, by exact search among old and new items, but
    only the ones *into* the new items. So no old item sees a new one, and no existing embedding changes.
    The adjacency matrices of :class:`~lirdrec_pyg.transforms.InteractionGraph` are made anew in their layout.

    .. code-block:: python

        features = {'image': torch.randn(2, 16), 'text': torch.randn(2, 8)}
        data, new = onboard_items(train, features, raw_id=['new-1', 'new-2'])
        print(new)  # tensor([48, 49])

    Args:
        data (HeteroData): The data, which stays as it is. What else its items have, *e.g.*, ``cold``, is not known of
            new items and is left out of the result.
        features (mapping of str to Tensor): The features :math:`(N, C_m)` of each modality of the new items. A
            modality that is left out is missing for all of them.
        raw_id (sequence of str, optional): Their raw ids, needed where the data has raw ids.
        title (sequence of str, optional): Their titles. (default: empty, where the data has titles)
        masks (mapping of str to Tensor, optional): Which of them have each modality :math:`(N)`. (default: all)
        k (int, optional): The ``k`` of the item graph, where that does not say it. (default: as it was made)
        weights (mapping of str to float, optional): The mixing weights of the item graph, where that does not say
            them. (default: as it was made)

    Returns:
        The extended data and the node ids of the new items.

    Raises:
        ValueError: If features do not fit the data or one another or are not finite, raw ids are not new, ``k`` and
            ``weights`` are not those of the item graph, or the spectrum is not that of all modalities.
    """
    data = check(data)
    num_old = data[ITEM].num_nodes
    new = _check(data, features, masks or {})
    num_new = new[ITEM].num_nodes
    if 'spectrum' in data[ITEM]:
        _check_spectrum(data)
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

    mixing = _mixing(data, k, weights)
    if mixing is not None:
        edge_index, edge_weight = _edges_into(data, num_old, *mixing)
        similar = data[SIMILAR_TO]
        similar.edge_index = torch.cat([similar.edge_index, edge_index], dim=1)
        similar.edge_weight = torch.cat([similar.edge_weight, edge_weight])
    if REV_INTERACTS in data.edge_types:
        data = InteractionGraph(layout_of(data))(data)
    return data, torch.arange(num_old, num_old + num_new)


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


def _mixing(
    data: HeteroData, k: int | None, weights: Mapping[str, float] | None
) -> tuple[int, dict[str, float]] | None:
    r"""Returns how the item graph was made, by what it says or else by what is given, if there is one."""
    if SIMILAR_TO not in data.edge_types:
        if k is not None or weights is not None:
            raise ValueError(f"'k' and 'weights' need an item graph in the data (got {k} and {weights}): omit them")
        return None
    known = {name: data[SIMILAR_TO][name] for name in ('k', 'weights') if name in data[SIMILAR_TO]}
    given = {
        'k': None if k is None else check_count(k, data[ITEM].num_nodes),
        'weights': None if weights is None else ItemKNNGraph(1, weights).mixing_weights(data),
    }
    for name, value in given.items():
        if value is None and name not in known:
            raise ValueError(f"'{name}' needs to be given: the item graph does not say how it was made (got None)")
        if value is not None and value != known.setdefault(name, value):
            raise ValueError(f"'{name}' needs to be {known[name]}, that of the item graph (got {value}): omit it")
    return known['k'], ItemKNNGraph(1, known['weights']).mixing_weights(data)


def _check_spectrum(data: HeteroData) -> None:
    r"""Checks on the first items that the spectrum is what new items will get."""
    some = HeteroData()
    for name in modalities(data):
        x, has = modality_features(data, name)
        some[ITEM][f'x_{name}'] = x[:8].cpu()
        if has is not None:
            some[ITEM][f'has_{name}'] = has[:8].cpu()
    expected, found = DCT()(some)[ITEM].spectrum, data[ITEM].spectrum[:8].cpu().float()
    if expected.shape != found.shape or not torch.allclose(
        found, expected, rtol=1e-2, atol=1e-2 * float(found.abs().max())
    ):
        raise ValueError(
            "'data' needs the spectrum of all modalities in their order, `DCT()`, to append items (got another one): "
            'apply it after all features are there'
        )


def _edges_into(data: HeteroData, first: int, k: int, mixing: Mapping[str, float]) -> tuple[Tensor, Tensor]:
    r"""Returns the edges of :class:`ItemKNNGraph` into the items from the given one on."""
    k = check_count(k, data[ITEM].num_nodes)
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


def layout_of(data: HeteroData) -> Layout:
    adj: Any = data[INTERACTS].get('adj_t')
    if adj is None:
        return 'edge_index'
    if isinstance(adj, EdgeIndex):
        return 'EdgeIndex'
    return 'csr' if isinstance(adj, Tensor) else 'SparseTensor'
