import sys

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import rows
from benchmarks.quality import jobs
from benchmarks.quality.studies import (
    dct_in_loop,
    feature_cost,
    fold_in,
    gradient_bias,
    missing,
    new_items,
    onboard,
    pwc_weights,
    startup,
    when_ids_pay,
)


@pytest.mark.parametrize('module', [onboard, fold_in, missing], ids=lambda module: module.__name__.rpartition('.')[2])
def test_what_has_rows_is_not_run_again(module, monkeypatch):
    results = jobs.ROWS.parent / f'{module.__name__.rpartition(".")[2]}.csv'
    before = results.read_text()
    for name in ('run', 'run_large', 'measure'):
        monkeypatch.setattr(module, name, lambda *args: pytest.fail('it ran again'), raising=False)
    monkeypatch.setattr(sys, 'argv', ['', '--seeds', '0', '1', '2'])
    module.main()
    assert results.read_text() == before
    if module is onboard:
        monkeypatch.setattr(sys, 'argv', ['', '--items', '100000'])
        module.main()
    monkeypatch.setattr(sys, 'argv', ['', '--seeds', '99'])
    with pytest.raises(pytest.fail.Exception, match='it ran again'):
        module.main()


def test_onboarded_items_do_as_well_as_those_there_from_the_start(tmp_path):
    found = {row['method']: row for row in onboard.run('fake', 0, 'softmax', 3, 1, tmp_path)}
    assert len(found) == 7
    assert min(row['cold_recall@20'] for row in found.values()) > 0.8
    onboarded, anew = found['onboarded'], found['same weights, all made anew']
    assert onboarded['cold_recall@20'] == pytest.approx(anew['cold_recall@20'], abs=1e-6)  # onboarding costs nothing
    assert onboarded['largest_change'] < 1e-6 < anew['largest_change']
    assert all(0 <= row['new_share'] <= 1 for row in found.values())
    assert onboard.run_large(2000, 50, width=16)['largest_change'] < 1e-6


def test_new_items_win_places_at_the_expense_of_others(tmp_path):
    rows_of = new_items.run('fake', 0, 'SoftmaxLIRDRec', 3, tmp_path)
    assert len(rows_of) == 10
    found = {row['method']: row for row in rows_of if row['power'] == 0.5}
    assert found['no new items']['new_share'] == 0 == found['no new items']['new_recall@20']
    assert found['content']['new_share'] < 0.05 < found['borrowing, scaled']['new_share'] < 0.4
    assert found['borrowing, scaled']['known_recall@20'] < found['no new items']['known_recall@20']
    scaled, plain = found['borrowing, scaled'], found['borrowing']
    assert scaled['new_among_new_recall@20'] == pytest.approx(plain['new_among_new_recall@20'], abs=0.01)


def test_users_folded_in_do_as_well_as_those_trained_with(tmp_path, monkeypatch):
    short = {'epochs': 3}
    monkeypatch.setattr(fold_in, 'fit', lambda *args, fit=fold_in.fit, **kwargs: fit(*args, **kwargs, **short))
    found = {row['method']: row for row in fold_in.run('fake', 0, 0.1, 'softmax', tmp_path)}
    assert len(found) == 4
    assert found['folded in (none)']['held_out_recall@20'] > 0.8 * found['trained with them']['held_out_recall@20']
    assert found['folded in (mean)']['others_recall@20'] == found['folded in (none)']['others_recall@20']


def test_missing_images_and_weights_of_views_have_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(missing, 'fit', lambda *args, fit=missing.fit, **kwargs: fit(*args, **kwargs, epochs=1))
    masked, mean = (missing.measure('fake', tmp_path, fill, 0.1, 0) for fill in ('mask', 'mean'))
    assert {'test_recall@20', 'test_lacking/recall@20', 'test_having/ndcg@20'} <= masked.keys()
    assert masked['image_neighbours_also_lacking'] == 0 < mean['image_neighbours_also_lacking'] <= 1
    path = tmp_path / 'pwc.csv'
    argv = ['', '--dataset', 'fake', '--seeds', '0', '--epochs', '2', '--rows', str(path), '--root', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', argv)
    pwc_weights.main()
    assert len(rows.read(path)) == 5 * 2 * 3  # variants, epochs, views
    before = path.read_text()
    pwc_weights.main()
    assert path.read_text() == before


def bias_rows(parts, seed, kinds=('id', 'feature'), **changed):
    r"""Returns rows as the example makes them."""
    example = rows.example('gradient_bias')
    config = {'dataset': 'fake', 'model': 'VBPR', 'parts': parts, 'seed': seed, **example.BASE, **changed}
    config |= {'lr': 1e-3, 'epochs': 3, 'hidden_channels': 8}
    constant = {'num_items': 9, 'interactions_per_item': 2.5, 'lirdrec_pyg': '0', 'torch': '2', 'threads': 1}
    return [
        config | constant | {'epoch': epoch, 'name': f'{kind}s', 'kind': kind, 'item_grad': 0.1 * epoch + seed}
        | {'item_grad_rare': 0.5, 'item_grad_frequent': 0.7, 'item_update': 0.1, 'displacement': 0.2, 'norm': 0.5}
        | {'recall': 0.1 * epoch, 'recall_ids': '' if parts == 'ids' else 0.3, 'recall_features': ''}
        for epoch in (1, 2, 3)
        for kind in kinds
    ]  # fmt: skip


def test_what_is_kept_of_the_gradient_bias_draws_the_same(tmp_path):
    example, path = rows.example('gradient_bias'), tmp_path / 'bias.csv'
    runs = [bias_rows('both', seed) for seed in (0, 1)]
    runs += [bias_rows('ids', 0, ('id',)), bias_rows('both', 0, optimizer='sgd')]
    for run in runs:
        gradient_bias.keep(run, example, path)
    raw = pd.DataFrame([row for run in runs for row in run])
    assert len(rows.read(path)) == len(runs) == len(example.known(path))

    kept = gradient_bias.read_runs(path)
    assert kept['item_grad'].tolist() == pytest.approx([0.2, 0.2, 1.2, 1.2, 0.2, 0.2, 0.2])
    assert kept['item_update_share'].tolist() == pytest.approx([0.2] * 7)
    assert kept['recall'].tolist() == pytest.approx([0.3] * 7)
    assert kept['kind'].tolist() == ['id', 'feature'] * 2 + ['id'] + ['id', 'feature']

    curves = gradient_bias.read_curves(gradient_bias.curves_of(path), example)
    plain = raw[raw['optimizer'] == 'adam']  # of other settings no curves are drawn
    key = ['dataset', 'model', 'parts', 'seed', 'name', 'kind', 'epoch']
    expected = plain.set_index(key).sort_index()
    found = curves.set_index(key).sort_index()
    assert found.index.equals(expected.index)
    for name in ('item_grad', 'item_update', 'displacement', 'norm', 'recall', 'recall_ids'):
        assert np.array_equal(found[name], pd.to_numeric(expected[name]), equal_nan=True), name
    assert np.array_equal(found['displacement_share'], expected['displacement'] / expected['norm'])
    ids = found.index.get_level_values('kind') == 'id'
    assert (found['item_grad_rare'][ids] == 0.5).all() and found['item_grad_rare'][~ids].isna().all()


def test_curves_are_kept_once(tmp_path, monkeypatch):
    example, path = rows.example('gradient_bias'), tmp_path / 'bias.csv'
    monkeypatch.setattr(gradient_bias, 'summary', lambda *args: pytest.fail('killed'))
    with pytest.raises(pytest.fail.Exception):
        gradient_bias.keep(bias_rows('both', 0), example, path)  # between the curves and the row
    monkeypatch.undo()
    before = gradient_bias.curves_of(path).read_text()
    gradient_bias.keep(bias_rows('both', 0), example, path)
    assert gradient_bias.curves_of(path).read_text() == before
    assert len(rows.read(path)) == 1


def test_all_conditions_of_the_gradient_bias_have_rows(monkeypatch, capsys):
    example = rows.example('gradient_bias')
    wanted = list(gradient_bias.configs(example, gradient_bias.CONDITIONS))
    known = example.known(gradient_bias.RUNS)
    assert sorted(map(str, known)) == sorted(map(str, wanted))
    before = gradient_bias.RUNS.read_text()
    monkeypatch.setattr(sys, 'argv', [''])
    gradient_bias.main()
    assert gradient_bias.RUNS.read_text() == before and capsys.readouterr().out == ''


def test_the_start_of_a_run_is_told_by_its_own_best(tmp_path, monkeypatch):
    curve = [0.1, 0.5, 0.91, 0.8, 0.96, 1.0, 0.99]
    assert [startup.reached(curve, share) for share in startup.SHARES] == [3, 5, 6]
    path = tmp_path / 'startup.csv'
    argv = ['', '--dataset', 'fake', '--seeds', '0', '--epochs', '3', '--rows', str(path), '--root', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', argv)
    startup.main()
    found = {row['variant']: row for row in rows.read(path)}
    assert found.keys() == startup.VARIANTS.keys()
    assert {row['items'] for row in found.values()} == {'content', 'IDs', 'both'}
    for row in found.values():
        epochs = [int(row[f'epochs_to_{share:.0%}']) for share in startup.SHARES]
        seconds = [float(row[f'cpu_seconds_to_{share:.0%}']) for share in startup.SHARES]
        assert 1 <= epochs[0] <= epochs[1] <= epochs[2] <= int(row['epochs']) == 3
        assert 0 < seconds[0] <= seconds[1] <= seconds[2] <= float(row['cpu_seconds'])
    monkeypatch.setattr(startup, 'measure', lambda *args: pytest.fail('it ran again'))
    startup.main()


def test_curves_that_are_there_tell_how_long_the_start_takes(tmp_path, monkeypatch, capsys):
    path = tmp_path / 'curves.csv'
    common = {'dataset': 'fake', 'model': 'VBPR', 'parts': 'ids', 'name': '', 'kind': '', 'quantity': 'recall'}
    for seed, first in ((0, 0.2), (1, 0.95)):
        rows.append(path, common | {'seed': seed} | {str(epoch): first if epoch < 5 else 1.0 for epoch in range(1, 41)})
    (row,) = startup.of_curves(path)
    assert (row['seeds'], row['best recall@20'], row['90%'], row['100%']) == (
        2, '1.0000 ± 0.0000', '3.0 ± 2.8', '5.0 ± 0.0',
    )  # fmt: skip
    monkeypatch.setattr(sys, 'argv', ['', '--curves'])
    startup.main()
    shown = capsys.readouterr().out
    assert shown.count('LIRDRec') == 4 and shown.count('VBPR') == 6  # with both or one of the two, on two datasets


def test_simulated_users_keep_the_degrees_and_follow_their_taste(tmp_path):
    data = when_ids_pay.some_of(when_ids_pay.catalogues.load('fake', tmp_path), None, torch.Generator())
    before = data['interacts'].edge_index
    drawn, taste = when_ids_pay.simulate(data, 0.5, 3.0, seed=0)
    after = drawn['interacts'].edge_index
    for side in (0, 1):
        assert torch.equal(before[side].bincount(), after[side].bincount())
    pairs = after[0] * drawn['item'].num_nodes + after[1]
    assert pairs.unique().numel() == pairs.numel()  # no interaction twice
    score = taste.whole.user @ taste.whole.item.t()
    assert score[before[0], before[1]].mean().abs() < 0.5 < 2 < score[after[0], after[1]].mean()
    assert torch.equal(data['interacts'].edge_index, before)
    again, _ = when_ids_pay.simulate(data, 0.5, 3.0, seed=0)
    assert torch.equal(again['interacts'].edge_index, after)

    for share in (0.0, 0.3, 1.0):  # of the variance over items
        taste = when_ids_pay.draw_taste(data, share, 3.0, torch.Generator().manual_seed(0))
        whole, content = (x.user @ x.item.t() for x in taste)
        assert content.var(dim=1).sum() / whole.var(dim=1).sum() == pytest.approx(share, abs=0.15)


def test_swaps_draw_by_the_score():
    # Two users, two items, one interaction each: two graphs, whose scores differ by ln 3.
    score = torch.tensor([[0.0, 1.0], [1.0, 0.0]]) * torch.tensor(3.0).log() / 2
    generator = torch.Generator().manual_seed(0)
    graph, crossed = torch.tensor([[0, 1], [0, 1]]), 0
    for _ in range(400):
        graph = when_ids_pay.rewire(graph, score, generator, sweeps=3)
        crossed += int(graph[1, graph[0] == 0] == 1)
    assert crossed / 400 == pytest.approx(0.75, abs=0.08)


def test_some_users_come_with_the_items_that_they_have(tmp_path):
    data = when_ids_pay.catalogues.load('fake', tmp_path)
    some = when_ids_pay.some_of(data, 20, torch.Generator().manual_seed(0))
    assert some['user'].num_nodes == 20
    item = some['interacts'].edge_index[1]
    assert torch.equal(item.unique(), torch.arange(some['item'].num_nodes))
    assert some['item'].x_text.shape == (some['item'].num_nodes, data['item'].x_text.size(1))
    feature = some['item'].x_text[item].sum(dim=0)
    drawn = torch.randperm(data['user'].num_nodes, generator=torch.Generator().manual_seed(0))[:20]
    user, item = data['interacts'].edge_index
    assert torch.allclose(feature, data['item'].x_text[item[torch.isin(user, drawn)]].sum(dim=0), atol=1e-4)


def test_who_knows_the_taste_expects_what_is_taken(tmp_path):
    data = when_ids_pay.some_of(when_ids_pay.catalogues.load('fake', tmp_path), None, torch.Generator())
    data, taste = when_ids_pay.simulate(data, 0.5, 3.0, seed=0)
    user, item = when_ids_pay.knowing(taste.whole, data, steps=200)
    degrees = [side.bincount() for side in data['interacts'].edge_index]
    score, low, high = user @ item.t(), torch.full((len(user), 1), -50.0), torch.full((len(user), 1), 50.0)
    for _ in range(60):  # of each user, by halving
        middle = (low + high) / 2
        more = (score + middle).sigmoid().sum(dim=1, keepdim=True) < degrees[0].unsqueeze(1)
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    expected = (score + low).sigmoid().sum(dim=0)
    assert torch.allclose(expected, degrees[1].float(), rtol=0.02)


def test_who_knows_the_taste_ranks_best(tmp_path, monkeypatch):
    path = tmp_path / 'ids.csv'
    argv = ['', '--dataset', 'fake', '--seeds', '0', '--shares', '0', '1', '--epochs', '2', '--rows', str(path)]
    monkeypatch.setattr(when_ids_pay, 'COMPONENTS', 4)
    monkeypatch.setattr(sys, 'argv', [*argv, '--root', str(tmp_path)])
    when_ids_pay.main()
    found = {(row['variant'], float(row['share'])): row for row in rows.read(path)}
    assert len(found) == 2 * 9
    knows = {share: float(found['taste', share]['test_ndcg@20']) for share in (0, 1)}
    for (variant, share), row in found.items():
        assert float(row['test_ndcg@20']) < knows[share] or variant.startswith('taste')
    assert float(found['taste, content', 1]['test_ndcg@20']) == knows[1]
    assert float(found['taste, content', 0]['test_ndcg@20']) < knows[0] - 0.05
    monkeypatch.setattr(when_ids_pay, 'trained', lambda *args: pytest.fail('it ran again'))
    when_ids_pay.main()
    assert len(rows.read(path)) == 2 * 9


def test_the_spectrum_may_be_made_once(tmp_path, monkeypatch):
    path = tmp_path / 'dct.csv'
    monkeypatch.setitem(dct_in_loop.SIZES, 'small', {'num_users': 100, 'num_items': 60, 'interactions_per_user': 8})
    monkeypatch.setattr(dct_in_loop, 'WIDTHS', {'image': 12, 'text': 6})
    argv = ['', '--root', str(tmp_path), '--rows', str(path), '--epochs', '2', '--repeats', '2']
    monkeypatch.setattr(sys, 'argv', [*argv, '--dataset', 'fake', 'small'])
    dct_in_loop.main()
    found = rows.read(path)
    assert [row['way'] for row in found] == ['once', 'in each step'] * 4
    assert {row['width'] for row in found} == {'18', '24'}
    assert {float(row['largest_difference']) for row in found} == {0.0}
    assert len({row['loss'] for row in found}) == 2  # one a dataset


def test_features_of_words_are_those_of_the_formula():
    x = feature_cost.tf_idf(['a b a', 'b c', 'c'], words=2)  # of all, b and c are in two texts
    assert torch.allclose(x, torch.tensor([[1.0, 0.0], [0.5**0.5, 0.5**0.5], [0.0, 1.0]]))
    x = feature_cost.tf_idf(['a b a', 'b'])
    idf = 1 + torch.tensor(3 / 2).log()  # of a
    expected = torch.tensor([1.0, 2 * idf]) / (1 + 4 * idf**2).sqrt()  # the most frequent first
    assert torch.allclose(x[0], expected)


def test_features_have_a_price_and_a_worth(tmp_path, monkeypatch):
    path = tmp_path / 'features.csv'
    argv = ['', '--dataset', 'fake', '--seeds', '0', '--epochs', '2', '--rows', str(path), '--root', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', argv)
    feature_cost.main()
    found = {row['features']: row for row in rows.read(path)}
    assert found.keys() == feature_cost.FEATURES.keys()
    assert int(found['MiniLM, image']['width']) == int(found['MiniLM']['width']) + int(found['image']['width'])
    assert float(found['TF-IDF']['items_per_s']) > 100 and found['image']['items_per_s'] == 'nan'
    assert all(0 < float(row['test_ndcg@20']) <= 1 for row in found.values())
    monkeypatch.setattr(feature_cost, 'measure', lambda *args: pytest.fail('it ran again'))
    feature_cost.main()


def test_encoders_are_timed_without_their_loading(tmp_path, monkeypatch):
    texts, data = [f'text {item}' for item in range(100)], {'item': {'x_text': torch.ones(100, 2)}}
    clock = iter([0.0, 5.0, 5.0, 8.0])  # five seconds for all, three for the first
    monkeypatch.setattr(feature_cost.time, 'process_time', lambda: next(clock))
    sizes = []
    monkeypatch.setattr(
        feature_cost.catalogues, 'encoded', lambda some, folder: (sizes.append(len(some)), torch.ones(1))
    )
    x, number, seconds = feature_cost.made('MiniLM', data, texts, tmp_path, some=40)
    assert (x is data['item']['x_text'], number, seconds) == (True, 40, 2.0)
    assert sizes == [feature_cost.FEW + 40, feature_cost.FEW]
