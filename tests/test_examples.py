r"""Runs the scripts as a user would, and holds them to the public API."""

import ast
import builtins
import csv
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import lirdrec_pyg
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.typing import INTERACTS

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / 'examples').rglob('*.py'))
BENCHMARKS = sorted({*(ROOT / 'benchmarks').rglob('*.py')} - {*(ROOT / 'benchmarks' / 'tests').rglob('*.py')})


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize('script', list(map(name_of, EXAMPLES)))
def test_help_explains_itself(script, run_script):
    out = run_script(script, '--help')
    assert 'usage:' in out
    assert f'python {script}' in out


def test_lirdrec_amazon_on_a_folder(tmp_path, run_script):
    data = FakeMultimodal(num_users=40, num_items=60, seed=0)[0]
    folder = tmp_path / 'shop'
    folder.mkdir()
    triples = zip(*data[INTERACTS].edge_index.tolist(), data[INTERACTS].split.tolist(), strict=True)
    lines = ['userID\titemID\tx_label', *('\t'.join(map(str, triple)) for triple in triples)]
    (folder / 'shop.inter').write_text('\n'.join(lines) + '\n')
    for name in ('image', 'text'):
        np.save(folder / f'{name}_feat.npy', data['item'][f'x_{name}'].numpy())
    rows = tmp_path / 'rows.csv'
    args = ['examples/lirdrec_amazon.py', '--root', str(tmp_path), '--name', 'shop', '--epochs', '2']
    args += ['--rows', str(rows)]
    assert 'seed 1: best epoch' in run_script(*args, '--seeds', '0', '1')
    out = run_script(*args, '--seeds', '0', '1')
    assert re.search(r'seed 0: found in .*\n  recall +@5 0\.\d{4} .*\n  ndcg .* @20 0\.\d{4}', out)
    assert '(2 seeds)' in out
    assert 'found in' not in run_script(*args, '--epochs', '1')  # another run
    with rows.open(newline='') as file:
        table = list(csv.DictReader(file))
    assert [row['seed'] for row in table] == ['0', '1', '0']
    assert all(0 <= float(row['test_recall@20']) <= 1 for row in table)


@pytest.mark.parametrize('version', ['2014', '2018', '2023'])
def test_build_amazon(tmp_path, version, run_script):
    name = 'Toys_and_Games'
    args = ['--root', str(tmp_path / 'raw'), '--name', name, '--version', version, '--out', str(tmp_path), '--fake']
    assert 'users' in run_script('examples/build_amazon.py', *args)
    assert (tmp_path / name / 'items.tsv').is_file()
    if version == '2014':  # has features
        args = ['examples/lirdrec_amazon.py', '--root', str(tmp_path), '--name', name, '--epochs', '1']
        assert 'best epoch' in run_script(*args)


@pytest.mark.parametrize(('version', 'name'), [('2018', 'Baby'), ('2014', 'Software'), ('2023', 'Toys')])
def test_build_amazon_refuses_categories_that_a_release_lacks(tmp_path, version, name, run_script):
    args = ['--root', str(tmp_path / 'raw'), '--name', name, '--version', version, '--out', str(tmp_path), '--fake']
    with pytest.raises(AssertionError, match=f"the release of {version} has no category '{name}'"):
        run_script('examples/build_amazon.py', *args)
    assert list(tmp_path.iterdir()) == []


def test_own_catalogue_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, 'examples/own_catalogue.py', '--folder', str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    out = result.stdout
    assert result.stderr == ''  # no warning
    assert 'InteractionTable(933 interactions, 160 users, 56 items)' in out
    assert 'content kNN' in out and 'best epoch' in out
    found = dict(re.findall(r'^(Popularity|LIRDRec) .*ndcg@5 (0\.\d{4})$', out, flags=re.MULTILINE))
    assert float(found['LIRDRec']) > float(found['Popularity'])
    with (tmp_path / 'recommendations.csv').open(newline='') as file:
        table = list(csv.DictReader(file))
    assert len(table) == 160 * 3
    assert not {row['user'] for row in table} - {line.partition(',')[0] for line in (tmp_path / 'orders.csv').open()}
    assert (tmp_path / 'page.html').read_text().count('<symbol') > 20  # pictures: the covers of the books


def test_own_catalogue_of_other_columns_and_pictures(tmp_path, run_script):
    Image = pytest.importorskip('PIL.Image')
    pairs = [(f'u{u}', f'a{(u + i) % 12}') for u in range(12) for i in range(6)]
    (tmp_path / 'sales.csv').write_text('client,article\n' + '\n'.join(f'{u},{i}' for u, i in pairs))
    (tmp_path / 'articles.csv').write_text('article,title\n' + '\n'.join(f'a{i},thing {i % 3}' for i in range(12)))
    args = ['--orders', str(tmp_path / 'sales.csv'), '--products', str(tmp_path / 'articles.csv'), '--minutes', '0.01']
    args += ['--user', 'client', '--item', 'article', '--text', 'title', '--folder', str(tmp_path / 'out')]
    assert 'thing' in run_script('examples/own_catalogue.py', *args)
    assert (tmp_path / 'out' / 'recommendations.csv').is_file()
    assert '<symbol' not in (tmp_path / 'out' / 'page.html').read_text()  # no pictures were given
    (tmp_path / 'photos').mkdir()
    for i in range(11):  # one has none
        Image.new('RGB', (9, 12), (20 * i, 90, 90)).save(tmp_path / 'photos' / f'a{i}.jpg')
    assert 'item graph' in run_script('examples/own_catalogue.py', *args, '--images', str(tmp_path / 'photos'))
    assert (tmp_path / 'out' / 'page.html').read_text().count('<symbol') == 11
    assert np.load(tmp_path / 'out' / 'image_mask.npy').sum() == 11


def test_extract_features(tmp_path, run_script):
    pytest.importorskip('sentence_transformers')
    pytest.importorskip('PIL')
    out = run_script('examples/extract_features.py', '--fake', '--out', str(tmp_path))
    assert 'image: (5, 16)' in out
    assert np.load(tmp_path / 'image_mask.npy').tolist() == [True] * 4 + [False]
    assert np.load(tmp_path / 'caption_feat.npy').shape == (5, 16)
    assert 'text: (5, 16)' in run_script('examples/extract_features.py', '--fake', '--out', str(tmp_path))


def test_extract_features_of_a_toy_never_replace_those_of_a_catalogue(tmp_path, run_script):
    pytest.importorskip('PIL')
    (tmp_path / 'text_feat.npy').write_bytes(b'of a catalogue')
    (tmp_path / 'items.tsv').write_text('itemID\ttext\n0\ta cup\n')
    for args in (['--fake'], ['--fake', '--items', str(tmp_path / 'items.tsv')]):
        with pytest.raises(AssertionError, match='give --fake another folder'):
            run_script('examples/extract_features.py', *args, '--out', str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['items.tsv', 'text_feat.npy']
    assert (tmp_path / 'text_feat.npy').read_bytes() == b'of a catalogue'


def test_amazon_parse_quick(tmp_path, run_script):
    out = run_script('benchmarks/speed/amazon_parse.py', '--quick', '--root', str(tmp_path))
    assert 'peak_rss_mib' in out


def test_daily_catalogue(run_script, caplog):
    out = run_script('examples/daily_catalogue.py', '--days', '2', '--epochs', '3')
    assert 'Day 2: ' in out
    assert 'onboarded' in out
    assert re.search('users by raw id: 200 known, 200 new, 0 gone', caplog.text)  # the warm start
    assert 'trained warm-started on 400 users' in out


def test_distributed_in_one_process_resumes(tmp_path, run_script):
    args = ['examples/distributed.py', '--checkpoint', str(tmp_path / 'model.pt')]
    assert re.findall(r'epoch (\d)', run_script(*args, '--epochs', '1')) == ['1']
    assert re.findall(r'epoch (\d)', run_script(*args, '--epochs', '2', '--resume')) == ['2']


@pytest.mark.parametrize('script', [name_of(path) for path in [*EXAMPLES, *BENCHMARKS]])
def test_uses_the_public_api_alone(script):
    assert violations((ROOT / script).read_text()) == []


@pytest.mark.parametrize(
    ('code', 'found'),
    [
        ('from lirdrec_pyg._io import digest', '_io'),
        ('from lirdrec_pyg.nn.kernels import _scaled_rows', '_scaled_rows'),
        ('import lirdrec_pyg._segments', '_segments'),
        ('retriever._seen.clone()', 'retriever._seen'),
        ('class Mine(LIRDRec):\n    def embed(self, data):\n        return self._embed(data)', 'self._embed'),
        ('model.fusion.weight = faster', 'model.fusion.weight'),
        ("setattr(model, 'loss', other)", 'setattr'),
        ("unittest.mock.patch('lirdrec_pyg.fit')", 'unittest.mock.patch'),
        ('class Stop(Exception): ...', 'Stop'),
    ],
)
def test_violations_are_found(code, found):
    assert [what for _, what in violations(code)] == [found]


def test_what_is_public_is_no_violation():
    code = """
from lirdrec_pyg import Callback, __version__
class Mine(Callback):
    def __init__(self):
        self._rows, self.weight = [], 1.0
    def on_epoch(self, trainer, row):
        self._rows.append(row)
        trainer.stop()
data['item'].x_text = features
args.items = 5
pair._replace(user=user)
"""
    assert violations(code) == []


def violations(code: str) -> list[tuple[int, str]]:
    r"""Returns where a script goes around the public API: line and what. It may not import or read what is private, put
    something in place of a function of the library, or end a loop by an exception of its own."""
    methods, private = library_names()
    tree = ast.parse(code)
    nodes = list(ast.walk(tree))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    out = []
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names = [f'{node.module}.{name}' for name in names] if isinstance(node, ast.ImportFrom) else names
            parts = {part: 0 for name in names if name.startswith('lirdrec_pyg') for part in name.split('.')}
            out += [(node.lineno, part) for part in parts if re.match('_[^_]', part)]
        elif isinstance(node, ast.Attribute):
            base = ast.unparse(node.value)
            stored = isinstance(node.ctx, ast.Store) and node.attr in methods and base not in ('self', 'args')
            hidden = node.attr in private and (node.attr not in own or base == 'super()')
            out += [(node.lineno, ast.unparse(node))] * (stored or hidden)
        elif isinstance(node, ast.Call) and re.search(r'\bsetattr$|\bmock\b', ast.unparse(node.func)):
            out.append((node.lineno, ast.unparse(node.func)))
        elif isinstance(node, ast.ClassDef):
            bases = [getattr(builtins, ast.unparse(base), None) for base in node.bases]
            if any(isinstance(base, type) and issubclass(base, BaseException) for base in bases):
                out.append((node.lineno, node.name))
    return out


@cache
def library_names() -> tuple[set[str], set[str]]:
    r"""Returns the names of functions and methods of the library, and those of its private attributes."""
    methods, private = set(), set()
    for info in pkgutil.walk_packages(lirdrec_pyg.__path__, 'lirdrec_pyg.'):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if not getattr(value, '__module__', '').startswith('lirdrec_pyg'):
                continue
            members = vars(value) if inspect.isclass(value) else {name: value}
            methods |= {name for name, member in members.items() if callable(member) or isinstance(member, classmethod)}
        nodes = list(ast.walk(ast.parse(inspect.getsource(module))))
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
        names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        private |= {name for name in names if re.match('_[^_]', name)}
    return methods, private
