r"""Says which public functions lack what they return, or an example that is run."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ['datasets', 'features', 'transforms', 'nn', 'training', 'serving']
MODULES = ['lirdrec_pyg', *(f'lirdrec_pyg.{name}' for name in PARTS)]


def functions() -> list[tuple[str, object]]:
    out = {}
    for name in MODULES:
        module = importlib.import_module(name)
        out |= {part: getattr(module, part) for part in module.__all__ if inspect.isfunction(getattr(module, part))}
    return sorted(out.items())


@pytest.mark.parametrize(('name', 'function'), functions())
def test_it_says_what_it_returns(name, function):
    doc = inspect.getdoc(function) or ''
    returns = inspect.signature(inspect.unwrap(function)).return_annotation
    assert doc, name
    if returns not in (None, 'None', inspect.Signature.empty):
        assert re.search(r'^Returns:|\b[Rr]eturns? ', doc, flags=re.MULTILINE), f'{name} does not say what it returns'


def executed() -> str:
    pages = [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'), *(ROOT / 'docs' / 'guides').glob('*.md')]
    code = [code for page in pages for code in re.findall(r'```python\n(.*?)```', page.read_text(), flags=re.DOTALL)]
    return '\n'.join([*code, *(path.read_text() for path in (ROOT / 'examples').glob('*.py'))])


@pytest.mark.parametrize('name', [name for name, _ in functions()])
def test_a_page_or_an_example_that_is_run_calls_it(name):
    assert re.search(rf'\b{name}\(', executed()), f'no page of docs and no example calls {name}'
