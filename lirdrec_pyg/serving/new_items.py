r"""New items for a trained :class:`~lirdrec_pyg.nn.LIRDRec`, without training."""

import operator

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.kernels import normalize
from lirdrec_pyg.nn.models.lirdrec import LIRDRec
from lirdrec_pyg.nn.propagation import edges
from lirdrec_pyg.ranking import ranked
from lirdrec_pyg.serving.onboard import layout_of
from lirdrec_pyg.transforms.interaction_graph import InteractionGraph
from lirdrec_pyg.typing import (
    INTERACTS,
    ITEM,
    SIMILAR_TO,
    USER,
    Embeddings,
    check,
    check_array,
    check_nodes,
)


@torch.no_grad()
def item_layers(model: LIRDRec, data: HeteroData, known: Tensor | None = None) -> Tensor:
    r"""Returns the layers :math:`\mathbf{z}^{(l)}_i`, :math:`l = 0, \ldots, L`, of all items on the interactions: what
    new items and users are made of. Once computed they serve until the model or the interactions change.

    .. code-block:: python

        layers = item_layers(model, train)
        print(layers.shape)  # (number of layers + 1, 48, 24)

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
    model: LIRDRec,
    data: HeteroData,
    new: Tensor,
    layers: Tensor | None = None,
    borrow: float = 1.0,
    scale: float | None = None,
) -> Tensor:
    r"""Returns the embeddings of new items, by default such that they win as many places as known items do.

    An item without interactions is its content, :math:`\mathbf{z}_i = \mathbf{z}^{(0)}_i`, plus what the item graph
    brings: given the :func:`item_layers` of the others, only the new rows pass through the encoders. What other items
    have from their users it lacks. With :math:`\beta > 0` it borrows that of its neighbours who have some, and the
    outcome takes the factor :math:`\gamma`:

    .. math::
        \mathbf{z}_i &= \mathbf{z}^{(0)}_i + \beta \, \frac{\sum_{j: \deg j > 0} S_{ij} \sum_{l=1}^L
        \mathbf{z}^{(l)}_j} {\sum_{j: \deg j > 0} S_{ij}} \\
        \mathbf{i} &= \gamma \, (\mathbf{z}_i + (\mathbf{S} \mathbf{z})_i)

    What it borrows decides *which* new items a user gets, the factor *how many*: it changes no order among them. With
    ``borrow=0`` and ``scale=1`` the embeddings are those of ``model(data)``.

    .. code-block:: python

        from lirdrec_pyg import onboard_items

        data, new = onboard_items(train, {'text': torch.randn(1, 8)}, raw_id=['new-1'])  # it has no image
        z = encode_new_items(model, data, new, scale=1.0)

    Args:
        model (LIRDRec): The trained model.
        data (HeteroData): The data that :func:`onboard_items` returned.
        new (Tensor): The node ids of the new items :math:`(N)`.
        layers (Tensor, optional): The layers of all items, or of all but those added last. (default: compute them)
        borrow (float, optional): :math:`\beta`; with one, a new item is as near to users as its neighbours are.
            (default: :obj:`1.0`)
        scale (float, optional): :math:`\gamma`. It holds until the model or the interactions change: where items come
            in often, find it once. (default: the :func:`new_item_scale` of ``borrow``)

    Shapes:
        - **output:** :math:`(N, |V| d)`, on the device of the model, wherever the data is

    Raises:
        ValueError: If ``borrow`` is negative or not finite, ``scale`` is not positive, an item does not exist, or the
            layers do not fit.
    """
    borrow = _check_borrow(borrow)
    if scale is not None and not 0 < scale < float('inf'):
        raise ValueError(f"'scale' needs to be positive (got {scale}): give a finite number such as 1.0")
    new = check_nodes(new, data[ITEM].num_nodes, 'new')
    layers = item_layers(model, data, layers)
    if scale is None:
        scale = new_item_scale(model, data, layers, borrow)
    z = layers.sum(dim=0)
    if borrow > 0 and SIMILAR_TO in data.edge_types:
        z = z + borrow * _of_neighbours(data, layers[1:].sum(dim=0))
    z = model.add_neighbors(z, edges(data).to(z.device))
    return scale * model.scale(z[new.to(z.device)])


@torch.no_grad()
def new_item_scale(
    model: LIRDRec,
    data: HeteroData,
    layers: Tensor | None = None,
    borrow: float = 1.0,
    k: int = 20,
    folds: int = 5,
    num_users: int = 1000,
    seed: int = 0,
) -> float:
    r"""Returns the factor :math:`\gamma` with which new items win as many places as known ones do.

    Known items tell: each is treated as new once. They are drawn into :math:`F` folds. For each fold :math:`f`, the
    interactions of its items are hidden, users and the other items are embedded without these, and the items of the
    fold as :func:`encode_new_items` does. The best scores of user :math:`u` are :math:`a_{fu1} \geq a_{fu2} \geq
    \ldots` with the other items that the user has not interacted with, and :math:`b_{fu1} \geq b_{fu2} \geq \ldots`
    with those of the fold. With the factor :math:`\gamma`, the fold wins :math:`j` of :math:`k` places if

    .. math::
        \gamma > r_{fuj} = \frac{a_{fu,k+1-j}}{b_{fuj}}

    As known items, the folds have :math:`1 / F` of the places on average, their share of the catalogue. So
    :math:`\gamma` is the :math:`1 / F`-quantile of all :math:`r_{fuj}`.

    .. code-block:: python

        scale = new_item_scale(model, train, folds=2)

    Nothing but training interactions is used. The model has seen those of the items that are treated as new, when it
    was trained. So they do a little better than items that are new, which therefore win a little less.

    Args:
        model (LIRDRec): The trained model.
        data (HeteroData): The training split. Items without interactions take no part.
        layers (Tensor, optional): The :func:`item_layers` of ``data``. (default: compute them)
        borrow (float, optional): The ``borrow`` of :func:`encode_new_items`. (default: :obj:`1.0`)
        k (int, optional): The number of places in the list of a user, at most a quarter of the known items.
            (default: :obj:`20`)
        folds (int, optional): :math:`F`. (default: :obj:`5`)
        num_users (int, optional): The number of users whose lists are made, drawn from those with interactions.
            (default: :obj:`1000`)
        seed (int, optional): The seed of folds and users. (default: :obj:`0`)

    Raises:
        ValueError: If a number is out of range, the layers do not fit, or less than :math:`1 / F` of the places can be
            won, as scores of items that are treated as new are negative.
    """
    borrow = _check_borrow(borrow)
    layers = item_layers(model, data, layers)
    data = check(data)
    edge_index = data[INTERACTS].edge_index
    known, active = edge_index[1].unique(), edge_index[0].unique()
    if not 2 <= folds <= len(known):
        raise ValueError(f"'folds' need to be in [2, {len(known)}], the known items (got {folds})")
    for name, value in [('k', k), ('num_users', num_users)]:
        if operator.index(value) < 1:
            raise ValueError(f"'{name}' needs to be positive (got {value})")
    k = min(k, max(len(known) // 4, 1))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(known), generator=generator).to(known.device)
    users = active[torch.randperm(len(active), generator=generator)[:num_users].to(known.device)].sort().values

    ratios = []
    for fold in known[order].tensor_split(folds):
        hidden, others = (torch.zeros(data[ITEM].num_nodes, dtype=torch.bool, device=known.device) for _ in range(2))
        hidden[fold] = True
        others[known] = True
        others[fold] = False
        z = _treated_as_new(model, data, layers[0], hidden, borrow)
        best = []
        for candidates, seen in ((others, edge_index), (hidden, None)):
            count = min(k, int(candidates.sum()))
            found = torch.cat([score for _, score, _ in ranked(z, users, count, seen, candidates, 1024)])
            best.append(torch.nn.functional.pad(found, (0, k - count), value=float('-inf')))
        a, b = best[0].flip(1), best[1]
        ratios.append(torch.where(b > 0, a / b, float('inf')).flatten())
    ratio = torch.cat(ratios).double().sort().values
    scale = float(ratio[round(len(ratio) / folds)])
    if not 0 < scale < float('inf'):
        raise ValueError(
            f"'model' needs to score items above zero where they are treated as new (got the scale {scale}): train "
            'it, or give `scale=1`'
        )
    return scale


def _check_borrow(borrow: float) -> float:
    if not 0 <= borrow < float('inf'):
        raise ValueError(f"'borrow' needs to be non-negative (got {borrow}): give a finite number such as 1.0")
    return borrow


def _treated_as_new(model: LIRDRec, data: HeteroData, item: Tensor, hidden: Tensor, borrow: float) -> Embeddings:
    r"""Returns the embeddings as if nobody had interacted with the hidden items, and no other item had them as
    neighbours.

    Args:
        item (Tensor): The layer zero of all items.
    """
    part = HeteroData()
    for kind in (USER, ITEM):
        part[kind].num_nodes = data[kind].num_nodes
    edge_index = data[INTERACTS].edge_index
    part[INTERACTS].edge_index = edge_index[:, ~hidden[edge_index[1]]]
    if 'recent_items' in data[USER]:
        recent = data[USER].recent_items
        part[USER].recent_items = recent.masked_fill(hidden[recent.clamp(min=0)], -1)
    if SIMILAR_TO in data.edge_types:
        (source, target), weight = data[SIMILAR_TO].edge_index, data[SIMILAR_TO].edge_weight
        keep = ~hidden[source] | hidden[target]
        total = weight.new_zeros(2, len(hidden))  # of all edges into an item, and of those that stay
        total[0].index_add_(0, target, weight)
        total[1].index_add_(0, target[keep], weight[keep])
        part[SIMILAR_TO].edge_index = torch.stack([source[keep], target[keep]])
        part[SIMILAR_TO].edge_weight = (weight * total[0, target] / total[1, target])[keep]
    part = InteractionGraph(layout_of(data))(part)
    graph = edges(part).to(item.device)
    user, z = model.propagation(normalize(model.user).flatten(1), item, graph.to_item, graph.to_user)
    if borrow > 0 and SIMILAR_TO in data.edge_types:
        z = z + borrow * _of_neighbours(part, z - item)
    z = model.add_neighbors(z, graph)
    user = model.fuse(user.unflatten(1, (model.num_views, -1)), z, part)
    return Embeddings(user, z).scaled(model.number('power'))


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
