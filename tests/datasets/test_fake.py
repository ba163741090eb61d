import pytest
import torch

from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.typing import INTERACTS, TEST, TRAIN, VAL, modalities


def test_fake():
    dataset = FakeMultimodal()
    assert str(dataset) == (
        "FakeMultimodal(num_users=64, num_items=48, num_blocks=2, interactions_per_user=8, widths={'image': 16, "
        "'text': 8}, noise=0.1, num_cold_items=0, missing={}, seed=0)"
    )
    assert len(dataset) == 1
    data = dataset[0]
    data.validate()
    assert data['user'].num_nodes == 64 and data['item'].num_nodes == 48
    assert data['item'].x_image.shape == (48, 16) and data['item'].x_text.shape == (48, 8)
    assert data['item'].title[3] == 'item 3 (block 1)'
    user, item = data[INTERACTS].edge_index
    assert torch.equal(data['user'].block[user], data['item'].block[item])
    assert torch.unique(user * 48 + item).numel() == user.numel() == 64 * 8
    split = data[INTERACTS].split
    for value, count in ((TRAIN, 6), (VAL, 1), (TEST, 1)):
        assert torch.equal(user[split == value].bincount(minlength=64), torch.full((64,), count))
    assert item[split == TRAIN].unique().numel() == 48
    assert data[INTERACTS].time.view(64, 8)[5].tolist() == list(range(8))
    assert len(data['user'].raw_id) == 64 and len(set(data['item'].raw_id)) == 48


@pytest.mark.parametrize(('num_users', 'num_blocks', 'size'), [(5, 2, 9), (7, 3, 6), (4, 4, 6), (40, 1, 3)])
def test_fake_trains_on_each_warm_item(num_users, num_blocks, size):
    data = FakeMultimodal(num_users, 24, num_blocks, interactions_per_user=size, seed=3)[0]
    train = data[INTERACTS].split == TRAIN
    possible = sum(
        min(int((data['item'].block == b).sum()), int((data['user'].block == b).sum()) * (size - 2))
        for b in range(num_blocks)
    )
    assert data[INTERACTS].edge_index[1, train].unique().numel() == possible


def test_fake_features_tell_the_block():
    data = FakeMultimodal(num_blocks=3)[0]
    distance = torch.cdist(data['item'].x_image, data['item'].x_image).fill_diagonal_(float('inf'))
    assert torch.equal(data['item'].block[distance.argmin(dim=1)], data['item'].block)
    exact = FakeMultimodal(noise=0.0)[0]['item']
    assert torch.equal(exact.x_text[0], exact.x_text[2])


def test_fake_cold_items_and_missing_modalities():
    data = FakeMultimodal(num_cold_items=6, missing={'text': 0.25}, seed=2)[0]
    user, item = data[INTERACTS].edge_index
    assert torch.equal(data['user'].block[user], data['item'].block[item])
    assert item[data[INTERACTS].split != TEST].max() == 41
    assert item.bincount()[42:].tolist() == [4] * 6
    assert torch.unique(user * 48 + item).numel() == user.numel()
    has = data['item'].has_text
    assert has.dtype == torch.bool and int((~has).sum()) == 12
    assert torch.equal(data['item'].x_text.abs().sum(dim=1) > 0, has)
    assert 'has_image' not in data['item']


def test_fake_seed():
    torch.manual_seed(1)
    first = FakeMultimodal(seed=1)[0]
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)  # the global generator is left alone
    second, other = FakeMultimodal(seed=1)[0], FakeMultimodal(seed=2)[0]
    assert torch.equal(first['item'].x_image, second['item'].x_image)
    assert torch.equal(first[INTERACTS].edge_index, second[INTERACTS].edge_index)
    assert not torch.equal(first[INTERACTS].edge_index, other[INTERACTS].edge_index)


def test_fake_arguments():
    assert modalities(FakeMultimodal(widths={'b': 2, 'a': 3})[0]) == ['a', 'b']
    assert FakeMultimodal(transform=lambda data: data['item'].num_nodes)[0] == 48
    for kwargs, message in [
        ({'num_blocks': 0}, r"'num_blocks' needs to be in \[1, 64\], the users \(got 0\)"),
        ({'interactions_per_user': 2}, r"'interactions_per_user' needs to be in \[3, 24\].* \(got 2\)"),
        ({'num_cold_items': 40}, r"'interactions_per_user' needs to be in \[3, 4\].* \(got 8\)"),
        ({'num_cold_items': -1}, r"'num_cold_items' needs to be at least 0 \(got -1\)"),
        ({'widths': {}}, r"'widths' needs one or more modalities"),
        ({'noise': -1.0}, r"'noise' needs to be at least 0 \(got -1.0\)"),
        ({'missing': {'audio': 0.5}}, r"'missing' needs shares .* \(got 0.5 of 'audio'\)"),
        ({'missing': {'text': 1.5}}, r"'missing' needs shares .* \(got 1.5 of 'text'\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            FakeMultimodal(**kwargs)
