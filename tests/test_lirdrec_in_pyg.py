r"""The model in a hundred lines of PyG agrees with the library's."""

import runpy
from pathlib import Path

import pytest
import torch

from lirdrec_pyg import LIRDRec
from lirdrec_pyg.transforms import DCT, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.transforms.dct import dct
from lirdrec_pyg.typing import INTERACTS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def example():
    return runpy.run_path(str(ROOT / 'examples' / 'lirdrec_in_pyg.py'))


@pytest.fixture
def pair(example):
    r"""Data and model of the example, and the same for the library, with the same weights."""
    torch.manual_seed(0)
    data, _ = example['generate'](num_users=40, num_items=60)
    model = example['LIRDRec'](40, [48, 24], d=16)

    train = data.clone()
    del train['user', 'to', 'item'], train.edge_index, train.edge_weight, train.similar, train.similar_weight
    train[INTERACTS].edge_index = data['user', 'item'].edge_index
    train = ItemKNNGraph(k=10, weights={'image': 0.1, 'text': 0.9})(DCT()(train))
    train = InteractionGraph()(train)
    ours = LIRDRec.from_data(train, seed=1, hidden_channels=16)
    state = {'user': model.user, 'fusion.theta': model.theta}
    for name, encoder in zip(['encoders.image', 'encoders.text', 'shared_encoder'], model.encoders, strict=True):
        state |= {f'{name}.lin{i + 1}.{key}': value for i in (0, 1) for key, value in encoder[2 * i].named_parameters()}
    for name, value in model.nets.named_parameters():
        state[f'fusion.nets.{name}'] = value
    assert set(state) == set(dict(ours.named_parameters()))
    ours.load_state_dict({name: value.detach().clone() for name, value in state.items()}, strict=False)
    return data, model, train, ours


@pytest.mark.parametrize('size', [1, 2, 7, 24])
def test_dct(example, size):
    x = torch.randn(5, size)
    assert torch.allclose(example['dct'](x), torch.from_numpy(dct(x.numpy())), atol=1e-6)


def test_scores_losses_and_steps_agree(pair):
    data, model, train, ours = pair
    user, pos = train[INTERACTS].edge_index
    optimizers = [torch.optim.Adam(part.parameters(), lr=1e-3) for part in (model, ours)]
    for epoch in (1, 2, 3):  # progressive weight copying, too
        model.start_epoch(epoch)
        ours.on_epoch_start(epoch)
        for _ in range(2):
            batch, neg = torch.randperm(len(user))[:100], torch.randint(60, (100,))
            args = user[batch], pos[batch], neg
            losses = [model.loss(data, *args), ours.loss(train, *args)]
            assert torch.allclose(*losses, atol=1e-5)
            for loss, optimizer in zip(losses, optimizers, strict=True):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        scores = [z[0] @ z[1].t() for z in (model(data), ours.embed(train))]
        assert torch.allclose(*scores, rtol=1e-5, atol=1e-5)
        model.loss(data, *args), ours.loss(train, *args)  # the weights that the next epoch starts from


def test_it_learns_and_prints_it(run_script):
    out = run_script('examples/lirdrec_in_pyg.py', '--epochs', '20')
    popularity, learned = (float(line.split()[line.split().index('ndcg@10') + 1]) for line in out.splitlines())
    assert learned > 2 * popularity


def test_it_needs_nothing_of_the_library():
    code = (ROOT / 'examples' / 'lirdrec_in_pyg.py').read_text()
    assert 'import lirdrec_pyg' not in code and 'from lirdrec_pyg' not in code
    assert 'faiss' not in code
    start = code.index('def dct')
    assert code[start : code.index('def generate')].count('\n') < 100  # the model, its graphs and the DCT
