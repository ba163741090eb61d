import pandas as pd
import pytest
import torch

from lirdrec_pyg import Embeddings, recommend
from lirdrec_pyg.typing import INTERACTS


@pytest.fixture
def emb():
    return Embeddings(torch.randn(64, 4), torch.randn(48, 4))


def test_equals_brute_force_and_leaves_out_what_was_seen(views, emb):
    train = views[0]
    table = recommend(emb, train, ['user-5', 'user-2'], k=4, batch_size=1)
    assert list(table.columns) == ['user', 'rank', 'item', 'title', 'score']
    assert table['user'].tolist() == ['user-5'] * 4 + ['user-2'] * 4
    user, item = train[INTERACTS].edge_index
    for u in (5, 2):
        score = emb.user[u] @ emb.item.t()
        score[item[user == u]] = float('-inf')
        own = table[table['user'] == f'user-{u}']
        best = score.topk(4)
        assert own['item'].tolist() == [f'item-{i}' for i in best.indices.tolist()]
        assert own['title'].tolist() == [train['item'].title[i] for i in best.indices.tolist()]
        assert own['score'].to_numpy() == pytest.approx(best.values.numpy(), abs=1e-5)
        assert own['rank'].tolist() == [1, 2, 3, 4]


def test_all_items_for_a_user(views, emb):
    train = views[0]
    count = int((train[INTERACTS].edge_index[0] == 3).sum())
    assert len(recommend(emb, train, [3], k=48)) == 48 - count
    assert len(recommend(emb, train, [3], k=48, exclude_seen=False)) == 48
    cold = torch.zeros(48, dtype=torch.bool)
    cold[[40, 41]] = True
    assert set(recommend(emb, train, [3], k=5, exclude_seen=False, candidates=cold)['item']) == {'item-40', 'item-41'}


def test_saves_as_csv_and_parquet(views, emb, tmp_path):
    table = recommend(emb, views[0], torch.tensor([0, 1]), k=3)
    table.to_csv(tmp_path / 'top.csv', index=False)
    table.to_parquet(tmp_path / 'top.parquet')
    assert pd.read_csv(tmp_path / 'top.csv')['item'].tolist() == table['item'].tolist()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / 'top.parquet'), table)


def test_refuses(views, emb):
    train = views[0]
    with pytest.raises(ValueError, match=r"'k' needs to be in \[1, 48\] \(got 0\)"):
        recommend(emb, train, [0], k=0)
    with pytest.raises(ValueError, match=r"unknown user ids \(got 1, first: 'nobody'\)"):
        recommend(emb, train, ['user-1', 'nobody'])
    with pytest.raises(ValueError, match=r'user ids need to be in \[0, 63\] \(got 64\)'):
        recommend(emb, train, [64])
    assert len(recommend(emb, train, [])) == 0
