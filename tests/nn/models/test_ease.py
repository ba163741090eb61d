import numpy as np
import pytest
import torch

from lirdrec_pyg import evaluate, fit
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import EASE
from lirdrec_pyg.transforms import FixedSplit
from lirdrec_pyg.typing import INTERACTS


def dense(train):
    x = np.zeros((train['user'].num_nodes, train['item'].num_nodes))
    x[tuple(train[INTERACTS].edge_index.numpy())] = 1
    return x


@pytest.mark.parametrize('reg_weight', [0.5, 100.0])
def test_equals_the_closed_form_and_the_least_squares_it_solves(splits, reg_weight):
    train = splits[0]
    x, n = dense(train), 48
    out = EASE(reg_weight)(train)
    np.testing.assert_array_equal(out.user, x)
    p = np.linalg.inv(x.T @ x + reg_weight * np.eye(n))
    expected = -p / np.diag(p)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(out.item.T, expected, atol=1e-5)
    for j in range(n):  # each item by all others, without itself
        others = [i for i in range(n) if i != j]
        root = np.sqrt(reg_weight) * np.eye(n - 1)
        weight = np.linalg.lstsq(
            np.concatenate([x[:, others], root]), np.concatenate([x[:, j], np.zeros(n - 1)]), rcond=None
        )[0]
        np.testing.assert_allclose(out.item[j, others], weight, atol=1e-5)
        assert out.item[j, j] == 0


def test_finds_held_out_items_without_training(splits):
    train, val, test = splits
    model = EASE.from_data(train, reg_weight=5.0)
    assert fit(model, train, val, progress=False).log == []
    assert evaluate(model(train), test, k=20)['recall@20'] > 0.85  # chance is 20/42


def test_items_without_interactions_score_zero():
    train = FixedSplit()(FakeMultimodal(num_cold_items=8)[0])[0]
    out = EASE()(train)
    assert (out.user @ out.item.t())[:, 40:].abs().max() == 0


def test_refuses(splits):
    for wrong in (0, -1, float('inf'), float('nan')):
        with pytest.raises(ValueError, match=r"'reg_weight' needs to be positive"):
            EASE(wrong)
    with pytest.raises(ValueError, match=r'\(64 users \+ 48 items\) x 48 items <= 5000 numbers \(got 5376\)'):
        EASE(max_elements=5000)(splits[0])
    assert EASE(max_elements=5376)(splits[0]).item.shape == torch.Size([48, 48])


def test_repr():
    assert str(EASE(7.0)) == f'EASE(reg_weight=7.0, max_elements={2**29})'
