import numpy as np
import pytest
import torch

from lirdrec_pyg import evaluate
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn.models.content_knn import ContentKNN
from lirdrec_pyg.transforms import FixedSplit
from lirdrec_pyg.typing import INTERACTS


def cosine(a, b):
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / norms if norms > 0 else 0.0


@pytest.mark.parametrize('weights', [None, {'text': 0.9, 'image': 0.1}, {'text': 2.0}])
def test_scores_equal_the_naive_oracle(weights):
    train = FixedSplit()(FakeMultimodal(num_users=10, num_items=20, noise=1.0, missing={'text': 0.3})[0])[0]
    out = ContentKNN(weights).encode(train)
    xs = {name: train['item'][f'x_{name}'].double().numpy() for name in ('image', 'text')}
    expected = np.zeros((10, 20))
    for u, j in train[INTERACTS].edge_index.t().tolist():
        for i in range(20):
            for name, weight in (weights or {'image': 1.0, 'text': 1.0}).items():
                expected[u, i] += weight * cosine(xs[name][i], xs[name][j])
    np.testing.assert_allclose(out.user @ out.item.t(), expected, atol=1e-5)


def test_finds_held_out_and_cold_items_without_training():
    train, _, test = FixedSplit()(FakeMultimodal(num_cold_items=8)[0])
    model = ContentKNN()
    assert list(model.parameters()) == []
    assert model.loss(train, *torch.zeros(3, 4, dtype=torch.long)) == 0
    out = model.encode(train)
    # 24 items a block, 6 of them seen: the 18 others come first
    assert evaluate(out, test, k=20)['recall@20'] == 1
    cold = (out.user @ out.item.t())[:, 40:]
    same = train['user'].block[:, None] == train['item'].block[None, 40:]
    assert cold[same].min() > cold[~same].max()


def test_refuses(splits):
    with pytest.raises(ValueError, match=r"'weights' need to be non-negative \(got -1 for 'text'\)"):
        ContentKNN({'text': -1})
    with pytest.raises(ValueError, match="unknown modality 'audio'"):
        ContentKNN({'audio': 1.0}).encode(splits[0])


def test_repr():
    assert str(ContentKNN()) == 'ContentKNN(weights=None)'
    assert str(ContentKNN({'text': 0.5})) == "ContentKNN(weights={'text': 0.5})"
