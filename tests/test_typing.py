r"""The one door: what every entry takes, casts and refuses."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric import EdgeIndex
from torch_geometric.data import Data, HeteroData
from torch_geometric.transforms import RandomLinkSplit, RemoveIsolatedNodes, ToUndirected

from lirdrec_pyg import Embeddings, LIRDRec, Retriever, evaluate, onboard_items, recommend
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.ranking import top_k
from lirdrec_pyg.transforms import (
    DCT,
    PCA,
    ColdItemSplit,
    CollaborativeFeatures,
    FixedSplit,
    FlushDenormals,
    HalfPrecision,
    InteractionGraph,
    ItemKNNGraph,
    LeaveLastOut,
    RandomSplit,
    RecentItems,
    TemporalSplit,
)
from lirdrec_pyg.typing import (
    INTERACTS,
    ITEM,
    SIMILAR_TO,
    USER,
    _known,
    check,
    check_embeddings,
    check_mask,
    check_modality_name,
    check_nodes,
    check_pairs,
)

NUM_USERS, NUM_ITEMS = 64, 48


def make() -> HeteroData:
    r"""Unsplit data, all of whose features are whole numbers."""
    data = FakeMultimodal(missing={'image': 0.2}, seed=1)[0]
    for name in ('x_image', 'x_text'):
        data[ITEM][name] = (10 * data[ITEM][name]).round()
    return ItemKNNGraph(k=4)(DCT()(data))


def make_split() -> HeteroData:
    return FixedSplit()(make())[1]


def embeddings() -> Embeddings:
    generator = torch.Generator().manual_seed(0)
    return Embeddings(*(torch.randn(n, 4, generator=generator) for n in (NUM_USERS, NUM_ITEMS)))


def onboarded(data: HeteroData) -> HeteroData:
    features = {'image': torch.ones(3, 16), 'text': torch.ones(3, 8)}
    return onboard_items(data, features, raw_id=['a', 'b', 'c'])[0]


def encoded(data: HeteroData) -> Embeddings:
    model = LIRDRec(NUM_USERS, {'image': 16, 'text': 8}, hidden_channels=4)
    torch.manual_seed(0)
    model.reset_parameters()
    with torch.no_grad():
        return model(InteractionGraph()(data))


CONTENT = {  # these read items alone
    'DCT': DCT(),
    'PCA': PCA(3),
    'ItemKNNGraph': ItemKNNGraph(k=3),
    'FlushDenormals': FlushDenormals(),
    'HalfPrecision': HalfPrecision(),
}
WHOLE = {
    'CollaborativeFeatures': CollaborativeFeatures(4),
    'RecentItems': RecentItems(3),
    'InteractionGraph': InteractionGraph(),
    'FixedSplit': FixedSplit(),
    'RandomSplit': RandomSplit(),
    'LeaveLastOut': LeaveLastOut(),
    'TemporalSplit': TemporalSplit(),
    'ColdItemSplit': ColdItemSplit(),
    'recommend': lambda data: recommend(embeddings(), data, ['user-3', 'user-60'], k=5),
    'Retriever': lambda data: Retriever(embeddings(), data).recommend(['user-3', 'user-60'], k=5),
    'onboard_items': onboarded,
    'model': encoded,
    'check': check,
}
LABELS = {
    'evaluate': lambda split: evaluate(embeddings(), split, k=5),
    'also_exclude': lambda split: evaluate(embeddings(), make_split(), k=5, also_exclude=split),
}
ENTRIES = {**CONTENT, **WHOLE, **LABELS}


def data_for(name: str) -> HeteroData:
    return make_split() if name in LABELS else make()


def plain(value):
    r"""What an entry returned, as something to compare."""
    if isinstance(value, HeteroData):
        return {
            (str(store._key), key): plain(entry)
            for store in value.stores
            for key, entry in store.items()
            if isinstance(entry, (Tensor, int, list))
        }
    if isinstance(value, Tensor):
        value = value.as_tensor() if isinstance(value, EdgeIndex) else value
        value = value.to_dense() if value.layout != torch.strided else value
        return value.dtype, value.tolist()
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    return value.to_dict('list') if isinstance(value, pd.DataFrame) else value


def refuses(name, data, message, error=ValueError):
    with pytest.raises(error, match=message):
        ENTRIES[name](data)


# What is cast ---------------------------------------------------------------------------------------------------------


def with_edges(change):
    def apply(data):
        data[INTERACTS].edge_index = change(data[INTERACTS].edge_index)

    return apply


def with_item(key, change):
    def apply(data):
        data[ITEM][key] = change(data[ITEM][key])

    return apply


def without_sizes(data):
    del data[USER].num_nodes, data[ITEM].num_nodes


def as_column_major(x):
    return np.asfortranarray(x.numpy())


def read_only(x):
    x = x.numpy().copy()
    x.flags.writeable = False
    return x


CASTS = {
    'int32 edges': with_edges(lambda x: x.int()),
    'uint8 edges': with_edges(lambda x: x.to(torch.uint8)),
    'NumPy edges': with_edges(lambda x: x.numpy()),
    'NumPy int32 edges': with_edges(lambda x: x.numpy().astype(np.int32)),
    'read-only edges': with_edges(read_only),
    'EdgeIndex': with_edges(lambda x: EdgeIndex(x, sparse_size=(NUM_USERS, NUM_ITEMS))),
    'int32 EdgeIndex': with_edges(lambda x: EdgeIndex(x.int(), sparse_size=(NUM_USERS, NUM_ITEMS))),
    'a transpose': with_edges(lambda x: x.t().contiguous().t()),
    'int64 features': with_item('x_image', lambda x: x.long()),
    'int16 features': with_item('x_image', lambda x: x.short()),
    'NumPy features': with_item('x_image', lambda x: x.numpy()),
    'NumPy double features': with_item('x_image', lambda x: x.double().numpy()),
    'NumPy int features': with_item('x_image', lambda x: x.long().numpy()),
    'NumPy features of the other order': with_item('x_image', as_column_major),
    'NumPy features of other bytes': with_item('x_image', lambda x: x.numpy().astype('>f4')),
    'NumPy spectrum': with_item('spectrum', lambda x: x.numpy()),
    'int64 mask': with_item('has_image', lambda x: x.long()),
    'uint8 mask': with_item('has_image', lambda x: x.to(torch.uint8)),
    'NumPy mask': with_item('has_image', lambda x: x.numpy()),
    'no num_nodes': without_sizes,
    'NumPy num_nodes': lambda data: setattr(data[ITEM], 'num_nodes', np.int64(NUM_ITEMS)),
}


@pytest.mark.parametrize('entry', ENTRIES)
@pytest.mark.parametrize('cast', CASTS)
def test_other_types_give_what_the_usual_ones_do(entry, cast):
    data, other = data_for(entry), data_for(entry)
    CASTS[cast](other)
    before = {(str(s._key), key): value for s in other.stores for key, value in s.items()}
    found, expected = plain(ENTRIES[entry](other)), plain(ENTRIES[entry](data))
    if entry in CONTENT and isinstance(found, dict):  # what these don't read stays as it is
        for results in (found, expected):
            for key in [key for key in results if key[0] == str(INTERACTS)]:
                del results[key]
            results.pop((USER, 'num_nodes'), None)
    assert found == expected
    after = {(str(s._key), key): value for s in other.stores for key, value in s.items()}
    assert before.keys() == after.keys() and all(before[key] is after[key] for key in before)  # left alone


LABEL_CASTS = {
    'int32': lambda x: x.int(),
    'NumPy': lambda x: x.numpy(),
    'EdgeIndex': lambda x: EdgeIndex(x, sparse_size=(NUM_USERS, NUM_ITEMS)),
}


@pytest.mark.parametrize('entry', LABELS)
@pytest.mark.parametrize('cast', LABEL_CASTS)
def test_positives_of_other_types(entry, cast):
    split, other = make_split(), make_split()
    other[INTERACTS].edge_label_index = LABEL_CASTS[cast](other[INTERACTS].edge_label_index)
    assert LABELS[entry](other) == LABELS[entry](split)


def test_integer_features_alone(splits):
    data = HeteroData()
    data[ITEM].x_price = torch.tensor([[3], [5], [8]])
    data[ITEM].has_price = torch.tensor([1, 0, 1])
    out = DCT()(data)
    assert torch.allclose(out[ITEM].spectrum, torch.tensor([[3.0], [0.0], [8.0]]))
    assert out[ITEM].x_price.dtype == torch.float and out[ITEM].has_price.dtype == torch.bool
    assert out[ITEM].num_nodes == 3
    half = HeteroData()
    half[ITEM].x_price = torch.tensor([[3.0], [5.0]], dtype=torch.half)
    assert check(half, interactions=False)[ITEM].x_price.dtype == torch.half  # a float of whatever width stays


def test_onboarding_takes_masks_of_zeros_and_ones():
    data = make()
    x, arguments = {'image': torch.ones(3, 16), 'text': torch.ones(3, 8)}, {'raw_id': ['a', 'b', 'c']}
    has = torch.tensor([True, False, True])
    expected = onboard_items(data, x, masks={'text': has}, **arguments)[0]
    for mask in (has.long(), has.numpy(), has.numpy().astype(int)):
        numpy = {name: value.numpy() for name, value in x.items()}
        assert plain(onboard_items(data, numpy, masks={'text': mask}, **arguments)[0]) == plain(expected)
    with pytest.raises(ValueError, match=r"'has_text' needs to be a bool mask of 3 items \(got torch.int64 of \[3\]\)"):
        onboard_items(data, x, masks={'text': torch.tensor([0, 1, 2])}, **arguments)


# What is refused ------------------------------------------------------------------------------------------------------


def nan_in(key):
    def apply(data):
        data[ITEM][key] = data[ITEM][key].clone()
        data[ITEM][key][[7, 9], 0] = torch.tensor([float('nan'), float('inf')])

    return apply


def large_in(key, value):
    def apply(data):
        data[ITEM][key] = data[ITEM][key].double()
        data[ITEM][key][7, 3] = value

    return apply


BAD_ITEMS = {
    '1e39': (large_in('x_image', 1e39), r"'x_image'.* finite \(got 1 rows with values beyond 1e\+32, first: row 7\)"),
    '3e38': (large_in('x_image', -3e38), r"'x_image'.* finite \(got 1 rows with values beyond 1e\+32, first: row 7\)"),
    'one dimension': (with_item('x_image', lambda x: x[:, 0]), r"'x_image'.* \[48\]\): .*`x.unsqueeze\(1\)`"),
    'three dimensions': (with_item('x_image', lambda x: x[None]), r"'x_image'.* needs to be a float tensor of shape"),
    'too short': (with_item('x_image', lambda x: x[1:]), r"one row for each item .*'num_nodes': 48.*'x_image': 47"),
    'list': (with_item('x_image', lambda x: x.tolist()), r"'x_image'.* needs to be a float tensor .*\(got list\)"),
    'strings': (with_item('x_image', lambda x: x.numpy().astype(str)), r"'x_image'.* needs to be a float tensor"),
    'complex': (with_item('x_image', lambda x: x.cfloat()), r"'x_image'.* needs to be a float tensor"),
    'sparse': (with_item('x_image', lambda x: x.to_sparse()), r"'x_image'.* needs to be a float tensor"),
    'NaN': (nan_in('x_image'), r"'x_image'.* needs to be finite \(got 2 rows with NaN or Inf, first: row 7\)"),
    'NaN spectrum': (nan_in('spectrum'), r"'spectrum'.* needs to be finite \(got 2 rows"),
    'short spectrum': (with_item('spectrum', lambda x: x[1:]), r"one row for each item .*'spectrum': 47"),
    'short mask': (with_item('has_image', lambda x: x[1:]), r"one row for each item .*'has_image': 47"),
    'float mask': (with_item('has_image', lambda x: x.float()), r"'has_image'.* needs to be a bool mask of 48 items"),
    'numbers of rows': (
        with_item('has_image', lambda x: torch.arange(48)),
        r"'has_image'.* needs to be a bool mask of 48 items \(got torch.int64 of \[48\]\): .*index_fill",
    ),
    'list mask': (with_item('has_image', lambda x: x.tolist()), r"'has_image'.* bool mask of 48 items \(got list\)"),
    'short raw ids': (with_item('raw_id', lambda x: x[1:]), r"one row for each item .*'raw_id': 47"),
    'short titles': (with_item('title', lambda x: x[1:]), r"one row for each item .*'title': 47"),
}


@pytest.mark.parametrize('entry', ENTRIES)
@pytest.mark.parametrize('case', BAD_ITEMS)
def test_refuses_items(entry, case):
    change, message = BAD_ITEMS[case]
    data = data_for(entry)
    change(data)
    refuses(entry, data, message)


def renamed(data):
    data['user', 'rates', 'item'].edge_index = data[INTERACTS].edge_index
    del data[INTERACTS]


def at(row, value):
    def change(x):
        x = x.clone()
        x[row, 5] = value
        return x

    return change


BAD_DATA = {
    'another relation': (renamed, r"needs the relation \('user', 'interacts', 'item'\) .*\('user', 'rates', 'item'\)"),
    'no edges': (lambda data: data[INTERACTS].pop('edge_index'), r'needs `edge_index` of '),
    'float': (with_edges(lambda x: x.float()), r"'edge_index'.* needs to be integers .* \(got torch.float32 of \[2, "),
    'bool': (with_edges(lambda x: x.bool()), r"'edge_index'.* needs to be integers .* \(got torch.bool of \[2, "),
    'transposed': (with_edges(lambda x: x.t()), r"'edge_index'.* needs to be integers .* \[\d+, 2\]\): transpose it"),
    'one dimension': (with_edges(lambda x: x[0]), r"'edge_index'.* needs to be integers of shape \[2, E\]"),
    'list': (with_edges(lambda x: x.tolist()), r"'edge_index'.* needs to be integers .*\(got list\)"),
    'negative': (with_edges(at(0, -1)), r"user ids of 'edge_index'.* need to be in \[0, 63\] \(got -1\)"),
    'too large': (with_edges(at(1, 48)), r"item ids of 'edge_index'.* need to be in \[0, 47\] \(got 48\)"),
    'too large in int32': (with_edges(lambda x: at(1, 48)(x.int())), r"item ids of 'edge_index'.* \(got 48\)"),
    'no users': (lambda data: data._node_store_dict.pop(USER), r"needs `data\['user'\].num_nodes` \(got none"),
    'no item graph edges': (
        lambda data: data[SIMILAR_TO].update(edge_weight=data[SIMILAR_TO].edge_weight[1:]),
        r"'edge_weight'.* of \('item', 'similar_to', 'item'\) needs one value per edge",
    ),
    'item graph of others': (
        lambda data: data[SIMILAR_TO].update(edge_index=data[SIMILAR_TO].edge_index + 1),
        r"item ids of 'edge_index'.* of \('item', 'similar_to', 'item'\) need to be in \[0, 47\] \(got 48\)",
    ),
    'short raw ids': (lambda data: data[USER].raw_id.pop(), r"one row for each user .*'num_nodes': 64, 'raw_id': 63"),
}


@pytest.mark.parametrize('entry', [*WHOLE, *LABELS])
@pytest.mark.parametrize('case', BAD_DATA)
def test_refuses_interactions(entry, case):
    change, message = BAD_DATA[case]
    data = data_for(entry)
    change(data)
    types = list(data.node_types), list(data.edge_types)
    refuses(entry, data, message)
    assert types == (data.node_types, data.edge_types)  # looking for it adds nothing


@pytest.mark.parametrize('entry', ENTRIES)
@pytest.mark.parametrize('what', [None, 'data', Data(), FakeMultimodal(), (), {}, embeddings(), torch.zeros(2, 3)])
def test_refuses_what_is_no_data(entry, what):
    if (entry, what) in [('Retriever', None), ('also_exclude', None)]:  # the default
        return
    if entry == 'onboard_items' or (entry == 'Retriever' and isinstance(what, Tensor)):
        return
    names = 'data|split|also_exclude|seen'
    refuses(entry, what, rf"'({names})' needs .*HeteroData.* \(got", TypeError)


@pytest.mark.parametrize('entry', ['InteractionGraph', 'FixedSplit', 'RandomSplit'])
def test_refuses_repeated_interactions_where_each_has_to_be_there_once(entry):
    data = make()
    data[INTERACTS].edge_index[:, 9] = data[INTERACTS].edge_index[:, 2]
    user, item = data[INTERACTS].edge_index[:, 2].tolist()
    refuses(entry, data, rf'need to be unique \(got 1 duplicates, first: user {user}, item {item}\)')
    check(data)


def test_counts_nodes_by_what_there_is():
    data = make()
    for key in ('num_nodes', 'raw_id', 'title', 'spectrum', 'has_image', 'x_text'):
        data[ITEM].pop(key)
    assert check_without(data[USER], 'num_nodes', data)[ITEM].num_nodes == NUM_ITEMS
    del data[USER].raw_id
    with pytest.raises(ValueError, match=r"'train' needs `data\['user'\].num_nodes` \(got none, nor 'raw_id'"):
        check(data, 'train')
    data[USER].n_id = torch.arange(NUM_USERS)
    assert check(data)[USER].num_nodes == NUM_USERS
    data[ITEM].x_text = torch.zeros(NUM_ITEMS - 1, 3)
    with pytest.raises(ValueError, match=r"one row for each item everywhere \(got {'x_image': 48, 'x_text': 47}\)"):
        check(data)


def check_without(store, key, data):
    store.pop(key)
    return check(data)


# Positives ------------------------------------------------------------------------------------------------------------


def with_labels(change):
    def apply(split):
        split[INTERACTS].edge_label_index = change(split[INTERACTS].edge_label_index)

    return apply


BAD_LABELS = {
    'none': (lambda split: split[INTERACTS].pop('edge_label_index'), 'it comes from a split such as `FixedSplit'),
    'float': (with_labels(lambda x: x.float()), r"'edge_label_index' of '\w+' needs to be integers"),
    'transposed': (with_labels(lambda x: x.t()), r"'edge_label_index' of '\w+' .*transpose it"),
    'too large': (
        with_labels(at(1, 48)),
        r"item ids of 'edge_label_index' of '\w+' need to be in \[0, 47\] \(got 48\)",
    ),
    'negative': (with_labels(at(0, -2)), r"user ids of 'edge_label_index' of '\w+' .*\(got -2\)"),
    'repeated': (with_labels(lambda x: torch.cat([x, x[:, :2]], dim=1)), r'unique \(got 2 duplicates, first: user'),
    'training interactions': (
        lambda split: split[INTERACTS].update(edge_label_index=split[INTERACTS].edge_index[:, 3:5]),
        r'needs positives that are no training interactions \(got 2 in .*, first: user \d+, item \d+\)',
    ),
    'wrong edge_label': (
        lambda split: split[INTERACTS].update(edge_label=torch.ones(3)),
        r"'edge_label' of '\w+' needs one value per edge, \[\d+\] \(got \[3\]\)",
    ),
}


@pytest.mark.parametrize('entry', LABELS)
@pytest.mark.parametrize('case', BAD_LABELS)
def test_refuses_positives(entry, case):
    change, message = BAD_LABELS[case]
    split = make_split()
    change(split)
    refuses(entry, split, message)


def test_refuses_the_training_split():
    train, val, _ = FixedSplit()(make())
    with pytest.raises(ValueError, match=r"'split' needs positives that are no training interactions \(got 384 in"):
        evaluate(embeddings(), train)
    num_positives = val[INTERACTS].edge_label_index.size(1)
    some = copy.copy(val)
    some[INTERACTS].edge_index = val[INTERACTS].edge_label_index  # the same tensor, other interactions
    check(val, labels=True)
    with pytest.raises(ValueError, match=rf'got {num_positives} in'):
        check(some, labels=True)


def test_pairs_that_are_no_edges_are_no_positives():
    data = make()
    torch.manual_seed(0)
    split = RandomLinkSplit(num_val=0.1, num_test=0.2, edge_types=[INTERACTS], neg_sampling_ratio=1.0)
    train, val, test = split(data)
    for name, part in [('val', val), ('test', test)]:
        label, pairs = part[INTERACTS].edge_label, part[INTERACTS].edge_label_index
        assert 0 < label.sum() < len(label)
        clean = copy.copy(part)
        del clean[INTERACTS].edge_label
        clean[INTERACTS].edge_label_index = pairs[:, label == 1]
        out = check(part, name, labels=True)
        assert torch.equal(out[INTERACTS].edge_label_index, clean[INTERACTS].edge_label_index)
        assert out[INTERACTS].edge_label.tolist() == [1] * int(label.sum())
        assert part[INTERACTS].edge_label_index is pairs and part[INTERACTS].edge_label is label
        assert evaluate(embeddings(), part, k=5) == evaluate(embeddings(), clean, k=5)
        again = check(part, name, labels=True)
        assert again[INTERACTS].edge_label_index is out[INTERACTS].edge_label_index
    both = evaluate(embeddings(), test, k=5, also_exclude=val)
    assert both.keys() == {'recall@5', 'ndcg@5'}
    assert check(train) is train
    only = RandomLinkSplit(num_val=0.1, num_test=0.2, edge_types=[INTERACTS], neg_sampling_ratio=0.0)(data)[1]
    assert check(only, labels=True) is only


# Embeddings and masks -------------------------------------------------------------------------------------------------


USES = {
    'evaluate': lambda given: evaluate(given, make_split(), k=5),
    'recommend': lambda given: recommend(given, make(), ['user-3'], k=5),
    'Retriever': lambda given: Retriever(given, make()).recommend(['user-3'], k=5),
    'top_k': lambda given: list(top_k(given, torch.arange(3), 5)),
}
user, item = embeddings()
BAD_EMBEDDINGS = {
    'a model': (
        torch.nn.Linear(1, 1),
        TypeError,
        r"'embeddings' need to be Embeddings: give `model\(data\)` \(got a L",
    ),
    'data': (make(), TypeError, r"'embeddings' need to be Embeddings, as from `model\(data\)` \(got HeteroData\)"),
    'a tensor': (user, TypeError, r"'embeddings' need to be Embeddings.* \(got torch.float32 of \[64, 4\]\)"),
    'three': ((user, item, item), TypeError, r"'embeddings' need to be Embeddings"),
    'nothing': (None, TypeError, r"'embeddings' need to be Embeddings.* \(got NoneType\)"),
    'other widths': (Embeddings(user, item[:, :3]), ValueError, r'as wide for users as for items \(got 4 and 3\)'),
    'vectors': (Embeddings(user[:, 0], item[:, 0]), ValueError, r"'embeddings' of users needs to be a float tensor"),
    'lists': (Embeddings(user.tolist(), item.tolist()), ValueError, r"'embeddings' of users .*\(got list\)"),
    'NaN': (Embeddings(user, item * float('nan')), ValueError, r"'embeddings' need to be finite \(got 48 rows"),
    'other users': (Embeddings(user[1:], item), ValueError, r"'embeddings' need to have 64 users \(got 63\)"),
    'other items': (Embeddings(user, item[1:]), ValueError, r"'embeddings' need to have 48 items \(got 47\)"),
    'swapped': (Embeddings(item, user), ValueError, r"'embeddings' need to have 64 users \(got 48\)"),
}


@pytest.mark.parametrize('use', USES)
@pytest.mark.parametrize('case', BAD_EMBEDDINGS)
def test_refuses_embeddings(use, case):
    given, error, message = BAD_EMBEDDINGS[case]
    if use == 'top_k' and 'need to have' in message:  # knows no data
        return
    with pytest.raises(error, match=message):
        USES[use](given)


@pytest.mark.parametrize('use', USES)
@pytest.mark.parametrize('convert', [tuple, list, lambda pair: [x.numpy() for x in pair], lambda pair: pair])
def test_takes_pairs_for_embeddings(use, convert):
    assert plain(USES[use](convert(embeddings()))) == plain(USES[use](embeddings()))


def test_arguments_in_another_order():
    data, val, emb = make(), make_split(), embeddings()
    same = Retriever(emb, seen=data).recommend(['user-3'], 5)
    pd.testing.assert_frame_equal(Retriever(emb, data).recommend(['user-3'], 5), same)
    with pytest.raises(TypeError, match="'embeddings' need to be Embeddings, as from .* \\(got HeteroData\\)"):
        Retriever(data, emb)
    with pytest.raises(TypeError, match="'seen' needs to be a HeteroData or pairs .*`user_ids=`"):
        Retriever(emb, data[USER].raw_id)
    with pytest.raises(TypeError, match="'split' needs to be a HeteroData"):
        evaluate(val, emb)
    with pytest.raises(TypeError, match="'data' needs to be a HeteroData \\(got Embeddings\\)"):
        recommend(data, emb, ['user-3'])


MASKS = {
    'evaluate': lambda mask: evaluate(embeddings(), make_split(), k=5, candidates=mask),
    'groups': lambda mask: evaluate(embeddings(), make_split(), k=5, groups={'some': mask}),
    'recommend': lambda mask: recommend(embeddings(), make(), ['user-3'], k=5, candidates=mask),
    'top_k': lambda mask: list(top_k(embeddings(), torch.arange(3), 5, candidates=mask)),
}


@pytest.mark.parametrize('use', MASKS)
def test_masks(use):
    mask = torch.arange(NUM_ITEMS) % 3 > 0
    expected = plain(MASKS[use](mask))
    for other in (mask.long(), mask.int(), mask.numpy(), mask.to(torch.uint8)):
        assert plain(MASKS[use](other)) == expected
    for wrong in (mask[1:], mask.float(), mask.nonzero().view(-1), torch.arange(NUM_ITEMS), mask.tolist()):
        with pytest.raises(ValueError, match=r"'(candidates|groups)' needs to be a bool mask of 48 items \(got "):
            MASKS[use](wrong)


def test_users_and_seen_of_top_k():
    emb, seen = embeddings(), make()[INTERACTS].edge_index
    expected = plain(list(top_k(emb, torch.tensor([3, 60]), 5, seen)))
    assert plain(list(top_k(emb, torch.tensor([3, 60]).int(), 5, seen.int()))) == expected
    assert plain(list(top_k(emb, np.array([3, 60]), 5, seen.numpy()))) == expected
    for users, pairs, k, message in [
        (torch.tensor([3.0]), seen, 5, r"'users' needs to be integers of shape \[N\]"),
        (torch.tensor([64]), seen, 5, r"'users' need to be in \[0, 63\] \(got 64\)"),
        (torch.tensor([3]), seen.t(), 5, r"'seen' needs to be integers of shape \[2, E\] .*: transpose it"),
        (torch.tensor([3]), seen + 1, 5, r"user ids of 'seen' need to be in \[0, 63\] \(got 64\)"),
        (torch.tensor([3]), seen, 49, r"'k' needs to be in \[1, 48\] \(got 49\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            top_k(emb, users, k, pairs)  # at once, not at the first batch


# Sizes whose product is beyond 32 bits --------------------------------------------------------------------------------


def large() -> HeteroData:
    r"""Interactions that are told apart only if ``user * num_items + item`` does not wrap around at 32 bits."""
    data = HeteroData()
    data[USER].num_nodes, data[ITEM].num_nodes = 2**17, 2**16
    item = torch.arange(0, 2**16, 16)
    user = torch.arange(item.numel())
    edge_index = torch.cat([torch.stack([user + start, item]) for start in (0, 2**16, 2**16 + 2**15)], dim=1)
    data[INTERACTS].edge_index = edge_index[:, torch.randperm(edge_index.size(1), generator=torch.Generator())]
    data[INTERACTS].time = torch.arange(data[INTERACTS].edge_index.size(1))
    data[INTERACTS].split = data[INTERACTS].time % 3
    return data


def of_large(data):
    generator = torch.Generator().manual_seed(0)
    return Embeddings(*(torch.randn(data[kind].num_nodes, 2, generator=generator) for kind in (USER, ITEM)))


LARGE = {
    'InteractionGraph': InteractionGraph(),
    'edges of RecentItems': RecentItems(2),
    'FixedSplit': FixedSplit(),
    'recommend': lambda data: recommend(of_large(data), data, [7, 2**16 + 7, 2**17 - 1], k=4),
    'Retriever': lambda data: Retriever(of_large(data), data).recommend([7, 2**16 + 7, 2**17 - 1], k=4),
}


@pytest.mark.parametrize('entry', LARGE)
def test_int32_pairs_do_not_wrap_around(entry):
    data, narrow = large(), large()
    narrow[INTERACTS].edge_index = narrow[INTERACTS].edge_index.int()
    found, expected = LARGE[entry](narrow), LARGE[entry](data)
    if isinstance(found, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
        return
    for one, other in zip(*((x if isinstance(x, tuple) else [x]) for x in (found, expected)), strict=True):
        for store in other.edge_stores:
            for key, value in store.items():
                if isinstance(value, Tensor) and value.layout == torch.strided:
                    assert torch.equal(one[store._key][key], value) and one[store._key][key].dtype == value.dtype, key


def test_int32_positives_do_not_wrap_around():
    split = HeteroData()
    split[USER].num_nodes, split[ITEM].num_nodes = 2**17, 2**16
    split[INTERACTS].edge_index = torch.tensor([[2**16, 5], [3, 9]])
    split[INTERACTS].edge_label_index = torch.tensor([[0, 2**16], [3, 7]])  # users 0 and 2**16 are alike in 32 bits
    narrow = copy.copy(split)
    for key in ('edge_index', 'edge_label_index'):
        narrow[INTERACTS][key] = split[INTERACTS][key].int()
    assert evaluate(of_large(narrow), narrow, k=4) == evaluate(of_large(split), split, k=4)


def test_int32_repeats_are_told_apart():
    pairs = torch.tensor([[0, 2**16, 2**16], [3, 3, 3]], dtype=torch.int32)
    check_pairs(pairs[:, :2], (2**17, 2**16), unique=True)  # these wrap around to the same
    with pytest.raises(ValueError, match=r'got 1 duplicates, first: user 65536, item 3\)'):
        check_pairs(pairs, (2**17, 2**16), unique=True)


# How much it costs, and what it leaves behind -------------------------------------------------------------------------


def test_looks_once_at_what_does_not_change():
    data = make()
    data[ITEM].x_wide = torch.randn(NUM_ITEMS, 20_000)
    check(data)
    looks = []

    class Looks(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            looks.extend(func for arg in args if isinstance(arg, torch.Tensor) and arg.numel() >= 20_000)
            return func(*args, **(kwargs or {}))

    with Looks():
        assert check(data) is data
    assert not looks
    data[ITEM].x_wide = data[ITEM].x_wide.clone()
    with Looks():
        check(data)
    assert looks  # at what is new
    shared = copy.copy(data)
    shared[INTERACTS].edge_index = data[INTERACTS].edge_index.int()
    first = check(shared)
    assert check(shared)[INTERACTS].edge_index is first[INTERACTS].edge_index
    assert first[ITEM].x_wide is data[ITEM].x_wide
    assert check(make_split(), labels=True)[ITEM] is not None


def test_looks_again_at_what_changed_in_place():
    data = make()
    check(data)
    data[ITEM].x_image[3, 1] = float('inf')
    with pytest.raises(ValueError, match=r"'x_image' needs to be finite \(got 1 rows with NaN or Inf, first: row 3\)"):
        check(data)
    data[ITEM].x_image[3] = 0
    check(data)
    data[INTERACTS].edge_index[1, 0] = 48
    with pytest.raises(ValueError, match=r'\[0, 47\] \(got 48\)'):
        check(data)
    data[INTERACTS].edge_index = data[INTERACTS].edge_index.int()
    data[INTERACTS].edge_index[1, 0] = 47
    found = check(data)[INTERACTS].edge_index
    data[INTERACTS].edge_index[1, 0] = 46
    assert check(data)[INTERACTS].edge_index[1, 0] == 46
    assert found[1, 0] == 47
    found = check(data)[INTERACTS].edge_index
    found[1, 0] = 45  # somebody else's change of what was cast
    assert check(data)[INTERACTS].edge_index[1, 0] == 46
    split = make_split()
    check(split, labels=True)
    split[INTERACTS].edge_index[:, 0] = split[INTERACTS].edge_label_index[:, 0]
    with pytest.raises(ValueError, match='no training interactions'):
        check(split, labels=True)


def test_keeps_nothing_alive():
    gc.collect()
    before = len(_known)
    data = make_split()
    data[INTERACTS].edge_index = data[INTERACTS].edge_index.int()
    data[ITEM].x_image = data[ITEM].x_image.long()
    data[ITEM].has_image = data[ITEM].has_image.long()
    out = check(data, labels=True)
    alive = [weakref.ref(x) for x in (out[INTERACTS].edge_index, out[ITEM].x_image, data[ITEM].x_text)]
    assert len(_known) > before
    del data, out
    gc.collect()
    assert [ref() for ref in alive] == [None] * 3
    assert len(_known) <= before


def test_data_stays_what_it_was():
    data = make()
    check(data)
    for other in (copy.copy(data), copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert check(other) is other
        assert plain(other) == plain(data)
    assert plain(check(data.clone())) == plain(data)
    data.share_memory_()
    assert check(data) is data
    data[ITEM].x_image = torch.nn.Parameter(data[ITEM].x_image)
    assert check(data) is data and data[ITEM].x_image.grad_fn is None


def test_within_inference_mode():
    data = make()
    data[INTERACTS].edge_index = data[INTERACTS].edge_index.int()
    with torch.inference_mode():
        made = check(data)[INTERACTS].edge_index
        emb = Embeddings(torch.randn(NUM_USERS, 2), torch.randn(NUM_ITEMS, 2))
        assert check_embeddings(emb, data) is emb  # their changes aren't counted, so they are looked at each time
    assert not made.is_inference()
    assert check(data)[INTERACTS].edge_index is made


def test_sub_graphs():
    data = make()
    sub = HeteroData()
    sub[USER].n_id, sub[ITEM].n_id = torch.tensor([4, 5]), torch.tensor([1, 2, 3])
    sub[INTERACTS].edge_index = torch.tensor([[0, 1], [2, 0]])
    sub[ITEM].x_image = data[ITEM].x_image[1:4]
    sub[ITEM].raw_id, sub[USER].raw_id = data[ITEM].raw_id, data[USER].raw_id  # PyG's loaders leave lists whole
    out = check(sub)
    assert (out[USER].num_nodes, out[ITEM].num_nodes) == (2, 3)
    sub[INTERACTS].edge_index[1, 0] = 3
    with pytest.raises(ValueError, match=r"item ids of 'edge_index' need to be in \[0, 2\] \(got 3\)"):
        check(sub)
    sub[INTERACTS].edge_index[1, 0] = 2
    with pytest.raises(ValueError, match=r"'raw_id' needs one for each user, 2 \(got 64\)"):
        recommend(Embeddings(torch.randn(2, 2), torch.randn(3, 2)), sub, ['user-4'], k=1)


def test_what_pyg_makes_of_data_passes():
    data = FakeMultimodal(seed=1)[0]
    for store in data.node_stores:  # PyG can't cut lists
        for key in ('raw_id', 'title'):
            store.pop(key, None)
    part = data.subgraph({USER: torch.arange(10), ITEM: torch.arange(20)})
    assert check(part) is part and (part[USER].num_nodes, part[ITEM].num_nodes) == (10, 20)
    data[ITEM].num_nodes += 1
    for key in ('x_image', 'x_text', 'block'):
        data[ITEM][key] = torch.cat([data[ITEM][key], data[ITEM][key][:1]])
    graph = RemoveIsolatedNodes()(data)
    assert graph[ITEM].num_nodes == NUM_ITEMS and check(graph) is graph
    both = ToUndirected()(FakeMultimodal(seed=1)[0])
    assert check(both) is both


def test_helpers():
    assert check_pairs(np.array([[0], [1]]), (1, 2)).tolist() == [[0], [1]]
    assert check_pairs(torch.empty(2, 0, dtype=torch.long), (0, 0), unique=True).numel() == 0
    assert check_nodes(torch.empty(0, dtype=torch.int32), 0, 'nodes').dtype == torch.long
    assert check_mask(torch.tensor([1, 0]), 2, 'mask').tolist() == [True, False]
    with pytest.raises(ValueError, match=r"item ids of 'edges' need to be in \[0, 1\] \(got 2\)"):
        check_pairs(torch.tensor([[0], [2]]), (2, 2), 'edges', kinds=(ITEM, ITEM))


@pytest.mark.parametrize(
    'name', ['items', 'type', 'half', 'training', 'shared', '', 'a b', '../../evil', '1', 'a.b', 7]
)
def test_modalities_are_identifiers_that_models_can_have(name):
    assert check_modality_name('image') == 'image'
    with pytest.raises(ValueError, match=r'the name of a modality needs to be an identifier .* \(got .*\): rename it'):
        check_modality_name(name)


@pytest.mark.parametrize('key', ['raw_id', 'title'])
def test_a_string_is_not_the_ids_of_its_letters(key):
    data = HeteroData({'user': {'num_nodes': 1}, 'item': {key: 'AB', 'num_nodes': 2}})
    data[INTERACTS].edge_index = torch.tensor([[0], [1]])
    for num_nodes in (2, None):
        data['item'].num_nodes = num_nodes
        with pytest.raises(ValueError, match=rf"'{key}' needs to be a list of strings \(got the string 'AB'\)"):
            check(data)
