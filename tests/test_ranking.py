import copy
import json
import math
import pickle
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData
from torch_geometric.metrics import LinkPredAveragePopularity, LinkPredDiversity, LinkPredPersonalization

from lirdrec_pyg import Embeddings, LightGCN, Popularity, SoftmaxLIRDRec, calibrate, evaluate
from lirdrec_pyg.ranking import LISTS, METRICS, best_of_rows, top_k
from lirdrec_pyg.typing import INTERACTS


def make_split(generator, num_users, num_items):
    kind = torch.randint(0, 4, (num_users, num_items), generator=generator)  # 0, 1: nothing, 2: seen, 3: positive
    kind[0, 0] = 3
    split = HeteroData()
    split['user'].num_nodes, split['item'].num_nodes = num_users, num_items
    split[INTERACTS].edge_index = (kind == 2).nonzero().t()
    split[INTERACTS].edge_label_index = (kind == 3).nonzero().t()
    return split


def oracle(emb, split, k, candidates=None, group=None):
    r"""Ranks user by user with Python lists."""
    seen, positives = defaultdict(set), defaultdict(set)
    for u, i in split[INTERACTS].edge_index.t().tolist():
        seen[u].add(i)
    for u, i in split[INTERACTS].edge_label_index.t().tolist():
        if (candidates is None or candidates[i]) and (group is None or group[i]):
            positives[u].add(i)
    out, covered = defaultdict(list), set()
    for u, want in positives.items():
        score = emb.user[u] @ emb.item.t()
        ranked = [
            i
            for i in score.argsort(descending=True).tolist()
            if i not in seen[u] and (candidates is None or candidates[i])
        ][:k]
        hits = [i in want for i in ranked] + [False] * (k - len(ranked))
        dcg = sum(hit / math.log2(rank + 2) for rank, hit in enumerate(hits))
        out['recall'].append(sum(hits) / len(want))
        out['precision'].append(sum(hits) / k)
        out['ndcg'].append(dcg / sum(1 / math.log2(rank + 2) for rank in range(min(k, len(want)))))
        out['hit'].append(float(any(hits)))
        out['mrr'].append(next((1 / (rank + 1) for rank, hit in enumerate(hits) if hit), 0.0))
        precision = [sum(hits[: rank + 1]) / (rank + 1) * hit for rank, hit in enumerate(hits)]
        out['map'].append(sum(precision) / min(k, len(want)))
        covered |= {*ranked}
    return {name: sum(values) / len(values) for name, values in out.items()} | {'coverage': len(covered) / 12}


@given(seed=st.integers(0, 10_000), k=st.integers(1, 6), batch_size=st.sampled_from([1, 3, 100]))
@settings(deadline=None, max_examples=40)
def test_equals_oracle(seed, k, batch_size):
    generator = torch.Generator().manual_seed(seed)
    split = make_split(generator, 7, 12)
    emb = Embeddings(torch.randn(7, 4, generator=generator), torch.randn(12, 4, generator=generator))
    names = ['recall', 'precision', 'ndcg', 'hit', 'mrr', 'map', 'coverage']
    cold = torch.arange(12) % 3 == 0
    out = evaluate(emb, split, k, names, groups={'cold': cold, 'warm': ~cold}, batch_size=batch_size)
    for prefix, group in [('', None), ('cold/', cold), ('warm/', ~cold)]:
        for name, value in oracle(emb, split, k, group=group).items():
            assert out[f'{prefix}{name}@{k}'] == pytest.approx(value, abs=1e-5), prefix + name
    candidates = torch.ones(12, dtype=torch.bool)
    candidates[8:] = False
    out = evaluate(emb, split, k, names, candidates=candidates, batch_size=batch_size)
    for name, value in oracle(emb, split, k, candidates=candidates).items():
        assert out[f'{name}@{k}'] == pytest.approx(value, abs=1e-5), name


def oracle_of_lists(emb, split, k, categories, candidates=None, group=None):
    r"""Goes over users, pairs of users and pairs of items one by one, in NumPy."""
    seen, count = defaultdict(set), np.zeros(12)
    for u, i in split[INTERACTS].edge_index.t().tolist():
        seen[u].add(i)
        count[i] += 1
    users = {
        u
        for u, i in split[INTERACTS].edge_label_index.t().tolist()
        if (candidates is None or candidates[i]) and (group is None or group[i])
    }
    score = emb.user.numpy() @ emb.item.numpy().T
    lists = [
        [i for i in np.argsort(-score[u]) if i not in seen[u] and (candidates is None or candidates[i])][:k]
        for u in sorted(users)
    ]
    diversity = [
        np.mean([categories[i] != categories[j] for a, i in enumerate(one) for j in one[:a]])
        for one in lists
        if len(one) > 1
    ]
    pairs = [
        1 - len({*one} & {*other}) / np.sqrt(len(one) * len(other))
        for a, one in enumerate(lists)
        for other in lists[:a]
    ]
    return {
        'diversity': np.mean(diversity) if diversity else np.nan,
        'personalization': np.mean(pairs) if pairs else np.nan,
        'popularity': np.mean([count[one].mean() for one in lists]),
    }


@given(seed=st.integers(0, 10_000), k=st.integers(2, 8), batch_size=st.sampled_from([1, 3, 100]))
@example(seed=63, k=2, batch_size=1)  # a group of one user
@settings(deadline=None, max_examples=40)
def test_metrics_of_lists_equal_the_oracle(seed, k, batch_size):
    generator = torch.Generator().manual_seed(seed)
    split = make_split(generator, 7, 12)
    emb = Embeddings(torch.randn(7, 4, generator=generator), torch.randn(12, 4, generator=generator))
    categories = torch.randint(0, 4, (12,), generator=generator)
    few = torch.arange(12) < 8  # so that k is more than some users have left
    given = {'metrics': ['recall', *LISTS], 'categories': categories, 'batch_size': batch_size}
    for candidates in (None, few):
        out = evaluate(emb, split, k, candidates=candidates, groups={'cold': ~few, 'warm': few}, **given)
        assert list(out)[:4] == [f'{name}@{k}' for name in given['metrics']]
        for prefix, group in [('', None), ('cold/', ~few), ('warm/', few)]:
            if math.isnan(out[f'{prefix}recall@{k}']):  # no users
                assert all(math.isnan(out[f'{prefix}{name}@{k}']) for name in LISTS)
                continue
            for name, value in oracle_of_lists(emb, split, k, categories, candidates, group).items():
                assert out[f'{prefix}{name}@{k}'] == pytest.approx(value, abs=1e-5, nan_ok=True), prefix + name


def test_metrics_of_full_lists_are_those_of_pyg(splits):
    train, val, _ = splits
    emb = Embeddings(torch.randn(64, 4), torch.randn(48, 4))
    categories, count = torch.randint(0, 5, (48,)), torch.bincount(train[INTERACTS].edge_index[1], minlength=48)
    out = evaluate(emb, val, [2, 9], list(LISTS), categories=categories, batch_size=10)
    users = val[INTERACTS].edge_label_index[0].unique()
    top = torch.cat([item for _, item in top_k(emb, users, 9, val[INTERACTS].edge_index)])
    for k in (2, 9):
        for name, metric in {
            'diversity': LinkPredDiversity(k, categories),
            'personalization': LinkPredPersonalization(k, max_src_nodes=None),
            'popularity': LinkPredAveragePopularity(k, count),
        }.items():
            metric.update(top, val[INTERACTS].edge_label_index)
            assert out[f'{name}@{k}'] == pytest.approx(float(metric.compute()), abs=1e-5), name


def test_metrics_print_with_four_digits(splits):
    train, val, _ = splits
    found = evaluate(Popularity()(train), val, k=[5, 10])
    shown = repr(found)
    assert shown.startswith("{'recall@5': 0.") and shown.count(', ') == 3
    assert all(len(part.rpartition('.')[2]) == 4 for part in shown.strip('{}').split(', '))
    assert found == dict(found) and json.loads(json.dumps(found)) == found  # else a dict as any other
    assert copy.deepcopy(found) == pickle.loads(pickle.dumps(found)) == found


def test_popularity_recommends_the_same_popular_items_to_all(splits):
    train, val, _ = splits
    worst = evaluate(Popularity()(train), val, 5, ['popularity', 'personalization', 'coverage'])
    other = evaluate(Embeddings(torch.randn(64, 8), torch.randn(48, 8)), val, 5, ['popularity', 'personalization'])
    assert worst['popularity@5'] > other['popularity@5']
    assert worst['personalization@5'] < other['personalization@5']


def test_diversity_refuses(splits):
    val, emb = splits[1], Embeddings(torch.randn(64, 2), torch.randn(48, 2))
    categories = torch.zeros(48, dtype=torch.long)
    with pytest.raises(ValueError, match=r"'categories' need to be there for 'diversity'.*got none"):
        evaluate(emb, val, metrics=['diversity'])
    with pytest.raises(ValueError, match=r"'categories' need to be there for 'diversity', and for that alone"):
        evaluate(emb, val, categories=categories)
    with pytest.raises(ValueError, match=r"'k' needs to be at least 2 for 'diversity'.*\(got 1\)"):
        evaluate(emb, val, [1, 5], ['diversity'], categories=categories)
    with pytest.raises(ValueError, match=r"'categories' need to be of 48 items \(got 47\)"):
        evaluate(emb, val, 5, ['diversity'], categories=categories[1:])
    for wrong in (categories.float(), categories.bool(), categories - 1):
        with pytest.raises(ValueError, match="'categories' need"):
            evaluate(emb, val, 5, ['diversity'], categories=wrong)
    out = evaluate(emb, val, 5, ['diversity'], categories=np.zeros(48, dtype=np.int32))
    assert out['diversity@5'] == pytest.approx(0, abs=1e-6)


def test_calibrate_takes_the_best_power(splits):
    train, val, _ = splits
    model = SoftmaxLIRDRec.from_data(train, seed=0, hidden_channels=8).train()
    with torch.no_grad():
        model.user.mul_(torch.rand_like(model.user))
    found = calibrate(model, train, val, powers=[0.0, 0.5, 1.0, 2.0], metric='ndcg@5')
    assert model.training
    assert len({*found.values()}) > 1
    for power, value in found.items():
        model.eval().set_power(power)
        assert evaluate(model(train), val, 5, ['ndcg'])['ndcg@5'] == pytest.approx(value, abs=1e-6)
    again = calibrate(model, train, val, powers=[0.0, 0.5, 1.0, 2.0], metric='ndcg@5')
    assert again == found
    assert found[model.number('power')] == max(found.values())


@pytest.mark.parametrize(('own', 'nearest'), [(1.0, 1.0), (0.4, 0.5), (3.0, 2.0), (0.75, 0.5)])
def test_calibrate_keeps_close_to_the_model_where_nothing_is_gained(splits, own, nearest):
    model = Popularity()  # whose items have one number: no power but zero changes their order
    model.set_power(own)
    found = calibrate(model, splits[0], splits[1], powers=[2.0, 1.0, 0.5])
    assert len({*found.values()}) == 1
    assert model.number('power') == nearest


def test_calibrate_refuses(splits):
    train, val, _ = splits
    model = LightGCN.from_data(train, hidden_channels=4)
    with pytest.raises(ValueError, match=r"'powers' need to be at least one number \(got \[\]\)"):
        calibrate(model, train, val, powers=[])
    with pytest.raises(ValueError, match=r"'power' needs to be a non-negative number \(got -1\)"):
        calibrate(model, train, val, powers=[1, -1])
    for wrong in ('ndcg', 'auc@20', 'diversity@20'):
        with pytest.raises(ValueError, match=r"'metric' needs to be of the form 'ndcg@20'"):
            calibrate(model, train, val, metric=wrong)
    without = val.clone()
    del without[INTERACTS].edge_label_index
    with pytest.raises(ValueError, match='it comes from a split'):
        calibrate(model, train, without)
    assert model.number('power') == 1


def test_validation_positives_can_be_excluded():
    split = HeteroData()
    split['user'].num_nodes, split['item'].num_nodes = 1, 5
    split[INTERACTS].edge_index = torch.tensor([[0], [4]])
    other = split.clone()
    split[INTERACTS].edge_label_index = torch.tensor([[0], [2]])
    other[INTERACTS].edge_label_index = torch.tensor([[0], [3]])
    emb = Embeddings(torch.ones(1, 1), torch.arange(5.0).unsqueeze(1))  # ranks 3 before 2
    assert evaluate(emb, split, 1)['recall@1'] == 0
    assert evaluate(emb, split, 1, also_exclude=other)['recall@1'] == 1


def test_coverage_and_empty_group(splits):
    test = splits[2]
    emb = Embeddings(torch.ones(64, 1), torch.arange(48.0).unsqueeze(1))
    out = evaluate(emb, test, [1, 5], ['coverage'], groups={'none': torch.zeros(48, dtype=torch.bool)})
    assert 0 < out['coverage@1'] < 0.2
    assert math.isnan(out['none/coverage@5'])


def test_refuses(splits):
    val = splits[1]
    emb = Embeddings(torch.randn(64, 2), torch.randn(48, 2))
    for k in (0, 49):
        with pytest.raises(ValueError, match=rf"'k' needs to be in \[1, 48\] \(got {k}\)"):
            evaluate(emb, val, k)
    with pytest.raises(ValueError, match="'metrics' needs to be of"):
        evaluate(emb, val, metrics=['auc'])
    with pytest.raises(ValueError, match=r'needs? to have 48 items \(got 47\)'):
        evaluate(Embeddings(emb.user, emb.item[1:]), val)
    with pytest.raises(ValueError, match=r'needs? to have 64 users \(got 63\)'):
        evaluate(Embeddings(emb.user[1:], emb.item), val)
    with pytest.raises(ValueError, match=r"'embeddings' need to be finite \(got 64 rows with NaN or Inf for users"):
        evaluate(Embeddings(emb.user * float('nan'), emb.item), val)
    with pytest.raises(ValueError, match='got NaN or Inf scores'):  # of finite embeddings
        evaluate(Embeddings(emb.user * 1e30, emb.item * 1e30), val)
    for big in (Embeddings(emb.user.abs() * -1e30, emb.item.abs() * 1e30), Embeddings(emb.user * 1e33, emb.item)):
        for use in (lambda big: evaluate(big, val), lambda big: top_k(big, torch.arange(3), 3)):
            with pytest.raises(ValueError, match=r"'embeddings' need to be finite \(got"):  # a score of -inf
                use(big)
    for size in (0, -1):
        with pytest.raises(ValueError, match=rf"'batch_size' needs to be positive \(got {size}\)"):
            evaluate(emb, val, batch_size=size)
        with pytest.raises(ValueError, match=rf"'batch_size' needs to be positive \(got {size}\)"):
            top_k(emb, torch.arange(3), 3, batch_size=size)
    for k in (2.5, '3', None):
        with pytest.raises(TypeError):
            evaluate(emb, val, k=k)
    mask = torch.ones(48, dtype=torch.bool)
    for wrong in (mask.float(), mask.long() + 1, mask[1:]):
        with pytest.raises(ValueError, match=r"'candidates' needs to be a bool mask of 48 items \(got torch\."):
            evaluate(emb, val, candidates=wrong)
        with pytest.raises(ValueError, match=r"'groups' needs to be a bool mask of 48 items \(got torch\."):
            evaluate(emb, val, groups={'cold': wrong})
    with pytest.raises(ValueError, match="'k' and 'metrics' need to name at least one"):
        evaluate(emb, val, k=[])
    assert evaluate(emb, val, k=np.int64(3)).keys() == {'recall@3', 'ndcg@3'}
    with pytest.raises(ValueError, match='at least one positive'):
        evaluate(emb, _empty(val))
    del val[INTERACTS].edge_label_index
    with pytest.raises(ValueError, match='it comes from a split'):
        evaluate(emb, val)
    assert set(METRICS) == {'recall', 'ndcg', 'precision', 'map', 'hit', 'mrr', 'coverage'}


def _empty(split):
    split = split.clone()
    split[INTERACTS].edge_label_index = split[INTERACTS].edge_label_index[:, :0]
    return split


@pytest.mark.parametrize(('num_columns', 'k'), [(7, 7), (101, 1), (1000, 20), (997, 3), (4001, 50), (2048, 8)])
@pytest.mark.parametrize('kind', ['distinct', 'ties', 'few', 'none'])
def test_best_of_rows_is_topk(num_columns, k, kind):
    score = torch.randn(33, num_columns)
    if kind == 'ties':
        score = score.round()
    elif kind != 'distinct':
        score[:, k // 2 if kind == 'few' else 0 :] = float('-inf')
    value, column = best_of_rows(score, k)
    assert torch.equal(value, score.topk(k, dim=1).values)
    assert torch.equal(score.gather(1, column), value)
    assert all(row.unique().numel() == k for row in column)


def test_best_of_rows_finds_nan():
    score = torch.randn(4, 1000)
    score[2, 777] = float('nan')
    assert best_of_rows(score, 5)[0].isnan().any(dim=1).tolist() == [False, False, True, False]
