r"""Writes the tables of the README and of ``docs`` from the rows in ``benchmarks/results``. It replaces what stands
between ``<!-- table: NAME -->`` and ``<!-- end -->``. Some names end in ``-DATASET``. A table without rows says so.

    python -m benchmarks.report.tables
    python -m benchmarks.report.tables --check
"""

import argparse
import functools
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from benchmarks.quality import experiments
from benchmarks.report import significance, speed
from benchmarks.report.markdown import once, paired, read, spread, table
from benchmarks.report.new_items import new_items
from benchmarks.rows import RESULTS as ALL
from benchmarks.rows import replace

ROOT = Path(__file__).parents[2]
RESULTS = ALL / 'quality'
NAMES = {
    'scientific': 'Scientific',
    'movielens': 'MovieLens-100K',
    'microlens_50k': 'MicroLens-50k',
    'scientific_text': 'Scientific (text)',
    'hm_week': 'H&M week',
    'lastfm': 'Last.fm',
    'beauty': 'Beauty',
}
PUBLISHED = {  # recall@20 and ndcg@20 as a later paper (DAMPS) quotes them, and as ustc-mkh/COMP5331 reproduced them
    'baby': ('.1028 / .0455', '.1055 / .0458'),
    'sports': ('.1134 / .0510', '.1136 / .0503'),
    'clothing': ('.0979 / .0445', '.0937 / .0423'),
    'elec': ('.0667 / .0304', '.0674 / .0306'),
    'microlens': ('.1185 / .0514', '.1124 / .0479'),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='only say whether they are up to date')
    args = parser.parse_args()
    for path in pages():
        old = path.read_text()
        new = render(old)
        if args.check and new != old:
            sys.exit(f'{path} is not what {Path(__file__).name} writes: run it')
        if new != old:
            replace(path, new.encode())


def pages() -> list[Path]:
    r"""Returns the files with tables."""
    return [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def render(text: str) -> str:
    r"""Returns a text with all its tables made anew."""

    def made(match: re.Match[str]) -> str:
        name, *dataset = match[1].split('-')
        try:
            lines = TABLES[name](*dataset)
        except FileNotFoundError:
            lines = '*No rows yet.*'
        return f'<!-- table: {match[1]} -->\n\n{lines}\n\n<!-- end -->'

    return re.sub(r'<!-- table: (\S+) -->.*?<!-- end -->', made, text, flags=re.DOTALL)


def faithful() -> str:
    r"""LIRDRec in the paper's configuration on Scientific, beside what is known of the released implementation."""
    rows = read(RESULTS / 'scientific.csv')
    metrics = ['recall@10', 'recall@20', 'ndcg@10', 'ndcg@20']
    ours = [f'LIRDRec, ours ({len(rows)} seeds)'] + [spread(rows[f'test_{metric}']) for metric in metrics]
    known = ['LIRDRec, released implementation (1 seed)', '', '.1914', '', '.0877']
    return table(['model', *metrics], [ours, known])


def text() -> str:
    r"""LIRDRec and LightGCN on the larger Scientific, with text features of our own route."""
    rows = read(RESULTS / 'runs.csv', experiment='text')
    metrics = ['recall@10', 'recall@20', 'ndcg@10', 'ndcg@20']
    lines = []
    for variant in ('LightGCN', 'LIRDRec'):
        part = rows[rows['variant'] == variant]
        lines.append([f'{variant} ({len(part)} seeds)'] + [spread(part[f'test_{metric}']) for metric in metrics])
    return table(['model', *metrics], lines)


def published() -> str:
    r"""LIRDRec in the paper's configuration on the published sets, beside what is known of it there."""
    rows = read(RESULTS / 'runs.csv')
    rows = rows[(rows['model'] == 'LIRDRec') & (rows['settings'] == '{}')]
    lines = []
    for dataset, (quoted, reproduced) in PUBLISHED.items():
        part = rows[rows['dataset'] == dataset]
        cells = [spread(part[f'test_{metric}']) for metric in ('recall@20', 'ndcg@20')] if len(part) else ['not run']
        lines.append([f'{dataset} ({len(part)})', ' / '.join(cells), quoted, reproduced])
    return table(['dataset (seeds)', 'recall@20 / ndcg@20: ours', 'quoted', 'reproduced by others'], lines)


def defaults() -> str:
    r"""Every model as it ships, on every dataset that has rows: test ndcg@20, and the mean rank over the datasets that
    a model was run on; the best bold."""
    rows = once(read(RESULTS / 'runs.csv', experiment='defaults'), 'variant', 'dataset', 'seed')
    if rows.empty:
        raise FileNotFoundError(RESULTS / 'runs.csv')
    value = rows.groupby(['variant', 'dataset'])['test_ndcg@20'].mean().unstack()
    names = [name for name in NAMES if name in value] + [name for name in value if name not in NAMES]
    rank = value.rank(ascending=False).mean(axis=1)
    lines = []
    for variant in rank.sort_values().index:
        cells = []
        for name in names:
            part = rows[(rows['variant'] == variant) & (rows['dataset'] == name)]['test_ndcg@20']
            cell = f'{spread(part)} ({len(part)})' if len(part) else ''
            cells.append(f'**{cell}**' if len(part) and value.loc[variant, name] == value[name].max() else cell)
        lines.append([variant, *cells, f'{rank[variant]:.1f}'])
    return table(['model (seeds in brackets)', *(NAMES.get(name, name) for name in names), 'mean rank'], lines)


def batches() -> str:
    r"""The default batch size and learning rate beside batches of 2,048, by objective."""
    rows = once(read(RESULTS / 'runs.csv', experiment='batch'), 'variant', 'dataset', 'seed')
    if rows.empty:
        raise FileNotFoundError(RESULTS / 'runs.csv')
    lines = []
    for dataset, objective in itertools.product(NAMES, ('BPR', 'softmax')):
        own = rows[rows['dataset'] == dataset]
        small, default = (own[own['variant'] == f'{objective}, {size}'].set_index('seed') for size in (2048, 'default'))
        seeds = small.index.intersection(default.index)
        if len(seeds) == 0:
            continue
        small, default = small.loc[seeds], default.loc[seeds]
        cells = [spread(part['test_ndcg@20']) for part in (small, default)]
        cells.append(paired(default['test_ndcg@20'], small['test_ndcg@20']) if len(seeds) > 1 else '')
        faster = (small['cpu_seconds'] / default['cpu_seconds']).median()
        size = experiments.BATCHES.get(dataset, 2048)
        lines.append([f'{NAMES[dataset]} ({len(seeds)})', objective, f'{size:,}', *cells, f'{faster:.1f}'])
    header = ['dataset (seeds)', 'objective', 'batch', 'ndcg@20, 2,048', 'default', 'change', 'times faster (CPU)']
    return table(header, lines)


def reliability() -> str:
    r"""How many damaged files, odd values and unlucky moments were tried, and what became of them."""
    columns = {'right': 'right all the same', 'noticed': 'refused', 'bare': 'bare errors', 'unnoticed': 'unnoticed'}
    rows = read(ALL / 'reliability.csv').astype(str)
    keys = ['tried', *columns]
    total = [str(rows[key].astype(int).sum()) for key in keys]
    lines = [[row['what'], *(row[key] for key in keys)] for _, row in rows.iterrows()]
    return table(['what happens', 'tried', *columns.values()], [*lines, ['all', *total]])


def missing() -> str:
    r"""Items without an image, marked as such or given the mean of the others."""
    rows = read(RESULTS / 'missing.csv')
    names = {'mask': 'masked (ours)', 'mean': 'mean vector (released preprocessing)'}
    lines = []
    for weight in sorted(rows['image_weight'].unique()):
        for fill, name in names.items():
            part = rows[(rows['image_weight'] == weight) & (rows['fill'] == fill)]
            cells = [spread(part[f'test_{metric}']) for metric in ('recall@20', 'ndcg@20', 'lacking/recall@20')]
            share = part['image_neighbours_also_lacking'].mean()
            lines.append([name, f'{weight:g}', *cells, f'{share:.0%}'])
    header = ['items without an image', 'image weight', 'recall@20', 'ndcg@20', 'recall@20 of these items']
    return table([*header, 'their image neighbours that lack one, too'], lines)


def models(dataset: str) -> str:
    r"""All models on a dataset, settings chosen on validation; the best bold, the second best italic."""
    rows = read(RESULTS / 'runs.csv', experiment='main', dataset=dataset)
    p = p_values('main', dataset)
    metrics = ['recall@10', 'recall@20', 'ndcg@10', 'ndcg@20']
    means = rows.groupby('variant')[[f'test_{metric}' for metric in metrics]].mean()
    others = beyond_accuracy(rows)
    lines = []
    for variant in means['test_ndcg@20'].sort_values().index:
        part = rows[rows['variant'] == variant]
        cells = []
        for metric in metrics:
            place = int((means[f'test_{metric}'] > means.loc[variant, f'test_{metric}']).sum())
            mark = {0: '**', 1: '*'}.get(place, '')
            cells.append(f'{mark}{spread(part[f"test_{metric}"])}{mark}')
        cells += [p.get(variant, ''), f'{part["best_epoch"].mean():.0f}']
        lines.append([f'{variant} ({len(part)})', *cells, *beyond_accuracy(rows, part).values()])
    return table(['model (seeds)', *metrics, 'p against LIRDRec', 'best epoch', *others], lines)


def beyond_accuracy(rows: pd.DataFrame, part: pd.DataFrame | None = None) -> dict[str, str]:
    r"""Returns what some of the rows recommend, right or not, by metric, as far as any row has it."""
    part, out = rows if part is None else part, {}
    for metric, form in (('coverage@20', '.0%'), ('popularity@20', '.0f')):
        if f'test_{metric}' in rows and rows[f'test_{metric}'].notna().any():
            mean = part[f'test_{metric}'].mean()
            out[metric] = '' if pd.isna(mean) else format(mean, form)
    return out


def ordered(rows: pd.DataFrame, experiment: str, dataset: str) -> Iterator[tuple[str, pd.DataFrame]]:
    r"""Yields the variants of an experiment as it defines them, and those that it does not know behind them."""
    known = dict.fromkeys(job['variant'] for job in experiments.EXPERIMENTS[experiment](dataset))
    for variant in known | dict.fromkeys(rows['variant']):
        part = rows[rows['variant'] == variant]
        if not part.empty:
            yield variant, part


def p_values(experiment: str, dataset: str) -> dict[str, str]:
    r"""Returns the p of each variant against LIRDRec, as far as it was tested, corrected for how many there are. It
    says of how many seeds it is, where there are rows of more."""
    path = RESULTS / 'significance.csv'
    if not path.is_file():
        return {}
    rows, found = significance.read(RESULTS / 'runs.csv'), pd.read_csv(path)
    rows = rows[(rows['experiment'] == experiment) & (rows['dataset'] == dataset)]
    found = found[(found['experiment'] == experiment) & (found['dataset'] == dataset) & (found['against'] == 'LIRDRec')]
    found = significance.current(found, rows)
    counts = rows.groupby('variant').size()
    out = {}
    for variant, seeds, p in zip(found['variant'], found['seeds'], holm(found['p'].to_list()), strict=True):
        fewer = bool(seeds < min(counts[variant], counts['LIRDRec']))
        out[variant] = probability(p) + f' (of {seeds})' * fewer
    return out


def holm(values: list[float]) -> list[float]:
    r"""Returns p-values corrected by Holm's method: the chance of any false finding is at most that of one test."""
    out, largest = [0.0] * len(values), 0.0
    for place, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        out[index] = largest = max(largest, min(1.0, (len(values) - place) * values[index]))
    return out


def probability(p: float) -> str:
    return f'{p:.1g}' if p >= 1e-12 else '< 1e-12'


def ablation(dataset: str, experiment: str = 'ablation') -> str:
    r"""One change at a time, against the paper's configuration."""
    rows = read(RESULTS / 'runs.csv', experiment=experiment, dataset=dataset)
    p = p_values(experiment, dataset)
    base = rows[rows['variant'] == 'LIRDRec']['test_ndcg@20'].mean()
    lines = []
    for variant, part in ordered(rows, experiment, dataset):
        change = '' if variant == 'LIRDRec' else f'{part["test_ndcg@20"].mean() / base - 1:+.1%}'
        cells = [spread(part['test_recall@20']), spread(part['test_ndcg@20']), change, p.get(variant, '')]
        cells += [f'{part["best_epoch"].mean():.0f}', *beyond_accuracy(rows, part).values()]
        lines.append([f'{variant} ({len(part)})', *cells])
    header = ['variant (seeds)', 'recall@20', 'ndcg@20', 'change', 'p', 'best epoch', *beyond_accuracy(rows)]
    return table(header, lines)


def preset(kind: str = '') -> str:
    r"""Our configuration against the paper's on every dataset, each chosen by validation ndcg@20."""
    experiment = f'preset, {kind}' if kind else 'preset'
    rows = read(RESULTS / 'runs.csv', experiment=experiment)
    lines, changes = [], []
    for dataset, group in rows.groupby('dataset', sort=False):
        parts = dict(iter(group.groupby('variant')))
        paper, ours = parts.get('LIRDRec'), parts.get('SoftmaxLIRDRec')
        if paper is None or ours is None:
            continue
        changes.append(ours['test_ndcg@20'].mean() / paper['test_ndcg@20'].mean() - 1)
        clock = 'seconds'
        if 'cpu_seconds' in group and group['cpu_seconds'].notna().all():  # which others on the machine do not count in
            clock = 'cpu_seconds'
        faster = paper[clock].mean() / ours[clock].mean()
        count = '/'.join(dict.fromkeys([str(len(ours)), str(len(paper))]))
        lines.append([
            f'{NAMES.get(str(dataset), dataset)} ({count})',
            *(spread(part[f'test_{metric}']) for metric in ('recall@20', 'ndcg@20') for part in (paper, ours)),
            f'{changes[-1]:+.1%}', p_values(experiment, str(dataset)).get('SoftmaxLIRDRec', ''), f'{faster:.1f}',
        ])  # fmt: skip
    if not changes:
        raise FileNotFoundError
    lines.append(['mean', '', '', '', '', f'{sum(changes) / len(changes):+.1%}', '', ''])
    header = ['dataset (seeds)', 'recall@20: LIRDRec', 'SoftmaxLIRDRec', 'ndcg@20: LIRDRec', 'SoftmaxLIRDRec']
    return table([*header, 'change', 'p', 'times faster trained'], lines)


def untuned() -> str:
    r"""Our configuration as it stands, against both tuned."""
    tuned = read(RESULTS / 'runs.csv', experiment='preset, hidden')
    lines = []
    rows = read(RESULTS / 'runs.csv', experiment='preset, untuned', variant='SoftmaxLIRDRec')
    for dataset, part in rows.groupby('dataset', sort=False):
        found = dict(iter(tuned[tuned['dataset'] == dataset].groupby('variant')))
        paper, ours = (found[name]['test_ndcg@20'] for name in ('LIRDRec', 'SoftmaxLIRDRec'))
        value = part['test_ndcg@20']
        change = f'{value.mean() / paper.mean() - 1:+.1%}'
        name = f'{NAMES.get(str(dataset), dataset)} ({len(part)})'
        lines.append([name, spread(part['test_recall@20']), spread(value), change, spread(paper), spread(ours)])
    header = ['dataset (seeds)', 'recall@20', 'ndcg@20', 'against LIRDRec', 'LIRDRec, tuned', 'SoftmaxLIRDRec, tuned']
    return table(header, lines)


def candidates() -> str:
    r"""The settings that the larger datasets choose from, by validation; the best of each model is bold."""
    rows = read(RESULTS / 'runs.csv', experiment='preset, candidates', seed=0)
    names = {'num_layers': 'layers', 'reg_weight': 'λ', 'lr': 'learning rate', 'temperature': 'τ'}
    lines = []
    for (dataset, model), part in rows.groupby(['dataset', 'model'], sort=False):
        best = part['val_ndcg@20'].max()
        for _, row in part.sort_values('variant').iterrows():
            settings = json.loads(row['settings'])
            known = settings['model'] | settings['fit']
            shown = names if model == 'LIRDRec' else ['temperature']
            what = ', '.join(f'{names[name]} {known[name]:g}' for name in shown if name in known)
            value = spread(pd.Series([row['val_ndcg@20']]))
            where = f'{NAMES.get(str(dataset), dataset)}: {model}'
            lines.append([where, what, f'**{value}**' if row['val_ndcg@20'] == best else value])
    return table(['dataset: model', 'settings', 'validation ndcg@20'], lines)


def sequential(dataset: str) -> str:
    r"""The paper's configuration and ours, with and without a user's latest items."""
    rows = read(RESULTS / 'runs.csv', experiment='preset, hidden', dataset=dataset)
    base = rows[rows['variant'] == 'LIRDRec']['test_ndcg@20'].mean()
    p = p_values('preset, hidden', dataset)
    lines = []
    for variant, name in [
        ('LIRDRec', 'LIRDRec'),
        ('LIRDRec, history', 'LIRDRec with the latest items'),
        ('SoftmaxLIRDRec, no history', 'SoftmaxLIRDRec without'),
        ('SoftmaxLIRDRec', 'SoftmaxLIRDRec'),
    ]:
        part = rows[rows['variant'] == variant]
        if part.empty:
            continue
        change = '' if variant == 'LIRDRec' else f'{part["test_ndcg@20"].mean() / base - 1:+.1%}'
        cells = [spread(part['test_recall@20']), spread(part['test_ndcg@20']), change, p.get(variant, '')]
        lines.append([f'{name} ({len(part)})', *cells])
    return table(['variant (seeds)', 'recall@20', 'ndcg@20', 'change', 'p'], lines)


def pwc(dataset: str) -> str:
    r"""The weights of the views that each variant of PWC ends with, and how often the monitor warned."""
    rows = once(read(RESULTS / 'pwc.csv', dataset=dataset), 'variant', 'seed', 'epoch', 'view')
    views = list(dict.fromkeys(rows['view']))
    lines = []
    for variant, part in rows.groupby('variant', sort=False):
        last = part[part['epoch'] == part['epoch'].max()]
        cells = []
        for view in views:
            mean = last[last['view'] == view].mean(numeric_only=True)
            cells.append(f'{mean["mean"]:.2f} ± {mean["std"]:.2f}')
        warned = last[last['warning'].notna()]['seed'].nunique()
        lines.append([f"'{variant}' ({last['seed'].nunique()})", *cells, f'{warned}'])
    return table(['variant (seeds)', *views, 'seeds with a warning'], lines)


def cold(dataset: str = '') -> str:
    r"""One item in five never seen in training; on all datasets, or on one."""
    rows = read(RESULTS / 'cold.csv', **({'dataset': dataset} if dataset else {}))
    rows = rows.astype({'item_graph': object, 'id_rows': object}).fillna({'item_graph': '', 'id_rows': ''})
    rows = once(rows, 'dataset', 'model', 'item_graph', 'id_rows', 'seed')
    lines = []
    for on, group in rows.groupby('dataset', sort=False):
        where = '' if dataset else f'{NAMES.get(str(on), on)}: '
        for (model, graph, ids), part in group.groupby(['model', 'item_graph', 'id_rows'], sort=False):
            graph = {'': '', 'knn': '', 'none': 'no item graph'}.get(graph, f'{graph} item graph')
            name = ', '.join(filter(None, [model, graph, ids and f'{ids} IDs']))
            metrics = ('cold_recall@20', 'cold_ndcg@20', 'all_recall@20', 'all_ndcg@20')
            cells = [spread(part[metric]) for metric in metrics]
            lines.append([f'{where}{name} ({len(part)})', *cells])
        chance = (20 / group['cold_items']).clip(upper=1).mean()
        lines.append([f'{where}by chance', f'{chance:.4f}'.removeprefix('0'), '', '', ''])
    header = ['model (seeds)', 'recall@20 among cold items', 'ndcg@20', 'recall@20 among all items', 'ndcg@20']
    return table(header, lines)


def bias(dataset: str) -> str:
    r"""How much more features move items than IDs do, where both are trained, and what becomes of validation recall."""
    usual = {'keep': 1.0, 'loss': 'bpr', 'optimizer': 'adam', 'init': 'own', 'id_scale': 1.0, 'feature_norm': 'own'}
    rows = read(RESULTS / 'gradient_bias.csv', dataset=dataset, parts='both')
    rows = once(rows, 'model', *usual, 'seed')
    words = {
        'keep': '{:.0%} of the interactions', 'loss': '{}', 'optimizer': 'SGD', 'init': 'IDs as long as the features',
        'id_scale': 'times {:g}', 'feature_norm': 'features of length one',
    }  # fmt: skip
    lines = []
    for values, part in rows.groupby(['model', *usual], sort=False):
        model, *settings = values
        changed = [words[key].format(v) for (key, u), v in zip(usual.items(), settings, strict=True) if v != u]
        ratios = [(part[f'feature_{name}'] / part[f'id_{name}']).mean() for name in ('grad', 'move')]
        best = [part[name] for name in ('recall', 'recall_features', 'recall_ids')]
        recalls = ['' if values.isna().all() else spread(values.dropna()) for values in best]
        name = ', '.join([str(model), *changed])
        lines.append([f'{name} ({len(part)})', *(f'{r:,.0f}' if r >= 10 else f'{r:.2g}' for r in ratios), *recalls])
    header = ['IDs and features (seeds)', 'gradient, features : IDs', 'move in a step, features : IDs', 'recall@20']
    return table([*header, 'of its features', 'of its IDs'], lines)


def transfer(dataset: str) -> str:
    r"""Content made less informative, against LightGCN, which sees none."""
    rows = read(RESULTS / 'runs.csv', experiment='transfer', dataset=dataset)
    base = rows[rows['variant'] == 'LightGCN']['test_ndcg@20'].mean()
    lines = []
    for variant, part in ordered(rows, 'transfer', dataset):
        change = '' if variant == 'LightGCN' else f'{part["test_ndcg@20"].mean() / base - 1:+.1%}'
        lines.append(
            [
                f'{content(variant)} ({len(part)})',
                spread(part['test_recall@20']),
                spread(part['test_ndcg@20']),
                change,
            ]
        )
    return table(['content (seeds)', 'recall@20', 'ndcg@20', 'against LightGCN'], lines)


def content(variant: str) -> str:
    r"""Returns what a variant of the experiment ``transfer`` sees, in words."""
    known = {'LightGCN': 'LightGCN: item IDs and no content', 'content': 'LIRDRec: all content'}
    kind, _, level = variant.partition(' ')
    if kind == 'noise':
        return f'noise of {level} times the length of the features'
    if kind == 'permute':
        return f'{float(level):.0%} of the items with traded features'
    if kind == 'columns':
        return f'{float(level):.0%} of the columns'
    return known.get(variant, variant)


def precision() -> str:
    r"""Half precision and compressed features on Scientific."""
    rows = read(RESULTS / 'runs.csv', experiment='precision')
    lines = [
        [f'{variant} ({len(part)})', spread(part['test_recall@20']), spread(part['test_ndcg@20'])]
        for variant, part in ordered(rows, 'precision', 'scientific')
    ]
    return table(['(seeds)', 'recall@20', 'ndcg@20'], lines)


def compression() -> str:
    r"""Features as they are, and compressed by explained variance."""
    rows = read(RESULTS / 'runs.csv', experiment='compression')
    lines = []
    for dataset in rows['dataset'].unique():
        group = rows[rows['dataset'] == dataset]
        for model in group['model'].unique():
            base = group[group['variant'] == model].set_index('seed')
            for variant in (model, f'{model}, auto'):
                part = group[group['variant'] == variant].set_index('seed')
                cells = []
                for key in ('test_recall@20', 'test_ndcg@20'):
                    cells += [spread(part[key]), '' if variant == model else paired(part[key], base[key])]
                lines.append([NAMES.get(dataset, dataset), f'{variant} ({len(part)})', *cells])
    header = ['dataset', '(seeds)', 'recall@20', 'against all columns', 'ndcg@20', 'against all columns']
    return table(header, lines)


def onboard() -> str:
    r"""Items onboarded, made anew with the same weights, trained on, or there from the start."""
    rows = once(read(RESULTS / 'onboard.csv'), 'dataset', 'method', 'seed')
    lines = []
    for dataset, group in rows.groupby('dataset', sort=False):
        recall = {
            method: part.set_index('seed')[['cold_recall@20', 'all_recall@20']]
            for method, part in group.groupby('method', sort=False)
        }
        for method, part in group.groupby('method', sort=False):
            cells = [''] * 5
            if dataset != 'generated':
                cells[4] = f'{part["new_share"].mean():.0%}'
                for at, key in enumerate(('cold_recall@20', 'all_recall@20')):
                    cells[2 * at] = spread(part[key])
                    if method != 'onboarded':
                        cells[2 * at + 1] = paired(recall[method][key], recall['onboarded'][key])
            seconds = f'{part["seconds"].median():.2f}' if method == 'onboarded' else ''
            change = part['largest_change'].max()
            change = '' if pd.isna(change) else f'{change:.0e}' if change > 0 else '0'
            name = NAMES.get(str(dataset), dataset)
            name = f'{name}, {part["new"].iloc[0]:,} into {part["items"].iloc[0]:,}: {method} ({len(part)})'
            lines.append([name, *cells, seconds, change])
    header = ['items (seeds)', 'recall@20 among new items', 'against onboarded', 'among all items', 'against onboarded']
    header.append('new items among the best 20')
    return table([*header, 'seconds', 'largest change of the others'], lines)


def fold_in(dataset: str) -> str:
    r"""Users folded in, or in training from the start."""
    rows = once(read(RESULTS / 'fold_in.csv', dataset=dataset), 'method', 'seed')
    names = {'folded in (none)': 'folded in', 'folded in (mean)': "folded in with the others' mean free vectors"}
    base = rows[rows['method'] == 'trained with them'].set_index('seed')
    lines = []
    for method, part in rows.groupby('method', sort=False):
        cells = []
        for key in ('held_out_recall@20', 'held_out_ndcg@20'):
            same = method == 'trained with them'
            cells += [spread(part[key]), '' if same else paired(part.set_index('seed')[key], base[key])]
        seconds = part['seconds'].median()
        cells.append('' if seconds == 0 else f'{seconds:.0f}' if seconds > 1 else f'{seconds:.3f}')
        lines.append([f'{names.get(str(method), method)} ({len(part)})', *cells])
    header = ['new users (seeds)', 'recall@20', 'against training', 'ndcg@20', 'against training', 'seconds']
    return table(header, lines)


TABLES: dict[str, Callable[..., str]] = {
    'faithful': faithful,
    'defaults': defaults,
    'batches': batches,
    'text': text,
    'published': published,
    'missing': missing,
    'reliability': reliability,
    'main': models,
    'ablation': ablation,
    'item_ids': functools.partial(ablation, experiment='item IDs'),
    'preset': preset,
    'untuned': untuned,
    'candidates': candidates,
    'sequential': sequential,
    'pwc': pwc,
    'cold': cold,
    'transfer': transfer,
    'bias': bias,
    'precision': precision,
    'compression': compression,
    'onboard': onboard,
    'new_items': lambda: new_items(RESULTS / 'new_items.csv', NAMES),
    'fold_in': fold_in,
    'epoch': speed.epoch,
    'compiled': speed.compiled,
    'propagation': speed.propagation,
    'propagation_gpu': speed.propagation_gpu,
    'ranking': speed.ranking,
    'ranking_gpu': speed.ranking_gpu,
    'knn': speed.knn,
    'memory': speed.memory,
    'time_to_quality': speed.time_to_quality,
    'scaling': speed.scaling,
    'scaling_gpu': speed.scaling_gpu,
    'scale': speed.scale,
    'electronics': speed.electronics,
    'retrieval': speed.retrieval,
}

if __name__ == '__main__':
    main()
