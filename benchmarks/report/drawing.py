r"""What the figures of the documentation have in common: their width, their letters, their marks. Colours and words are
those of ``words.py``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report.words import OURS, PAPER

WIDTH = 7.2  # inches: a page of 720 pixels shows the letters as large as its own
STYLE: Any = {
    'font.size': 10,
    'axes.titlesize': 10.5,
    'axes.titleweight': 'bold',
    'axes.labelsize': 10,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.alpha': 0.3,
    'figure.constrained_layout.use': True,
    'legend.frameon': False,
    'legend.fontsize': 9.5,
}
MORE, LESS = 'better →', '← better'


@contextmanager
def panels(lines: int = 1, columns: int = 1, height: float = 3.0, **kwargs: Any) -> Iterator[tuple[Figure, Any]]:
    r"""Yields a figure as wide as a page and its panels."""
    with plt.rc_context(STYLE):
        yield plt.subplots(lines, columns, figsize=(WIDTH, height), squeeze=False, **kwargs)


def save(figure: Figure, path: Path) -> None:
    r"""Writes a figure, whole or not at all."""
    temporary = path.with_name(f'{path.stem}.tmp{path.suffix}')
    figure.savefig(temporary, dpi=150)
    temporary.replace(path)


def rows_of(axis: Axes, names: Sequence[str]) -> None:
    r"""Gives each row of a panel its name, the first on top. The paper's model and ours are bold."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(visible=False, axis='y')
    axis.tick_params(axis='y', length=0)
    for label in axis.get_yticklabels():
        if label.get_text().split(' (')[0] in (PAPER, *OURS):
            label.set_fontweight('bold')


def headline(figure: Figure, text: str) -> None:
    r"""Says on top what a figure shows."""
    figure.suptitle(text, fontweight='bold', fontsize=11)


def below(figure: Figure, axis: Axes, columns: int = 4) -> None:
    r"""Puts the legend below the figure, each entry once."""
    handles, labels = axis.get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    figure.legend(list(known.values()), list(known), loc='outside lower center', ncols=columns)


def empty(axis: Axes, y: float, why: str = 'not run') -> None:
    r"""Says why there is nothing in a row of a panel."""
    style: dict[str, Any] = {'va': 'center', 'color': '#777777', 'fontsize': 9, 'style': 'italic', 'zorder': 5}
    style['bbox'] = {'facecolor': 'white', 'edgecolor': 'none', 'pad': 1}
    axis.text(0.02, y, why, transform=axis.get_yaxis_transform(), **style)


def dot(axis: Axes, values: Any, y: float, color: str, **kwargs: Any) -> None:
    r"""Draws a mean, and the standard deviation where there are seeds."""
    error = values.std() if len(values) > 1 else None
    style: dict[str, Any] = {'fmt': 'o', 'markersize': 6, 'capsize': 3, 'elinewidth': 1.4, 'color': color}
    axis.errorbar([values.mean()], [y], xerr=error, **(style | kwargs))
