r"""Draws the figures of the README from the rows in ``benchmarks/results``, into ``docs/figures``.

python -m benchmarks.report.figures
python -m benchmarks.report.figures --only ablation transfer
"""

import argparse
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use('Agg')

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks import rows
from benchmarks.quality.studies import gradient_bias
from benchmarks.report.markdown import read
from benchmarks.report.speed import MACHINE
from benchmarks.report.tables import NAMES
from benchmarks.speed import knn, propagation, ranking, retrieval, scale, scaling

ROOT = Path(__file__).parents[2]
QUALITY, SPEED = rows.RESULTS / 'quality', rows.RESULTS / 'speed'


def save(figure: Figure, path: Path) -> None:
    r"""Writes a figure, whole or not at all."""
    temporary = path.with_name(f'{path.stem}.tmp{path.suffix}')
    figure.savefig(temporary, dpi=120)
    temporary.replace(path)


def seeds(rows: pd.DataFrame) -> str:
    r"""Returns how many seeds each variant has."""
    count = rows.groupby('variant')['seed'].nunique()
    least, most = count.min(), count.max()
    return f'{least} to {most} seeds' if least < most else f'{most} seed{"s" if most > 1 else ""}'


def main_models(path: Path) -> None:
    r"""Draws ndcg@20 of each model on each dataset."""
    rows = read(QUALITY / 'runs.csv', experiment='main')
    title = 'Settings chosen on validation (of Scientific for the larger sets)'
    panels(rows, path, 'test ndcg@20', lambda part: part, title)


def preset(path: Path) -> None:
    r"""Draws what our configuration changes on each dataset, relative to the paper's, in both ways of choosing."""
    kinds = {'preset': 'settings chosen on validation', 'preset, hidden': 'as many interactions hidden as in the test'}
    rows = read(QUALITY / 'runs.csv')
    rows = rows[rows['experiment'].isin(kinds) & rows['variant'].isin(['LIRDRec', 'SoftmaxLIRDRec'])]
    found: dict[tuple[str, str], Any] = {}
    for (dataset, kind), part in rows.groupby(['dataset', 'experiment'], sort=False):
        pairs = part.pivot_table('test_ndcg@20', 'seed', 'variant').dropna()  # of one seed each
        if pairs.shape[1] == 2 and len(pairs):
            found[str(dataset), str(kind)] = 100 * (pairs['SoftmaxLIRDRec'] / pairs['LIRDRec'].mean() - 1)
    if not found:
        raise FileNotFoundError('no dataset with both')
    datasets = list(dict.fromkeys(dataset for dataset, _ in found))
    figure, axis = plt.subplots(figsize=(8, 1.6 + 0.7 * len(datasets)), layout='constrained')
    for number, (kind, label) in enumerate(kinds.items()):
        at = [place for place, dataset in enumerate(datasets) if (dataset, kind) in found]
        values = [found[datasets[place], kind] for place in at]
        y = [place + 0.4 * number - 0.2 for place in at]
        means = [value.mean() for value in values]
        axis.barh(y, means, 0.36, color=f'C{number}', alpha=0.6, label=label)
        for place, value in zip(y, values, strict=True):
            axis.plot(value, [place] * len(value), 'k.', markersize=4)
            axis.annotate(
                f'{value.mean():+.1f} %, {len(value)} seed{"s" * (len(value) > 1)}', (1.01, place),
                xycoords=axis.get_yaxis_transform(), va='center', fontsize=8,
            )  # fmt: skip
    axis.axvline(0, color='black', linewidth=1)
    axis.set_yticks(range(len(datasets)), [NAMES.get(dataset, dataset) for dataset in datasets])
    axis.set_ylim(len(datasets) - 0.5, -0.5)
    axis.set_xlabel("test ndcg@20 of SoftmaxLIRDRec against LIRDRec's mean, % (bars: mean; dots: seeds)")
    axis.grid(alpha=0.3, axis='x')
    figure.legend(loc='outside upper center', ncols=2, fontsize=8)
    save(figure, path)


def ablation(path: Path, experiment: str = 'ablation', title: str = 'One change at a time') -> None:
    r"""Draws what each change does to ndcg@20, relative to the paper's configuration."""

    def relative(part: pd.DataFrame) -> pd.DataFrame:
        base = part[part['variant'] == 'LIRDRec']['test_ndcg@20'].mean()
        return part.assign(**{'test_ndcg@20': 100 * (part['test_ndcg@20'] / base - 1)})

    panels(
        read(QUALITY / 'runs.csv', experiment=experiment),
        path,
        'test ndcg@20 against LIRDRec, %',
        relative,
        title,
    )


def panels(rows: pd.DataFrame, path: Path, label: str, change: Callable[[Any], Any], title: str) -> None:
    r"""Draws a bar for each variant, with the standard deviation over the seeds, and a panel for each dataset."""
    bars = rows.groupby('dataset', sort=False)['variant'].nunique()
    lines = [bars.iloc[at : at + 2].max() for at in range(0, len(bars), 2)]  # two panels side by side
    figure, axes = plt.subplots(
        len(lines),
        min(2, len(bars)),
        figsize=(5.5 * min(2, len(bars)), sum(1.4 + 0.27 * line for line in lines)),
        height_ratios=[1.4 + 0.27 * line for line in lines],
        layout='constrained',
        squeeze=False,
    )
    for axis in axes.flat[len(bars) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, bars.index, strict=False):
        part = change(rows[rows['dataset'] == name])
        group = part.groupby('variant')['test_ndcg@20'].agg(['mean', 'std']).sort_values('mean')
        colors = ['C1' if variant == 'SoftmaxLIRDRec' else 'C0' for variant in group.index]
        axis.barh([str(variant) for variant in group.index], group['mean'], xerr=group['std'], color=colors, capsize=2)
        axis.set_title(f'{NAMES.get(name, name)}, {seeds(part)}')
        axis.set_xlabel(f'{label} (mean ± sd)')
        axis.margins(y=0.01)
        axis.grid(alpha=0.3, axis='x')
    figure.suptitle(title)
    save(figure, path)


def transfer(path: Path) -> None:
    r"""Draws LIRDRec on worse and worse content against LightGCN, which sees none, and where they cross."""
    rows = read(QUALITY / 'runs.csv', experiment='transfer')
    kinds = {
        'noise': ('noise, in lengths of the features', 0.0),
        'permute': ('share of items with traded features', 0.0),
        'columns': ('share of feature columns kept', 1.0),
    }
    datasets = list(dict.fromkeys(rows['dataset']))
    figure, axes = plt.subplots(
        len(datasets), len(kinds), figsize=(11, 3.1 * len(datasets)), layout='constrained', squeeze=False, sharey='row'
    )
    for line, dataset in zip(axes, datasets, strict=True):
        part = rows[rows['dataset'] == dataset]
        group = part.groupby('variant')['test_ndcg@20'].agg(['mean', 'std'])
        base = group.loc['LightGCN']
        for axis, (kind, (label, best)) in zip(line, kinds.items(), strict=True):
            points = [(best, *group.loc['content'])]
            points += [
                (float(str(name).split()[1]), *values)
                for name, values in group.iterrows()
                if str(name).startswith(kind)
            ]
            level, mean, std = zip(*sorted(points), strict=True)
            axis.errorbar(level, mean, yerr=std, marker='o', capsize=2, label='LIRDRec')
            axis.axhline(base['mean'], color='C1', label='LightGCN, item IDs and no content')
            if 'titles alone' in group.index:
                axis.axhline(
                    group.loc['titles alone', 'mean'], color='C0', linestyle='--', label='LIRDRec, titles alone'
                )
            axis.axhspan(base['mean'] - base['std'], base['mean'] + base['std'], color='C1', alpha=0.2)
            scale = np.log if kind == 'columns' else np.asarray
            clear = group.loc['content', 'mean'] > base['mean'] + base['std']  # or there is no lead to lose
            for at in crossings(scale(level), np.asarray(mean) - base['mean']) if clear else ():
                at = np.exp(at) if kind == 'columns' else at
                axis.axvline(at, color='black', linestyle=':')
                axis.text(at, 0.03, f' {at:.2g}', transform=axis.get_xaxis_transform())
            if kind == 'columns':
                axis.set_xscale('log')
                axis.set_xticks(level, labels=[f'{share:g}' for share in level])
                axis.minorticks_off()
            axis.set_xlabel(label)
            axis.grid(alpha=0.3)
        line[0].set_ylabel('test ndcg@20 (mean ± sd)')
        line[1].set_title(f'{NAMES.get(dataset, dataset)}, {seeds(part)}; dotted: where a lead is lost')
    figure.legend(*axes[-1, 0].get_legend_handles_labels(), loc='outside lower center', ncols=3, fontsize=8)
    save(figure, path)


def crossings(x: Any, y: Any) -> list[float]:
    r"""Returns where the line through some points is zero."""
    points = list(zip(x, y, strict=True))
    return [
        a + (b - a) * over / (over - under) for (a, over), (b, under) in itertools.pairwise(points) if over * under < 0
    ]


def pwc(path: Path) -> None:
    r"""Draws the mean weight of each view over the epochs, and the spread over users."""
    rows = read(QUALITY / 'pwc.csv')
    datasets, variants = list(dict.fromkeys(rows['dataset'])), list(dict.fromkeys(rows['variant']))
    figure, axes = plt.subplots(
        len(datasets), len(variants), figsize=(2.5 * len(variants) + 1, 2.7 * len(datasets)), layout='constrained',
        squeeze=False, sharey=True, sharex=True,
    )  # fmt: skip
    for line, dataset in zip(axes, datasets, strict=True):
        views = list(dict.fromkeys(rows[rows['dataset'] == dataset]['view']))
        for axis, variant in zip(line, variants, strict=True):
            part = rows[(rows['dataset'] == dataset) & (rows['variant'] == variant)]
            for number, view in enumerate(views):
                mean = part[part['view'] == view].groupby('epoch')[['mean', 'std']].mean()
                axis.plot(mean.index, mean['mean'], color=f'C{number}', label=view)
                low, high = mean['mean'] - mean['std'], mean['mean'] + mean['std']
                axis.fill_between(mean.index, low, high, color=f'C{number}', alpha=0.2)
            axis.set_title(f"'{variant}'", fontsize=10)
            axis.grid(alpha=0.3)
        line[0].set_ylabel(f'{NAMES.get(dataset, dataset)}\nweight, mean ± sd over users')
        line[-1].legend(fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel('epoch')
    figure.suptitle(f'Weights of the views by variant of PWC, {seeds(rows)}')
    save(figure, path)


def cold(path: Path) -> None:
    r"""Draws the cold items, as the example does."""
    example = rows.example('cold_start')
    example.plot(example.read(found(QUALITY / 'cold.csv')), path)


def bias(path: Path) -> None:
    r"""Draws the gradient bias, as the example does: a picture for each dataset and one of all conditions."""
    example, runs = rows.example('gradient_bias'), found(QUALITY / 'gradient_bias.csv')
    for dataset, part in gradient_bias.read_curves(gradient_bias.curves_of(runs), example).groupby('dataset'):
        example.curves(part, dataset, path.with_name(f'{path.stem}-{dataset}{path.suffix}'))
    example.conditions(gradient_bias.read_runs(runs), path.with_name(f'{path.stem}-conditions{path.suffix}'))


def found(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(path)
    return path


def time_to_quality(path: Path) -> None:
    r"""Draws the seconds until validation recall@20 is a share of the straightforward implementation's best."""
    rows = read(SPEED / 'time_to_quality.csv', dataset='scientific', device=MACHINE)
    names = list(dict.fromkeys(rows['competitor']))[::-1]
    figure, axes = plt.subplots(figsize=(8, 1.4 + 0.45 * len(names)), layout='constrained')
    for number, share in enumerate((90, 95, 100)):
        for place, name in enumerate(names):
            seconds = rows[rows['competitor'] == name][f'seconds_to_{share}%']
            label = f'{share} % of its recall@20' if place == 0 else None
            y, median = place + 0.27 * (1 - number), seconds.median()
            axes.barh(y, median if np.isfinite(median) else 0, 0.25, color=f'C{number}', label=label)
            axes.plot(seconds, [y] * len(seconds), 'k.', markersize=4)
            missed = int(np.isinf(seconds).sum())
            if missed:
                said = 'not reached' if missed == len(seconds) else f'not reached by {missed} of {len(seconds)} seeds'
                last = seconds[np.isfinite(seconds)].max() if missed < len(seconds) else 1
                axes.annotate(said, (last, y), xytext=(6, 0), textcoords='offset points', fontsize=7, va='center')
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale('log')
    axes.set_xlim(left=1)
    axes.set_xticks(ticks := [1, 2, 5, 10, 20, 50, 100], labels=map(str, ticks))
    axes.set_xlabel('seconds of training and validation (bars: median; dots: seeds)')
    title = f'Time to the quality of the straightforward implementation, {rows["threads"].iloc[0]} threads'
    axes.set_title(title, loc='right', fontsize=11)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, axis='x')
    save(figure, path)


def speed(module: ModuleType, name: str) -> Callable[[Path], None]:
    r"""Returns what draws the rows of a speed benchmark, as itself does."""

    def draw(path: Path) -> None:
        module.plot(read(SPEED / f'{name}.csv', device=MACHINE).to_dict('records'), path)

    return draw


FIGURES: dict[str, Callable[[Path], None]] = {
    'main': main_models,
    'preset': preset,
    'ablation': ablation,
    'item_ids': functools.partial(ablation, experiment='item IDs', title='Item IDs beside content and alone'),
    'transfer': transfer,
    'pwc': pwc,
    'cold': cold,
    'gradient_bias': bias,
    'propagation': speed(propagation, 'propagation'),
    'scaling': speed(scaling, 'scaling'),
    'knn': speed(knn, 'knn'),
    'ranking': speed(ranking, 'ranking'),
    'scale': speed(scale, 'scale'),
    'retrieval': speed(retrieval, 'retrieval'),
    'time_to_quality': time_to_quality,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', default=list(FIGURES), choices=list(FIGURES), help='default: all')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'figures', help='default: %(default)s')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        path = args.out / f'{name}.png'
        try:
            FIGURES[name](path)
        except FileNotFoundError as error:
            print(f'{name}: no rows yet ({error})')
        else:
            print(f'{name}: drawn')
        plt.close('all')


if __name__ == '__main__':
    main()
