r"""What is installed: the files that say so agree, and what is built from them works in an environment of its own."""

import email
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.message import Message
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import lirdrec_pyg

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
EXTRAS = PROJECT['optional-dependencies']
CONDA = {
    'torch': 'pytorch',
    'torch-geometric': 'pytorch_geometric',
    'torch-scatter': 'pytorch_scatter',
    'torch-sparse': 'pytorch_sparse',
}
USER = """
from lirdrec_pyg import Embeddings, FitResult, LIRDRec, Retriever, evaluate, fit, recommend
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import SampledSoftmax
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph


def run(epochs: int) -> dict[str, float]:
    data = ItemKNNGraph(k=4)(DCT()(FakeMultimodal(seed=0)[0]))
    train, val, test = FixedSplit()(data)
    train = InteractionGraph()(train)
    model = LIRDRec.from_data(train, seed=0, objective=SampledSoftmax(temperature=0.2))
    result: FitResult = fit(model, train, val, epochs=epochs, progress=False)
    embeddings: Embeddings = model(train)
    retriever = Retriever(embeddings, train)
    print(result.best_epoch, recommend(embeddings, train, ['user-0'], k=2), retriever.recommend(['user-1'], k=2))
    return evaluate(embeddings, test, k=[10, 20])
"""


def canonical(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


@pytest.fixture(scope='module')
def pins() -> dict[str, str]:
    lines = (ROOT / 'constraints.txt').read_text().splitlines()
    found = [line.partition('==') for line in lines if not line.startswith('#')]
    return {canonical(name): version for name, _, version in found}


def test_environment_yml_agrees_with_pyproject():
    pip = [Requirement(line) for line in [*PROJECT['dependencies'], *EXTRAS['torch-sparse']]]
    expected = {CONDA.get(req.name, req.name) + str(req.specifier) for req in pip if req.name != 'faiss-cpu'}
    expected |= {'python' + PROJECT['requires-python'], 'pip'}
    environment = yaml.safe_load((ROOT / 'environment.yml').read_text())
    *conda, with_pip = environment['dependencies']
    assert set(conda) == expected
    assert with_pip == {'pip': ['-e .']}  # the package itself
    assert environment['channels'] == ['conda-forge']


def test_constraints_pin_what_is_tested(pins):
    for extra in (PROJECT['dependencies'], *EXTRAS.values()):
        for line in extra:
            req = Requirement(line)
            assert pins[canonical(req.name)] in req.specifier, line


def test_the_pins_are_what_is_installed(pins):
    for name in ('torch', 'torch-geometric', 'numpy', 'faiss-cpu', 'sphinx', 'furo', 'myst-parser', 'hatchling'):
        assert Version(importlib.metadata.version(name)).public == pins[name], name


def test_every_dependency_has_a_floor_and_those_that_may_vanish_a_pin():
    for extra, lines in [('', PROJECT['dependencies']), *EXTRAS.items()]:
        for line in lines:
            (spec,) = Requirement(line).specifier
            assert spec.operator == ('==' if extra == 'torch-sparse' else '>='), line


def test_versions_of_python_and_torch():
    assert PROJECT['requires-python'] == '>=3.11'
    named = {line.rpartition(' ')[-1] for line in PROJECT['classifiers'] if ':: Python :: 3.' in line}
    assert {'3.11', '3.12', '3.13'} == named
    assert all(version in SpecifierSet(PROJECT['requires-python']) for version in named)
    (torch,) = (Requirement(line) for line in PROJECT['dependencies'] if Requirement(line).name == 'torch')
    assert '2.8' not in torch.specifier  # PyG 2.8 dropped it
    config = (ROOT / 'pyproject.toml').read_text()
    assert "target-version = 'py311'" in config


def test_changelog_is_of_the_form_of_keep_a_changelog():
    text = (ROOT / 'CHANGELOG.md').read_text()
    heads = re.findall(r'^## (.*)$', text, flags=re.MULTILINE)
    assert heads[0] == '[Unreleased]'
    assert re.fullmatch(rf'\[{re.escape(lirdrec_pyg.__version__)}\] - \d{{4}}-\d\d-\d\d', heads[1])
    kinds = set(re.findall(r'^### (.*)$', text, flags=re.MULTILINE))
    assert kinds <= {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'}


@pytest.fixture(scope='session')
def built(tmp_path_factory) -> tuple[Path, Path]:
    r"""The wheel, made from the sdist, and the sdist."""
    out = tmp_path_factory.mktemp('dist')
    command = [sys.executable, '-m', 'build', '--no-isolation', '--outdir', str(out), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,), (sdist,) = out.glob('*.whl'), out.glob('*.tar.gz')
    return wheel, sdist


@pytest.fixture(scope='session')
def clean(built, tmp_path_factory) -> Path:
    r"""The Python of an environment with the wheel. What it depends on is that of the environment of the tests, found
    by path: nothing is downloaded, and the checkout is not among it."""
    folder = tmp_path_factory.mktemp('clean')
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / 'bin' / 'python'
    (site,) = folder.glob('lib/python*/site-packages')
    wheel = str(built[0])
    command = [sys.executable, '-m', 'pip', '--python', str(python), 'install', '-q', '--no-deps', '--no-index', wheel]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (site / 'others.pth').write_text(sysconfig.get_path('purelib') + '\n')
    return python


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith('.dist-info/METADATA'))
        return email.message_from_bytes(file.read(name))


@pytest.mark.package
def test_what_the_wheel_holds(built):
    with zipfile.ZipFile(built[0]) as file:
        names = {name for name in file.namelist() if '.dist-info/' not in name}
        licenses = [name for name in file.namelist() if name.endswith('/LICENSE')]
    tracked = subprocess.run(['git', 'ls-files', 'lirdrec_pyg'], cwd=ROOT, capture_output=True, text=True, check=True)
    assert names >= set(tracked.stdout.split())
    assert 'lirdrec_pyg/py.typed' in names
    assert {Path(name).suffix for name in names} <= {'.py', '.typed', '.html', '.css', '.js', '.jinja'}
    assert len(licenses) == 1
    assert built[0].stat().st_size < 500_000


@pytest.mark.package
def test_what_the_sdist_holds(built):
    with tarfile.open(built[1]) as file:
        names = [name.partition('/')[2] for name in file.getnames()]
    top = {name.partition('/')[0] for name in names}
    files = {'CHANGELOG.md', 'LICENSE', 'README.md', 'constraints.txt', 'pyproject.toml', 'PKG-INFO', '.gitignore'}
    assert top == {'lirdrec_pyg', 'examples', *files}  # no results, no figures, no data
    assert not [name for name in names if name.endswith(('.csv', '.png', '.npz', '.pt'))]
    assert built[1].stat().st_size < 500_000


@pytest.mark.package
def test_metadata(built):
    known = metadata(built[0])
    assert (known['Name'], known['Version']) == ('lirdrec-pyg', lirdrec_pyg.__version__)
    assert known['License-Expression'] == 'MIT'
    assert known['Requires-Python'] == '>=3.11'
    assert set(known.get_all('Provides-Extra')) == set(EXTRAS)
    assert 'Typing :: Typed' in known.get_all('Classifier')
    assert known['Description-Content-Type'] == 'text/markdown'


@pytest.mark.package
def test_the_readme_renders(built):
    markdown = pytest.importorskip('readme_renderer.markdown')
    html = markdown.render(metadata(built[0]).get_payload())
    assert html and '<h1' in html and '<table>' in html
    assert '<!-- table' not in html


@pytest.mark.package
def test_what_it_needs_is_there(built):
    for line in metadata(built[0]).get_all('Requires-Dist'):
        req = Requirement(line)
        if req.marker is None:
            assert importlib.metadata.version(req.name) in req.specifier, line
    extras = {str(Requirement(line).marker) for line in metadata(built[0]).get_all('Requires-Dist')}
    assert extras == {'None', *(f'extra == "{name}"' for name in EXTRAS)}


@pytest.mark.package
def test_a_user_runs_it_in_the_clean_environment(clean, tmp_path):
    (tmp_path / 'user.py').write_text(USER)
    code = 'import lirdrec_pyg, user; print(lirdrec_pyg.__file__); print(user.run(2))'
    env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    result = subprocess.run([clean, '-c', code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert str(clean.parents[1]) in result.stdout  # not the checkout
    assert 'ndcg@20' in result.stdout


WRONG = {
    'epochs=epochs': ("epochs='ten'", 'Argument "epochs" to "fit" has incompatible type "str"; expected "int"'),
    "['user-0'], k=2": (
        "['user-0'], k=[2]",
        'Argument "k" to "recommend" has incompatible type "list[int]"; expected "int"',
    ),
    '.best_epoch': ('.best_epohc', '"FitResult" has no attribute "best_epohc"'),
    'temperature=0.2': ('temprature=0.2', 'Unexpected keyword argument "temprature" for "SampledSoftmax"'),
}


@pytest.mark.package
def test_mypy_finds_what_a_user_does_wrong(clean, tmp_path):
    code = USER
    for right, (wrong, _) in WRONG.items():
        assert right in code
        code = code.replace(right, wrong, 1)
    (tmp_path / 'wrong.py').write_text(code)
    (tmp_path / 'right.py').write_text(USER)
    command = [sys.executable, '-m', 'mypy', '--strict', '--python-executable', str(clean), 'right.py', 'wrong.py']
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert all(found in out for _, found in WRONG.values()), out
    assert 'right.py' not in out
    assert out.count('error:') == len(WRONG), out
