r"""Writes the tables and numbers of the README and of ``docs`` from the rows in ``benchmarks/results``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. Some names end in ``-DATASET``. A table without
rows says so. A number in a sentence stands between ``<!-- value: NAME; CELL; … -->`` and ``<!-- / -->``: see
``values.py``.

    python -m benchmarks.report.tables
    python -m benchmarks.report.tables --check
"""

import argparse
import functools
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pandas as pd

from benchmarks.quality import experiments
from benchmarks.report import significance, speed, studies
from benchmarks.report.markdown import once, paired, read, spread, table
from benchmarks.report.new_items import new_items
from benchmarks.report.values import render as render_values
from benchmarks.report.words import KNOWS, NAMES, WORDS, shown
from benchmarks.rows import RESULTS as ALL
from benchmarks.rows import replace

ROOT = Path(__file__).parents[2]
RESULTS = ALL / 'quality'
NOT_TESTED = '', ''
IDS = (
    'LIRDRec and item IDs',
    'item IDs alone',
    'item IDs alone, no item graph',
    'LIRDRec, as wide',
    'LightGCN, as wide',
)
PARTS = (
    'no transform',
    'random rotation',
    'PCA',
    'PWC uniform',
    'PWC ema',
    'no own branches',
    'no item graph',
    'softmax, scored by cosines',
)
SHORT = (  # of the models on cold items
    'LIRDRec',
    'LIRDRec, no item graph',
    'LIRDRec-softmax',
    'ContentKNN',
    'VBPR, zero IDs',
    'FREEDOM, zero IDs',
    'FREEDOM, projected IDs',
)
UNTUNED = ('scientific', 'movielens', 'scientific_text', 'microlens_50k', 'hm_week', 'lastfm', 'beauty')
PUBLISHED = {  # recall@20 and ndcg@20 as a later paper (DAMPS) quotes them, and as ustc-mkh/COMP5331 reproduced them
    'baby': ('.1028 / .0455', '.1055 / .0458'),
    'sports': ('.1134 / .0510', '.1136 / .0503'),
    'clothing': ('.0979 / .0445', '.0937 / .0423'),
    'elec': ('.0667 / .0304', '.0674 / .0306'),
    'microlens': ('.1185 / .0514', '.1124 / .0479'),
}
LITERATURE = {  # on the same splits
    'baby_ids': {'LightGCN': '.0754 / .0328', 'LIRDRec': '.1055 / .0458'},
    'sports_ids': {'LightGCN': '.0864 / .0387', 'LIRDRec': '.1136 / .0503'},
    'clothing_ids': {'LightGCN': '.0526 / .0236', 'LIRDRec': '.0937 / .0423'},
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
    docs = ROOT / 'docs'
    return [ROOT / 'README.md', *sorted(path for path in docs.rglob('*.md') if docs / '_build' not in path.parents)]


def render(text: str) -> str:
    r"""Returns a text with all its tables and numbers made anew."""

    def made(match: re.Match[str]) -> str:
        name, *dataset = match[1].split('-')
        try:
            lines = TABLES[name](*dataset)
        except FileNotFoundError:
            lines = '*No rows yet.*'
        return f'<!-- table: {match[1]} -->\n\n{lines}\n\n<!-- end -->'

    text = re.sub(r'<!-- table: (\S+) -->.*?<!-- end -->', made, text, flags=re.DOTALL)
    return render_values(text, RESULTS)


def faithful() -> str:
    r"""LIRDRec in the paper's configuration on Scientific, beside what is known of the released implementation."""
    rows = read(RESULTS / 'scientific.csv')
    metrics = ['recall@10', 'recall@20', 'ndcg@10', 'ndcg@20']
    ours = [f'LIRDRec, ours ({len(rows)} seeds)'] + [spread(rows[f'test_{metric}']) for metric in metrics]
    known = ['LIRDRec, released implementation (1 seed)', '', '.1914', '', '.0877']
    return table(['model', *metrics], [ours, known])


def published_ids(dataset: str) -> str:
    r"""Models without content on a published split, beside what the literature has of it."""
    rows = read(RESULTS / 'runs.csv', experiment='published', dataset=dataset)
    known = {'BPRMF': '', 'LightGCN': LITERATURE.get(dataset, {}).get('LightGCN', '')}
    lines = []
    for variant, part in ordered(rows, 'published', dataset):
        cells = [spread(part[f'test_{metric}']) for metric in ('recall@20', 'ndcg@20')]
        lines.append([f'{variant} ({len(part)})', *cells, known.get(variant, '')])
    lines.append(['LIRDRec with its content, as published', '', '', LITERATURE.get(dataset, {}).get('LIRDRec', '')])
    return table(['model (seeds)', 'recall@20', 'ndcg@20', 'known: recall@20 / ndcg@20'], lines)


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


def overview(experiment: str) -> str:
    r"""Every model of an experiment on every dataset that has rows: test ndcg@20, and the mean rank over the datasets
    that all models were run on; the best of each dataset bold."""
    rows = once(read(RESULTS / 'runs.csv', experiment=experiment), 'variant', 'dataset', 'seed')
    value = rows.groupby(['variant', 'dataset'])['test_ndcg@20'].mean().unstack()
    names = [name for name in NAMES if name in value] + [str(name) for name in value if name not in NAMES]
    most = {name: int(rows[rows['dataset'] == name].groupby('variant').size().max()) for name in names}
    expected = {name: {job['variant'] for job in experiments.EXPERIMENTS[experiment](str(name))} for name in names}
    whole = [name for name in names if expected[name] <= set(value[name].dropna().index)]
    share = (value / value.max()).mean(axis=1)
    rank = value[whole].rank(ascending=False).mean(axis=1) if whole else -share
    lines = []
    for variant in sorted(value.index, key=lambda one: (bool(pd.isna(rank[one])), float(rank[one]), -share[one])):
        cells = []
        for name in names:
            part = rows[(rows['variant'] == variant) & (rows['dataset'] == name)]['test_ndcg@20']
            cell = spread(part) if len(part) else 'not run' if variant in expected[name] else 'too wide'
            cell += f' ({len(part)})' if 0 < len(part) < most[name] else ''
            cells.append(f'**{cell}**' if value.loc[variant, name] == value[name].max() else cell)
        place = [] if not whole else ['' if pd.isna(rank[variant]) else f'{rank[variant]:.1f}']
        lines.append([shown(str(variant)), *place, KNOWS.get(str(variant), ''), *cells])
    header = [f'{NAMES.get(name, name)} ({most[name]} seed{"s" if most[name] > 1 else ""})' for name in names]
    out = table(['model', *(['mean rank'] if whole else []), 'knows items by', *header], lines)
    notes = [f'The mean rank is over {listed(whole)}.'] if whole and len(whole) < len(names) else []
    if experiment == 'defaults' and (lacking := [name for name in UNTUNED if name not in names]):
        notes.append(f'Not run yet: {listed(lacking)}.')
    return '\n\n'.join([out, ' '.join(notes)]) if notes else out


def listed(names: Iterable[str]) -> str:
    *most, last = (NAMES.get(name, name) for name in names)
    return f'{", ".join(most)} and {last}' if most else last


def of_autofit() -> str:
    r"""The paper's model and the best model with item IDs against ``autofit``, all as they ship."""
    rows = read(RESULTS / 'runs.csv', experiment='defaults')
    mean = rows.groupby(['dataset', 'variant'])['test_ndcg@20'].mean()
    lines = []
    for name in (name for name in NAMES if (name, 'autofit') in mean):
        found, base = compared('defaults', name, 'autofit'), mean[name, 'autofit']
        with_ids = {variant: value for variant, value in mean[name].items() if 'IDs' in KNOWS.get(str(variant), '')}
        best = max(with_ids, key=lambda variant: with_ids[variant], default=None)
        cells = [spread(rows[(rows['dataset'] == name) & (rows['variant'] == 'autofit')]['test_ndcg@20'])]
        for variant in ('LIRDRec', best):
            if (name, variant) not in mean:
                cells.append('not run')
                continue
            interval, _ = found.get(str(variant), ('', ''))
            what = f'{shown(str(variant))}: ' * (variant == best)
            cells.append(f'{what}{mean[name, variant] / base - 1:+.1%} ({interval.replace(" %", "") or "not tested"})')
        lines.append([NAMES[name], *cells])
    if not lines:
        raise FileNotFoundError(RESULTS / 'runs.csv')
    return table(['dataset', 'autofit', 'LIRDRec against it (95 %)', 'best model with item IDs against it'], lines)


def effects(experiment: str, chosen: tuple[str, ...]) -> str:
    r"""What some variants of an experiment change in ndcg@20 on each dataset, with the 95 % interval."""
    rows = read(RESULTS / 'runs.csv', experiment=experiment)
    names = [name for name in NAMES if name in set(rows['dataset'])]
    mean = rows.groupby(['dataset', 'variant'])['test_ndcg@20'].mean()
    lines = []
    for variant in chosen:
        cells = []
        for name in names:
            if (name, variant) not in mean:
                cells.append('not run')
                continue
            interval, p = compared(experiment, name).get(variant, ('', ''))
            change = mean[name, variant] / mean[name, 'LIRDRec'] - 1
            fewer = re.search(r'of (\d+)', p)  # seeds than there are rows
            seeds = f', {fewer[1]} seed{"s" if fewer[1] != "1" else ""}' if fewer and interval else ''
            cells.append(f'{change:+.1%} ({interval.replace(" %", "") or "one seed"}{seeds})')
        lines.append([WORDS.get(variant, variant), *cells])
    return table(['ndcg@20 against LIRDRec (95 %)', *(NAMES[name] for name in names)], lines)


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
    if not lines:
        raise FileNotFoundError(RESULTS / 'runs.csv')
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
    tested = compared('main', dataset)
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
        cells += [*tested.get(variant, NOT_TESTED), f'{part["best_epoch"].mean():.0f}']
        lines.append([f'{shown(str(variant))} ({len(part)})', *cells, *beyond_accuracy(rows, part).values()])
    header = ['model (seeds)', *metrics, 'ndcg@20 against LIRDRec, 95 %', 'p', 'best epoch', *others]
    return table(header, lines)


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


def compared(experiment: str, dataset: str, against: str = 'LIRDRec') -> dict[str, tuple[str, str]]:
    r"""Returns what is known of each variant against another: the 95 % interval of the relative difference, and p
    corrected for how many there are. It says of how many seeds they are, where there are rows of more, and where p is
    of users alone."""
    found = significance.known_comparisons(RESULTS, experiment, dataset, against)
    if found.empty:
        return {}
    counts = found.attrs['seeds']
    alone = found['p'].isna()
    p = holm(found['p'].fillna(found['p_users']).to_list())
    out = {}
    for one, value, users_alone in zip(found.to_dict('records'), p, alone, strict=True):
        fewer = one['seeds'] < min(counts[one['variant']], counts[against])
        notes = [f'of {one["seeds"]}'] * fewer + ['users alone'] * users_alone
        interval = '' if users_alone else f'{100 * one["low"]:+.1f} to {100 * one["high"]:+.1f} %'
        out[one['variant']] = interval, probability(value) + f' ({", ".join(notes)})' * bool(notes)
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
    tested = compared(experiment, dataset)
    base = rows[rows['variant'] == 'LIRDRec']['test_ndcg@20'].mean()
    lines = []
    for variant, part in ordered(rows, experiment, dataset):
        change = '' if variant == 'LIRDRec' else f'{part["test_ndcg@20"].mean() / base - 1:+.1%}'
        cells = [spread(part['test_recall@20']), spread(part['test_ndcg@20']), change]
        cells += [*tested.get(variant, NOT_TESTED), f'{part["best_epoch"].mean():.0f}']
        lines.append([f'{WORDS.get(variant, variant)} ({len(part)})', *cells, *beyond_accuracy(rows, part).values()])
    header = ['variant (seeds)', 'recall@20', 'ndcg@20', 'change', '95 %', 'p', 'best epoch', *beyond_accuracy(rows)]
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
            f'{NAMES.get(str(dataset), dataset)}{kind_of(ours)} ({count})',
            *(spread(part[f'test_{metric}']) for metric in ('recall@20', 'ndcg@20') for part in (paper, ours)),
            f'{changes[-1]:+.1%}', *compared(experiment, str(dataset)).get('SoftmaxLIRDRec', NOT_TESTED),
            f'{faster:.1f}',
        ])  # fmt: skip
    if not changes:
        raise FileNotFoundError
    middle = [f'{change:+.1%}' for change in (pd.Series(changes).median(), pd.Series(changes).mean())]
    lines += [[name, '', '', '', '', value, '', '', ''] for name, value in zip(('median', 'mean'), middle, strict=True)]
    header = ['dataset (seeds)', 'recall@20: LIRDRec', 'SoftmaxLIRDRec', 'ndcg@20: LIRDRec', 'SoftmaxLIRDRec']
    return table([*header, 'change', '95 %', 'p', 'times faster trained'], lines)


def kind_of(ours: pd.DataFrame) -> str:
    r"""Returns which of the models that go by the name of ours was chosen."""
    settings = json.loads(ours['settings'].iloc[0])
    if settings.get('model', {}).get('history'):
        return ', recent items'
    return ', singular vectors' if settings.get('content', {}).get('collaborative') else ''


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
    tested = compared('preset, hidden', dataset)
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
        cells = [spread(part['test_recall@20']), spread(part['test_ndcg@20']), change, *tested.get(variant, NOT_TESTED)]
        lines.append([f'{name} ({len(part)})', *cells])
    return table(['variant (seeds)', 'recall@20', 'ndcg@20', 'change', '95 %', 'p'], lines)


def near_duplicates() -> str:
    r"""How many of an item's neighbours are of its own product, by the modality of the item graph."""
    rows = read(RESULTS / 'near_duplicates.csv')
    keys = ('neighbours_of_same_product', 'siblings_found', 'all_neighbours_of_same_product')
    lines = [
        [f'{NAMES.get(row["dataset"], row["dataset"])}, {row["weights"]}', *(f'{row[key]:.0%}' for key in keys)]
        for _, row in rows.iterrows()
    ]
    header = ['item graph', 'neighbours of the same product', 'variants that are neighbours']
    return table([*header, 'items with no other neighbours'], lines)


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


def cold(dataset: str, chosen: tuple[str, ...] = ()) -> str:
    r"""One item in five never seen in training: all models, or some. Differences are paired by the seeds, each of which
    leaves out other items."""
    rows = read(RESULTS / 'cold.csv', dataset=dataset)
    rows = rows.astype({'item_graph': object, 'id_rows': object}).fillna({'item_graph': '', 'id_rows': ''})
    rows = once(rows, 'model', 'item_graph', 'id_rows', 'seed')
    parts = {}
    for (name, graph, ids), part in rows.groupby(['model', 'item_graph', 'id_rows'], sort=False):
        graph = {'': '', 'knn': '', 'none': 'no item graph'}.get(graph, f'{graph} item graph')
        parts[', '.join(filter(None, [name, graph, ids and f'{ids} IDs']))] = part.set_index('seed')
    keys = ('cold_recall@20', 'all_recall@20', 'all_ndcg@20')
    lines = []
    for name in chosen or parts:
        if name not in parts:
            continue
        part = parts[name]
        cells = [spread(part[key]) for key in keys]
        base = parts.get('LIRDRec')
        against = '' if name == 'LIRDRec' or base is None else paired(part[keys[0]], base[keys[0]])
        lines.append([f'{name} ({len(part)})', cells[0], against, *cells[1:]])
    chance = (20 / rows['cold_items']).clip(upper=1).mean()
    lines.append(['by chance', f'{chance:.4f}'.removeprefix('0'), '', '', ''])
    header = ['model (seeds)', 'recall@20 among cold items', 'against LIRDRec', 'recall@20 among all items', 'ndcg@20']
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
    r"""Content made less informative, against LightGCN, which sees none, in its own width and in one as large."""
    rows = read(RESULTS / 'runs.csv', experiment='transfer', dataset=dataset)
    bases = {'LightGCN': rows[rows['variant'] == 'LightGCN']}
    try:
        wide = read(RESULTS / 'runs.csv', experiment='item IDs', dataset=dataset, variant='LightGCN, as wide')
        bases['LightGCN, 256 wide'] = wide
    except FileNotFoundError:
        pass
    parts = {content(variant): part for variant, part in ordered(rows, 'transfer', dataset)}
    if 'LightGCN, 256 wide' in bases:
        first = next(iter(parts))
        parts = {first: parts.pop(first), 'LightGCN, 256 wide': bases['LightGCN, 256 wide'], **parts}
    lines = []
    for name, part in parts.items():
        cells = [spread(part['test_recall@20']), spread(part['test_ndcg@20'])]
        for base in bases.values():
            mean = base['test_ndcg@20'].mean()
            cells.append('' if name.startswith('LightGCN') else f'{part["test_ndcg@20"].mean() / mean - 1:+.1%}')
        lines.append([f'{name} ({len(part)})', *cells])
    return table(['content (seeds)', 'recall@20', 'ndcg@20', *(f'against {name}' for name in bases)], lines)


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
    'defaults': functools.partial(overview, 'defaults'),
    'autofit': of_autofit,
    'tuned': functools.partial(overview, 'main'),
    'effects_ids': functools.partial(effects, 'item IDs', IDS),
    'effects_parts': functools.partial(effects, 'ablation', PARTS),
    'cold_short': functools.partial(cold, 'scientific', SHORT),
    'published_ids': published_ids,
    'batches': batches,
    'text': text,
    'published': published,
    'missing': missing,
    'near_duplicates': near_duplicates,
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
    'startup': studies.startup,
    'startup_curves': studies.startup_curves,
    'when_ids_pay': studies.when_ids_pay,
    'dct_in_loop': studies.dct_in_loop,
    'feature_cost': studies.feature_cost,
    'pwc_rates': functools.partial(studies.variants, 'PWC', first='a0 0.9, b 0.9'),
    'sequences': functools.partial(studies.variants, 'sequences', first='no recent items'),
    'equal_footing': studies.equal_footing,
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
