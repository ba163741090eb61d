import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch_geometric.data import HeteroData

from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import LIRDRec
from lirdrec_pyg.transforms import (
    DCT,
    CollaborativeFeatures,
    FixedSplit,
    InteractionGraph,
    ItemKNNGraph,
    collaborative_features,
)
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, modalities


@pytest.fixture
def train():
    return FixedSplit()(FakeMultimodal(num_users=40, num_items=25, seed=0)[0])[0]


def test_equals_the_dense_decomposition(train):
    x = CollaborativeFeatures(6)(train)[ITEM].x_collaborative
    dense = torch.zeros(40, 25, dtype=torch.double)
    dense[tuple(train[INTERACTS].edge_index)] = 1
    degree = dense.sum(1, keepdim=True).clamp_min(1) * dense.sum(0).clamp_min(1)
    _, s, v = np.linalg.svd((dense / degree.sqrt()).numpy(), full_matrices=False)
    expected = torch.from_numpy(v[:6].T * s[:6])
    expected = expected / expected.norm(dim=1, keepdim=True).clamp_min(1e-12)
    assert x.dtype == torch.float32
    assert torch.allclose(x.double() @ x.double().t(), expected @ expected.t(), atol=1e-6)  # whatever the signs
    assert torch.equal(x, CollaborativeFeatures(6)(train)[ITEM].x_collaborative)


def test_repeated_interaction_counts_once(train):
    twice = train.clone()
    twice[INTERACTS].edge_index = train[INTERACTS].edge_index.repeat(1, 2)
    x = [CollaborativeFeatures(6)(data)[ITEM].x_collaborative for data in (train, twice)]
    assert torch.allclose(*x, atol=1e-6)


def test_item_without_interactions_lacks_the_modality(train):
    edge_index = train[INTERACTS].edge_index
    train[INTERACTS].edge_index = edge_index[:, edge_index[1] != 3]
    data = CollaborativeFeatures(6)(train)
    assert not data[ITEM].has_collaborative[3]
    assert data[ITEM].has_collaborative.sum() == train[INTERACTS].edge_index[1].unique().numel()
    assert data[ITEM].x_collaborative[3].count_nonzero() == 0
    assert torch.isfinite(data[ITEM].x_collaborative).all()


def test_reads_training_interactions_alone(train):
    other = train.clone()
    other[INTERACTS].edge_label_index = train[INTERACTS].edge_label_index[:, :1]
    x = [CollaborativeFeatures(6)(data)[ITEM].x_collaborative for data in (train, other)]
    assert torch.equal(*x)


def test_is_a_modality_of_the_model(train):
    data = InteractionGraph()(DCT()(CollaborativeFeatures(6)(ItemKNNGraph(k=5)(train))))
    assert modalities(data)[-1] == 'collaborative' and 'x_collaborative' not in train[ITEM]
    model = LIRDRec.from_data(data, seed=0, hidden_channels=8)
    assert model.in_channels['collaborative'] == 6
    assert model.encode(data).item.shape == (25, 8 * (len(modalities(data)) + 1))


def test_items_that_nothing_links_to_others_lack_the_modality(train):
    r"""Forty users, each of whom bought one item that nobody else did."""
    expected = CollaborativeFeatures(6)(train)[ITEM].x_collaborative
    data = train.clone()
    data[USER].num_nodes, data[ITEM].num_nodes = 80, 65
    more = torch.stack([torch.arange(40, 80), torch.arange(25, 65)])
    data[INTERACTS].edge_index = torch.cat([train[INTERACTS].edge_index, more], dim=1)
    for store in (data[USER], data[ITEM]):
        for key in [key for key in store if key != 'num_nodes']:
            del store[key]
    out = CollaborativeFeatures(6)(data)[ITEM]
    assert out.has_collaborative.tolist() == [True] * 25 + [False] * 40
    assert out.x_collaborative[25:].count_nonzero() == 0
    assert torch.allclose(out.x_collaborative[:25], expected, atol=1e-5)
    data[INTERACTS].edge_index = more
    out = CollaborativeFeatures(6)(data)[ITEM]
    assert not out.has_collaborative.any() and out.x_collaborative.count_nonzero() == 0


def test_finds_every_vector_of_a_repeated_singular_value(monkeypatch):
    r"""Sixty shops of three users and two items each, who all have the same three singular values."""
    data = HeteroData()
    data[USER].num_nodes, data[ITEM].num_nodes = 180, 120
    user = torch.arange(180).repeat_interleave(2)
    data[INTERACTS].edge_index = torch.stack([user, user // 3 * 2 + torch.arange(360) % 2])
    cosine = torch.block_diag(*[torch.ones(2, 2)] * 60)
    for dense in (1000, 0):
        monkeypatch.setattr(collaborative_features, 'DENSE', dense)
        monkeypatch.setattr(collaborative_features, 'EXTRA', 1)
        if dense == 0:  # three blocks of 39 columns are fewer than 120
            x = CollaborativeFeatures(38)(data)[ITEM].x_collaborative
            assert (x @ x.t()).diagonal(offset=1)[::2].min() > 0.999  # those of one shop are alike
            assert torch.linalg.matrix_rank(x) == 38
        else:
            x = CollaborativeFeatures(60)(data)[ITEM].x_collaborative
            assert torch.allclose(x @ x.t(), cosine, atol=1e-5)


@pytest.mark.parametrize('shape', [(90, 60), (60, 90)])
def test_the_search_equals_the_dense_decomposition(monkeypatch, shape):
    rng = np.random.default_rng(0)
    part = (rng.random(shape) < 0.1).astype(float)
    matrix = csr_array(np.kron(np.eye(3), part))  # each singular value three times
    expected = np.linalg.svd(matrix.toarray(), compute_uv=False)[:8]
    monkeypatch.setattr(collaborative_features, 'DENSE', 0)
    x = collaborative_features._leading(matrix, 8)
    gram = matrix.T @ (matrix @ x)
    assert np.linalg.norm(x, axis=0) == pytest.approx(expected, abs=1e-9)
    assert gram == pytest.approx(x * expected**2, abs=1e-6)
    assert x.T @ x == pytest.approx(np.diag(expected**2), abs=1e-6)


@pytest.mark.parametrize('num_components', [0, 25])
def test_refuses_a_number_of_components_that_there_are_not(train, num_components):
    with pytest.raises(ValueError, match=rf"'num_components' needs to be in \[1, 25\) \(got {num_components}\)"):
        CollaborativeFeatures(num_components)(train)
