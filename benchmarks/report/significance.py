r"""Tests whether models differ, and writes ``results/quality/significance.csv``.

Both other users and other seeds would change a difference. Over users, its variance is that of the mean of the users'
differences, each averaged over the seeds. Over seeds, it is the sum of the two models' variances divided by the number
of seeds. The two are added. What they share is so counted twice: p is rather too large. Degrees of freedom are those of
Welch and Satterthwaite. Where a model has one seed, users alone are known, and only ``p_users`` is given.

    python -m benchmarks.report.significance --experiment main ablation --against LIRDRec

The metrics of each user are those that are kept in the folder ``users`` beside the rows. Seeds without them are left
out, and named. What was found before from more seeds stays, as long as there are rows of these settings.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from benchmarks.quality import users
from benchmarks.quality.jobs import KEYS, ROWS
from benchmarks.report.markdown import cached
from benchmarks.rows import replace

EXPERIMENTS = ['main', 'ablation', 'item IDs', 'preset', 'preset, hidden', 'defaults']
ALSO = {  # what else the variants of an experiment are compared with by default
    'item IDs': ['item IDs alone, no item graph', 'LightGCN, as wide'],
    'defaults': ['autofit'],
}
RESULTS = ROWS.with_name('significance.csv')
COLUMNS = [  # of a comparison over users
    'experiment', 'dataset', 'variant', 'against', 'seeds', 'users', 'ndcg@20', 'difference', 'relative', 'p_users',
    'sd', 'settings',
]  # fmt: skip


def known(part: pd.DataFrame, path: Path = ROWS) -> pd.DataFrame:
    r"""Returns the rows, one for each seed, of which the metrics of each user are there."""
    return part[[users.has(cells, path) for cells in part[list(KEYS)].to_dict('records')]]


def per_user(part: pd.DataFrame, path: Path = ROWS) -> 'pd.Series[float]':
    r"""Returns ndcg@20 of each user, averaged over the rows."""
    out = [users.load(cells, path) for cells in part[list(KEYS)].to_dict('records')]
    return pd.concat(out, axis=1).mean(axis=1)


def compare(rows: pd.DataFrame, experiment: str, against: str, path: Path = ROWS) -> list[dict[str, Any]]:
    r"""Returns a row for each variant of each dataset of an experiment, against another variant, over the seeds of
    both that are known."""
    out = []
    for dataset, whole in rows[rows['experiment'] == experiment].groupby('dataset'):
        if whole.duplicated(['variant', 'seed']).any():
            raise ValueError(
                f"'{experiment}' on {dataset} needs to have one row for each variant and seed: drop the old"
            )
        part = known(whole, path)
        paper = part[part['variant'] == against]
        for variant, group in part.groupby('variant'):
            seeds = set(group['seed']) & set(paper['seed'])
            if variant == against or not seeds:
                continue
            value, base = (per_user(own[own['seed'].isin(seeds)], path) for own in (group, paper))
            difference = (value - base).to_numpy()
            test = ttest_1samp(difference, 0.0) if np.any(difference) else None
            out.append({
                'experiment': experiment, 'dataset': dataset, 'variant': variant, 'against': against,
                'seeds': len(seeds), 'users': len(difference), 'ndcg@20': round(float(value.mean()), 6),
                'difference': round(float(difference.mean()), 6),
                'relative': round(float(difference.mean() / base.mean()), 4),
                'p_users': float(f'{test.pvalue:.3g}') if test else 1.0,
                'sd': round(float(difference.std(ddof=1)), 6),
                'settings': digest(whole, str(variant), against),
            })  # fmt: skip
    return out


def with_seeds(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    r"""Returns comparisons over users with the variance over the seeds, and what follows from both: p and the 95 %
    interval of the relative difference, ``low`` to ``high``."""
    parts = dict(iter(rows.groupby(['experiment', 'dataset', 'variant'])))
    out = []
    for one in table.to_dict('records'):
        groups = [parts[one['experiment'], one['dataset'], one[name]] for name in ('variant', 'against')]
        values = [pd.to_numeric(group['test_ndcg@20']) for group in groups]
        found = dict.fromkeys(('sd_seeds', 'low', 'high', 'p'), np.nan)
        if min(map(len, values)) > 1:
            found = both(one, [(value.var(), len(value)) for value in values])
        settings = one.pop('settings')
        out.append(one | found | {'settings': settings})
    return pd.DataFrame(out)


def both(one: dict[str, Any], seeds: list[tuple[float, int]]) -> dict[str, float]:
    r"""Returns what follows from the variance over users and that over seeds.

    Args:
        one (Dict[str, Any]): A comparison over users.
        seeds (List[Tuple[float, int]]): The variance of each of the two models, and how many seeds it is of.
    """
    parts = [(one['sd'] ** 2 / one['users'], one['users'] - 1)]
    parts += [(variance / one['seeds'], count - 1) for variance, count in seeds]
    whole = sum(part for part, _ in parts)
    out = {'sd_seeds': round(sum(variance for variance, _ in seeds) ** 0.5, 6)}
    if whole == 0:
        return out | {'low': one['relative'], 'high': one['relative'], 'p': 1.0 if one['difference'] == 0 else 0.0}
    free = whole**2 / sum(part**2 / count for part, count in parts)
    half, base = student.ppf(0.975, free) * whole**0.5, one['ndcg@20'] - one['difference']
    p = 2 * student.sf(abs(one['difference']) / whole**0.5, free)
    low, high = ((one['difference'] + sign * half) / base for sign in (-1, 1))
    return out | {'low': round(float(low), 4), 'high': round(float(high), 4), 'p': float(f'{p:.3g}')}


def digest(part: pd.DataFrame, *variants: str) -> str:
    r"""Returns what changes with the settings of the variants, given the rows of an experiment on a dataset."""
    found = [sorted(set(part[part['variant'] == variant]['settings'])) for variant in variants]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:8]


def current(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    r"""Returns the comparisons of which there are rows with the same settings."""
    parts = dict(iter(rows.groupby(['experiment', 'dataset'])))
    kept = []
    for one in table.to_dict('records'):
        part = parts.get((one['experiment'], one['dataset']))
        names = (one['variant'], one['against'])
        there = part is not None and set(names) <= set(part['variant'])
        kept.append(there and digest(part, *names) == one['settings'])
    return table[np.array(kept, dtype=bool)]


def read(path: Path) -> pd.DataFrame:
    r"""Returns the rows of jobs, with the cells that tell them apart as they stand in the file."""
    return cached(path, as_they_stand).copy()


def as_they_stand(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=dict.fromkeys(KEYS, str), keep_default_na=False)


def known_comparisons(folder: Path, experiment: str, dataset: str, against: str) -> pd.DataFrame:
    r"""Returns the comparisons with a variant that still count. How many seeds each variant has is in the attribute
    ``seeds``."""
    path = folder / RESULTS.name
    if not path.is_file():
        return pd.DataFrame()
    rows = cached(folder / ROWS.name, as_they_stand)[['experiment', 'dataset', 'variant', 'settings']]
    rows = rows[(rows['experiment'] == experiment) & (rows['dataset'] == dataset)]
    found = cached(path)
    keys = {'experiment': experiment, 'dataset': dataset, 'against': against}
    found = current(found[(found[list(keys)] == pd.Series(keys)).all(axis=1)], rows)
    found.attrs['seeds'] = rows.groupby('variant').size().to_dict()
    return found


def others(experiment: str, against: str | None) -> list[str]:
    r"""Returns what the variants of an experiment are compared with."""
    return [against] if against else ['LIRDRec', *ALSO.get(experiment, [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--experiment', nargs='+', default=EXPERIMENTS, help='default: %(default)s')
    parser.add_argument('--against', help='a variant (default: LIRDRec, and others of some experiments)')
    parser.add_argument('--rows', type=Path, default=ROWS, help='the rows of jobs')
    parser.add_argument('--out', type=Path, default=RESULTS, help='the CSV file to write')
    args = parser.parse_args()
    rows = read(args.rows)
    pairs = [(name, other) for name in args.experiment for other in others(name, args.against)]
    new = [row for name, other in pairs for row in compare(rows, name, other, args.rows)]
    table = pd.DataFrame(new)
    if args.out.is_file():  # where the metrics of each user are gone, what was found before stays
        table = pd.concat([current(pd.read_csv(args.out), rows), table], ignore_index=True)
    if table.empty:
        sys.exit(f"no metrics of each user of {pairs} beside '{args.rows}'")
    table = table.sort_values('seeds', kind='stable')
    table = table.drop_duplicates(['experiment', 'dataset', 'variant', 'against'], keep='last').sort_index()
    table = with_seeds(table[[name for name in COLUMNS if name in table]], rows)
    replace(args.out, table.to_csv(index=False).encode())
    print(table.to_string(index=False))
    for name in args.experiment:
        part = rows[rows['experiment'] == name]
        if lost := len(part) - len(known(part, args.rows)):
            print(f'{name}: {lost} of {len(part)} rows lack the metrics of each user (`run.py --rerun` makes them)')


if __name__ == '__main__':
    main()
