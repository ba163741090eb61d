import pytest
import torch

from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.transforms import FixedSplit, InteractionGraph, RandomSplit, RecentItems
from lirdrec_pyg.typing import INTERACTS, REV_INTERACTS, USER


@pytest.mark.parametrize('length', [1, 3, 30])
def test_equals_a_loop_in_whatever_order_interactions_come(length):
    train = RandomSplit()(FakeMultimodal(num_users=30, num_items=40, seed=0)[0])[0]
    store = train[INTERACTS]
    store.time = torch.randint(0, 4, store.time.shape)  # with ties
    perm = torch.randperm(store.time.numel())
    store.edge_index, store.time = store.edge_index[:, perm], store.time[perm]
    pairs = list(zip(*store.edge_index.tolist(), store.time.tolist(), strict=True))
    out = RecentItems(length)(train)

    def latest(items):
        return (items[::-1] + [-1] * length)[:length]

    in_order = {u: [i for v, i, _ in sorted(pairs, key=lambda pair: pair[2]) if v == u] for u in range(30)}
    assert out[USER].recent_items.tolist() == [latest(in_order[u]) for u in range(30)]
    assert out[INTERACTS].edge_index.t().tolist() == sorted([u, i] for u, i, _ in pairs)
    for (u, i), history in zip(
        out[INTERACTS].edge_index.t().tolist(), out[INTERACTS].recent_items.tolist(), strict=True
    ):
        assert history == latest(in_order[u][: in_order[u].index(i)])
    times = {(u, i): t for u, i, t in pairs}
    assert out[INTERACTS].time.tolist() == [times[u, i] for u, i in out[INTERACTS].edge_index.t().tolist()]
    assert 'recent_items' not in train[INTERACTS]


@pytest.mark.parametrize('layout', ['csr', 'EdgeIndex', 'edge_index'])
def test_before_or_after_the_adjacency(layout):
    train = FixedSplit()(FakeMultimodal(num_users=30, num_items=40, seed=0)[0])[0]
    store, perm = train[INTERACTS], torch.randperm(train[INTERACTS].time.numel())
    store.edge_index, store.time = store.edge_index[:, perm], store.time[perm]
    before, after = InteractionGraph(layout)(RecentItems(3)(train)), RecentItems(3)(InteractionGraph(layout)(train))
    for key in ('edge_index', 'edge_weight', 'recent_items', 'time'):
        assert torch.equal(before[INTERACTS][key], after[INTERACTS][key])
    for key in ('edge_index', 'edge_weight'):
        assert torch.equal(before[REV_INTERACTS][key], after[REV_INTERACTS][key])
    assert torch.equal(after[INTERACTS].edge_label_index, train[INTERACTS].edge_label_index)


def test_a_user_without_interactions_has_no_history():
    train = FixedSplit()(FakeMultimodal(num_users=30, num_items=40, seed=0)[0])[0]
    train[USER].num_nodes, train[USER].raw_id = 31, [*train[USER].raw_id, 'nobody']
    assert RecentItems(2)(train)[USER].recent_items[30].tolist() == [-1, -1]


def test_errors():
    train = FixedSplit()(FakeMultimodal(num_users=30, num_items=40, seed=0)[0])[0]
    with pytest.raises(ValueError, match="'length' needs to be at least 1"):
        RecentItems(0)
    train[INTERACTS].time = train[INTERACTS].time.float().fill_(float('nan'))
    with pytest.raises(ValueError, match="'time' needs to be finite"):
        RecentItems()(train)
    del train[INTERACTS].time
    with pytest.raises(ValueError, match="'RecentItems' needs 'time'"):
        RecentItems()(train)
    assert repr(RecentItems(5)) == 'RecentItems(length=5)'
