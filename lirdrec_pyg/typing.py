r"""Names, types and the data contract.

Everything a model sees is one :class:`~torch_geometric.data.HeteroData`:

* ``data['user'].num_nodes`` and ``data['item'].num_nodes``.
* ``data['item'].x_<modality>``: ``[I, C_m]`` float features of one modality, *e.g.*, ``x_image`` or ``x_text``; any
  number of modalities of any width. Optional ``data['item'].has_<modality>``: ``[I]`` bool where some items lack it;
  the rows of items that lack it are zero.
* ``data['item'].spectrum``: ``[I, ΣC_m]`` float, written by :class:`~lirdrec_pyg.transforms.DCT`.
* ``data['user', 'interacts', 'item'].edge_index``: ``[2, E]`` (user, item), optionally ``time [E]``, ``rating [E]`` and
  ``split [E]`` (0 = train, 1 = validation, 2 = test). After a split, ``edge_index`` holds the *training* interactions
  in all three splits and ``edge_label_index [2, P]`` the positives of the split itself.
* ``data['item', 'similar_to', 'item'].edge_index`` and ``edge_weight``: source = neighbour, target = item.
* ``data['item', 'similar_by_<modality>', 'item']``: the same for one modality alone, written by
  :class:`~lirdrec_pyg.transforms.ModalityGraphs`.
* ``adj_t`` and ``edge_weight`` of ``interacts``, ``rev_interacts`` and ``similar_to``, written by
  :class:`~lirdrec_pyg.transforms.InteractionGraph`.
* ``data['user'].recent_items`` ``[U, n]`` and ``data['user', 'interacts', 'item'].recent_items`` ``[E, n]``, the latest
  items of each user and before each interaction, written by :class:`~lirdrec_pyg.transforms.RecentItems`.
* ``data['user'].raw_id``, ``data['item'].raw_id`` and, where known, ``data['item'].title``: lists of :class:`str`.
  :func:`check` makes each list of a node type a :class:`NodeList`, which PyG can cut as it does a tensor.

Cut data, as by ``data.subgraph`` or PyG's ``RemoveIsolatedNodes``, *before* it is split: PyG does not know that
``edge_label_index``, ``recent_items`` and ``adj_t`` hold positions of nodes, too.

:func:`check` is the one door: every transform, model, ``fit``, ``evaluate`` and what serves calls it. What can be cast
without a doubt is cast; all else is refused.
"""

import operator
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module, ModuleDict
from torch.utils.weak import WeakIdKeyDictionary, WeakIdRef
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData

USER = 'user'
ITEM = 'item'
INTERACTS = (USER, 'interacts', ITEM)
REV_INTERACTS = (ITEM, 'rev_interacts', USER)
SIMILAR_TO = (ITEM, 'similar_to', ITEM)

TRAIN, VAL, TEST = 0, 1, 2  # the values of `split`

LARGEST = 1e32  # of a feature: sums of such numbers are still finite in single precision


class NodeList(list[Any]):
    r"""A list with an entry for each node, such as raw ids. A tensor or an array takes entries out of it: positions or
    a bool mask. So PyG cuts it along with the features of the nodes, in ``data.subgraph`` and its transforms.

    After ``data.to`` and ``data.clone`` it is a plain list, until the next transform.

    .. code-block:: python

        names = NodeList(['a', 'b', 'c'])
        print(names[torch.tensor([0, 2])])  # ['a', 'c']
    """

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (Tensor, np.ndarray)) and index.ndim > 0:
            index = torch.as_tensor(index)
            if index.dtype == torch.bool:
                if index.shape != (len(self),):
                    raise IndexError(f'a mask of nodes needs to be of shape ({len(self)},) (got {tuple(index.shape)})')
                index = index.nonzero().view(-1)
            return NodeList([super(NodeList, self).__getitem__(i) for i in index.tolist()])
        out = super().__getitem__(index)
        return NodeList(out) if isinstance(index, slice) else out

    def __reduce__(self) -> tuple[Any, ...]:
        return NodeList, (list(self),)


torch.serialization.add_safe_globals([NodeList])  # so that data is read with `weights_only=True`


def node_lists(store: Mapping[str, Any], size: int) -> dict[str, NodeList]:
    r"""Returns the plain lists of a node type that have an entry for each of its nodes, as :class:`NodeList`.

    .. code-block:: python

        print(node_lists({'title': ['a cup', 'a pot']}, 2))
    """
    return {key: NodeList(x) for key, x in store.items() if type(x) in (list, tuple) and len(x) == size}


class Embeddings(NamedTuple):
    r"""Final representations; the score of a pair is their inner product.

    .. code-block:: python

        user, item = embeddings
        score = user @ item.t()
        print(embeddings.scaled(0).item.norm(dim=1))  # ones: scores are cosines

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, D)`
        - **item:** :math:`(|\mathcal{I}|, D)`
    """

    user: Tensor
    item: Tensor

    def scaled(self, power: float) -> 'Embeddings':
        r"""Returns embeddings whose length counts by another power: each row :math:`\mathbf{x}` becomes
        :math:`\mathbf{x} \, \Vert \mathbf{x} \Vert_2^{p - 1}`.

        With one nothing changes; with zero each row has unit length and the score is the cosine. Items with many
        interactions have long rows: a smaller power gives new items a better place. Users are scaled alike, which
        changes no ranking of theirs.

        Args:
            power (float): The power :math:`p \geq 0` of the length.
        """
        if not 0 <= power < float('inf'):
            raise ValueError(f"'power' needs to be a non-negative number (got {power})")
        if power == 1:
            return self
        lengths = (x.norm(dim=-1, keepdim=True).clamp_min(1e-12) for x in self)
        return Embeddings(*(x / length * length**power for x, length in zip(self, lengths, strict=True)))


def modalities(data: HeteroData) -> list[str]:
    r"""Returns the modalities of the items in the data's order, *e.g.*, ``['image', 'text']``.

    .. code-block:: python

        print(modalities(data))  # ['image', 'text']
    """
    return [key[2:] for key in data[ITEM].keys() if key.startswith('x_')]  # noqa: SIM118


def similar_by(modality: str) -> tuple[str, str, str]:
    r"""Returns the relation of items that are alike in one modality.

    .. code-block:: python

        print(similar_by('image'))  # ('item', 'similar_by_image', 'item')
    """
    return ITEM, f'similar_by_{modality}', ITEM


def item_graphs(data: HeteroData) -> list[tuple[str, str, str]]:
    r"""Returns the relations between items that the data has.

    .. code-block:: python

        print(item_graphs(train))  # [('item', 'similar_to', 'item')]
    """
    known = [SIMILAR_TO, *(similar_by(name) for name in modalities(data))]
    return [relation for relation in known if relation in data.edge_types]


def modality_features(data: HeteroData, modality: str) -> tuple[Tensor, Tensor | None]:
    r"""Returns the features ``[I, C]`` of a modality and, where some items lack it, their ``[I]`` bool mask.

    .. code-block:: python

        x, has = modality_features(data, 'image')
    """
    store = data[ITEM]
    if f'x_{modality}' not in store:
        raise ValueError(f"unknown modality '{modality}' (the data has {modalities(data)})")
    return store[f'x_{modality}'], store.get(f'has_{modality}')


def check_modality_name(name: str) -> str:
    r"""Returns the name of a modality, which becomes part of attributes, of files and of a model's parameters.

    .. code-block:: python

        name = check_modality_name('image')

    Args:
        name (str): The name, *e.g.*, ``'image'``.

    Raises:
        ValueError: If it is no identifier, or the name of the shared view or of an attribute of all modules.
    """
    if not isinstance(name, str) or not name.isidentifier() or name == 'shared' or hasattr(ModuleDict(), name):
        raise ValueError(
            "the name of a modality needs to be an identifier such as 'image', and none that modules have, such as "
            f"'items', 'type' or 'shared' (got {name!r}): rename it"
        )
    return name


def check(
    data: HeteroData,
    argument: str = 'data',
    *,
    interactions: bool = True,
    labels: bool = False,
    unique: bool = False,
) -> HeteroData:
    r"""Returns data that keeps the contract of this module: the data itself, or a shallow copy with what was cast.

    Other integers become int64, masks of zeros and ones bool, NumPy arrays and integer features float tensors. A
    missing ``num_nodes`` is counted. A list with an entry for each node becomes a :class:`NodeList`. What was once
    looked through is remembered for as long as its tensor lives unchanged, so that calling this again costs next to
    nothing.

    .. code-block:: python

        train = check(train, labels=False, unique=True)  # refused or cast; as it was, if all is right

    Args:
        data (HeteroData): The data, which stays as it is.
        argument (str, optional): What errors call it. (default: ``'data'``)
        interactions (bool, optional): Whether it needs users and interactions, and not items alone.
            (default: :obj:`True`)
        labels (bool, optional): Whether it needs positives: ``edge_label_index``, each pair once and none of them a
            training interaction. Where ``edge_label`` is zero, as in splits of
            :class:`~torch_geometric.transforms.RandomLinkSplit`, there is no edge: such pairs are left out.
            (default: :obj:`False`)
        unique (bool, optional): Whether each interaction has to be there once. (default: :obj:`False`)

    Raises:
        TypeError: If it is no :class:`~torch_geometric.data.HeteroData`.
        ValueError: If it breaks the contract.
    """
    if torch.compiler.is_compiling():  # it was checked before it was traced
        return data
    if not isinstance(data, HeteroData):
        raise TypeError(f"'{argument}' needs to be a HeteroData (got {_kind(data)})")
    found = data.edge_types
    if interactions and INTERACTS not in found:
        raise ValueError(
            f"'{argument}' needs the relation {INTERACTS} (got the relations {found} and the node types "
            f'{data.node_types})'
        )
    cast: list[tuple[Any, str, Any]] = []  # where, key, value
    sizes = {}
    for node_type in (USER, ITEM) if interactions else (ITEM,):
        sizes[node_type], nodes = _check_nodes(data, node_type, argument)
        cast += [(node_type, key, value) for key, value in nodes.items()]
    for relation in (INTERACTS, REV_INTERACTS, *item_graphs(data)) if interactions else ():
        if relation in found:
            size = sizes[relation[0]], sizes[relation[2]]
            edges = _check_edges(data[relation], relation, size, argument, unique and relation == INTERACTS)
            cast += [(relation, key, value) for key, value in edges.items()]
            if labels and relation == INTERACTS:
                positives = _check_labels(data[relation], edges['edge_index'], size, argument)
                cast += [(relation, key, value) for key, value in positives.items()]
    cast = [(where, key, value) for where, key, value in cast if data[where].get(key) is not value]
    if cast:
        data = copy(data)
        for where, key, value in cast:
            data[where][key] = value
    return data


def check_pairs(
    pairs: Tensor,
    size: tuple[int, int],
    argument: str = 'edge_index',
    *,
    kinds: tuple[str, str] = (USER, ITEM),
    unique: bool = False,
) -> Tensor:
    r"""Returns pairs of node ids as int64.

    .. code-block:: python

        pairs = check_pairs(torch.tensor([[0, 1], [5, 6]], dtype=torch.int32), (64, 48))  # int64

    Args:
        pairs (Tensor): The pairs :math:`(2, E)`.
        size ((int, int)): The number of nodes that each row is of.
        argument (str, optional): What errors call the pairs. (default: ``'edge_index'``)
        kinds ((str, str), optional): What they call the nodes. (default: ``('user', 'item')``)
        unique (bool, optional): Whether each pair has to be there once. (default: :obj:`False`)

    Raises:
        ValueError: If the pairs are no integers, of another shape, out of range or repeated.
    """
    return _pairs(pairs, size, f"'{argument}'", kinds, unique)


def check_nodes(ids: Tensor, size: int, argument: str) -> Tensor:
    r"""Returns node ids as int64.

    .. code-block:: python

        items = check_nodes(torch.tensor([5, 6]), 48, 'items')

    Args:
        ids (Tensor): The node ids :math:`(N)`.
        size (int): The number of nodes.
        argument (str): What errors call the ids.

    Raises:
        ValueError: If they are no integers, of another shape or out of range.
    """
    need = 'integers of shape [N]'
    nodes = _tensor(ids, f"'{argument}'", need)
    if nodes.is_floating_point() or nodes.dtype == torch.bool or nodes.dim() != 1:
        raise ValueError(f"'{argument}' needs to be {need} (got {_kind(ids)})")
    if nodes.numel() > 0:
        low, high = torch.stack(torch.aminmax(nodes)).tolist()
        if low < 0 or high >= size:
            raise ValueError(f"'{argument}' need to be in [0, {size - 1}] (got {low if low < 0 else high})")
    return nodes.long()


def check_mask(mask: Tensor, size: int, argument: str) -> Tensor:
    r"""Returns a mask as bool; one of the integers zero and one is cast.

    .. code-block:: python

        mask = check_mask(torch.ones(48, dtype=torch.uint8), 48, 'candidates')  # bool

    Args:
        mask (Tensor): The mask :math:`(N)`.
        size (int): The number of items :math:`N`.
        argument (str): What errors call it.

    Raises:
        ValueError: If it holds anything else, or is of another length.
    """
    return _mask(mask, size, f"'{argument}'")


def check_count(count: int, most: int, argument: str = 'k') -> int:
    r"""Returns a number of things as a plain integer.

    .. code-block:: python

        k = check_count(10, 48)

    Args:
        count (int): The number, of any type of integers.
        most (int): How many there are.
        argument (str, optional): What errors call the number. (default: ``'k'``)

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is not in :math:`[1, \textrm{most}]`.
    """
    count = int(operator.index(count))  # of True, too
    if not 1 <= count <= most:
        raise ValueError(f"'{argument}' needs to be in [1, {most}] (got {count})")
    return count


def check_array(x: Tensor, shape: tuple[int, ...], argument: str) -> Tensor:
    r"""Returns floats of one shape.

    .. code-block:: python

        x = check_array(torch.ones(3, dtype=torch.float64), (3,), 'weight')

    Args:
        x (Tensor): The tensor.
        shape (tuple of int): Its shape.
        argument (str): What errors call it.

    Raises:
        ValueError: If it is of another shape, holds no floats, or is not finite.
    """
    need = f'a float tensor of shape {list(shape)}'
    out = _tensor(x, f"'{argument}'", need)
    if tuple(out.shape) != tuple(shape) or not out.is_floating_point():
        raise ValueError(f"'{argument}' needs to be {need} (got {_kind(out)})")
    if _once(_bad_rows, out):
        raise ValueError(f"'{argument}' needs to be finite (got NaN, Inf or values beyond {LARGEST:g})")
    return out


def check_embeddings(embeddings: Embeddings, data: HeteroData | None = None) -> Embeddings:
    r"""Returns embeddings that can be scored.

    .. code-block:: python

        embeddings = check_embeddings((embeddings.user, embeddings.item), train)

    Args:
        embeddings (Embeddings): The embeddings, or a pair of tensors.
        data (HeteroData, optional): Data whose users and items they need to be of.

    Raises:
        TypeError: If they are something else, such as a model.
        ValueError: If they or their scores are not finite, differ in width, or are of other users or items than
            ``data``.
    """
    if isinstance(embeddings, Module):
        raise TypeError(f"'embeddings' need to be Embeddings: give `model(data)` (got a {_kind(embeddings)})")
    if not isinstance(embeddings, (tuple, list)) or len(embeddings) != 2:
        raise TypeError(f"'embeddings' need to be Embeddings, as from `model(data)` (got {_kind(embeddings)})")
    out = []
    for kind, given in zip((USER, ITEM), embeddings, strict=True):
        x = check_rows(given, kind)
        if data is not None and len(x) != data[kind].num_nodes:
            raise ValueError(f"'embeddings' need to have {data[kind].num_nodes} {kind}s (got {len(x)})")
        out.append(x)
    if out[0].size(1) != out[1].size(1):
        raise ValueError(
            f"'embeddings' need to be as wide for users as for items (got {out[0].size(1)} and {out[1].size(1)})"
        )
    check_scores(*out)
    if isinstance(embeddings, Embeddings) and all(x is y for x, y in zip(out, embeddings, strict=True)):
        return embeddings
    return Embeddings(*out)


def check_scores(x: Tensor, y: Tensor) -> None:
    r"""Raises a :class:`ValueError` if an inner product of rows may be too large a number for their precision.

    .. code-block:: python

        check_scores(embeddings.user, embeddings.item)

    Shapes:
        - **x:** :math:`(N, D)`
        - **y:** :math:`(M, D)`
    """
    lengths = _once(_longest, x), _once(_longest, y)
    if not lengths[0] * lengths[1] < torch.finfo(x.dtype).max:
        raise ValueError(
            f"'embeddings' need to be finite (got NaN or Inf scores in {x.dtype}, of rows of length "
            f'{lengths[0]:.3g} and {lengths[1]:.3g})'
        )


def check_rows(x: Tensor, kind: str) -> Tensor:
    r"""Returns the embeddings of users alone or of items alone.

    .. code-block:: python

        user = check_rows(embeddings.user, 'user')

    Args:
        x (Tensor): The embeddings :math:`(N, D)`.
        kind (str): ``'user'`` or ``'item'``.

    Raises:
        ValueError: If they are no floats, of another shape or not finite.
    """
    out = _features(x, f"'embeddings' of {kind}s", f'[{kind}s, D]')
    _refuse_not_finite(out, "'embeddings' need to be finite", f' for {kind}s')
    return out


def _check_nodes(data: HeteroData, node_type: str, argument: str) -> tuple[int, dict[str, Any]]:
    r"""Returns the number of nodes and the attributes as they need to be."""
    store = data[node_type] if node_type in data.node_types else {}
    out: dict[str, Any] = {}
    counts: dict[str, int] = {}
    masks = []
    for key, value in store.items():
        if node_type == ITEM and (key.startswith('x_') or key == 'spectrum'):
            out[key] = _features(value, _name(key, argument))
        elif node_type == ITEM and (key.startswith('has_') or key == 'cold'):
            masks.append(key)
        elif key not in ('n_id', 'x', 'recent_items', *(('raw_id', 'title') if 'n_id' not in store else ())):
            continue  # PyG's loaders don't cut lists: those of a sub-graph are still of all nodes
        elif isinstance(value, str):
            raise ValueError(f'{_name(key, argument)} needs to be a list of strings (got the string {value!r})')
        value = out.get(key, value)
        counts[key] = len(value) if isinstance(value, Tensor) and value.dim() > 0 else _length(value)
    given = store.get('num_nodes')
    if given is not None:
        counts = {'num_nodes': int(given), **counts}
    if not counts:
        raise ValueError(
            f"'{argument}' needs `data['{node_type}'].num_nodes` (got none, nor 'raw_id' or features to count)"
        )
    size = next(iter(counts.values()))
    if any(count != size for count in counts.values()):
        raise ValueError(f"'{argument}' needs one row for each {node_type} everywhere (got {counts})")
    for key, value in out.items():
        _refuse_not_finite(value, f'{_name(key, argument)} needs to be finite')
    for key in masks:
        out[key] = _mask(store[key], size, _name(key, argument))
    out |= node_lists(store, size)
    if not isinstance(given, int):
        out['num_nodes'] = size
    return size, out


def _check_edges(
    store: Any, relation: tuple[str, str, str], size: tuple[int, int], argument: str, unique: bool
) -> dict[str, Any]:
    r"""Returns the edges and what there is of each as they need to be."""
    if 'edge_index' not in store:
        if relation == INTERACTS:
            raise ValueError(f"'{argument}' needs `edge_index` of {INTERACTS} (got {list(store.keys())})")
        return {}
    place = '' if relation == INTERACTS else f' of {relation}'
    kinds = relation[0], relation[2]
    out = {'edge_index': _pairs(store['edge_index'], size, _name('edge_index', argument) + place, kinds, unique)}
    if kinds == (ITEM, ITEM) and 'edge_weight' in store:
        out['edge_weight'] = _one_each(store['edge_weight'], out['edge_index'], _name('edge_weight', argument) + place)
    return out


def _check_labels(store: Any, edge_index: Tensor, size: tuple[int, int], argument: str) -> dict[str, Any]:
    r"""Returns the positives as they need to be."""
    if 'edge_label_index' not in store:
        raise ValueError(f"'{argument}' needs `edge_label_index`: it comes from a split such as `FixedSplit()(data)`")
    name, out = _name('edge_label_index', argument), {}
    pairs = _pairs(store['edge_label_index'], size, name, (USER, ITEM), False)
    if 'edge_label' in store:
        label = _one_each(store['edge_label'], pairs, _name('edge_label', argument))
        edges = _once(_where_not_zero, label)
        out['edge_label'], pairs = _once(_take, label, edges), _once(_take, pairs, edges)
    out['edge_label_index'] = _pairs(pairs, size, name, (USER, ITEM), True)
    if both := _once(_common_pairs, pairs, edge_index):
        raise ValueError(
            f"'{argument}' needs positives that are no training interactions (got {both[0]} in `edge_label_index` that "
            f'are in `edge_index`, too, first: user {both[1]}, item {both[2]}): give the validation or test split'
        )
    return out


def _one_each(value: Any, pairs: Tensor, name: str) -> Tensor:
    value = _tensor(value, name, 'a tensor')
    if value.shape != pairs.shape[1:]:
        raise ValueError(f'{name} needs one value per edge, [{pairs.size(1)}] (got {list(value.shape)})')
    return value


def _name(key: str, argument: str) -> str:
    return f"'{key}'" if argument == 'data' else f"'{key}' of '{argument}'"


def _kind(value: Any) -> str:
    if isinstance(value, (Tensor, np.ndarray)):
        return f'{value.dtype} of {list(value.shape)}'
    return f'a tuple of {len(value)}' if type(value) is tuple else type(value).__name__


def _length(value: Any) -> int:
    return len(value) if hasattr(value, '__len__') and getattr(value, 'ndim', 1) > 0 else -1


def _tensor(value: Any, name: str, need: str) -> Tensor:
    r"""Returns a plain tensor for one of PyG's or an array of NumPy, which share its memory."""
    if isinstance(value, EdgeIndex):
        return value.as_tensor()
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':
        value = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder('='))
        return torch.from_numpy(value if value.flags.writeable else value.copy())
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_complex():
        raise ValueError(f'{name} needs to be {need} (got {_kind(value)})')
    return value


def _pairs(value: Any, size: tuple[int, int], name: str, kinds: tuple[str, str], unique: bool) -> Tensor:
    need = 'integers of shape [2, E]'
    pairs = _tensor(value, name, need)
    if pairs.is_floating_point() or pairs.dtype == torch.bool or pairs.dim() != 2 or pairs.size(0) != 2:
        turn = ': transpose it, `.t()`' if pairs.dim() == 2 and pairs.size(0) != 2 and pairs.size(1) == 2 else ''
        raise ValueError(f'{name} needs to be {need} (got {_kind(pairs)}){turn}')
    if pairs.dtype != torch.long:
        pairs = _once(_long, pairs)
    if pairs.numel() == 0:
        return pairs
    for kind, number, (low, high) in zip(kinds, size, _once(_bounds, pairs), strict=True):
        if low < 0 or high >= number:
            raise ValueError(f'{kind} ids of {name} need to be in [0, {number - 1}] (got {low if low < 0 else high})')
    if unique and (again := _once(_repeated_pairs, pairs)):
        raise ValueError(
            f'pairs of {name} need to be unique (got {again[0]} duplicates, first: {kinds[0]} {again[1]}, '
            f'{kinds[1]} {again[2]})'
        )
    return pairs


def _mask(value: Any, size: int, name: str) -> Tensor:
    need = f'a bool mask of {size} items'
    mask = _tensor(value, name, need)
    if mask.shape == (size,) and not mask.is_floating_point():
        if mask.dtype == torch.bool:
            return mask
        if (out := _once(_zeros_and_ones, mask)) is not None:
            return out
    hint = ''
    if not mask.is_floating_point() and mask.dtype != torch.bool:
        hint = f': make it of row numbers by `torch.zeros({size}, dtype=torch.bool).index_fill(0, rows, True)`'
    raise ValueError(f'{name} needs to be {need} (got {_kind(mask)}){hint}')


def _features(value: Any, name: str, shape: str = '[items, C]') -> Tensor:
    need = f'a float tensor of shape {shape}'
    x = _tensor(value, name, need)
    if x.dim() != 2:
        column = ': for one number each, give `x.unsqueeze(1)`' if x.dim() == 1 else ''
        raise ValueError(f'{name} needs to be {need} (got {_kind(x)}){column}')
    if isinstance(value, np.ndarray) and x.dtype == torch.double:  # NumPy's default, but not torch's
        return x.to(torch.get_default_dtype())
    return x if x.is_floating_point() else _once(_float, x)


def _refuse_not_finite(x: Tensor, rule: str, of: str = '') -> None:
    if bad := _once(_bad_rows, x):
        raise ValueError(f'{rule} (got {bad[0]} rows with {bad[2]}{of}, first: row {bad[1]})')


Result = TypeVar('Result')
_SAME = object()
_known = WeakIdKeyDictionary()  # what was found out about a tensor, for as long as it lives


def _once(compute: Callable[..., Result], x: Tensor, *others: Tensor) -> Result:
    r"""Returns ``compute(x, *others)``, remembered until one of the tensors is gone or changed in place.

    What is changed behind torch's back, as by ``x.data`` or an array that shares its memory, is not seen.
    """
    if any(one.is_inference() for one in (x, *others)):  # these don't count their changes
        return compute(x, *others)
    facts = _known.setdefault(x, {})
    state = [_state(one) for one in (x, *others)]
    if compute in facts:
        before, refs, out, out_state = facts[compute]
        out = x if out is _SAME else out
        if (
            before == state
            and out_state == _state(out)
            and all(ref() is y for ref, y in zip(refs, others, strict=True))
        ):
            return out  # type: ignore[return-value]
    with torch.inference_mode(False), torch.no_grad():  # whoever takes it later may need a gradient
        result = compute(x, *others)
    held = _SAME if result is x else result  # never its own key, which would live for ever
    facts[compute] = state, [WeakIdRef(one) for one in others], held, _state(result)
    return result


def _state(x: Any) -> tuple[Any, ...] | None:
    return (x._version, x.data_ptr(), x.shape) if isinstance(x, Tensor) else None


def _long(x: Tensor) -> Tensor:
    return x.long()


def _float(x: Tensor) -> Tensor:
    return x.to(torch.get_default_dtype())


def _zeros_and_ones(x: Tensor) -> Tensor | None:
    return x.bool() if bool(((x == 0) | (x == 1)).all()) else None


def _bounds(pairs: Tensor) -> list[tuple[int, int]]:
    low, high = torch.stack(torch.aminmax(pairs, dim=1)).tolist()
    return list(zip(low, high, strict=True))


def _keys(pairs: Tensor, num_items: int) -> Tensor:
    return pairs[0] * num_items + pairs[1]


def _repeated_pairs(pairs: Tensor) -> tuple[int, int, int] | None:
    num_items = _once(_bounds, pairs)[1][1] + 1
    key, count = _keys(pairs, num_items).unique(return_counts=True)
    if key.numel() == pairs.size(1):
        return None
    return (int(pairs.size(1) - key.numel()), *divmod(int(key[count > 1][0]), num_items))


def _common_pairs(pairs: Tensor, others: Tensor) -> tuple[int, int, int] | None:
    if pairs.numel() == 0 or others.numel() == 0:
        return None
    others = others.to(pairs.device)
    num_items = max(_once(_bounds, pairs)[1][1], int(others[1].max())) + 1
    key = _keys(pairs, num_items)
    both = key[torch.isin(key, _keys(others, num_items))]
    return (both.numel(), *divmod(int(both[0]), num_items)) if both.numel() > 0 else None


def _where_not_zero(label: Tensor) -> Tensor:
    return label.nonzero().view(-1)


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x if index.numel() == x.size(-1) else x.index_select(-1, index)


def _bad_rows(x: Tensor) -> tuple[int, int, str] | None:
    r"""Returns the number of rows with a value that is not finite or too large, the first of them, and which it is."""
    x = x.detach()
    if x.numel() == 0 or x.is_meta:
        return None
    low, high = (float(end) for end in torch.aminmax(x))
    if -low <= LARGEST and high <= LARGEST:
        return None
    bad = (~(x.double().abs() <= LARGEST)).flatten(1).any(dim=1).nonzero().view(-1)
    what = f'values beyond {LARGEST:g}' if bool(x[bad].isfinite().all()) else 'NaN or Inf'
    return bad.numel(), int(bad[0]), what


def _longest(x: Tensor) -> float:
    r"""Returns the largest length of a row."""
    if x.numel() == 0:
        return 0.0
    length = float(x.detach().norm(dim=1, dtype=torch.promote_types(x.dtype, torch.float)).max())
    return length if length < float('inf') else float(x.detach().norm(dim=1, dtype=torch.double).max())
