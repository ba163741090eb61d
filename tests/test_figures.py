import sys

import pytest

pytest.importorskip('matplotlib')

from benchmarks.quality import figures


@pytest.mark.parametrize('name', figures.FIGURES)
def test_every_figure_is_drawn_from_the_rows(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['figures', '--only', name, '--out', str(tmp_path)])
    figures.main()
    assert capsys.readouterr().out.strip().endswith(f'{name}: drawn')
    drawn = list(tmp_path.glob('*.png'))
    assert drawn
    assert all(path.stat().st_size > 5000 for path in drawn)


def test_figures_without_rows_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, 'QUALITY', tmp_path)
    monkeypatch.setattr(sys, 'argv', ['figures', '--only', 'pwc', '--out', str(tmp_path / 'out')])
    figures.main()
    assert 'pwc: no rows yet' in capsys.readouterr().out
    assert not list((tmp_path / 'out').iterdir())
