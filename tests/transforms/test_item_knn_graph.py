import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData

from lirdrec_pyg.transforms import ItemKNNGraph
from lirdrec_pyg.typing import SIMILAR_TO


def make(**features: torch.Tensor) -> HeteroData:
    data = HeteroData()
    data['item'].num_nodes = len(next(iter(features.values())))
    for name, x in features.items():
        data['item'][name] = x
    return data


def dense(data: HeteroData) -> torch.Tensor:
    r"""Returns the matrix of the item graph, a row per target."""
    n = data['item'].num_nodes
    source, target = data[SIMILAR_TO].edge_index
    out = torch.zeros(n, n)
    out[target, source] = data[SIMILAR_TO].edge_weight
    return out


def oracle(x: torch.Tensor, k: int) -> torch.Tensor:
    r"""Cosine top-k with loops: the item itself first, then by similarity, then by id."""
    sim = F.normalize(x.double(), dim=1) @ F.normalize(x.double(), dim=1).t()
    out = torch.zeros(len(x), len(x))
    for i in range(len(x)):
        ranked = sorted(range(len(x)), key=lambda j: (j != i, -round(float(sim[i, j]) * 2**32), j))
        for j in ranked[:k]:
            out[i, j] = 1 / k
    return out


@given(seed=st.integers(0, 10_000), n=st.integers(2, 30), k=st.integers(1, 30), chunk=st.sampled_from([1, 7, 4096]))
@settings(deadline=None, max_examples=100)
def test_exact_search_equals_oracle_with_many_ties(seed, n, k, chunk):
    x = torch.randint(0, 3, (n, 3), generator=torch.Generator().manual_seed(seed)).float() + 0.0
    x[:, 0] += 1  # no zero row
    k = min(k, n)
    out = ItemKNNGraph(k, chunk_size=chunk)(make(x_a=x))
    assert torch.allclose(dense(out), oracle(x, k), atol=1e-6)


def test_mixes_modalities_and_sorts_by_target():
    data = make(x_image=torch.randn(20, 5), x_text=torch.randn(20, 4))
    out = ItemKNNGraph(3, {'image': 0.1, 'text': 0.9})(data)
    expected = 0.1 * oracle(data['item'].x_image, 3) + 0.9 * oracle(data['item'].x_text, 3)
    assert torch.allclose(dense(out), expected, atol=1e-6)
    target = out[SIMILAR_TO].edge_index[1]
    assert torch.equal(target, target.sort().values)
    assert SIMILAR_TO not in data.edge_types


def test_scale_does_not_matter_and_duplicates_keep_self():
    x = torch.randn(12, 4)
    scale = torch.logspace(-30, 30, 12).unsqueeze(1)
    assert torch.allclose(dense(ItemKNNGraph(3)(make(x_a=x * scale))), oracle(x, 3), atol=1e-6)
    same = dense(ItemKNNGraph(2)(make(x_a=torch.ones(9, 3))))
    assert (same.diagonal() == 0.5).all()
    assert (same[1:, 0] == 0.5).all()  # the lowest other id


def test_missing_and_zero_rows_take_no_part():
    x, y = torch.randn(10, 4), torch.randn(10, 4)
    x[3] = 0
    has = torch.ones(10, dtype=torch.bool)
    has[[5, 7]] = False
    y[[3, 7]] = 0
    out = dense(ItemKNNGraph(3, {'a': 0.25, 'b': 0.75})(make(x_a=x, has_a=has, x_b=y)))
    assert torch.isfinite(out).all()
    assert out[3].sum() == 0  # neither modality
    assert out[7].sum() == 0
    assert out[:, 3].sum() == 0
    assert out[:, 7].sum() == 0
    rest = [i for i in range(10) if i not in (3, 7)]
    assert torch.allclose(out[rest].sum(dim=1), torch.ones(8))  # what is there takes the whole weight
    present = [0, 1, 2, 4, 5, 6, 8, 9]
    only_b = torch.zeros(10)
    only_b[present] = oracle(y[present], 3)[present.index(5)]
    assert torch.allclose(out[5], only_b, atol=1e-6)


def test_more_neighbours_than_items_with_the_modality():
    x = torch.zeros(6, 2)
    x[:2] = torch.randn(2, 2)
    out = dense(ItemKNNGraph(4)(make(x_a=x)))
    assert torch.allclose(out[:2, :2], torch.full((2, 2), 0.5))
    assert out.sum() == 2


@pytest.mark.parametrize('index', ['HNSW16', 'IVF4,Flat'])
def test_approximate_index(index):
    x = torch.randn(300, 8)
    exact, approximate = dense(ItemKNNGraph(5)(make(x_a=x))), dense(ItemKNNGraph(5, index=index)(make(x_a=x)))
    assert (approximate.diagonal() > 0).all()
    assert torch.allclose(approximate.sum(dim=1), torch.ones(300))
    recall = ((exact > 0) & (approximate > 0)).sum() / (exact > 0).sum()
    assert recall > (0.9 if index == 'HNSW16' else 0.4)


def test_index_params_decide_how_an_index_is_searched():
    torch.manual_seed(0)
    data = make(x_a=torch.randn(300, 8))
    exact, wide = dense(ItemKNNGraph(5)(data)), dense(ItemKNNGraph(5, index='IVF4,Flat', index_params='nprobe=4')(data))
    assert torch.equal(exact > 0, wide > 0)  # all lists were searched
    with pytest.raises(ValueError, match="'index_params' needs an 'index'"):
        ItemKNNGraph(5, index_params='nprobe=4')


def test_refuses():
    data = make(x_a=torch.randn(5, 2))
    for k in (0, 6):
        with pytest.raises(ValueError, match=rf"'k' needs to be in \[1, 5\] \(got {k}\)"):
            ItemKNNGraph(k)(data)
    with pytest.raises(ValueError, match="unknown modality 'b'"):
        ItemKNNGraph(2, {'b': 1.0})(data)
    with pytest.raises(ValueError, match='non-negative'):
        ItemKNNGraph(2, {'a': -1.0})(data)
    with pytest.raises(ValueError, match='positive weight'):
        ItemKNNGraph(2, {'a': 0.0})(data)
    with pytest.raises(ValueError, match='chunk_size'):
        ItemKNNGraph(2, chunk_size=0)
    for weight in (float('inf'), float('nan')):
        with pytest.raises(ValueError, match=rf"'weights' need to be finite and non-negative \(got {weight} for 'a'"):
            ItemKNNGraph(2, {'a': weight})(data)
    for weight in (1e39, 1e-46):
        with pytest.raises(ValueError, match=r"'weights' need to be of like size, such as 0.1 and 0.9 \(got {'a': 1e"):
            ItemKNNGraph(2, {'a': weight})(data)
    for index in ('nonsense', '', 'IVF6,Flat', 'PQ3', 'LSH', 'IDMap,Flat'):
        message = rf"'index' needs to be a FAISS factory string that fits 5 rows of 2 columns, .* \(got '{index}': "
        with pytest.raises(ValueError, match=message):
            ItemKNNGraph(2, index=index)(data)
    for params in ('nprobe=3', 'nonsense'):
        with pytest.raises(ValueError, match=rf"'index_params' need to be such as .* \(got '{params}'\)"):
            ItemKNNGraph(2, index='HNSW8', index_params=params)(data)
    for k in (2.0, '2'):
        with pytest.raises(TypeError, match='cannot be interpreted as an integer'):
            ItemKNNGraph(k)
    data['item'].x_a[4, 0] = float('inf')
    with pytest.raises(ValueError, match='first: row 4'):
        ItemKNNGraph(2)(data)


@pytest.mark.parametrize('index', [None, 'HNSW8'])
def test_k_is_any_integer(index):
    data = make(x_a=torch.randn(50, 2))
    out = ItemKNNGraph(np.int64(3), index=index)(data)
    assert torch.equal(dense(out), dense(ItemKNNGraph(3, index=index)(data)))


def test_repr():
    expected = "ItemKNNGraph(k=3, weights={'a': 1.0}, index=None, chunk_size=4096, index_params=None)"
    assert str(ItemKNNGraph(3, {'a': 1.0})) == expected
    assert "index_params='nprobe=2')" in str(ItemKNNGraph(3, index='IVF4,Flat', index_params='nprobe=2'))
