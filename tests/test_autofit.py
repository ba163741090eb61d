import pytest
import torch

from lirdrec_pyg import LIRDRec, Trainer, autofit, evaluate, load_model, recommend
from lirdrec_pyg.autofit import _Deadline, _earlier, _finished, _gap, _mixes, _Race
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import ContentKNN, Popularity
from lirdrec_pyg.training import FitResult
from lirdrec_pyg.transforms import DCT, InteractionGraph, ItemKNNGraph, LeaveLastOut, RandomSplit, RecentItems
from lirdrec_pyg.typing import INTERACTS, ITEM, SIMILAR_TO, USER


@pytest.fixture
def raw():
    return FakeMultimodal(seed=1)[0]


def test_decides_on_validation_and_says_so(raw):
    train, val, test = RandomSplit()(raw)
    before = train.to_dict()
    result = autofit(train, val, progress=False)
    assert train.to_dict().keys() == before.keys() and 'spectrum' not in train[ITEM]
    assert list(result.values) == ['popularity', 'content kNN', 'content', 'collaborative features']
    assert result.values['popularity'] == evaluate(Popularity()(train), val, k=20)['ndcg@20']
    mixes = [evaluate(ContentKNN(mix)(train), val, k=20)['ndcg@20'] for mix in _mixes(['image', 'text'])]
    assert result.values['content kNN'] == max(mixes)
    value = evaluate(result.embeddings(), val, k=20)['ndcg@20']
    assert value == max(result.values.values())  # the model is the one that was best, as it was calibrated
    assert evaluate(result.embeddings(), test, k=20)['ndcg@20'] > evaluate(Popularity()(train), test, k=20)['ndcg@20']
    assert result.chosen['power'] == result.model.number('power')
    assert isinstance(result.model, LIRDRec) and not any(kind == 'item' for kind in result.model.tables().values())
    text = str(result)
    assert f'collaborative features  {result.values["collaborative features"]:.4f}' in text
    assert f'best epoch {result.fit.best_epoch} of {len(result.fit.log)}' in text
    assert result.warnings == [] and 'warning' not in text
    assert result.values['content kNN'] < value
    assert len(recommend(result.embeddings(), result.train, raw[USER].raw_id[:1], k=3)) == 3


def test_the_same_seed_decides_the_same(raw):
    train, val, _ = RandomSplit()(raw)
    first, again, other = (autofit(train, val, seed=seed, progress=False) for seed in (0, 0, 1))
    assert first.values == again.values and first.chosen == again.chosen
    assert torch.equal(first.embeddings().item, again.embeddings().item)
    assert first.values != other.values


def test_recent_items_are_tried_where_validation_is_later(raw):
    train, val, test = LeaveLastOut()(raw)
    assert _gap(train, val) == 1 and _gap(*RandomSplit()(raw)[:2]) == 0
    raw[INTERACTS].time = torch.zeros_like(raw[INTERACTS].time)  # no times at all
    assert _gap(*LeaveLastOut()(raw)[:2]) == 0
    result = autofit(train, val, progress=False)
    names = ['content', 'recent items']
    assert list(result.values)[2:] == [f'{name}{when}' for name in names for when in ('', ', without the latest')]
    before = {name: result.values[f'{name}, without the latest'] for name in names}
    assert result.chosen['model'] == max(before, key=before.get)
    assert ('recent_items' in result.train[USER]) == (result.chosen['model'] == 'recent items')
    assert evaluate(result.embeddings(), test, k=20)['ndcg@20'] > 0


def test_data_of_before_the_latest_interactions(raw):
    train = _finished(RecentItems(10)(LeaveLastOut()(raw)[0]))
    early = _earlier(train, 2)
    degree, before = (data[INTERACTS].edge_index[0].bincount(minlength=64) for data in (early, train))
    assert torch.equal(degree, (before - 2).clamp(min=1))
    assert torch.equal(early[USER].recent_items[:, :8], train[USER].recent_items[:, 2:])
    assert early[INTERACTS].adj_t.values().numel() == degree.sum()
    pairs = set(map(tuple, early[INTERACTS].edge_index.t().tolist()))
    assert pairs < set(map(tuple, train[INTERACTS].edge_index.t().tolist()))


def test_a_split_keeps_its_item_graph(raw):
    data = ItemKNNGraph(k=3)(DCT()(raw))
    train, val, _ = RandomSplit()(data)
    result = autofit(InteractionGraph()(train), val, progress=False)
    assert result.chosen['item graph'] == 'as given'
    assert torch.equal(result.train[SIMILAR_TO].edge_index, data[SIMILAR_TO].edge_index)
    plain = autofit(*RandomSplit()(raw)[:2], progress=False)
    assert set(plain.chosen['item graph']) == {'image', 'text'}


def test_a_trial_that_is_behind_is_given_up():
    class Run:
        done = False

        def stop(self):
            self.done = True

    def ends(values, others=(0.1, 0.2, 0.3, 0.3, 0.4, 0.5, 0.5, 0.5)):
        race, run = _Race(FitResult([{'m': value} for value in others], 6, 0.5), 'm'), Run()
        for run.epoch in range(1, len(values) + 1):
            run.best_value = max(values[: run.epoch])
            race.on_epoch(run, {})
            if run.done:
                return run.epoch
        return None

    assert ends([0.0, 0.0, 0.0, 0.0, 0.3]) == 5  # the first look
    assert ends([0.0, 0.0, 0.0, 0.0, 0.39, 0.49, 0.49, 0.49, 0.6]) == 8  # as old as the other, and no better
    assert ends([0.0, 0.0, 0.0, 0.0, 0.39, 0.49, 0.49, 0.51, 0.6]) is None


def test_minutes_end_training(raw):
    train, val, _ = RandomSplit()(raw)
    result = autofit(train, val, minutes=1e-9, progress=False)
    assert len(result.fit.log) == 1 and 'collaborative features' not in result.values
    assert any('minutes were over after 1 epochs' in warning for warning in result.warnings)
    with pytest.raises(ValueError, match=r"'minutes' needs to be positive \(got 0\)"):
        autofit(train, val, minutes=0)
    assert not _Deadline(None).reached


def test_warns_where_content_tells_nothing(raw):
    generator = torch.Generator().manual_seed(0)
    raw[ITEM].x_image, raw[ITEM].x_text = (torch.randn(raw[ITEM].num_nodes, 4, generator=generator) for _ in range(2))
    train, val, _ = RandomSplit()(raw)
    result = autofit(train, val, progress=False)
    assert result.values['content kNN'] < result.values['popularity']
    assert any('content tells little' in warning for warning in result.warnings)


def test_needs_features(raw):
    train, val, _ = RandomSplit()(raw)
    del train[ITEM].x_image, train[ITEM].x_text
    with pytest.raises(ValueError, match=r"'train' needs features of items"):
        autofit(train, val)


def test_the_model_is_saved_like_any_other(raw, tmp_path):
    train, val, _ = RandomSplit()(raw)
    result = autofit(train, val, progress=False)
    Trainer(result.model, result.train).save(tmp_path / 'model.pt')
    again = load_model(tmp_path / 'model.pt', result.train)
    assert torch.equal(again(result.train).item, result.embeddings().item)
