import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from lirdrec_pyg.training.sampler import BPRSampler


def epoch(sampler):
    return [torch.cat(part) for part in zip(*sampler, strict=True)]


@settings(max_examples=100, deadline=None)
@given(
    num_users=st.integers(1, 12),
    num_items=st.integers(2, 20),
    density=st.floats(0.05, 0.95),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_triplets(num_users, num_items, density, batch_size, seed):
    g = torch.Generator().manual_seed(seed)
    edge_index = (torch.rand(num_users, num_items, generator=g) < density).nonzero().t()
    num_seen = edge_index[1].unique().numel()
    if edge_index.size(1) == 0 or int(torch.bincount(edge_index[0]).max()) == num_seen:
        with pytest.raises(ValueError):
            BPRSampler(edge_index, num_users, num_items)
        return

    sampler = BPRSampler(edge_index, num_users, num_items, batch_size, seed)
    positives = set(map(tuple, edge_index.t().tolist()))
    seen = set(edge_index[1].tolist())
    for _ in range(2):
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert [batch[0].numel() for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert all(part.dtype == torch.long for batch in batches for part in batch)
        user, pos, neg = (torch.cat(part).tolist() for part in zip(*batches, strict=True))
        assert sorted(zip(user, pos, strict=True)) == sorted(positives)
        assert not positives & set(zip(user, neg, strict=True))
        assert set(neg) <= seen


def test_negatives_are_uniform_over_the_allowed_items():
    edge_index = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2], [1, 4, 9, 2, 3, 5, 6, 8]])  # item 0 and 7 are never seen
    sampler = BPRSampler(edge_index, 3, 12)
    allowed = {0: [2, 3, 5, 6, 8], 1: [1, 4, 8, 9], 2: [1, 2, 3, 4, 5, 6, 9]}
    for user, items in allowed.items():
        count = torch.bincount(sampler.sample_negatives(torch.full((70_000,), user)), minlength=12)
        assert count.nonzero().view(-1).tolist() == items
        expected = 70_000 / len(items)
        chi_square = ((count[items] - expected) ** 2 / expected).sum()
        assert chi_square < 22.5  # p = 0.001 at 6 degrees of freedom


def test_own_generator_and_resume():
    g = torch.Generator().manual_seed(0)
    edge_index = (torch.rand(30, 40, generator=g) < 0.2).nonzero().t()
    state = torch.get_rng_state()
    first, other = BPRSampler(edge_index, 30, 40, 16, seed=1), BPRSampler(edge_index, 30, 40, 16, seed=2)
    epochs = [epoch(first) for _ in range(2)]
    saved = first.state_dict()
    epochs += [epoch(first) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(epochs[0][1], epochs[1][1])
    assert not torch.equal(epochs[0][1], epoch(other)[1])

    torch.manual_seed(99)
    same = BPRSampler(edge_index, 30, 40, 16, seed=1)
    for expected in epochs:
        assert all(map(torch.equal, epoch(same), expected))
    other.load_state_dict(saved)
    for expected in epochs[2:]:
        assert all(map(torch.equal, epoch(other), expected))

    other.load_state_dict(saved)
    next(iter(other))  # the epoch is drawn as a whole: its state is already that of the next one
    assert all(map(torch.equal, epoch(other), epochs[3]))


def test_messages():
    edge_index = torch.tensor([[0, 0, 1], [0, 1, 1]])
    with pytest.raises(ValueError, match=r'each user a negative \(got user 0 with all 2 items'):
        BPRSampler(edge_index, 2, 5)
    with pytest.raises(ValueError, match=r"'edge_index' needs to be \[2, E\] with at least one pair \(got \[2, 0\]\)"):
        BPRSampler(edge_index[:, :0], 2, 5)
    with pytest.raises(ValueError, match=r"'batch_size' needs to be at least 1 \(got 0\)"):
        BPRSampler(edge_index, 2, 5, batch_size=0)
    with pytest.raises(ValueError, match=r"users of 'edge_index' need to be in \[0, 0\] \(got 1\)"):
        BPRSampler(edge_index, 1, 5)
    with pytest.raises(ValueError, match=r"items of 'edge_index' need to be in \[0, 4\] \(got -1\)"):
        BPRSampler(edge_index - torch.tensor([[0], [1]]), 2, 5)
    sampler = BPRSampler(torch.tensor([[0, 1], [0, 1]]), 2, 5)
    with pytest.raises(ValueError, match=r"'state_dict' needs the key 'generator' alone \(got \['rng'\]\)"):
        sampler.load_state_dict({'rng': torch.zeros(1)})
    assert str(sampler) == 'BPRSampler(num_pairs=2, num_users=2, num_items=5, batch_size=2048, seed=0)'
