import copy
from collections import defaultdict

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch_geometric.data import HeteroData

from lirdrec_pyg.transforms.splits import ColdItemSplit, FixedSplit, LeaveLastOut, RandomSplit, TemporalSplit
from lirdrec_pyg.typing import INTERACTS, ITEM, REV_INTERACTS, USER

SPLITS = [
    FixedSplit(),
    RandomSplit(seed=3),
    RandomSplit(ratios=(0.4, 0.35, 0.25), seed=1),
    LeaveLastOut(),
    LeaveLastOut(num_val=2, num_test=3),
    TemporalSplit(),
    TemporalSplit(ratios=(0.5, 0.2, 0.3)),
    ColdItemSplit(),
    ColdItemSplit(ratio=0.6, seed=5),
]


def make_data(num_users=9, num_items=14, density=0.7, seed=0, max_time=1000):
    g = torch.Generator().manual_seed(seed)
    edge_index = (torch.rand(num_users, num_items, generator=g) < density).nonzero().t()
    num_edges = edge_index.size(1)
    edge_index = edge_index[:, torch.randperm(num_edges, generator=g)].contiguous()
    data = HeteroData()
    data[USER].num_nodes = num_users
    data[ITEM].num_nodes = num_items
    data[ITEM].x_image = torch.randn(num_items, 3, generator=g)
    data[ITEM].raw_id = [f'i{i}' for i in range(num_items)]
    data[INTERACTS].edge_index = edge_index
    data[INTERACTS].time = torch.randint(0, max_time, (num_edges,), generator=g)
    data[INTERACTS].rating = torch.rand(num_edges, generator=g)
    data[INTERACTS].split = torch.arange(num_edges) % 3
    data[ITEM, 'similar_to', ITEM].edge_index = torch.randint(0, num_items, (2, 5), generator=g)
    return data


def from_edges(edges, time=None, num_users=20, num_items=200):
    data = HeteroData()
    data[USER].num_nodes, data[ITEM].num_nodes = num_users, num_items
    data[INTERACTS].edge_index = torch.tensor(edges).t().contiguous()
    if time is not None:
        data[INTERACTS].time = torch.tensor(time)
    return data


def pairs(edge_index):
    return list(map(tuple, edge_index.t().tolist()))


def parts(split, data):
    return [pairs(view[INTERACTS].edge_label_index) for view in split(data)]


@settings(max_examples=150, deadline=None)
@given(
    split=st.sampled_from(SPLITS),
    num_users=st.integers(1, 12),
    num_items=st.integers(1, 20),
    density=st.floats(0.1, 1.0),
    seed=st.integers(0, 1000),
    max_time=st.sampled_from([1, 3, 10**6]),
)
def test_views_partition_the_data_and_never_leak(split, num_users, num_items, density, seed, max_time):
    data = make_data(num_users, num_items, density, seed, max_time)
    before = copy.deepcopy(data)
    store = data[INTERACTS]
    original = pairs(store.edge_index)
    rating = dict(zip(original, store.rating.tolist(), strict=True))
    time = dict(zip(original, store.time.tolist(), strict=True))
    try:
        splits = split(data)
    except ValueError as error:
        assert 'split needs at least one interaction' in str(error)
        return

    labels = [pairs(view[INTERACTS].edge_label_index) for view in splits]
    assert sorted(sum(labels, [])) == sorted(original)
    assert all(labels)
    for view in splits:
        out = view[INTERACTS]
        graph = pairs(out.edge_index)
        assert graph == labels[0]
        assert not set(graph) & set(labels[1] + labels[2])
        assert out.rating.tolist() == [rating[pair] for pair in graph]
        assert out.time.tolist() == [time[pair] for pair in graph]
        held_out = {'edge_label_time'} if view is not splits[0] else set()
        assert set(out.keys()) == {'edge_index', 'time', 'rating', 'edge_label_index'} | held_out
        assert view[ITEM].x_image.data_ptr() == data[ITEM].x_image.data_ptr()
        assert view[ITEM].raw_id == data[ITEM].raw_id and view[ITEM].raw_id is splits[0][ITEM].raw_id
        similar = (ITEM, 'similar_to', ITEM)
        assert view[similar].edge_index.data_ptr() == data[similar].edge_index.data_ptr()

    again = [pairs(view[INTERACTS].edge_label_index) for view in split(data)]
    assert again == labels
    assert data.to_dict().keys() == before.to_dict().keys()  # the input stays as it was
    assert set(store.keys()) == set(before[INTERACTS].keys())
    assert 'cold' not in data[ITEM]
    assert all(torch.equal(store[key], before[INTERACTS][key]) for key in store)


def test_seeds_matter_and_the_global_generator_does_not():
    data = make_data()
    for cls in (RandomSplit, ColdItemSplit):
        first = parts(cls(seed=0), data)
        torch.manual_seed(12)
        state = torch.get_rng_state()
        assert parts(cls(seed=0), data) == first
        assert torch.equal(torch.get_rng_state(), state)
        assert parts(cls(seed=1), data) != first


def test_fixed_split():
    data = make_data()
    expected = [pairs(data[INTERACTS].edge_index[:, data[INTERACTS].split == i]) for i in range(3)]
    assert parts(FixedSplit(), data) == expected


def test_random_split_counts_as_mmrec():
    data = from_edges([(user, item) for user in range(60) for item in range(user + 1)], num_users=60)
    counts = [defaultdict(int) for _ in range(3)]
    for count, part in zip(counts, parts(RandomSplit(), data), strict=True):
        for user, _ in part:
            count[user] += 1
    for user in range(60):
        n = user + 1
        if n < 3:
            expected = (n, 0, 0)
        elif n < 10:  # MMRec's own rule
            expected = (n - 2, 1, 1)
        else:
            held_out = int(n * 0.2)
            expected = (n - held_out, held_out // 2, held_out - held_out // 2)
        assert tuple(count[user] for count in counts) == expected


@given(n=st.integers(3, 60), val=st.floats(0.01, 0.49), test=st.floats(0.01, 0.49))
@settings(max_examples=40, deadline=None)
def test_random_split_keeps_one_of_each(n, val, test):
    sizes = [len(p) for p in parts(RandomSplit((1 - val - test, val, test)), from_edges([(0, i) for i in range(n)]))]
    assert min(sizes) >= 1 and sum(sizes) == n


def test_leave_last_out():
    edges = [(0, 5), (1, 1), (0, 6), (0, 7), (0, 8), (1, 2), (2, 3)]
    data = from_edges(edges, time=[9, 1, 2, 9, 9, 2, 3])  # 5, 7 and 8 tie: their order counts
    assert parts(LeaveLastOut(), data) == [[(0, 5), (1, 1), (0, 6), (1, 2), (2, 3)], [(0, 7)], [(0, 8)]]
    assert parts(LeaveLastOut(num_val=1, num_test=2), data)[1:] == [[(0, 5)], [(0, 7), (0, 8)]]


def test_temporal_split():
    time = list(range(10))
    data = from_edges([(i % 3, i) for i in range(10)], time)
    assert [[item for _, item in part] for part in parts(TemporalSplit(), data)] == [list(range(8)), [8], [9]]
    assert [len(part) for part in parts(TemporalSplit((0.7, 0.2, 0.1)), data)] == [7, 2, 1]
    data = from_edges([(i % 3, i) for i in range(10)], [0, 1, 2, 3, 4, 5, 8, 8, 8, 9])  # 8 is not torn apart
    assert [[item for _, item in part] for part in parts(TemporalSplit(), data)] == [list(range(6)), [6, 7, 8], [9]]


def test_cold_item_split():
    data = make_data(num_users=30, num_items=50)
    splits = ColdItemSplit(ratio=0.3)(data)
    items = [set(view[INTERACTS].edge_label_index[1].tolist()) for view in splits]
    assert [len(part) for part in items] == [35, 7, 8]
    assert not items[0] & items[1] and not items[0] & items[2] and not items[1] & items[2]
    for view in splits:
        assert view[ITEM].cold.dtype == torch.bool and view[ITEM].cold.shape == (50,)
        assert set(view[ITEM].cold.nonzero().view(-1).tolist()) == items[1] | items[2]


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: RandomSplit((0.8, 0.1, 0.2)), r"'ratios' needs to sum to 1 \(got \(0.8, 0.1, 0.2\)\)"),
        (lambda: TemporalSplit((0.8, 0.2)), r"'ratios' needs to be three positive numbers \(got \(0.8, 0.2\)\)"),
        (lambda: TemporalSplit((1.0, 0.0, 0.0)), "'ratios' needs to be three positive numbers"),
        (lambda: LeaveLastOut(num_val=0), r"'num_val' needs to be at least 1 \(got 0\)"),
        (lambda: LeaveLastOut(num_test=-1), r"'num_test' needs to be at least 1 \(got -1\)"),
        (lambda: ColdItemSplit(ratio=1.0), r"'ratio' needs to be in \(0, 1\) \(got 1.0\)"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize('split', SPLITS, ids=repr)
def test_bad_data_for_all(split):
    data = make_data()
    with pytest.raises(ValueError, match='unsplit'):
        split(RandomSplit()(data)[0])

    late = make_data()
    late[REV_INTERACTS].edge_index = late[INTERACTS].edge_index.flip(0)
    with pytest.raises(ValueError, match='split first'):
        split(late)
    late = make_data()
    late[INTERACTS].adj_t = torch.eye(3).to_sparse_csr()
    with pytest.raises(ValueError, match='split first'):
        split(late)

    for node_type, key, made_by in [
        ('item', 'x_collaborative', 'CollaborativeFeatures'),
        ('user', 'recent_items', 'RecentItems'),
        (INTERACTS, 'recent_items', 'RecentItems'),
    ]:
        late = make_data()
        late[node_type][key] = torch.zeros({'user': 9, 'item': 14}.get(node_type, 1), 1)
        with pytest.raises(ValueError, match=f"needs to be split before '{made_by}'"):
            split(late)

    twice = make_data()
    for key, value in list(twice[INTERACTS].items()):
        twice[INTERACTS][key] = torch.cat([value, value[..., :1]], dim=-1)
    with pytest.raises(
        ValueError, match=r"pairs of 'edge_index' need to be unique \(got 1 duplicates, first: user \d+, item \d+\)"
    ):
        split(twice)


def test_bad_data():
    data = from_edges([(0, 0), (0, 1), (1, 0)])
    for split in (LeaveLastOut(), TemporalSplit()):
        with pytest.raises(ValueError, match=f"'{split.__class__.__name__}' needs 'time'"):
            split(data)
    with pytest.raises(ValueError, match="'FixedSplit' needs 'split'"):
        FixedSplit()(data)
    with pytest.raises(ValueError, match="the 'val' split needs at least one interaction"):
        RandomSplit()(data)
    data[INTERACTS].split = torch.tensor([0, 1, 1])
    with pytest.raises(ValueError, match="the 'test' split needs at least one interaction"):
        FixedSplit()(data)
    data[INTERACTS].split = torch.tensor([1, 1, 2])
    with pytest.raises(ValueError, match="the 'train' split needs at least one interaction"):
        FixedSplit()(data)
    data[INTERACTS].split = torch.tensor([0, 1, 3])
    with pytest.raises(ValueError, match=r"'split' needs to be 0, 1 or 2 \(got 3\)"):
        FixedSplit()(data)
    data[INTERACTS].time = torch.tensor([0.0, float('nan'), 1.0])
    with pytest.raises(ValueError, match=r"'time' needs to be finite \(got nan\)"):
        TemporalSplit()(data)
    data[INTERACTS].time = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"'time' needs one value per interaction, \[3\] \(got \[2\]\)"):
        TemporalSplit()(data)


def test_values_per_edge_are_sliced_along_the_edges():
    data = make_data(num_users=2, num_items=3, density=1.0)
    data[INTERACTS].feature = torch.randn(6, 2)
    data[INTERACTS].review = list('abcdef')
    train = FixedSplit()(data)[0]
    assert torch.equal(train[INTERACTS].feature, data[INTERACTS].feature[[0, 3]])
    assert train[INTERACTS].review == ['a', 'd']


def test_held_out_interactions_keep_their_times():
    data = make_data(num_users=2, num_items=4, density=1.0)
    data[INTERACTS].time = time = torch.tensor([3, 1, 2, 0, 10, 11, 12, 13])
    of = dict(zip(pairs(data[INTERACTS].edge_index), time.tolist(), strict=True))
    train, val, test = LeaveLastOut()(data)
    assert 'edge_label_time' not in train[INTERACTS]
    for split in (val, test):
        store = split[INTERACTS]
        assert store.edge_label_time.tolist() == [of[pair] for pair in pairs(store.edge_label_index)]
        assert store.time.tolist() == train[INTERACTS].time.tolist()
    del data[INTERACTS].time
    assert 'edge_label_time' not in RandomSplit()(data)[1][INTERACTS]


def test_repr():
    assert str(FixedSplit()) == 'FixedSplit()'
    assert str(RandomSplit()) == 'RandomSplit(ratios=(0.8, 0.1, 0.1), seed=0)'
    assert str(LeaveLastOut()) == 'LeaveLastOut(num_val=1, num_test=1)'
    assert str(TemporalSplit()) == 'TemporalSplit(ratios=(0.8, 0.1, 0.1))'
    assert str(ColdItemSplit()) == 'ColdItemSplit(ratio=0.2, seed=0)'
