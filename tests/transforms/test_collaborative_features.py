import numpy as np
import pytest
import torch

from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import LIRDRec
from lirdrec_pyg.transforms import DCT, CollaborativeFeatures, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, modalities


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


@pytest.mark.parametrize('num_components', [0, 25])
def test_refuses_a_number_of_components_that_there_are_not(train, num_components):
    with pytest.raises(ValueError, match=rf"'num_components' needs to be in \[1, 25\) \(got {num_components}\)"):
        CollaborativeFeatures(num_components)(train)
