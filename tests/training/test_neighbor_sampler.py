import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkLoader
from torch_geometric.sampler import EdgeSamplerInput

from lirdrec_pyg.training.neighbor_sampler import FEW, UniformNeighborSampler
from lirdrec_pyg.typing import INTERACTS, ITEM, REV_INTERACTS, SIMILAR_TO, USER


def graph(num_users, num_items, size, seed):
    generator = torch.Generator().manual_seed(seed)
    key = torch.randint(num_users * num_items, (size,), generator=generator).unique()
    key = key[torch.randperm(key.numel(), generator=generator)]
    data = HeteroData()
    data[USER].num_nodes, data[ITEM].num_nodes = num_users, num_items
    data[INTERACTS].edge_index = torch.stack([key // num_items, key % num_items])
    data[REV_INTERACTS].edge_index = data[INTERACTS].edge_index.flip(0)
    key = torch.randint(num_items**2, (2 * num_items,), generator=generator).unique()
    data[SIMILAR_TO].edge_index = torch.stack([key // num_items, key % num_items])
    return data


def sample(data, counts, row, col, seed=0):
    sampler = UniformNeighborSampler(data, counts, seed)
    return sampler, sampler.sample_from_edges(EdgeSamplerInput(torch.arange(len(row)), row, col, input_type=INTERACTS))


def reference(data, counts, row, col):
    r"""Returns the nodes of each type, and for each relation the edges that a node may take: all of them."""
    seen = {USER: set(row.tolist()), ITEM: set(col.tolist())}
    last = {kind: set(nodes) for kind, nodes in seen.items()}
    edges = {relation: set() for relation in counts}
    for hop in range(max(map(len, counts.values()))):
        new = {USER: set(), ITEM: set()}
        for relation, number in counts.items():
            if hop < len(number) and number[hop] != 0:
                for e, (source, target) in enumerate(data[relation].edge_index.t().tolist()):
                    if target in last[relation[2]]:
                        edges[relation].add(e)
                        new[relation[0]].add(source)
        last = {kind: new[kind] - seen[kind] for kind in seen}
        seen = {kind: seen[kind] | last[kind] for kind in seen}
    return seen, edges


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 12), st.integers(2, 12), st.integers(1, 60), st.integers(0, 10**6), st.integers(1, 5),
    st.lists(st.sampled_from([-1, 0, 1, 2, 40]), min_size=1, max_size=3),
    st.lists(st.sampled_from([-1, 0]), max_size=2),
)  # fmt: skip
def test_a_sub_graph_is_of_the_graph(num_users, num_items, size, seed, seeds, counts, similar):
    data = graph(num_users, num_items, size, seed)
    counts = {INTERACTS: counts, REV_INTERACTS: counts, SIMILAR_TO: similar or [0]}
    generator = torch.Generator().manual_seed(seed)
    row = torch.randint(num_users, (seeds,), generator=generator)
    col = torch.randint(num_items, (seeds,), generator=generator)
    _, out = sample(data, counts, row, col, seed)
    for kind, ends in [(USER, row), (ITEM, col)]:
        node = out.node[kind].tolist()
        assert len(set(node)) == len(node)
        assert set(node[: len(set(ends.tolist()))]) == set(ends.tolist())  # the given ones come first
    assert torch.equal(out.node[USER][out.metadata[1][0]], row)
    assert torch.equal(out.node[ITEM][out.metadata[1][1]], col)
    nodes, edges = reference(data, counts, row, col)
    for relation, number in counts.items():
        e = out.edge[relation]
        assert len(set(e.tolist())) == len(e)  # without replacement
        ends = torch.stack([out.node[relation[0]][out.row[relation]], out.node[relation[2]][out.col[relation]]])
        assert torch.equal(ends, data[relation].edge_index[:, e])
        assert set(e.tolist()) <= edges[relation]
        if all(count in (-1, 0, 40) for counts in counts.values() for count in counts):
            assert set(e.tolist()) == edges[relation]
            assert {kind: set(ids.tolist()) for kind, ids in out.node.items()} == nodes
        if set(number) <= {1, 2}:  # each node takes as many as it may and has
            taken = torch.bincount(ends[1], minlength=data[relation[2]].num_nodes)
            degree = torch.bincount(data[relation].edge_index[1], minlength=data[relation[2]].num_nodes)
            assert (taken <= degree.clamp(max=max(number))).all()


@pytest.mark.parametrize('count', [1, 3, 6, FEW + 2])
def test_neighbours_are_uniform_without_replacement(count):
    degree = max(8, count + 4)
    data = HeteroData()
    data[USER].num_nodes, data[ITEM].num_nodes = degree, 2000
    user, item = torch.arange(degree).repeat(2000), torch.arange(2000).repeat_interleave(degree)
    data[INTERACTS].edge_index = torch.stack([user, item])[:, torch.randperm(2000 * degree)]
    _, out = sample(data, {INTERACTS: [count]}, torch.zeros(2000, dtype=torch.long), torch.arange(2000))
    taken = torch.zeros(2000, degree)
    taken[out.node[ITEM][out.col[INTERACTS]], out.node[USER][out.row[INTERACTS]]] += 1
    assert (taken.sum(dim=1) == count).all() and taken.max() == 1
    share, deviation = count / degree, (count / degree * (1 - count / degree) / 2000) ** 0.5
    assert ((taken.mean(dim=0) - share).abs() < 4.5 * deviation).all()
    both = (taken[:, 0] * taken[:, 1]).mean()  # pairs, too
    expected = share * (count - 1) / (degree - 1)
    assert abs(both - expected) < 4.5 * max(expected * (1 - expected) / 2000, 1e-9) ** 0.5 + 1e-9


def test_a_seed_decides_and_nothing_is_left_behind():
    data = graph(30, 20, 300, 0)
    counts = {INTERACTS: [2, 1], REV_INTERACTS: [2, 1]}
    row, col = torch.tensor([3, 3, 7]), torch.tensor([1, 2, 2])
    outs = [sample(data, counts, row, col, seed)[1] for seed in (5, 5, 6)]
    assert torch.equal(outs[0].edge[INTERACTS], outs[1].edge[INTERACTS])
    assert not torch.equal(outs[0].edge[INTERACTS], outs[2].edge[INTERACTS])
    sampler, out = sample(data, counts, row, col)
    assert all((local == -1).all() for local in sampler._local.values())
    again = sampler.sample_from_edges(EdgeSamplerInput(None, row, col, input_type=INTERACTS))
    assert not torch.equal(again.edge[INTERACTS], out.edge[INTERACTS])
    loader = LinkLoader(data, sampler, edge_label_index=(INTERACTS, data[INTERACTS].edge_index), batch_size=50)
    for batch in loader:
        assert batch[INTERACTS].edge_index.size(1) > 0
        found = torch.stack([batch[USER].n_id, batch[USER].n_id])
        assert found.max() < 30
    with pytest.raises(ValueError, match="'neg_sampling' needs to be None"):
        sampler.sample_from_edges(EdgeSamplerInput(None, row, col, input_type=INTERACTS), neg_sampling='binary')
    assert str(sampler).startswith("UniformNeighborSampler(num_neighbors={('user'")
