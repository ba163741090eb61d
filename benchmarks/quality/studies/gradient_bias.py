r"""Do item IDs learn less where features are trained beside them? Runs ``examples/gradient_bias.py`` under all the
conditions that the tables and figures show, and keeps what these need of it. A run that has a row is not run again.

    python -m benchmarks.quality.studies.gradient_bias --root data

The example measures each epoch and each source: the ID table, and each projection of features. Kept are

- ``results/quality/gradient_bias.csv``: a row for each run, with medians over epochs and sources, and the best recalls;
- ``results/quality/gradient_bias_curves.csv``: a row for each curve of the runs in the plain setting, epoch by epoch.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import rows

RUNS = rows.RESULTS / 'quality' / 'gradient_bias.csv'
EPOCHS = 40
PLAIN: dict[str, list[Any]] = {  # what the example does if not told otherwise
    'dataset': ['scientific'],
    'keep': [1.0],
    'model': ['VBPR', 'FREEDOM', 'LIRDRec'],
    'parts': ['both', 'ids', 'features'],
    'loss': ['bpr'],
    'optimizer': ['adam'],
    'adam_lr': [1e-3],
    'sgd_lr': [10.0],
    'init': ['own'],
    'id_scale': [1.0],
    'feature_norm': ['own'],
    'seed': [0, 1, 2],
}
BOTH = {'parts': ['both']}
DATASETS = {'dataset': ['scientific', 'movielens']}
CONDITIONS: list[dict[str, list[Any]]] = [
    DATASETS,
    {**BOTH, 'keep': [0.5, 0.25]},
    {**BOTH, 'loss': ['softmax']},
    {**BOTH, 'optimizer': ['sgd'], 'loss': ['bpr', 'softmax'], 'model': ['VBPR', 'FREEDOM']},
    {**BOTH, 'optimizer': ['sgd'], 'model': ['LIRDRec']},
    {**BOTH, 'init': ['matched'], 'id_scale': [0.1, 1.0, 10.0]},
    {**BOTH, **DATASETS, 'feature_norm': ['unit'], 'model': ['VBPR']},
    {**BOTH, 'dataset': ['movielens'], 'keep': [0.5, 0.25], 'model': ['VBPR']},
]
CONSTANT = ['num_items', 'interactions_per_item', 'lirdrec_pyg', 'torch', 'threads']
SOURCE = ['item_grad', 'item_grad_rare', 'item_grad_frequent', 'item_update', 'displacement', 'norm']
RECALL = ['recall', 'recall_ids', 'recall_features']
KINDS = ('id', 'feature')


def curves_of(path: Path) -> Path:
    r"""Returns the file of the curves beside that of the runs."""
    return path.with_name(f'{path.stem}_curves{path.suffix}')


def configs(example: Any, conditions: list[dict[str, list[Any]]]) -> Iterator[dict[str, Any]]:
    r"""Yields every run of some conditions."""
    for condition in conditions:
        args = argparse.Namespace(**{**PLAIN, **condition}, epochs=EPOCHS, hidden_channels=64)
        yield from example.configs(args)


def summary(found: pd.DataFrame, names: list[str]) -> rows.Row:
    r"""Returns the row of a run, given the rows of the example and the columns that tell its configuration."""
    first = found.iloc[0]
    row: rows.Row = {name: first[name] for name in [*names, *CONSTANT]} | {'last_epoch': found['epoch'].max()}
    share = found['item_update'] / found['norm']
    for name, values in [('grad', found['item_grad']), ('move', share)]:
        for kind in KINDS:
            median = values[found['kind'] == kind].median()
            row[f'{kind}_{name}'] = '' if pd.isna(median) else f'{median:.6g}'
    for name in RECALL:
        best = pd.to_numeric(found[name]).max()
        row[name] = '' if pd.isna(best) else best
    return row


def curves(found: pd.DataFrame) -> list[rows.Row]:
    r"""Returns a row for each curve of a run."""
    out: list[rows.Row] = []

    def add(part: pd.DataFrame, quantity: str, name: str, kind: str) -> None:
        values = part.set_index('epoch')[quantity]
        if not pd.to_numeric(values).isna().all():
            cells = {key: found.iloc[0][key] for key in ('dataset', 'model', 'parts', 'seed')}
            cells |= {'name': name, 'kind': kind, 'quantity': quantity}
            out.append(cells | {str(epoch): values.get(epoch, '') for epoch in range(1, EPOCHS + 1)})

    for name, part in found.groupby('name', sort=False):
        for quantity in SOURCE:
            if not quantity.endswith(('rare', 'frequent')) or part['kind'].iloc[0] == 'id':
                add(part, quantity, str(name), part['kind'].iloc[0])
    for quantity in RECALL:
        add(found[found['name'] == found['name'].iloc[0]], quantity, '', '')
    return out


def keep(found: list[rows.Row], example: Any, path: Path) -> None:
    r"""Appends what is kept of a run."""
    frame = pd.DataFrame(found)
    if all(frame[name].iloc[0] == value for name, value in example.BASE.items()):
        cells = {name: found[0][name] for name in ('dataset', 'model', 'parts', 'seed')}
        if not rows.has(curves_of(path), **cells):  # of one who was interrupted before the row of the run
            rows.append(curves_of(path), *curves(frame))
    rows.append(path, summary(frame, [*example.CHOICES, 'lr', 'epochs', 'hidden_channels']))


def read_runs(path: Path) -> pd.DataFrame:
    r"""Returns the medians as rows for each run and kind of source, in the columns of the example."""
    runs = pd.read_csv(path)
    parts = []
    for kind in KINDS:
        named = {'last_epoch': 'epoch', f'{kind}_grad': 'item_grad', f'{kind}_move': 'item_update_share'}
        parts.append(runs.rename(columns=named).assign(kind=kind))
    out = pd.concat(parts).sort_index(kind='stable')
    return out[out['item_grad'].notna()].reset_index(drop=True)


def read_curves(path: Path, example: Any) -> pd.DataFrame:
    r"""Returns the curves as rows for each epoch and source, in the columns of the example."""
    wide = pd.read_csv(path, keep_default_na=False)
    run = ['dataset', 'model', 'parts', 'seed']
    tall = wide.melt([*run, 'name', 'kind', 'quantity'], var_name='epoch')
    tall['epoch'], tall['value'] = tall['epoch'].astype(int), pd.to_numeric(tall['value'])
    tall = tall[tall['value'].notna()]

    def pivot(part: pd.DataFrame, index: list[str]) -> pd.DataFrame:
        return part.pivot(index=index, columns='quantity', values='value').reset_index()

    is_run = tall['name'] == ''
    recall = pivot(tall[is_run], [*run, 'epoch'])
    out = pivot(tall[~is_run], [*run, 'epoch', 'name', 'kind']).merge(recall, on=[*run, 'epoch'], how='left')
    for name in ('item_update', 'displacement'):
        out[f'{name}_share'] = out[name] / out['norm']
    order = wide[[*run, 'name']].drop_duplicates().reset_index(names='at')  # as the example has sources and models
    out = out.merge(order, on=[*run, 'name']).sort_values(['at', 'epoch'])
    return out.assign(**example.BASE).reset_index(drop=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--cache-dir', help='where to keep the processed data (default: inside the dataset folder)')
    parser.add_argument('--rows', type=Path, default=RUNS, help='the CSV file to append to')
    args = parser.parse_args()
    example = rows.example('gradient_bias')
    for config in configs(example, CONDITIONS):
        if config not in example.known(args.rows):
            found = example.run(config, args.root, args.cache_dir)
            keep(found, example, args.rows)
            print(f'{example.describe(config)}: {example.summary(found)}', flush=True)


if __name__ == '__main__':
    main()
