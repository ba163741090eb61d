import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import lirdrec_pyg

tomllib = pytest.importorskip('tomllib', reason='part of Python since 3.11')
ROOT = Path(__file__).parents[1]
CONDA = {
    'torch': 'pytorch',
    'torch-geometric': 'pytorch_geometric',
    'torch-scatter': 'pytorch_scatter',
    'torch-sparse': 'pytorch_sparse',
    'typing-extensions': 'typing_extensions',
}


@pytest.fixture
def project() -> dict:
    return tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def test_environment_yml_agrees_with_pyproject(project):
    pip = [Requirement(line) for line in [*project['dependencies'], *project['optional-dependencies']['torch-sparse']]]
    expected = {CONDA.get(req.name, req.name) + str(req.specifier) for req in pip}
    expected |= {'python' + project['requires-python'], 'pip'}
    environment = yaml.safe_load((ROOT / 'environment.yml').read_text())
    assert set(environment['dependencies']) == expected
    assert environment['channels'] == ['conda-forge']


def test_constraints_pin_what_is_tested(project):
    pins = {}
    for line in (ROOT / 'constraints.txt').read_text().splitlines():
        if not line.startswith('#'):
            name, _, version = line.partition('==')
            pins[re.sub(r'[-_.]+', '-', name).lower()] = version
    extras = project['optional-dependencies']
    for line in [*project['dependencies'], *extras['dev'], *extras['torch-sparse'], *extras['plots']]:
        req = Requirement(line)
        assert req.name in pins, line
        assert pins[req.name] in req.specifier, line


def test_changelog_knows_the_version():
    assert f'## {lirdrec_pyg.__version__}' in (ROOT / 'CHANGELOG.md').read_text()
