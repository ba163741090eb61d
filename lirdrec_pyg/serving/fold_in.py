from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.utils import degree

from lirdrec_pyg._segments import EPS
from lirdrec_pyg.nn.fusion import weighted
from lirdrec_pyg.nn.models.lirdrec import LIRDRec
from lirdrec_pyg.nn.propagation import edges
from lirdrec_pyg.serving.new_items import item_layers
from lirdrec_pyg.serving.recommend import node_ids
from lirdrec_pyg.typing import INTERACTS, ITEM, check, check_array, check_pairs


@torch.no_grad()
def fold_in_users(
    model: LIRDRec,
    data: HeteroData,
    histories: Sequence[Sequence[str]] | Sequence[Sequence[int]],
    free: Tensor | None = None,
    layers: Tensor | None = None,
) -> Tensor:
    r"""Returns the embeddings of users who were not in training, from the items they interacted with.

    A new user has no free vectors. By default they are zero, and the user is what its items make of it. Its layers are
    those of the graph with this user added, and its items :math:`\mathcal{N}(u)`:

    .. math::
        \mathbf{z}^{(0)}_u &= \mathbf{p}_u, \quad
        \mathbf{z}^{(l+1)}_u = \sum_{i \in \mathcal{N}(u)} w_{ui} \hat{\mathbf{z}}^{(l)}_i, \quad
        w_{ui} = \frac{1}{\sqrt{\deg u \, (\deg i + 1)}} \\
        \hat{\mathbf{z}}^{(0)}_i &= \mathbf{z}^{(0)}_i, \quad
        \hat{\mathbf{z}}^{(l)}_i = \sqrt{\frac{\deg i}{\deg i + 1}} \, \mathbf{z}^{(l)}_i
        + w_{ui} \mathbf{z}^{(l-1)}_u \\
        \mathbf{u} &= \mathrm{fusion} \Big( \sum_{l=0}^L \mathbf{z}^{(l)}_u \Big)

    :math:`\deg i` and :math:`\mathbf{z}^{(l)}_i` (:func:`item_layers`) are those without the user. A fusion with
    a state for each user takes the mean of all states. Users who are folded in together do not see one another.

    This is exact up to two layers: a user of the training split who is taken out and folded in with its own vectors
    gets the embedding it had, but for the state of the fusion. From three layers on, the user would also change other
    users' embeddings, and they its own. That is left out.

    .. code-block:: python

        user = fold_in_users(model, train, [['item-0', 'item-2'], ['item-5']])
        print(user.shape)  # (2, 24): the embeddings of two new users

    Args:
        model (LIRDRec): The trained model.
        data (HeteroData): The training split.
        histories (sequence of sequences): The items of each user, by raw id, or by position where the data has no raw
            ids. The latest comes last, which matters to a sequential model alone.
        free (Tensor, optional): The vectors :math:`\mathbf{p}_u` of each user, :math:`(N, |V|, d)`, of unit length
            as in training. (default: zero, which serves users better than the mean of all trained ones)
        layers (Tensor, optional): The :func:`item_layers` of ``data``. (default: compute them)

    Shapes:
        - **output:** :math:`(N, |V| d)`, on the device of the model, wherever the data is

    Raises:
        ValueError: If an item is unknown or repeated in a history, all histories are empty, or vectors or layers do
            not fit or are not finite.
    """
    data = check(data)
    col = node_ids(data, ITEM, list(chain.from_iterable(histories)))  # type: ignore[arg-type]
    count = torch.tensor([len(history) for history in histories])
    row = torch.repeat_interleave(count)
    check_pairs(torch.stack([row, col]), (len(count), data[ITEM].num_nodes), 'histories', unique=True)
    if col.numel() == 0:
        raise ValueError("'histories' need at least one item (got none)")
    if free is not None:
        free = check_array(free, (len(count), *model.user.shape[1:]), 'free')
    layers = item_layers(model, data, layers)
    device = layers.device
    row, col, count = row.to(device), col.to(device), count.to(device)
    deg_item = degree(data[INTERACTS].edge_index[1].to(device), data[ITEM].num_nodes) + EPS
    weight = ((count[row] + EPS) * (deg_item[col] + 1)).rsqrt()
    back = weight.new_zeros(len(count)).index_add_(0, row, weight.square()).unsqueeze(1)  # from the user to itself
    fade = (deg_item / (deg_item + 1)).sqrt()[col]

    z = [layers.new_zeros(len(count), layers.size(2)) if free is None else free.to(device).flatten(1)]
    for layer in range(model.propagation.num_layers):
        out = torch.nn.functional.embedding_bag(
            col,
            layers[layer],
            count.cumsum(0) - count,
            mode='sum',
            per_sample_weights=weight if layer == 0 else weight * fade,
        )
        z.append(out if layer == 0 else out + back * z[layer - 1])
    views = torch.stack(z).sum(dim=0).unflatten(1, (model.num_views, -1))
    user = weighted(views, model.fusion.weight_of_new(views))
    if model.recent is not None:
        item = model.add_neighbors(layers.sum(dim=0), edges(data).to(device))
        position = count.cumsum(0).unsqueeze(1) - torch.arange(1, model.recent.length + 1, device=device)
        latest = torch.where(position >= (count.cumsum(0) - count).unsqueeze(1), col[position.clamp(min=0)], -1)
        user = model.recent(user, item, latest)
    return model.scale(user)
