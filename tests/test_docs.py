r"""Runs the snippets of the README and of the pages of ``docs``, and checks the commands they name."""

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from lirdrec_pyg import LazyAdam, LIRDRec, MappedFeatures, MiniBatches, fit, load_model
from lirdrec_pyg.datasets import InteractionTable
from lirdrec_pyg.features import encode_texts
from lirdrec_pyg.transforms import compress_features

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


def test_the_readme_trains_and_serves(tmp_path, capsys):
    known: dict[str, Any] = {'__name__': 'readme'}
    for code in snippets('README.md')[:2]:
        run(code, 'README.md', known)
    out = capsys.readouterr().out
    assert 'content kNN' in out and "'recall@10'" in out and 'rank' in out
    served = known['live'].retriever.recommend(['anna', 'user-0'], k=5)
    assert list(served['user']) == ['anna'] * 5 + ['user-0'] * 5
    assert not {'item-0', 'new-1', 'item-4'} & set(served[served['user'] == 'anna']['item'])
    assert (tmp_path / 'shop').is_dir()


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
    }
    run(
        code.replace('from lirdrec_pyg.features import SentenceTransformerEncoder, encode_texts', ''),
        'README.md',
        known,
    )
    assert known['data']['item'].x_text.shape == (12, 3)


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
    small, code = snippets('docs/scale.md')
    noise = np.random.default_rng(0)
    for name in ('image_feat', 'new_image_feat'):  # 512 columns of which a few hold all
        x = noise.standard_normal((known['num_items'], 4)) @ noise.standard_normal((4, 512))
        np.save(tmp_path / f'{name}.npy', x.astype(np.float32))
    (tmp_path / 'small').mkdir()
    run(small, 'docs/scale.md', known | {'compress_features': compress_features})
    assert np.load(tmp_path / 'small' / 'new.npy').shape == (known['num_items'], 4)
    run(code, 'docs/scale.md', known)
    assert known['embeddings'].user.size(0) == train['user'].num_nodes


class FakeEncoder:
    r"""In place of a model to download: what an item is, in eight numbers."""

    def __init__(self, name: str = '') -> None:
        self.name = name

    def __call__(self, items: list[Any]) -> torch.Tensor:
        rows = []
        for item in items:
            words = item.lower().split() if isinstance(item, str) else [str(item.getpixel((0, 0)))]
            row = torch.full((8,), 0.1)
            for word in words:
                row[sum(word.encode()) % 8] += 1
            rows.append(row)
        return torch.stack(rows)


GUIDES = [
    'quickstart',
    'guides/own_shop',
    'guides/features',
    'guides/serving',
    'guides/processes',
    'report',
    'catalogue',
]


@pytest.mark.parametrize('page', GUIDES)
def test_every_snippet_of(page, monkeypatch, capsys):
    if 'features' in page:
        pytest.importorskip('PIL')
    monkeypatch.setattr('lirdrec_pyg.features.SentenceTransformerEncoder', FakeEncoder)
    monkeypatch.setattr('lirdrec_pyg.features.TransformersImageEncoder', FakeEncoder)
    known: dict[str, Any] = {'__name__': 'page'}
    for number, code in enumerate(snippets(f'docs/{page}.md')):
        run(code, f'{page}, snippet {number}', known)
    out = capsys.readouterr().out
    shown = {
        'quickstart': r'FitResult\(\d+ epochs, best_epoch=\d+, best_value=0\.\d{4}\)(.|\n)*user-1',
        'guides/own_shop': r'Just In: Rye Bread',
        'guides/features': r'\[ True,  True, False, False\](.|\n)*torch\.Size\(\[48, 8\]\)',
        'guides/serving': r'item-new(.|\n)*user-new(.|\n)*Retriever\(',
        'guides/processes': '',
        'catalogue': r'user-0 .* \[item-',
        'report': '',
    }
    assert re.search(shown[page], out), out


@pytest.mark.filterwarnings('error::UserWarning:lirdrec_pyg')
def test_the_chain_of_the_page_on_amazon(tmp_path, run_script, monkeypatch):
    pytest.importorskip('sentence_transformers')
    commands = [line for line in commands_of('docs/guides/amazon.md') if 'data/fake' in line]
    assert len(commands) == 3
    out = [run_script(*shlex.split(line.replace('data/fake', f'{tmp_path}/data/fake'))[1:]) for line in commands]
    assert 'python examples/extract_features.py --fake --items' in out[0]  # what comes next
    assert 'text: (' in out[1]
    assert re.search(r'ndcg +@5 .* @20 0', out[2])
    monkeypatch.chdir(tmp_path)
    for code in snippets('docs/guides/amazon.md'):
        run(code, 'amazon.md', {})


def commands_of(page: str) -> list[str]:
    blocks = re.findall(r'^```(?:bash|sh)?\n(.*?)^```', (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    return [line.partition('  #')[0].strip() for line in lines if line.startswith(('python ', 'torchrun ', 'make '))]


PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / 'README.md', *(ROOT / 'docs').rglob('*.md')])


WIDE = 88  # what a page of the site shows of a line of code without scrolling


@pytest.mark.parametrize('page', [*GUIDES, 'extending', 'guides/amazon', 'install', 'coming_from', 'api/index'])
def test_code_is_as_wide_as_the_page(page):
    blocks = re.findall(
        r'^```(?:python|bash)\n(.*?)^```', (ROOT / f'docs/{page}.md').read_text(), re.DOTALL | re.MULTILINE
    )
    assert [line for block in blocks for line in block.splitlines() if len(line) > WIDE] == []


def test_no_comment_ends_a_paragraph_of_the_readme():
    text = (ROOT / 'README.md').read_text()
    assert re.findall(r'^ *<!-- value.*', text, flags=re.MULTILINE) == []  # GitHub would start a block there


def anchors(text: str) -> set[str]:
    r"""Returns the names that headings have on GitHub and on the site."""
    headings = re.findall(r'^#+ (.*)', re.sub(r'^```.*?^```', '', text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', [page for page in PAGES if '_build' not in page])
def test_links_lead_somewhere(page):
    text = re.sub(r'^```.*?^```', '', (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
        target, _, anchor = link.partition('#')
        if re.match(r'\w+:', link):  # of another site
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path.read_text()), link


@pytest.mark.parametrize('page', [page for page in PAGES if '_build' not in page])
def test_commands_exist(page):
    targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), flags=re.MULTILINE))
    for line in commands_of(page):
        words = shlex.split(line)
        if words[0] == 'make':
            assert {word for word in words[1:] if '=' not in word} <= targets, line
            continue
        script = next((word for word in words if word.endswith('.py')), None)
        if script is None:
            script = words[words.index('-m') + 1].replace('.', '/') + '.py'
        path = ROOT / script
        assert path.is_file(), line
        code = path.read_text()
        for helper in re.findall(r'^from (benchmarks[\w.]*) import', code, flags=re.MULTILINE):
            parts = ROOT / (helper.replace('.', '/') + '.py')
            code += parts.read_text() if parts.is_file() else ''
        own = words[words.index(script) + 1 :] if script in words else words
        for option in own:
            if option.startswith('--') and option != '--nproc-per-node':
                assert f"'{option.partition('=')[0]}'" in code, (line, option)
