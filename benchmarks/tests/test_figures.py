import sys

import numpy as np
import pandas as pd
import pytest

pytest.importorskip('matplotlib')

from benchmarks.report import figures


def draw(name, out, monkeypatch, capsys):
    r"""Returns what is said, and the pictures."""
    monkeypatch.setattr(sys, 'argv', ['figures', '--only', name, '--out', str(out)])
    figures.main()
    return capsys.readouterr().out.strip(), list(out.glob('*.png'))


@pytest.mark.parametrize('name', figures.FIGURES)
def test_figures_are_drawn_from_the_committed_rows(name, tmp_path, monkeypatch, capsys):
    said, drawn = draw(name, tmp_path, monkeypatch, capsys)
    assert said.endswith(f'{name}: drawn')
    kinds = ('conditions', 'movielens', 'scientific') if name == 'gradient_bias' else ()
    assert sorted(path.stem for path in drawn) == ([f'{name}-{kind}' for kind in kinds] or [name])
    assert all(path.stat().st_size > 5000 for path in drawn)


def rows(experiment, variants):
    return [
        {'experiment': experiment, 'dataset': dataset, 'variant': variant, 'seed': seed, 'test_ndcg@20': value + seed}
        for dataset in ('scientific', 'movielens')
        for variant, value in variants.items()
        for seed in range(2)
    ]


@pytest.mark.parametrize(
    ('name', 'variants'),
    [
        ('main', {'LIRDRec': 0.2, 'SoftmaxLIRDRec': 0.3}),
        ('ablation', {'LIRDRec': 0.2, 'softmax': 0.3}),
        ('item_ids', {'LIRDRec': 0.2, 'item IDs alone': 0.1}),
        ('preset', {'LIRDRec': 0.2, 'SoftmaxLIRDRec': 0.3}),
        (
            'transfer',
            {'LightGCN': 5, 'content': 9, 'titles alone': 8, 'noise 1': 3, 'permute 0.5': 4, 'columns 0.1': 2},
        ),
    ],
)
def test_experiments_are_drawn_from_their_rows(name, variants, tmp_path, monkeypatch, capsys):
    experiment = {'item_ids': 'item IDs'}.get(name, name)
    pd.DataFrame([*rows(experiment, variants), *rows('other', {'x': 0})]).to_csv(tmp_path / 'runs.csv', index=False)
    monkeypatch.setattr(figures, 'QUALITY', tmp_path)
    said, drawn = draw(name, tmp_path / 'out', monkeypatch, capsys)
    assert said == f'{name}: drawn'
    assert [path.name for path in drawn] == [f'{name}.png']


def test_preset_needs_both(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, 'QUALITY', tmp_path)
    pd.DataFrame(rows('preset', {'LIRDRec': 0.2})).to_csv(tmp_path / 'runs.csv', index=False)
    assert draw('preset', tmp_path / 'out', monkeypatch, capsys)[0].startswith('preset: no rows yet')
    part = rows('preset, hidden', {'LIRDRec': 0.2, 'SoftmaxLIRDRec': 0.3})[1:]  # the first seed lacks one
    pd.DataFrame([*rows('preset', {'LIRDRec': 0.2}), *part]).to_csv(tmp_path / 'runs.csv', index=False)
    assert draw('preset', tmp_path / 'out', monkeypatch, capsys)[0] == 'preset: drawn'


def test_weights_are_drawn_from_their_rows(tmp_path, monkeypatch, capsys):
    pd.DataFrame(
        [
            {'dataset': 'scientific', 'variant': variant, 'seed': 0, 'epoch': epoch, 'view': view}
            | {'mean': 0.5, 'std': 0.1}
            for variant in ('ema', 'static')
            for epoch in (1, 2)
            for view in ('text', 'shared')
        ]
    ).to_csv(tmp_path / 'pwc.csv', index=False)
    monkeypatch.setattr(figures, 'QUALITY', tmp_path)
    assert draw('pwc', tmp_path / 'out', monkeypatch, capsys)[0] == 'pwc: drawn'


def test_lines_cross_where_the_difference_is_zero():
    assert figures.crossings([0, 1, 2, 4], [2, 1, -1, 1]) == pytest.approx([1.5, 3])
    assert figures.crossings(np.array([0, 1]), np.array([2, 1])) == []


def test_seeds_are_counted():
    frame = pd.DataFrame({'variant': ['a', 'a', 'b'], 'seed': [0, 1, 0]})
    assert figures.seeds(frame) == '1 to 2 seeds'
    assert figures.seeds(frame[:2]) == '2 seeds'
    assert figures.seeds(frame[2:]) == '1 seed'


def test_figures_without_rows_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, 'QUALITY', tmp_path)
    for name in ('pwc', 'main', 'cold', 'gradient_bias'):
        said, drawn = draw(name, tmp_path / 'out', monkeypatch, capsys)
        assert said.startswith(f'{name}: no rows yet')
        assert not drawn
