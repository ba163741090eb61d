r"""The figures of the gradient bias, a claim each. See ``benchmarks/quality/studies/gradient_bias.py`` for the rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import rows
from benchmarks.report.drawing import MORE, below, headline, panels, rows_of, save
from benchmarks.report.markdown import read
from benchmarks.report.words import NAMES, color

RUNS = rows.RESULTS / 'quality' / 'gradient_bias.csv'
PLAIN: dict[str, Any] = {
    'keep': 1.0,
    'loss': 'bpr',
    'optimizer': 'adam',
    'init': 'own',
    'id_scale': 1.0,
    'feature_norm': 'own',
}
SIDE_LOSS = 1e-3  # the weight of FREEDOM's loss of features in these runs
FEATURES, IDS = '#d1480f', '#17a2a8'


def both(path: Path) -> pd.DataFrame:
    r"""Returns the runs with IDs and features, with the ratio of their gradients, features : IDs."""
    found = read(path, parts='both')
    return found.assign(ratio=found['feature_grad'] / found['id_grad'])


def plain(found: pd.DataFrame) -> pd.DataFrame:
    return found[(found[list(PLAIN)] == pd.Series(PLAIN)).all(axis=1)]


def ratio(path: Path) -> None:
    r"""Draws how much more gradient an item feels through its features than through its ID, by model and dataset."""
    found = plain(both(RUNS))
    lines: list[tuple[str, str, pd.Series, bool]] = []
    for dataset in ('scientific', 'movielens'):
        for model in ('VBPR', 'LIRDRec', 'FREEDOM'):
            part = found[(found['dataset'] == dataset) & (found['model'] == model)]['ratio']
            name = f'{model} with item IDs' if model == 'LIRDRec' else model
            lines.append((f'{NAMES[dataset]}: {name}', model, part, False))
            if model == 'FREEDOM':
                lines.append((f'{NAMES[dataset]}: FREEDOM, at weight 1', model, part / SIDE_LOSS, True))
    with panels(height=1.3 + 0.32 * len(lines)) as (figure, ((axis,),)):
        for y, (_, model, part, hollow) in enumerate(lines):
            axis.plot(part, [y] * len(part), 'o', color=color(model), markersize=7, mfc='white' if hollow else None)
        axis.axvline(1, color='black', linewidth=1)
        axis.set_xscale('log')
        rows_of(axis, [name for name, *_ in lines])
        axis.set_xlabel('gradient that an item feels, features : IDs')
        headline(figure, 'On Scientific, features get hundreds of times the gradient of IDs')
        note = "dots: seeds; FREEDOM's features enter by a side loss of weight 0.001, hollow: at 1"
        figure.supxlabel(note, fontsize=9.5)
        save(figure, path)


def learning(path: Path) -> None:
    r"""Draws validation recall of VBPR over the epochs: of IDs and features trained together and alone."""
    tall = curves(RUNS.with_name(f'{RUNS.stem}_curves.csv'))
    kinds = {
        ('both', 'recall'): ('whole model', color('VBPR'), '-'),
        ('features', 'recall'): ('features, trained alone', FEATURES, '-'),
        ('ids', 'recall'): ('IDs, trained alone', IDS, '-'),
        ('both', 'recall_features'): ('features of the whole', FEATURES, '--'),
        ('both', 'recall_ids'): ('IDs of the whole', IDS, '--'),
    }
    with panels(1, 2, height=3.6) as (figure, (axes,)):
        for axis, dataset in zip(axes, ('scientific', 'movielens'), strict=True):
            for (parts, quantity), (label, tint, style) in kinds.items():
                own = tall[(tall['dataset'] == dataset) & (tall['parts'] == parts) & (tall['quantity'] == quantity)]
                line = own.groupby('epoch')['value'].agg(['mean', 'std'])
                axis.plot(line.index, line['mean'], style, color=tint, label=label, linewidth=1.8)
                low, high = line['mean'] - line['std'], line['mean'] + line['std']
                axis.fill_between(line.index, low, high, color=tint, alpha=0.15, linewidth=0)
            axis.set_title(NAMES[dataset])
            axis.set_xlabel('epoch')
        axes[0].set_ylabel(f'validation recall@20     {MORE}')
        headline(figure, 'VBPR on Scientific: IDs learn little beside features (mean ± sd, 3 seeds)')
        below(figure, axes[0], 3)
        save(figure, path)


def curves(path: Path, model: str = 'VBPR') -> pd.DataFrame:
    r"""Returns the recalls of a model, a row for each epoch."""
    wide = read(path, model=model)
    wide = wide[wide['quantity'].str.startswith('recall')]
    tall = wide.melt(['dataset', 'parts', 'seed', 'quantity'], [c for c in wide if str(c).isdigit()], var_name='epoch')
    return tall.assign(epoch=tall['epoch'].astype(int), value=pd.to_numeric(tall['value'])).dropna()


CONDITIONS: dict[str, dict[str, Any]] = {  # what differs from the plain setting
    'as it is': {},
    'features of length one': {'feature_norm': 'unit'},
    'half of the interactions': {'keep': 0.5},
    'a quarter of the interactions': {'keep': 0.25},
    'IDs a tenth as long as features': {'init': 'matched', 'id_scale': 0.1},
    'IDs as long as features': {'init': 'matched'},
    'IDs ten times as long': {'init': 'matched', 'id_scale': 10.0},
    'SGD for Adam': {'optimizer': 'sgd'},
    'softmax for BPR': {'loss': 'softmax'},
    'softmax and SGD': {'loss': 'softmax', 'optimizer': 'sgd'},
}


def conditions(path: Path) -> None:
    r"""Draws the ratio of the gradients in VBPR on Scientific under other conditions."""
    found = both(RUNS)
    found = found[(found['dataset'] == 'scientific') & (found['model'] == 'VBPR')]
    with panels(height=1.2 + 0.32 * len(CONDITIONS)) as (figure, ((axis,),)):
        for y, changed in enumerate(CONDITIONS.values()):
            setting = pd.Series(PLAIN | changed)
            part = found[(found[list(PLAIN)] == setting).all(axis=1)]['ratio']
            tint = FEATURES if 'feature_norm' in changed else color('VBPR')
            axis.plot(part, [y] * len(part), 'o', color=tint, markersize=7)
            if y == 0:
                axis.axvline(float(np.exp(np.log(part).mean())), color=tint, linestyle=':', linewidth=1.2)
        axis.axvline(1, color='black', linewidth=1)
        axis.set_xscale('log')
        rows_of(axis, list(CONDITIONS))
        axis.set_xlabel('gradient that an item feels, features : IDs\n(dots: seeds; dotted: as it is)')
        headline(figure, 'VBPR on Scientific: only shorter features take the bias away')
        save(figure, path)
