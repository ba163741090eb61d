import pytest
import torch

from lirdrec_pyg.transforms import FixedSplit, InteractionGraph
from lirdrec_pyg.typing import INTERACTS, REV_INTERACTS, SIMILAR_TO


def test_normalisation_by_loop(data):
    train = FixedSplit()(data)[0]
    out = InteractionGraph()(train)
    user, item = train[INTERACTS].edge_index
    adj = torch.zeros(train['item'].num_nodes, train['user'].num_nodes)
    for u, i in zip(user.tolist(), item.tolist(), strict=True):
        adj[i, u] = 1 / (int((user == u).sum()) * int((item == i).sum())) ** 0.5
    assert torch.allclose(out[INTERACTS].adj_t.to_dense(), adj, atol=1e-6)
    assert torch.allclose(out[REV_INTERACTS].adj_t.to_dense(), adj.t(), atol=1e-6)
    assert torch.equal(out[REV_INTERACTS].edge_index, train[INTERACTS].edge_index.flip(0))
    similar = out[SIMILAR_TO]
    assert torch.equal(similar.adj.to_dense(), similar.adj_t.to_dense().t())
    assert REV_INTERACTS not in train.edge_types
    assert 'adj_t' not in train[INTERACTS]


def test_layout_can_be_changed(data):
    train = FixedSplit()(data)[0]
    out = InteractionGraph('EdgeIndex')(train)
    assert 'adj_t_weight' in out[INTERACTS]
    out = InteractionGraph('edge_index')(out)
    assert 'adj_t' not in out[INTERACTS]
    assert 'adj' not in out[SIMILAR_TO]


def test_refuses(data):
    train = FixedSplit()(data)[0]
    with pytest.raises(ValueError, match="'layout' needs to be one of"):
        InteractionGraph('dense')
    edge_index = train[INTERACTS].edge_index
    train[INTERACTS].edge_index = torch.cat([edge_index, edge_index[:, :1]], dim=1)
    with pytest.raises(ValueError, match='1 duplicates, first: user'):
        InteractionGraph()(train)
    train[INTERACTS].edge_index = edge_index - 1
    with pytest.raises(ValueError, match=r"user ids of 'edge_index' need to be in \[0, 63\] \(got -1\)"):
        InteractionGraph()(train)
    train[INTERACTS].edge_index = edge_index[:, :0]
    with pytest.raises(ValueError, match='at least one edge'):
        InteractionGraph()(train)


def test_repr():
    assert str(InteractionGraph()) == "InteractionGraph(layout='csr')"
