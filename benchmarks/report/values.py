r"""The numbers in the sentences of the README and of ``docs``. ``tables.py`` writes them.

A number stands between ``<!-- value: NAME; CELL; … -->`` and ``<!-- / -->``. The names and their cells are the
functions of :data:`VALUES` and what these take after the folder of the rows. Without rows it says so. No line may begin
with a number: Markdown would take the line for HTML.
"""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.report import significance
from benchmarks.report.markdown import paired, read


def render(text: str, folder: Path) -> str:
    r"""Returns a text with all its numbers made anew.

    Args:
        text (str): The text.
        folder (Path): That of the rows of quality.

    Raises:
        ValueError: If a name is not one of :data:`VALUES`.
    """

    def made(match: re.Match[str]) -> str:
        name, *cells = (cell.strip() for cell in match[1].split(';'))
        if name not in VALUES:
            raise ValueError(f"a value needs to be one of {sorted(VALUES)} (got '{name}')")
        try:
            value = VALUES[name](folder, *cells)
        except FileNotFoundError:
            value = 'not run'
        return f'<!-- value: {match[1]} -->{value}<!-- / -->'

    return re.sub(r'<!-- value: ([^>]+?) -->.*?<!-- / -->', made, text, flags=re.DOTALL)


def metric(folder: Path, name: str, experiment: str, dataset: str, variant: str, split: str = 'test') -> float:
    rows = read(folder / 'runs.csv', experiment=experiment, dataset=dataset, variant=variant)
    return float(rows[f'{split}_{name}@20'].mean())


def short(value: float) -> str:
    return f'{value:.4f}'.removeprefix('0')


def percent(value: float) -> str:
    r"""Returns a relative change."""
    return f'{round(100 * value, 1) + 0.0:+.1f} %'


def ndcg(folder: Path, *cells: str) -> str:
    r"""ndcg@20 of a variant of an experiment on a dataset."""
    return short(metric(folder, 'ndcg', *cells))


def recall(folder: Path, *cells: str) -> str:
    r"""The same for recall@20."""
    return short(metric(folder, 'recall', *cells))


def validation(folder: Path, *cells: str) -> str:
    r"""recall@20 on the validation split."""
    return short(metric(folder, 'recall', *cells, split='val'))


def change(folder: Path, experiment: str, dataset: str, variant: str, against: str = 'LIRDRec') -> str:
    r"""The relative difference in ndcg@20 of two variants."""
    one, other = (metric(folder, 'ndcg', experiment, dataset, name) for name in (variant, against))
    return percent(one / other - 1)


def across(folder: Path, dataset: str, experiment: str, variant: str, other: str, against: str) -> str:
    r"""The relative difference in ndcg@20 of two variants of two experiments."""
    return percent(
        metric(folder, 'ndcg', experiment, dataset, variant) / metric(folder, 'ndcg', other, dataset, against) - 1
    )


def comparison(folder: Path, experiment: str, dataset: str, variant: str, against: str) -> Any:
    found = significance.known_comparisons(folder, experiment, dataset, against)
    found = found[found['variant'] == variant] if not found.empty else found
    if found.empty:
        raise FileNotFoundError(f"no comparison of '{variant}' with '{against}'")
    return found.iloc[0]


def between(folder: Path, experiment: str, dataset: str, variant: str, against: str = 'LIRDRec') -> str:
    r"""The 95 % interval of that difference, over users and seeds."""
    one = comparison(folder, experiment, dataset, variant, against)
    return 'not known: one seed' if pd.isna(one['p']) else f'{100 * one["low"]:+.1f} to {100 * one["high"]:+.1f} %'


def widest(folder: Path, experiment: str, dataset: str, *variants: str) -> str:
    r"""The largest that the difference from LIRDRec may be in either direction, over some variants."""
    found = [comparison(folder, experiment, dataset, variant, 'LIRDRec') for variant in variants]
    return f'{100 * max(max(-one["low"], one["high"]) for one in found):.1f} %'


def gain(folder: Path, kind: str, how: str, without: str = '') -> str:
    r"""Our configuration against the paper's: the ``mean`` or ``median`` change over the datasets, but one."""
    rows = read(folder / 'runs.csv', experiment=kind)
    mean = rows.groupby(['dataset', 'variant'])['test_ndcg@20'].mean().unstack()
    changes = (mean['SoftmaxLIRDRec'] / mean['LIRDRec'] - 1).dropna().drop(without, errors='ignore')
    return percent(float(changes.agg(how)))


def untuned(folder: Path, what: str, variant: str, against: str) -> str:
    r"""A model as it ships against another, over the datasets that both were run on: the ``mean`` change, or on how
    many it is ``ahead``."""
    rows = read(folder / 'runs.csv', experiment='defaults')
    mean = rows.groupby(['dataset', 'variant'])['test_ndcg@20'].mean().unstack()
    if not {variant, against} <= set(mean):
        raise FileNotFoundError(f"no rows of '{variant}' and '{against}'")
    changes = (mean[variant] / mean[against] - 1).dropna()
    if changes.empty:
        raise FileNotFoundError(f"no dataset with '{variant}' and '{against}'")
    if what == 'mean':
        return percent(float(changes.mean()))
    return f'{int((changes > 0).sum())} of {len(changes)}'


def cold_rows(folder: Path, dataset: str, name: str) -> pd.DataFrame:
    r"""Returns the rows of a model on cold items, by seed: ``LIRDRec, none`` or ``FREEDOM, knn, projected``."""
    model, graph, ids, *_ = [*name.split(', '), '', '', ''][:4]
    rows = read(folder / 'cold.csv', dataset=dataset, model=model).astype({'item_graph': object, 'id_rows': object})
    rows = rows.fillna({'item_graph': '', 'id_rows': ''})
    rows = rows[(rows['item_graph'] == graph) & (rows['id_rows'] == ids)]
    if rows.empty:
        raise FileNotFoundError(f"no rows of '{name}'")
    return rows.set_index('seed')


def cold(folder: Path, dataset: str, name: str, key: str) -> str:
    r"""A metric of a model on cold items."""
    return short(float(cold_rows(folder, dataset, name)[key].mean()))


def cold_against(folder: Path, dataset: str, name: str, other: str, key: str) -> str:
    r"""The difference of two models on cold items, paired by the seeds, each of which leaves out other items."""
    return paired(*(cold_rows(folder, dataset, one)[key] for one in (name, other)))


def bias_rows(folder: Path, dataset: str, model: str, *other: str, parts: str = 'both') -> pd.DataFrame:
    r"""Returns the rows of a model with IDs and features, in the plain setting, or in another:
    ``feature_norm=unit``."""
    rows = read(folder / 'gradient_bias.csv', dataset=dataset, model=model, parts=parts)
    setting: dict[str, Any] = {'keep': 1.0, 'id_scale': 1.0, 'loss': 'bpr', 'optimizer': 'adam'}
    setting |= {'init': 'own', 'feature_norm': 'own'}
    for cell in other:
        name, value = cell.split('=')
        setting[name] = type(setting[name])(value)
    rows = rows[(rows[list(setting)] == pd.Series(setting)).all(axis=1)]
    if rows.empty:
        raise FileNotFoundError(f'no rows of {setting}')
    return rows


def bias(folder: Path, dataset: str, model: str, key: str, factor: str = '1', *other: str) -> str:
    r"""How much larger something is for features than for IDs, times a factor."""
    rows = bias_rows(folder, dataset, model, *other)
    ratio = float((rows[f'feature_{key}'] / rows[f'id_{key}']).mean()) * float(factor)
    return f'{ratio:,.0f}' if ratio >= 10 else f'{ratio:.2g}'


def bias_recall(folder: Path, dataset: str, model: str, key: str = 'recall', *other: str, parts: str = 'both') -> str:
    r"""The best validation recall@20 of such a model, or of its part: ``recall_ids``."""
    return short(float(bias_rows(folder, dataset, model, *other, parts=parts)[key].mean()))


def alone(folder: Path, dataset: str, model: str, parts: str) -> str:
    r"""The best validation recall@20 of ``ids`` or ``features`` that train alone."""
    return bias_recall(folder, dataset, model, parts=parts)


def crossing(folder: Path, dataset: str, kind: str, base: str = 'LightGCN') -> str:
    r"""How much worse the content of LIRDRec is where it is level with LightGCN: a straight line between the two
    nearest levels that were run. ``base`` is ``LightGCN`` or ``LightGCN, as wide``."""
    rows = read(folder / 'runs.csv', experiment='transfer', dataset=dataset)
    experiment = 'transfer' if base == 'LightGCN' else 'item IDs'
    level = metric(folder, 'ndcg', experiment, dataset, base)
    at = crossings(*points(rows, kind, level))
    if not at:
        return 'nowhere'
    return f'{np.exp(at[0]):.1%}' if kind == 'columns' else f'{at[0]:.0%}' if kind == 'permute' else f'{at[0]:.1f}'


def points(rows: pd.DataFrame, kind: str, level: float) -> tuple[list[float], list[float]]:
    r"""Returns how much worse the content is made, in the logarithm for columns, and the lead over a level there."""
    mean = rows.groupby('variant')['test_ndcg@20'].mean()
    found = {float(str(name).split()[1]): value for name, value in mean.items() if str(name).startswith(f'{kind} ')}
    found[1.0 if kind == 'columns' else 0.0] = mean['content']
    x = sorted(found, reverse=kind == 'columns')
    return [float(np.log(at)) if kind == 'columns' else at for at in x], [found[at] - level for at in x]


def crossings(x: Any, y: Any) -> list[float]:
    r"""Returns where the line through some points is zero."""
    found = list(zip(x, y, strict=True))
    return [
        a + (b - a) * over / (over - under) for (a, over), (b, under) in itertools.pairwise(found) if over * under < 0
    ]


VALUES: dict[str, Callable[..., str]] = {
    'ndcg': ndcg,
    'recall': recall,
    'validation': validation,
    'change': change,
    'across': across,
    'between': between,
    'widest': widest,
    'gain': gain,
    'untuned': untuned,
    'cold': cold,
    'cold against': cold_against,
    'bias': bias,
    'bias recall': bias_recall,
    'alone': alone,
    'crossing': crossing,
}
