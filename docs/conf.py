r"""The site, built by ``make docs``. Pages are Markdown; the API comes from the docstrings."""

import importlib
import inspect
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import lirdrec_pyg  # noqa: E402

project = 'lirdrec_pyg'
author = 'the authors of lirdrec_pyg'
version = release = lirdrec_pyg.__version__
html_title = f'lirdrec_pyg {release}'
html_theme = 'furo'
html_show_copyright = False
html_static_path = ['_static']
html_css_files = ['tables.css']
html_theme_options = {'navigation_with_keys': True}

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx.ext.napoleon',
    'sphinx.ext.mathjax',
    'sphinx.ext.viewcode',
]
exclude_patterns = ['_build']
templates_path = ['_templates']
myst_enable_extensions = ['dollarmath', 'colon_fence', 'deflist']
myst_heading_anchors = 3
autosummary_ignore_module_all = False
autodoc_typehints = 'none'  # the docstrings have them, with defaults
autodoc_member_order = 'bysource'
napoleon_custom_sections = [('Shapes', 'notes_style')]
napoleon_use_rtype = False
nitpick_ignore_regex = [(r'py:.*', r'(?!lirdrec_pyg\b).*')]  # what others document; ours has to be found
if os.environ.get('READTHEDOCS'):  # elsewhere, the build needs no network
    extensions.append('sphinx.ext.intersphinx')
    intersphinx_mapping = {
        'python': ('https://docs.python.org/3', None),
        'torch': ('https://docs.pytorch.org/docs/stable', None),
        'torch_geometric': ('https://pytorch-geometric.readthedocs.io/en/latest', None),
    }

MODULES = {
    'lirdrec_pyg.datasets': 'Datasets',
    'lirdrec_pyg.features': 'Features',
    'lirdrec_pyg.transforms': 'Transforms',
    'lirdrec_pyg.nn': 'Models and their parts',
    'lirdrec_pyg.nn.kernels': 'Kernels',
    'lirdrec_pyg.training': 'Training',
    'lirdrec_pyg.autofit': 'Without tuning',
    'lirdrec_pyg.ranking': 'Ranking',
    'lirdrec_pyg.serving': 'Serving',
    'lirdrec_pyg.typing': 'The data contract',
}


HOME: dict[int, str] = {}  # the one name under which an object has its page


def public(module: ModuleType) -> list[str]:
    r"""Returns the names of classes and functions that a module offers."""
    names = getattr(module, '__all__', None)
    if names is None:
        names = [name for name in vars(module) if not name.startswith('_')]
        names = [name for name in names if getattr(vars(module)[name], '__module__', '') == module.__name__]
    found = [name for name in names if inspect.isclass(vars(module)[name]) or inspect.isfunction(vars(module)[name])]
    return sorted(found, key=str.lower)


def write_api() -> None:
    r"""Writes a page for each module with a table of what it offers. Each name has its page once, in the first module
    that offers it."""
    folder = HERE / 'api' / 'modules'
    folder.mkdir(exist_ok=True)
    for name, title in MODULES.items():
        module = importlib.import_module(name)
        own = [part for part in public(module) if id(vars(module)[part]) not in HOME]
        HOME.update({id(vars(module)[part]): f'{name}.{part}' for part in own})
        lines = [title, '=' * len(title), '', f'``{name}``: {(module.__doc__ or "").strip()}', '']
        lines += [
            f'.. module:: {name}',
            '',
            '.. autosummary::',
            '   :toctree: ../generated',
            '   :nosignatures:',
        ]
        text = '\n'.join([*lines, '', *(f'   {part}' for part in own), ''])
        write(folder / f'{name}.rst', text)
    names = [HOME[id(vars(lirdrec_pyg)[name])] for name in public(lirdrec_pyg)]
    head = '.. currentmodule:: lirdrec_pyg\n\n``from lirdrec_pyg import …``\n--------------------------------\n\n'
    write(folder / 'names.txt', head + '\n'.join(f'- :obj:`~{name}`' for name in names) + '\n')


def write(path: Path, text: str) -> None:
    r"""Writes a page. One that has not changed is left alone, so that it is not read again."""
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> Any:
    r"""Finds what is known under another of its names, such as ``lirdrec_pyg.LIRDRec``, which is that of ``nn``."""
    target = node.get('reftarget', '')
    if node.get('refdomain') != 'py' or not target.startswith('lirdrec_pyg.'):
        return None
    value: Any = lirdrec_pyg
    rest = target.split('.')[1:]
    while rest:
        value = getattr(value, rest.pop(0), None)
        if id(value) in HOME:
            known = '.'.join([HOME[id(value)], *rest])
            return env.domains['py'].resolve_xref(env, node['refdoc'], app.builder, 'obj', known, node, content)
    return None


def show_public_bases(app: Sphinx, name: str, obj: type, options: Any, bases: list[type]) -> None:
    r"""Puts the public bases of a private one in its place."""
    while hidden := [base for base in bases if base.__module__.startswith('lirdrec_pyg') and id(base) not in HOME]:
        index = bases.index(hidden[0])
        bases[index : index + 1] = [base for base in hidden[0].__bases__ if base not in bases]
    bases[:] = [base for base in bases if base.__name__ not in ('ABC', 'object')] or [object]


def show_numbers_alone(app: Sphinx, page: str, source: list[str]) -> None:
    r"""Takes away the comments around generated numbers: one at the start of a line would end its paragraph."""
    source[0] = re.sub(r'<!-- value: [^>]+? -->(.*?)<!-- / -->', r'\1', source[0], flags=re.DOTALL)


def link_no_words(app: Sphinx, doctree: nodes.document) -> None:
    r"""Makes plain text of types in words, such as "path", which are not the attributes of that name."""
    for node in list(doctree.findall(pending_xref)):
        target = node.get('reftarget', '')
        word = target[:1].islower() and '.' not in target
        if word and node.get('refdomain') == 'py' and node.get('reftype') == 'class':
            node.replace_self(node.children)


def setup(app: Sphinx) -> None:
    write_api()
    app.connect('source-read', show_numbers_alone)
    app.connect('missing-reference', resolve)
    app.connect('autodoc-process-bases', show_public_bases)
    app.connect('doctree-read', link_no_words)
