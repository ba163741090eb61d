r"""The tables of what the paper leaves open, made of the rows of ``benchmarks/quality/studies`` and of some
experiments. ``tables.py`` writes them."""

from collections.abc import Iterable
from typing import TypeVar

import pandas as pd

from benchmarks import rows
from benchmarks.quality.studies import gradient_bias
from benchmarks.quality.studies.startup import of_curves
from benchmarks.report.markdown import once, read, spread, table
from benchmarks.report.words import NAMES, WORDS

RESULTS = rows.RESULTS / 'quality'
T = TypeVar('T')
KNOWING = {'taste': 'one who knows the taste', 'taste, content': 'one who knows what content tells of it'}


def startup(dataset: str) -> str:
    r"""How long each model takes to start up, with and without item IDs."""
    found = once(read(RESULTS / 'startup.csv', dataset=dataset), 'variant', 'seed')
    lines = []
    for variant, part in found.groupby('variant', sort=False):
        cells = [str(part['items'].iloc[0]), spread(part['test_ndcg@20'])]
        for share in (90, 95, 100):
            epochs, seconds = (part[f'{what}_to_{share}%'].median() for what in ('epochs', 'cpu_seconds'))
            cells.append(f'{epochs:.0f} / {seconds:.0f}')
        lines.append([f'{WORDS.get(str(variant), variant)} ({len(part)})', *cells])
    header = ['model (seeds)', 'items by', 'test ndcg@20', 'epochs / s to 90 % of its best', 'to 95 %', 'to 100 %']
    return table(header, lines)


def startup_curves() -> str:
    r"""Epochs to shares of the best of the runs of the gradient bias, with content, IDs or both."""
    found = of_curves(gradient_bias.curves_of(gradient_bias.RUNS))
    items = {'features': 'content', 'ids': 'IDs', 'both': 'IDs and content'}
    lines = [
        [
            f'{NAMES.get(row["dataset"], row["dataset"])}: {row["model"]} ({row["seeds"]})',
            items[row['items']],
            *(str(row[name]) for name in ('best recall@20', '90%', '95%', '100%')),
        ]
        for row in found
    ]
    return table(['model (seeds)', 'items by', 'best recall@20', 'epochs to 90 %', 'to 95 %', 'to 100 %'], lines)


def when_ids_pay(dataset: str) -> str:
    r"""Models with and without item IDs on simulated tastes, of which content explains a known share."""
    found = once(read(RESULTS / 'when_ids_pay.csv', dataset=dataset), 'variant', 'share', 'strength', 'lr', 'seed')
    shares = sorted(found['share'].unique())
    lines = []
    for variant, part in found.groupby('variant', sort=False):
        values = [part[part['share'] == share]['test_ndcg@20'] for share in shares]
        name = KNOWING.get(str(variant), WORDS.get(str(variant), str(variant)))
        lines.append(
            [f'{name} ({part["seed"].nunique()})', *(spread(one) if len(one) else 'not run' for one in values)]
        )
    return table(['share that content explains (seeds)', *(f'{share:.0%}' for share in shares)], lines)


def dct_in_loop() -> str:
    r"""Training with the spectrum made once, and anew in each step."""
    found = once(read(RESULTS / 'dct_in_loop.csv'), 'dataset', 'way', 'epochs', 'repeat')
    lines = []
    for dataset, group in found.groupby('dataset', sort=False):
        base = group[group['way'] == 'once']['cpu_seconds'].median()
        for way, part in group.groupby('way', sort=False):
            seconds = part['cpu_seconds'].median() / part['epochs'].iloc[0]
            cells = [f'{part["width"].iloc[0]:,}', f'{seconds:.1f}', f'{part["cpu_seconds"].median() / base:.2f}']
            cells.append(f'{part["largest_difference"].max():.0e}'.replace('0e+00', '0'))
            lines.append([f'{NAMES.get(str(dataset), dataset)}, {way} ({len(part)})', *cells])
    header = ['DCT made (runs)', 'columns', 'CPU seconds an epoch', 'times once', 'largest difference of a weight']
    return table(header, lines)


def feature_cost() -> str:
    r"""What features cost to make, and what a model reaches on them."""
    found = once(read(RESULTS / 'feature_cost.csv'), 'dataset', 'features', 'seed')
    lines = []
    for (dataset, features), part in found.groupby(['dataset', 'features'], sort=False):
        cells = [f'{part["width"].iloc[0]:,}', f'{part["items_per_s"].median():,.0f}']
        cells += [spread(part[f'test_{metric}@20']) for metric in ('recall', 'ndcg')]
        lines.append([f'{NAMES.get(str(dataset), dataset)}: {features} ({len(part)})', *cells])
    return table(['features (seeds)', 'columns', 'items a second', 'recall@20', 'ndcg@20'], lines)


def variants(experiment: str, dataset: str, first: str) -> str:
    r"""The variants of an experiment against the first, by seeds alone."""
    found = read(RESULTS / 'runs.csv', experiment=experiment, dataset=dataset)
    found = once(found, 'variant', 'seed')
    base = found[found['variant'] == first]['test_ndcg@20'].mean()
    lines = []
    for variant, part in found.groupby('variant', sort=False):
        change = '' if variant == first or pd.isna(base) else f'{part["test_ndcg@20"].mean() / base - 1:+.1%}'
        cells = [spread(part['test_recall@20']), spread(part['test_ndcg@20']), change]
        lines.append([f'{variant} ({len(part)})', *cells, f'{part["best_epoch"].mean():.0f}'])
    return table(['variant (seeds)', 'recall@20', 'ndcg@20', f'against {first}', 'best epoch'], lines)


def equal_footing(dataset: str) -> str:
    r"""Every model with both objectives and both widths, each as validation chose: a row for each model and width."""
    found = once(read(RESULTS / 'runs.csv', experiment='equal footing', dataset=dataset), 'variant', 'seed')
    cells = {variant: part['test_ndcg@20'] for variant, part in found.groupby('variant', sort=False)}
    split = {variant: str(variant).rsplit(', ', 2) for variant in cells}
    objectives = unique(objective for _, objective, _ in split.values())
    lines = []
    for name, width in unique((name, width) for name, _, width in split.values()):
        own = [cells.get(f'{name}, {objective}, {width}') for objective in objectives]
        lines.append([f'{name}, {width} wide', *('not run' if v is None else f'{spread(v)} ({len(v)})' for v in own)])
    return table(['test ndcg@20 (seeds)', *objectives], lines)


def unique(values: Iterable[T]) -> list[T]:
    r"""Returns values in the order in which they first come."""
    return list(dict.fromkeys(values))
