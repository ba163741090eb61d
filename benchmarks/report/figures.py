r"""Draws the figures of the documentation from the rows in ``benchmarks/results``, into ``docs/figures``.

python -m benchmarks.report.figures
python -m benchmarks.report.figures --only ablation transfer
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from benchmarks import rows
from benchmarks.report import bias_figures, significance, values
from benchmarks.report.drawing import LESS, MORE, STYLE, below, dot, empty, headline, panels, rows_of, save
from benchmarks.report.markdown import read
from benchmarks.report.speed import MACHINE, XEON
from benchmarks.report.words import COLORS, NAMES, WORDS, color, shown
from benchmarks.speed import knn, propagation, ranking, retrieval, scale, scaling

ROOT = Path(__file__).parents[2]
QUALITY, SPEED = rows.RESULTS / 'quality', rows.RESULTS / 'speed'
MARKERS = 'osD^vP*X'


def seeds(rows: pd.DataFrame) -> str:
    r"""Returns how many seeds each variant has."""
    count = rows.groupby('variant')['seed'].nunique()
    least, most = count.min(), count.max()
    return f'{least} to {most} seeds' if least < most else f'{most} seed{"s" if most > 1 else ""}'


def datasets_of(rows: pd.DataFrame) -> list[str]:
    r"""Returns the datasets, in the order of all tables and figures."""
    found = set(rows['dataset'])
    return [name for name in NAMES if name in found] + sorted(found - set(NAMES))


def untuned(path: Path) -> None:
    r"""Draws how far each model as it ships is behind the best of each dataset: a row for each model, a mark for each
    dataset."""
    rows = read(QUALITY / 'runs.csv', experiment='defaults')
    rows = rows[rows['variant'] != 'Popularity']  # far behind
    mean = rows.groupby(['variant', 'dataset'])['test_ndcg@20'].mean().unstack()
    behind = 100 * (mean / mean.max() - 1)
    order = behind.mean(axis=1).sort_values(ascending=False).index
    with panels(height=1.3 + 0.3 * len(order)) as (figure, ((axis,),)):
        for y, variant in enumerate(order):
            axis.plot(behind.loc[variant].agg(['min', 'max']), [y, y], color=color(variant), linewidth=2, alpha=0.35)
            for marker, name in zip(MARKERS, datasets_of(rows), strict=False):
                label = NAMES.get(name, name) if y == 0 else None
                axis.plot([behind.loc[variant, name]], [y], marker, color=color(variant), markersize=7, label=label)
        rows_of(axis, [shown(str(variant)) for variant in order])
        axis.set_xlabel(f'test ndcg@20 against the best model of the dataset, %     {MORE}')
        headline(figure, 'Every model as it ships: how far behind the best of each dataset')
        below(figure, axis, 4)
        for handle in figure.legends[0].legend_handles:
            plt.setp(handle, color='#555555')
        save(figure, path)


def main_models(path: Path) -> None:
    r"""Draws ndcg@20 of each tuned model on each dataset."""
    rows = read(QUALITY / 'runs.csv', experiment='main')
    names = datasets_of(rows)
    lines = -(-len(names) // 2)
    with panels(lines, min(2, len(names)), height=0.7 + 2.7 * lines) as (figure, axes):
        for axis in axes.flat[len(names) :]:
            axis.set_axis_off()
        for axis, name in zip(axes.flat, names, strict=False):
            part = rows[rows['dataset'] == name]
            order = part.groupby('variant')['test_ndcg@20'].mean().sort_values(ascending=False).index
            for y, variant in enumerate(order):
                dot(axis, part[part['variant'] == variant]['test_ndcg@20'], y, color(variant))
            rows_of(axis, [shown(str(variant)) for variant in order])
            axis.set_title(f'{NAMES.get(name, name)}, {seeds(part)}')
            axis.set_xlabel(f'test ndcg@20     {MORE}')
        save(figure, path)


def effects(path: Path, experiment: str, title: str) -> None:
    r"""Draws what each change does to ndcg@20, relative to the paper's configuration, with the 95 % interval over users
    and seeds."""
    rows = read(QUALITY / 'runs.csv', experiment=experiment)
    names, mean = datasets_of(rows), rows.groupby(['dataset', 'variant'])['test_ndcg@20'].mean()
    first = rows[rows['dataset'] == names[0]]
    variants = [str(one) for one in dict.fromkeys([*first['variant'], *rows['variant']]) if one != 'LIRDRec']
    variants.sort(key=lambda one: -(mean.get((names[0], one), mean.min()) / mean[names[0], 'LIRDRec']))
    with panels(1, len(names), height=1.4 + 0.27 * len(variants), sharey=True) as (figure, (axes,)):
        for axis, name in zip(axes, names, strict=True):
            tested = significance.known_comparisons(QUALITY, experiment, name, 'LIRDRec')
            known = {} if tested.empty else {row['variant']: row for row in tested.to_dict('records')}
            for y, variant in enumerate(variants):
                if (name, variant) not in mean:
                    empty(axis, y)
                    continue
                value = 100 * (mean[name, variant] / mean[name, 'LIRDRec'] - 1)
                one = known.get(variant, {})
                low, high = (100 * one.get(end, np.nan) for end in ('low', 'high'))
                clear = low > 0 or high < 0
                style = {'color': COLORS['LIRDRec'] if clear else '#8a949c', 'linewidth': 1.8}
                if low < high:
                    axis.plot([low, high], [y, y], **style)
                axis.plot([value], [y], 'o', color=style['color'], markersize=6, mfc='white' if low != low else None)
            axis.axvline(0, color='black', linewidth=1)
            rows_of(axis, [WORDS.get(variant, variant) for variant in variants])
            axis.set_title(f'{NAMES.get(name, name)},\n{seeds(rows[rows["dataset"] == name])}')
            axis.set_xlabel(f'{MORE}')
        headline(figure, title)
        note = 'change in test ndcg@20, %, and its 95 % interval over users and seeds'
        figure.supxlabel(f'{note}\n(grey: it holds zero; hollow: one seed, no interval)', fontsize=9.5)
        save(figure, path)


def preset(path: Path) -> None:
    r"""Draws what our configuration changes on each dataset, relative to the paper's, in both ways of choosing."""
    kinds = {'preset, hidden': 'tuned as the test is: with a gap', 'preset': 'tuned without the gap'}
    rows = read(QUALITY / 'runs.csv')
    rows = rows[rows['experiment'].isin(kinds) & rows['variant'].isin(['LIRDRec', 'SoftmaxLIRDRec'])]
    found: dict[tuple[str, str], pd.Series] = {}
    for (dataset, kind), part in rows.groupby(['dataset', 'experiment'], sort=False):
        pairs = part.pivot_table('test_ndcg@20', 'seed', 'variant').dropna()  # of one seed each
        if pairs.shape[1] == 2 and len(pairs):
            found[str(dataset), str(kind)] = 100 * (pairs['SoftmaxLIRDRec'] / pairs['LIRDRec'].mean() - 1)
    if not found:
        raise FileNotFoundError('no dataset with both')
    names = [name for name in datasets_of(rows) if any((name, kind) in found for kind in kinds)]
    with panels(height=1.6 + 0.5 * len(names)) as (figure, ((axis,),)):
        for (kind, label), up in zip(kinds.items(), (-0.16, 0.16), strict=True):
            for y, name in enumerate(names):
                if (name, kind) not in found:
                    empty(axis, y + up, f'not run ({label})')
                    continue
                hollow = {'mfc': 'white'} if kind == 'preset' else {}
                dot(axis, found[name, kind], y + up, color('SoftmaxLIRDRec'), label=label, **hollow)
                mean, count = found[name, kind].mean(), len(found[name, kind])
                axis.annotate(
                    f'{mean:+.1f} %, {count} seed{"s" * (count > 1)}', (1.0, y + up),
                    xycoords=axis.get_yaxis_transform(), va='center', fontsize=9,
                )  # fmt: skip
        axis.axvline(0, color=color('LIRDRec'), linewidth=1.5)
        rows_of(axis, [NAMES.get(name, name) for name in names])
        axis.set_xlabel(f"SoftmaxLIRDRec against LIRDRec's mean (blue line), test ndcg@20, %     {MORE}")
        headline(figure, "Ours against the paper's configuration, mean ± sd over seeds")
        below(figure, axis, 2)
        save(figure, path)


def transfer(path: Path) -> None:
    r"""Draws LIRDRec on worse and worse content against LightGCN, which sees none, and where they cross."""
    rows = read(QUALITY / 'runs.csv', experiment='transfer')
    kinds = {
        'noise': 'noise, in lengths\nof the features',
        'permute': "share of items with\nanother's features",
        'columns': 'share of feature\ncolumns kept',
    }
    names = datasets_of(rows)
    with panels(len(names), len(kinds), height=0.7 + 2.6 * len(names), sharey='row') as (figure, axes):
        for line, name in zip(axes, names, strict=True):
            part = rows[rows['dataset'] == name]
            levels = lightgcn(name, part)
            for axis, (kind, label) in zip(line, kinds.items(), strict=True):
                curve(axis, part, kind)
                for (words, level), style in zip(levels.items(), (':', '-'), strict=False):
                    axis.axhline(level.mean(), color=color('LightGCN'), linestyle=style, linewidth=1.8, label=words)
                cross(axis, part, kind, list(levels.values())[-1].mean())
                axis.set_xlabel(label)
            line[0].set_ylabel(f'{NAMES.get(name, name)}\ntest ndcg@20  {MORE}')
        headline(figure, 'Content made worse: where LIRDRec loses its lead over LightGCN')
        below(figure, axes[0, 0], 3)
        save(figure, path)


def lightgcn(name: str, part: pd.DataFrame) -> dict[str, 'pd.Series[float]']:
    r"""Returns ndcg@20 of LightGCN on a dataset, in its own width and in one as large as LIRDRec's."""
    out = {'LightGCN, 64 wide': part[part['variant'] == 'LightGCN']['test_ndcg@20']}
    every = pd.read_csv(QUALITY / 'runs.csv')
    wide = every[(every['experiment'] == 'item IDs') & (every['dataset'] == name)]
    found = wide[wide['variant'] == 'LightGCN, as wide']['test_ndcg@20']
    return out | ({'LightGCN, 256 wide': found} if len(found) else {})


def curve(axis: Axes, part: pd.DataFrame, kind: str) -> None:
    r"""Draws LIRDRec against how much worse its content is."""
    group = part.groupby('variant')['test_ndcg@20'].agg(['mean', 'std'])
    points = {1.0 if kind == 'columns' else 0.0: group.loc['content']}
    points |= {float(str(name).split()[1]): line for name, line in group.iterrows() if str(name).startswith(f'{kind} ')}
    x = sorted(points)
    mean, std = ([points[at][key] for at in x] for key in ('mean', 'std'))
    axis.errorbar(x, mean, yerr=std, marker='o', capsize=3, color=color('LIRDRec'), label='LIRDRec (mean ± sd)')
    if kind == 'columns':
        axis.set_xscale('log')
        axis.invert_xaxis()
        axis.set_xticks(x, labels=[f'{share:.0%}' for share in x])
        axis.minorticks_off()


def cross(axis: Axes, part: pd.DataFrame, kind: str, level: float) -> None:
    r"""Marks where a lead over a level is lost."""
    x, lead = values.points(part, kind, level)
    for at in values.crossings(x, lead)[:1] if lead[0] > 0 else ():
        place = np.exp(at) if kind == 'columns' else at
        axis.axvline(place, color='black', linestyle='--', linewidth=1)
        text = f'{place:.0%}' if kind in ('columns', 'permute') else f'{place:.1f}'
        axis.annotate(
            f'level at {text}', (place, 0.97), xycoords=axis.get_xaxis_transform(), xytext=(4, 0),
            textcoords='offset points', va='top', fontsize=9,
        )  # fmt: skip


def pwc(path: Path) -> None:
    r"""Draws the mean weight of each view over the epochs, and the spread over users."""
    rows = read(QUALITY / 'pwc.csv')
    words = {
        'released': 'released PWC', 'ema': 'as its text\nhas it', 'attention': 'attention', 'static': 'fixed, learned',
        'uniform': 'equal',
    }  # fmt: skip
    tints = {'shared': '#555555', 'text': '#c2577f', 'image': '#2f8f5b', 'genre': '#2f8f5b'}
    names, variants = datasets_of(rows), list(dict.fromkeys(rows['variant']))
    with panels(len(names), len(variants), height=0.9 + 2.2 * len(names), sharey=True, sharex=True) as (figure, axes):
        for axis, variant in zip(axes[0], variants, strict=True):
            axis.set_title(words.get(variant, variant))
        for line, name in zip(axes, names, strict=True):
            for axis, variant in zip(line, variants, strict=True):
                part = rows[(rows['dataset'] == name) & (rows['variant'] == variant)]
                for view in dict.fromkeys(part['view']):
                    mean = part[part['view'] == view].groupby('epoch')[['mean', 'std']].mean()
                    label = {'shared': 'shared view', 'text': 'text'}.get(view, 'image or genre')
                    axis.plot(mean.index, mean['mean'], color=tints.get(view), label=label)
                    low, high = mean['mean'] - mean['std'], mean['mean'] + mean['std']
                    axis.fill_between(mean.index, low, high, color=tints.get(view), alpha=0.2, linewidth=0)
                axis.axhline(1 / part['view'].nunique(), color='black', linewidth=0.8, linestyle=':')
            line[0].set_ylabel(f'{NAMES.get(name, name)}\nweight of a view')
        for axis in axes[-1]:
            axis.set_xlabel('epoch')
        handles = dict(h for axis in axes[:, 0] for h in zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        figure.legend(list(handles.values()), list(handles), loc='outside lower center', ncols=5)
        count = rows['seed'].nunique()
        title = f'Released PWC ends at equal weights (mean ± sd over users, {count} seed{"s" * (count > 1)})'
        headline(figure, title)
        save(figure, path)


def when_ids_pay(path: Path) -> None:
    r"""Draws models with and without item IDs against the share of a simulated taste that content explains."""
    rows = read(QUALITY / 'when_ids_pay.csv')
    tints = {'LIRDRec': '-', 'SoftmaxLIRDRec': '-', 'LightGCN': '-', 'LightGCN, softmax': '--'}
    tints |= {'item IDs alone': '-', 'item IDs alone, softmax': '--', 'taste': ':'}
    names = datasets_of(rows)
    with panels(1, len(names), height=4.2) as (figure, (axes,)):
        for axis, name in zip(axes, names, strict=True):
            for variant, style in tints.items():
                part = rows[(rows['dataset'] == name) & (rows['variant'] == variant)]
                line = part.groupby('share')['test_ndcg@20'].agg(['mean', 'std'])
                if line.empty:
                    continue
                tint = '#777777' if variant == 'taste' else '#2f8f5b' if 'IDs' in variant else color(variant)
                label = {'taste': 'who knows the taste'}.get(variant, shown(variant))
                axis.errorbar(
                    100 * line.index, line['mean'], yerr=line['std'].fillna(0), linestyle=style, marker='o', capsize=2,
                    color=tint, label=label,
                )  # fmt: skip
            axis.set_title(f'{NAMES.get(name, name)}, {seeds(rows[rows["dataset"] == name])}')
            axis.set_xlabel('share of the taste that\ncontent explains, %')
        axes[0].set_ylabel(f'test ndcg@20     {MORE}')
        headline(figure, 'When item IDs pay: a simulated taste')
        below(figure, axes[0], 3)
        save(figure, path)


COLD = {  # the models on cold items that are drawn, in words
    ('LIRDRec', 'knn', ''): 'LIRDRec (paper)',
    ('LIRDRec', 'none', ''): 'LIRDRec, no item graph',
    ('LIRDRec', 'shuffled', ''): 'LIRDRec, shuffled item graph',
    ('LIRDRec-softmax', 'knn', ''): 'LIRDRec, softmax and cosines',
    ('LIRDRec-softmax', 'none', ''): 'LIRDRec, softmax, no item graph',
    ('FREEDOM', 'knn', 'projected'): 'FREEDOM, IDs made of content',
    ('FREEDOM', 'knn', 'zero'): 'FREEDOM, no IDs for new items',
    ('VBPR', '', 'zero'): 'VBPR, no IDs for new items',
    ('ContentKNN', '', ''): 'content kNN',
    ('Popularity', '', ''): 'popularity',
}


def cold(path: Path) -> None:
    r"""Draws how often items are found that training never saw: among themselves, and among all."""
    rows = read(QUALITY / 'cold.csv').astype({'item_graph': object, 'id_rows': object})
    rows = rows.fillna({'item_graph': '', 'id_rows': ''})
    for name in datasets_of(rows)[:1]:
        parts = dict(iter(rows[rows['dataset'] == name].groupby(['model', 'item_graph', 'id_rows'])))
        kept = [key for key in COLD if key in parts]
        with panels(1, 2, height=1.2 + 0.31 * len(kept), sharey=True) as (figure, (axes,)):
            for y, key in enumerate(kept):
                tint = color('SoftmaxLIRDRec' if key[0] == 'LIRDRec-softmax' else key[0])
                for axis, metric in zip(axes, ('cold_recall@20', 'all_recall@20'), strict=True):
                    dot(axis, parts[key][metric], y, tint)
            chance = (20 / rows['cold_items']).clip(upper=1).mean()
            axes[0].axvline(chance, color='black', linestyle=':')
            axes[0].annotate(
                'chance', (chance, 1), xycoords=axes[0].get_xaxis_transform(), xytext=(3, 0),
                textcoords='offset points', va='top', fontsize=9,
            )  # fmt: skip
            for axis in axes:
                rows_of(axis, [COLD[key] for key in kept])
            for axis, what in zip(axes, ('new items among themselves', 'new items among all'), strict=True):
                axis.set_title(what)
                axis.set_xlim(left=-0.005)
                axis.set_xlabel(f'test recall@20     {MORE}')
            draws = f'mean ± sd over {rows["seed"].nunique()} draws'
            title = f'{NAMES.get(name, name)}: items that training never saw, {draws}'
            headline(figure, title)
            save(figure, path)


def time_to_quality(path: Path) -> None:
    r"""Draws the seconds until validation recall@20 is that of the straightforward implementation's best."""
    rows = read(SPEED / 'time_to_quality.csv', dataset='scientific', device=MACHINE)
    names = list(dict.fromkeys(rows['competitor']))
    words = {'straightforward': 'straightforward LIRDRec', 'bf16': 'half precision', 'r=128': '128 components'}
    words |= {'lr ': 'rate '}
    shades = {90: 0.35, 95: 0.6, 100: 1.0}
    with panels(height=1.5 + 0.6 * len(names)) as (figure, ((axis,),)):
        for place, name in enumerate(names):
            own = 'SoftmaxLIRDRec' if 'Softmax' in name else 'LIRDRec' if 'LIRDRec' in name else ''
            for number, (share, shade) in enumerate(shades.items()):
                seconds = rows[rows['competitor'] == name][f'seconds_to_{share}%']
                reached, y = seconds[np.isfinite(seconds)], place + 0.27 * (number - 1)
                label = f'{share} %'
                if len(reached):
                    axis.plot(reached, [y] * len(reached), 'o', alpha=shade, color=color(own), markersize=4.5)
                    if np.isfinite(seconds.median()):
                        style = {'markersize': 13, 'markeredgewidth': 2.5}
                        axis.plot([seconds.median()], [y], '|', color=color(own), **style)
                missed = len(seconds) - len(reached)
                said = label + (f': not by {missed} of {len(seconds)} seeds' if missed else '')
                at = reached.max() if len(reached) else 1
                axis.annotate(said, (at, y), xytext=(7, 0), textcoords='offset points', fontsize=8.5, va='center')
        said = [functools.reduce(lambda text, pair: text.replace(*pair), words.items(), name) for name in names]
        rows_of(axis, [name.replace(', ', ',\n', 1) for name in said])
        axis.set_xscale('log')
        axis.set_xlim(1, 400)
        axis.set_xticks(ticks := [1, 2, 5, 10, 20, 50, 100, 200], labels=map(str, ticks))
        axis.minorticks_off()
        axis.set_xlabel(f'{LESS}     seconds (bars: median; dots: seeds)')
        threads = rows['threads'].iloc[0]
        headline(figure, f'Seconds to 90, 95 and 100 % of the straightforward recall@20, {threads} threads')
        save(figure, path)


def electronics(path: Path) -> None:
    r"""Draws the minutes from features on disk to a tested model against the number of interactions: of each stage, and
    of all."""
    rows = read(SPEED / 'electronics.csv')
    if 'arguments' in rows:
        rows = rows[~rows['arguments'].str.contains('"batch_size": [0-9]')].copy()  # another batch than by default
    words = {'compress': 'compression', 'graph': 'item graph', 'train': 'training', 'test': 'test'}
    tints = {'compress': '#8c6d46', 'graph': '#2f8f5b', 'train': color('SoftmaxLIRDRec'), 'test': '#7a5aa6'}
    rows['minutes'] = rows['seconds'] / 60  # without rounding
    last = rows.drop_duplicates(['measured', 'interactions', 'stage'], keep='last')
    minutes = last[last['stage'].isin(words)].pivot(
        index=['measured', 'interactions'], columns='stage', values='minutes'
    )
    minutes = minutes[[stage for stage in words if stage in minutes]]
    total = minutes.dropna().sum(axis=1) if len(minutes.columns) == len(words) else pd.Series(dtype=float)
    with panels(height=4.2) as (figure, ((axis,),)):
        for stage in minutes:
            for measured, marker, mfc in ((True, 'o-', None), (False, 's', 'white')):
                if measured in minutes.index.get_level_values(0):
                    line = minutes.loc[measured][stage].dropna()
                    axis.plot(line.index, line, marker, color=tints[str(stage)], mfc=mfc, label=words[str(stage)])
        for measured, marker in ((True, 'o-'), (False, '*')):
            if len(total) and measured in total.index.get_level_values(0):
                line = total.loc[measured]
                axis.plot(
                    line.index, line, marker, color='black', markersize=5 if measured else 13, linewidth=2, label='all'
                )
                for x, value in line.items():
                    said = f'{value:.0f} min' if value >= 1 else f'{60 * value:.0f} s'
                    at = float(str(x)), float(value)
                    away, side = ((-4, 6), 'right') if measured else ((10, -4), 'left')
                    axis.annotate(said, at, xytext=away, textcoords='offset points', ha=side, fontsize=9)
        other = last[last['stage'] == 'straightforward']
        axis.plot(other['interactions'], other['minutes'], 'X', color='#7f8c96', markersize=9, label='plain code')
        axis.axhline(60, color='black', linestyle=':', linewidth=1)
        axis.annotate(
            'an hour', (0, 60), xycoords=axis.get_yaxis_transform(), xytext=(3, 3), textcoords='offset points'
        )
        axis.set_xscale('log')
        axis.set_yscale('log')
        axis.margins(x=0.12)
        if rows['interactions'].nunique() == 1:
            axis.set_xlim(1e4, 1e7)
        note = 'lines: measured in steps, one core; squares and star: run as a whole, two cores;\n×: extrapolated'
        axis.set_xlabel(f'interactions in training\n({note})')
        axis.set_ylabel(f'{LESS}     minutes')
        headline(figure, 'From features on disk to a tested model')
        handles = {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(list(handles.values()), list(handles), loc='outside lower center', ncols=6, columnspacing=1)
        save(figure, path)


def speed(module: ModuleType, name: str, device: str = MACHINE) -> Callable[[Path], None]:
    r"""Returns what draws the rows of a speed benchmark, as itself does, in the letters of all figures."""

    def draw(path: Path) -> None:
        with plt.rc_context(STYLE):
            module.plot(read(SPEED / f'{name}.csv', device=device).to_dict('records'), path)

    return draw


FIGURES: dict[str, Callable[[Path], None]] = {
    'defaults': untuned,
    'main': main_models,
    'preset': preset,
    'ablation': functools.partial(effects, experiment='ablation', title='One change at a time to LIRDRec'),
    'item_ids': functools.partial(effects, experiment='item IDs', title='LIRDRec with item IDs'),
    'transfer': transfer,
    'pwc': pwc,
    'cold': cold,
    'when_ids_pay': when_ids_pay,
    'gradient_bias-ratio': bias_figures.ratio,
    'gradient_bias-learning': bias_figures.learning,
    'gradient_bias-conditions': bias_figures.conditions,
    'propagation': speed(propagation, 'propagation'),
    'scaling': speed(scaling, 'scaling'),
    'knn': speed(knn, 'knn'),
    'ranking': speed(ranking, 'ranking'),
    'scale': speed(scale, 'scale', XEON),
    'electronics': electronics,
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
