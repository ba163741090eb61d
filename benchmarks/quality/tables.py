r"""Writes the README's tables from the rows in ``benchmarks/*/results``: replaces what stands between
``<!-- table: NAME -->`` and ``<!-- end -->``.

    python benchmarks/quality/tables.py
    python benchmarks/quality/tables.py --check
"""

import argparse
import re
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[2]
QUALITY = ROOT / 'benchmarks' / 'quality' / 'results'
SPEED = ROOT / 'benchmarks' / 'speed' / 'results'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--readme', type=Path, default=ROOT / 'README.md', help='the file to write')
    parser.add_argument('--check', action='store_true', help='only say whether it is up to date')
    args = parser.parse_args()
    old = args.readme.read_text()
    new = render(old)
    if args.check:
        sys.exit(f'{args.readme} is not what {Path(__file__).name} writes: run it' if new != old else 0)
    args.readme.write_text(new)


def render(text: str) -> str:
    r"""Returns a text with all its tables made anew."""

    def table(match: re.Match[str]) -> str:
        return f'<!-- table: {match[1]} -->\n\n{TABLES[match[1]]()}\n\n<!-- end -->'

    return re.sub(r'<!-- table: (\S+) -->.*?<!-- end -->', table, text, flags=re.DOTALL)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    r"""Returns a table whose first column is of names and whose others are of figures."""
    lines = [header, ['---'] + ['---:'] * (len(header) - 1), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def spread(values: 'pd.Series[float]') -> str:
    r"""Returns mean ± standard deviation without the leading zeros."""
    mean = f'{values.mean():.4f}'.removeprefix('0')
    return mean if len(values) < 2 else f'{mean} ± {values.std():.4f}'.replace('± 0', '± ')


def faithful() -> str:
    r"""LIRDRec in the paper's configuration on Scientific, beside what is known of the released implementation."""
    rows = pd.read_csv(QUALITY / 'scientific.csv')
    metrics = ['recall@10', 'recall@20', 'ndcg@10', 'ndcg@20']
    ours = [f'LIRDRec, ours ({len(rows)} seeds)'] + [spread(rows[f'test_{metric}']) for metric in metrics]
    known = ['LIRDRec, released implementation (1 seed)', '', '.1914', '', '.0877']
    return markdown(['model', *metrics], [ours, known])


def text() -> str:
    r"""LIRDRec and LightGCN on the larger Scientific, with text features of our own route."""
    rows = pd.read_csv(QUALITY / 'runs.csv')
    rows = rows[rows['experiment'] == 'text']
    metrics = ['recall@10', 'recall@20', 'ndcg@10', 'ndcg@20']
    lines = []
    for variant in ('LightGCN', 'LIRDRec'):
        part = rows[rows['variant'] == variant]
        lines.append([f'{variant} ({len(part)} seeds)'] + [spread(part[f'test_{metric}']) for metric in metrics])
    return markdown(['model', *metrics], lines)


def missing() -> str:
    r"""Items without an image, marked as such or given the mean of the others."""
    rows = pd.read_csv(QUALITY / 'missing.csv')
    names = {'mask': 'masked (ours)', 'mean': 'mean vector (released preprocessing)'}
    lines = []
    for weight in sorted(rows['image_weight'].unique()):
        for fill, name in names.items():
            part = rows[(rows['image_weight'] == weight) & (rows['fill'] == fill)]
            cells = [spread(part[f'test_{metric}']) for metric in ('recall@20', 'ndcg@20', 'lacking/recall@20')]
            share = part['image_neighbours_also_lacking'].mean()
            lines.append([name, f'{weight:g}', *cells, f'{share:.0%}'])
    header = ['items without an image', 'image weight', 'recall@20', 'ndcg@20', 'recall@20 of these items']
    return markdown([*header, 'their image neighbours that lack one, too'], lines)


def epoch() -> str:
    r"""An epoch and a validation at Baby's size, against the straightforward implementation."""
    rows = pd.read_csv(SPEED / 'train_epoch.csv')
    lines = [
        [row.competitor, f'{row.epoch_and_validation_s:.1f}', f'{row.times_faster:.1f}'] for row in rows.itertuples()
    ]
    return markdown(['', 'seconds', 'times faster'], lines)


TABLES = {'faithful': faithful, 'text': text, 'missing': missing, 'epoch': epoch}

if __name__ == '__main__':
    main()
