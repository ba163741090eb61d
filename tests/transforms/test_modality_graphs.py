import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.transforms import FixedSplit, InteractionGraph, ModalityGraphs
from lirdrec_pyg.typing import similar_by


def dense(data, name):
    n = data['item'].num_nodes
    (source, target), out = data[similar_by(name)].edge_index, np.zeros((n, n))
    out[target, source] = data[similar_by(name)].edge_weight
    return out


@pytest.mark.parametrize('k', [1, 3, 20])
def test_equals_the_naive_oracle(k):
    data = ModalityGraphs(k)(FakeMultimodal(num_items=20, noise=1.0, missing={'text': 0.3}, seed=2)[0])
    for name in ('image', 'text'):
        x = data['item'][f'x_{name}'].double().numpy()
        there = [i for i in range(20) if np.abs(x[i]).max() > 0]
        similar = np.zeros((20, 20))
        for i in there:
            cosine = {j: x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for j in there}
            for j in sorted(cosine, key=lambda j: -cosine[j])[:k]:
                similar[i, j] = max(cosine[j], 0)
        degree = similar.sum(axis=1)
        scale = np.sqrt(np.outer(degree, degree))
        expected = np.divide(similar, scale, out=np.zeros_like(similar), where=scale > 0)
        np.testing.assert_allclose(dense(data, name), expected, atol=1e-5)
        target = data[similar_by(name)].edge_index[1]
        assert torch.equal(target, target.sort().values)


def test_a_modality_that_no_item_has_gives_no_edges():
    data = HeteroData()
    data['item'].num_nodes, data['item'].x_image, data['item'].x_text = 3, torch.randn(3, 4), torch.zeros(3, 2)
    data = ModalityGraphs(k=2)(data)
    assert data[similar_by('image')].edge_index.shape == (2, 6)
    assert data[similar_by('text')].edge_index.shape == (2, 0)


@pytest.mark.parametrize('layout', ['csr', 'EdgeIndex', 'edge_index'])
def test_the_graph_of_interactions_stores_them_alike(layout):
    data = InteractionGraph(layout)(FixedSplit()(ModalityGraphs(k=4)(FakeMultimodal()[0]))[0])
    store = data[similar_by('image')]
    assert ('adj_t' in store) == ('adj' in store) == (layout != 'edge_index')
    if layout == 'csr':
        np.testing.assert_allclose(store.adj_t.to_dense(), dense(data, 'image'), atol=1e-7)
        np.testing.assert_allclose(store.adj.to_dense(), dense(data, 'image').T, atol=1e-7)


def test_refuses():
    data = FakeMultimodal(num_items=20)[0]
    with pytest.raises(ValueError, match=r"'k' needs to be in \[1, 20\] \(got 21\)"):
        ModalityGraphs(21)(data)
    with pytest.raises(ValueError, match=r"'chunk_size' needs to be positive \(got 0\)"):
        ModalityGraphs(chunk_size=0)
    del data['item'].x_image, data['item'].x_text
    with pytest.raises(ValueError, match='at least one modality'):
        ModalityGraphs()(data)
    data = ModalityGraphs(3)(FakeMultimodal(num_items=20)[0])
    data[similar_by('image')].edge_index = data[similar_by('image')].edge_index + 1
    with pytest.raises(ValueError, match=r"item ids of 'edge_index' of \('item', 'similar_by_image', 'item'\)"):
        FixedSplit()(data)


def test_repr():
    assert str(ModalityGraphs(5)) == 'ModalityGraphs(k=5, chunk_size=4096)'
