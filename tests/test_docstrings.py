r"""Holds the API to its docstrings: each name says what it returns, and has an example, which is run here."""

import copy
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.sampler import EdgeSamplerInput

from lirdrec_pyg.datasets import FakeMultimodal, InteractionTable

ROOT = Path(__file__).parents[1]
PARTS = [
    'datasets',
    'features',
    'transforms',
    'nn',
    'training',
    'serving',
    'ranking',
    'typing',
    'autofit',
    'nn.kernels',
]
ENCODERS = ['SentenceTransformerEncoder', 'TransformersTextEncoder', 'TransformersImageEncoder', 'TimmEncoder']
DOWNLOADED = ['MovieLens100K', 'MicroLens', 'AmazonReviews']
ON_PAGES = {  # a page that is run shows them: see test_docs.py
    'AutofitResult': 'docs/quickstart.md',
}


def public() -> dict[str, Any]:
    r"""Returns the classes and functions that have a page in the API."""
    out = {}
    for part in PARTS:
        module = importlib.import_module(f'lirdrec_pyg.{part}')
        own = [name for name, value in vars(module).items() if getattr(value, '__module__', '') == module.__name__]
        for name in getattr(module, '__all__', [name for name in own if not name.startswith('_')]):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                out[name] = value
    return dict(sorted(out.items()))


PUBLIC = public()


def methods(kind: type) -> dict[str, Any]:
    r"""Returns what a class itself adds to its bases and explains: functions and properties by name."""
    out = {}
    for name, value in vars(kind).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        known = inspect.isfunction(function) or isinstance(function, property)
        if known and not name.startswith('_') and function.__doc__:
            out[name] = function
    return out


CALLED = PUBLIC | {
    f'{name}.{part}': function
    for name, kind in PUBLIC.items() if inspect.isclass(kind)
    for part, function in methods(kind).items() if inspect.isfunction(function)
}  # fmt: skip
CALLED = {name: value for name, value in CALLED.items() if not inspect.isclass(value)}


@pytest.mark.parametrize('name', CALLED)
def test_it_says_what_it_returns(name):
    function = CALLED[name]
    doc = inspect.getdoc(function) or ''
    returns = inspect.signature(inspect.unwrap(function)).return_annotation
    assert doc, name
    if returns not in (None, 'None', inspect.Signature.empty):
        said = r'\b[Rr]eturns?\b|^Iterates over|^Yields|^Whether'
        assert re.search(said, doc, flags=re.MULTILINE), f'{name} does not say what it returns'


def snippets(text: str) -> list[str]:
    r"""Returns the code blocks of a docstring."""
    found = re.findall(r'^( *)\.\. code-block:: python\n\n((?:\1    .*\n|\n)+)', text + '\n', flags=re.MULTILINE)
    return [textwrap.dedent(code) for _, code in found]


@pytest.mark.parametrize('name', PUBLIC)
def test_it_has_an_example(name):
    if name in ON_PAGES:
        assert re.search(rf'\b{name}\b', (ROOT / ON_PAGES[name]).read_text()), name
    else:
        assert snippets(inspect.getdoc(PUBLIC[name]) or ''), f'{name} has no example in its docstring'


class FakeEncoder:
    r"""In place of a model to download: how many letters, for each text or picture."""

    def __init__(self, name: str = '', *args: Any, **kwargs: Any) -> None:
        self.name = name

    def __call__(self, items: list[Any]) -> Tensor:
        return torch.tensor([[float(len(str(item))), 1.0] for item in items])


class FakeCaptioner(FakeEncoder):
    def __call__(self, items: list[Any]) -> list[str]:  # type: ignore[override]
        return ['a red cup' for _ in items]


class SummaryWriter:
    r"""In place of that of TensorBoard."""

    def __init__(self, folder: str) -> None: ...

    def add_scalar(self, name: str, value: float, step: int) -> None: ...


def fake(dataset: type) -> Callable[..., Any]:
    r"""Returns what takes the arguments of a dataset that would be downloaded, and gives generated data."""

    def make(*args: Any, **kwargs: Any) -> list[HeteroData]:
        inspect.signature(dataset).bind(*args, **kwargs)
        data = FakeMultimodal(seed=0)[0]
        data['item'].text = data['item'].title
        return [data]

    return make


@pytest.fixture(scope='module')
def start(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    r"""What examples start from, and the folder with its files."""
    Image = pytest.importorskip('PIL.Image')
    folder = tmp_path_factory.mktemp('examples')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (code,) = re.findall(r'^```python\n(.*?)^```', (ROOT / 'docs/api/index.md').read_text(), re.S | re.M)
        known: dict[str, Any] = {'__name__': 'examples'}
        exec(code, known)
    known = PUBLIC | known | {part.__name__: part for part in (Tensor, HeteroData, EdgeSamplerInput)}
    known |= dict.fromkeys(ENCODERS, FakeEncoder) | {'TransformersCaptioner': FakeCaptioner}
    known |= {name: fake(PUBLIC[name]) for name in DOWNLOADED} | {'SummaryWriter': SummaryWriter}
    Image.new('RGB', (20, 20), 'red').save(folder / 'cup.jpg')
    orders = [f'{user},{item},2026-01-{day:02d}' for user in 'abcd' for day, item in enumerate('uvwxyz', 1)]
    (folder / 'orders.csv').write_text('\n'.join(['customer,sku,date', *orders]))
    products = [f'{item},item {item},about {item}' for item in 'uvwxyzabcdef']
    (folder / 'products.csv').write_text('\n'.join(['sku,name,description', *products]))
    assert InteractionTable(folder / 'orders.csv', folder / 'products.csv', user='customer', item='sku')
    return folder, known


@pytest.mark.parametrize('name', [name for name in PUBLIC if name not in ON_PAGES])
def test_its_examples_run(name, start, tmp_path, monkeypatch):
    folder, known = start
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    known = known | {'model': copy.deepcopy(known['model']), **{key: known[key].clone() for key in ('data', 'train')}}
    for code in snippets(inspect.getdoc(PUBLIC[name]) or ''):
        exec(compile(code, f'the example of {name}', 'exec'), known)


def executed() -> str:
    r"""Returns all code that the tests run: that of docstrings, of pages and of the examples."""
    pages = [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'), *(ROOT / 'docs' / 'guides').glob('*.md')]
    code = [code for page in pages for code in re.findall(r'```python\n(.*?)```', page.read_text(), flags=re.DOTALL)]
    code += [code for name, value in PUBLIC.items() for code in snippets(inspect.getdoc(value) or '')]
    return '\n'.join([*code, *(path.read_text() for path in (ROOT / 'examples').glob('*.py'))])


EXECUTED = executed()
USED = {  # the classes whose methods users call; those of others are called by `fit` and by models
    'AutofitResult', 'BPRSampler', 'Components', 'Embeddings', 'InteractionTable', 'LiveModel', 'MappedFeatures', 'PCA',
    'Propagation', 'Retriever', 'Trainer',
}  # fmt: skip
METHODS = [name for name in CALLED if name.partition('.')[0] in USED and not name.endswith(('.identity', '.forward'))]


@pytest.mark.parametrize('name', METHODS)
def test_an_example_uses_it(name):
    assert re.search(rf'\.{name.partition(".")[2]}\b', EXECUTED), f'no page of docs and no example uses {name}'
