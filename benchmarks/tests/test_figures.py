import json
import re
import sys

import pandas as pd
import pytest

pytest.importorskip('matplotlib')

from benchmarks.report import bias_figures, figures, tables, words


def draw(name, out, monkeypatch, capsys):
    r"""Returns what is said, and the pictures."""
    monkeypatch.setattr(sys, 'argv', ['figures', '--only', name, '--out', str(out)])
    figures.main()
    return capsys.readouterr().out.strip(), list(out.glob('*.png'))


@pytest.mark.parametrize('name', figures.FIGURES)
def test_figures_are_drawn_from_the_committed_rows(name, tmp_path, monkeypatch, capsys):
    said, drawn = draw(name, tmp_path, monkeypatch, capsys)
    assert said.endswith(f'{name}: drawn')
    assert [path.stem for path in drawn] == [name]
    assert all(path.stat().st_size > 5000 for path in drawn)


def test_each_figure_stands_on_a_page():
    pages = [tables.ROOT / 'README.md', *tables.pages()]
    shown = {name for page in pages for name in re.findall(r'figures/([\w-]+)\.png', page.read_text())}
    assert shown == set(figures.FIGURES)
    assert {path.stem for path in (tables.ROOT / 'docs' / 'figures').glob('*.png')} == shown


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
        ('defaults', {'LIRDRec': 0.2, 'autofit': 0.3, 'Popularity': 0.1}),
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


def test_electronics_is_drawn_from_what_there_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, 'SPEED', tmp_path)
    stages = ('compress', 'graph', 'train', 'test', 'straightforward')
    whole = [
        {'interactions': 10**6, 'stage': stage, 'seconds': 120.0, 'measured': False, 'told': json.dumps({})}
        for stage in stages
    ]
    curve = [
        {**row, 'interactions': size, 'measured': True}
        for size in (10**4, 10**5)
        for row in whole[: 4 - (size > 10**4)]
    ]
    for rows in (whole[:1], whole, whole + curve):  # without some stages and sizes, too
        pd.DataFrame(rows).to_csv(tmp_path / 'electronics.csv', index=False)
        assert draw('electronics', tmp_path / 'out', monkeypatch, capsys)[0] == 'electronics: drawn'


def test_simulations_are_drawn_from_their_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, 'QUALITY', tmp_path)
    rows = [
        {'dataset': 'scientific', 'variant': variant, 'seed': seed, 'share': share, 'test_ndcg@20': 0.1 + share}
        for variant in ('LIRDRec', 'item IDs alone, softmax', 'taste')
        for seed in range(2)
        for share in (0.0, 0.5)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / 'when_ids_pay.csv', index=False)
    assert draw('when_ids_pay', tmp_path / 'out', monkeypatch, capsys)[0] == 'when_ids_pay: drawn'


def test_a_model_has_one_color():
    known = list(words.COLORS.values())
    assert len(set(known)) == len(known)
    assert set(words.KNOWS) == set(words.COLORS)
    assert words.color('LIRDRec, as wide') == words.color('LIRDRec') != words.color('SoftmaxLIRDRec')
    assert words.color('no such model') == words.OTHERS
    assert [words.shown(name) for name in ('LIRDRec', 'autofit', 'BPRMF')] == [
        "LIRDRec (paper)", 'autofit (ours)', 'BPR-MF'
    ]  # fmt: skip


def test_seeds_are_counted():
    frame = pd.DataFrame({'variant': ['a', 'a', 'b'], 'seed': [0, 1, 0]})
    assert figures.seeds(frame) == '1 to 2 seeds'
    assert figures.seeds(frame[:2]) == '2 seeds'
    assert figures.seeds(frame[2:]) == '1 seed'


def test_figures_without_rows_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, 'QUALITY', tmp_path)
    monkeypatch.setattr(bias_figures, 'RUNS', tmp_path / 'gradient_bias.csv')
    for name in ('pwc', 'main', 'cold', 'gradient_bias-ratio', 'gradient_bias-learning'):
        said, drawn = draw(name, tmp_path / 'out', monkeypatch, capsys)
        assert said.startswith(f'{name}: no rows yet')
        assert not drawn
