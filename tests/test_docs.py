r"""Runs the snippets of the README and of the pages of ``docs``."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from lirdrec_pyg import LazyAdam, LIRDRec, MappedFeatures, MiniBatches, fit, load_model
from lirdrec_pyg.datasets import FakeMultimodal, InteractionTable, save_mmrec
from lirdrec_pyg.features import encode_texts
from lirdrec_pyg.transforms import DCT, ItemKNNGraph, LeaveLastOut

ROOT = Path(__file__).parents[1]


def snippets(page: str) -> list[str]:
    found = re.findall(r'^```python\n(.*?)^```', (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    assert found, page
    return found


def run(code: str, name: str, known: dict[str, Any]) -> None:
    exec(compile(code, name, 'exec'), known)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_snippet_on_extending(monkeypatch, capsys):
    written = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            assert folder == 'runs/first'

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, step))

    board = ModuleType('torch.utils.tensorboard')
    board.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', board)
    known: dict[str, Any] = {'__name__': 'extending'}
    for number, code in enumerate(snippets('docs/extending.md')):
        run(code, f'snippet {number}', known)
    assert written == [(name, epoch) for epoch in (1, 2, 3) for name in ('epoch', 'loss', 'recall@20', 'seconds')]
    out = capsys.readouterr().out
    assert 'objective=Hinge(margin=0.5)' in out
    assert re.findall(r'epoch (\d)', out) == ['1', '2', '3']
    assert len(known['result'].log) < 100  # a callback ended the run
    assert known['trainer'].epoch == 4  # it went on
    loaded = known['evaluate'](known['model'](known['train']), known['test'], k=10)
    assert loaded['recall@10'] > 0.4  # chance: 10 of 42 items


def test_a_part_of_ones_own_is_loaded_from_a_checkpoint():
    known: dict[str, Any] = {'__name__': 'extending'}
    for code in snippets('docs/extending.md')[:3]:
        run(code, 'snippet', known)
    for settings in ({'objective': known['Hinge'](margin=0.5)}, {'fusion': known['Gate']()}):
        model = LIRDRec.from_data(known['train'], seed=0, hidden_channels=8, **settings)
        fit(model, known['train'], known['val'], epochs=1, checkpoint='model.pt', overwrite=True, progress=False)
        again = load_model('model.pt')
        assert repr(again) == repr(model)
        assert all(torch.equal(x, y) for x, y in zip(again(known['train']), model(known['train']), strict=True))


@pytest.mark.filterwarnings('ignore:.*differs from the published')
def test_the_whole_story_of_the_readme(tmp_path, capsys):
    data = FakeMultimodal(seed=0)[0]
    del data['user'].raw_id, data['item'].raw_id  # the published files have numbers alone
    save_mmrec(data, tmp_path, 'baby')
    code = snippets('README.md')[0].replace('lr=1e-4', 'lr=1e-2, epochs=2')
    assert 'epochs=2' in code
    run(code, 'README.md', {'root': str(tmp_path)})
    out = capsys.readouterr().out
    assert 'recall@10' in out
    assert 'rank' in out
    assert (tmp_path / 'baby.pt').is_file()


def test_own_tables_of_the_readme(tmp_path):
    orders = [f'{user},{item},2026-01-{day:02d}' for user in 'abcd' for day, item in enumerate('uvwxyz', 1)]
    (tmp_path / 'orders.csv').write_text('\n'.join(['customer,sku,date', *orders]))
    products = [f'{item},item {item},about {item} {i % 3}' for i, item in enumerate('uvwxyzabcdef')]
    (tmp_path / 'products.csv').write_text('\n'.join(['sku,name,about', *products]))

    def encoder(texts: list[str]) -> torch.Tensor:  # in place of a model to download
        return torch.tensor([[float(len(text)), float(ord(text[5])), 1.0] for text in texts])

    (code,) = (code for code in snippets('README.md') if 'InteractionTable' in code)
    known = {
        'InteractionTable': InteractionTable,
        'SentenceTransformerEncoder': lambda: encoder,
        'encode_texts': encode_texts,
        **{part.__name__: part for part in (DCT, ItemKNNGraph, LeaveLastOut)},
    }
    run(code, 'README.md', known)
    assert known['train']['item'].x_text.shape == (12, 3)


def test_mini_batches_of_the_page_on_scale(tmp_path, splits):
    train, val, _ = splits
    np.save(tmp_path / 'text_feat.npy', train['item'].x_text.numpy())
    known = {
        'train': train,
        'val': val,
        'num_users': train['user'].num_nodes,
        'num_items': train['item'].num_nodes,
        **{part.__name__: part for part in (LazyAdam, LIRDRec, MappedFeatures, MiniBatches)},
        'fit': lambda *args, **kwargs: fit(*args, **kwargs, epochs=1),
    }
    (code,) = snippets('docs/scale.md')
    run(code, 'docs/scale.md', known)
    assert known['embeddings'].user.size(0) == train['user'].num_nodes
