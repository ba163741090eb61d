r"""Runs the scripts as a user would."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.typing import INTERACTS

ROOT = Path(__file__).parents[1]


def run(*args: str) -> str:
    result = subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize('script', sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'examples').glob('*.py')))
def test_help_explains_itself(script):
    out = run(script, '--help')
    assert 'usage:' in out
    assert f'python {script}' in out


def test_lirdrec_amazon_on_a_folder(tmp_path):
    data = FakeMultimodal(num_users=40, num_items=60, seed=0)[0]
    folder = tmp_path / 'shop'
    folder.mkdir()
    triples = zip(*data[INTERACTS].edge_index.tolist(), data[INTERACTS].split.tolist(), strict=True)
    lines = ['userID\titemID\tx_label', *('\t'.join(map(str, triple)) for triple in triples)]
    (folder / 'shop.inter').write_text('\n'.join(lines) + '\n')
    for name in ('image', 'text'):
        np.save(folder / f'{name}_feat.npy', data['item'][f'x_{name}'].numpy())
    rows = tmp_path / 'rows.csv'
    args = [
        'examples/lirdrec_amazon.py',
        '--root',
        str(tmp_path),
        '--name',
        'shop',
        '--epochs',
        '2',
        '--rows',
        str(rows),
    ]
    assert 'seed 1: best epoch' in run(*args, '--seeds', '0', '1')
    out = run(*args, '--seeds', '0', '1')
    assert 'seed 0: found in' in out
    assert '(2 seeds)' in out
    assert 'found in' not in run(*args, '--epochs', '1')  # another run
    with rows.open(newline='') as file:
        table = list(csv.DictReader(file))
    assert [row['seed'] for row in table] == ['0', '1', '0']
    assert all(0 <= float(row['test_recall@20']) <= 1 for row in table)


@pytest.mark.parametrize('version', ['2014', '2018', '2023'])
def test_build_amazon(tmp_path, version):
    name = 'Toys_and_Games'
    args = ['--root', str(tmp_path / 'raw'), '--name', name, '--version', version, '--out', str(tmp_path), '--fake']
    assert 'users' in run('examples/build_amazon.py', *args)
    assert (tmp_path / name / 'items.tsv').is_file()
    if version == '2014':  # has features
        assert 'best epoch' in run(
            'examples/lirdrec_amazon.py', '--root', str(tmp_path), '--name', name, '--epochs', '1'
        )


def test_own_catalogue(tmp_path):
    out = run('examples/own_catalogue.py', '--folder', str(tmp_path), '--epochs', '20')
    assert 'InteractionTable(48 interactions, 12 users, 14 items)' in out
    with (tmp_path / 'recommendations.csv').open(newline='') as file:
        table = list(csv.DictReader(file))
    assert len(table) == 12 * 3
    assert not {row['user'] for row in table} - {line.partition(',')[0] for line in (tmp_path / 'orders.csv').open()}


def test_extract_features(tmp_path):
    pytest.importorskip('sentence_transformers')
    pytest.importorskip('PIL')
    out = run('examples/extract_features.py', '--fake', '--out', str(tmp_path))
    assert 'image: (5, 16)' in out
    assert np.load(tmp_path / 'image_mask.npy').tolist() == [True] * 4 + [False]
    assert np.load(tmp_path / 'caption_feat.npy').shape == (5, 16)


def test_amazon_parse_quick(tmp_path):
    out = run('benchmarks/speed/amazon_parse.py', '--quick', '--root', str(tmp_path))
    assert 'peak_rss_mib' in out


def test_daily_catalogue():
    out = run('examples/daily_catalogue.py', '--days', '2', '--epochs', '3')
    assert 'Day 2: ' in out
    assert 'onboarded' in out
