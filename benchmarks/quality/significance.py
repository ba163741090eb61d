r"""Tests whether models differ: pairs the ndcg@20 of each test user, averaged over the seeds, by a t-test of the mean
difference, and writes ``results/significance.csv``.

    python -m benchmarks.quality.significance --experiment main ablation --against LIRDRec

The metrics of each user are those that ``run.py`` keeps in ``runs/users``; seeds without them are left out, and what
was found from more seeds stays.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from benchmarks.quality.run import KEYS, ROWS, per_user_path

EXPERIMENTS = ['main', 'ablation', 'item IDs', 'preset', 'preset, hidden']
RESULTS = Path(__file__).parent / 'results' / 'significance.csv'


def known(part: pd.DataFrame) -> pd.DataFrame:
    r"""Returns the rows, one for each seed, of which the metrics of each user are there."""
    return part[[per_user_path(cells).is_file() for cells in part[list(KEYS)].to_dict('records')]]


def per_user(part: pd.DataFrame) -> 'pd.Series[float]':
    r"""Returns ndcg@20 of each user, averaged over the rows."""
    out = []
    for cells in part[list(KEYS)].to_dict('records'):
        with np.load(per_user_path(cells)) as file:
            out.append(pd.Series(file['ndcg'], index=file['users']))
    return pd.concat(out, axis=1).mean(axis=1)


def compare(rows: pd.DataFrame, experiment: str, against: str) -> list[dict[str, Any]]:
    r"""Returns a row for each variant of each dataset of an experiment, against another variant, over the seeds of
    both that are known."""
    out = []
    for dataset, part in rows[rows['experiment'] == experiment].groupby('dataset'):
        if part.duplicated(['variant', 'seed']).any():
            raise ValueError(
                f"'{experiment}' on {dataset} needs to have one row for each variant and seed: drop the old"
            )
        part = known(part)
        paper = part[part['variant'] == against]
        for variant, group in part.groupby('variant'):
            seeds = set(group['seed']) & set(paper['seed'])
            if variant == against or not seeds:
                continue
            value, base = (per_user(own[own['seed'].isin(seeds)]) for own in (group, paper))
            difference = (value - base).to_numpy()
            test = ttest_1samp(difference, 0.0) if np.any(difference) else None
            out.append({
                'experiment': experiment, 'dataset': dataset, 'variant': variant, 'against': against,
                'seeds': len(seeds), 'users': len(difference), 'ndcg@20': round(float(value.mean()), 6),
                'difference': round(float(difference.mean()), 6),
                'relative': round(float(difference.mean() / base.mean()), 4),
                'p': float(f'{test.pvalue:.3g}') if test else 1.0,
            })  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--experiment', nargs='+', default=EXPERIMENTS, help='default: %(default)s')
    parser.add_argument('--against', default='LIRDRec', help='a variant (default: %(default)s)')
    parser.add_argument('--rows', type=Path, default=ROWS, help='the rows of run.py')
    parser.add_argument('--out', type=Path, default=RESULTS, help='the CSV file to write')
    args = parser.parse_args()
    rows = pd.read_csv(args.rows, dtype=dict.fromkeys(KEYS, str), keep_default_na=False)
    table = pd.DataFrame([row for name in args.experiment for row in compare(rows, name, args.against)])
    if args.out.is_file():  # where the metrics of each user are gone, what was found before stays
        table = pd.concat([pd.read_csv(args.out), table], ignore_index=True)
    if table.empty:
        sys.exit(f"no metrics of each user of '{args.experiment}' with '{args.against}' in runs/users")
    table = table.sort_values('seeds', kind='stable')
    table = table.drop_duplicates(['experiment', 'dataset', 'variant', 'against'], keep='last').sort_index()
    temporary = args.out.with_suffix('.tmp')
    table.to_csv(temporary, index=False)
    os.replace(temporary, args.out)
    print(table.to_string(index=False))


if __name__ == '__main__':
    main()
