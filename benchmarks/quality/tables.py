r"""Writes the tables of the README and of ``docs`` from the rows in ``benchmarks/*/results``: replaces what stands
between ``<!-- table: NAME -->`` and ``<!-- end -->``.

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
    parser.add_argument('--check', action='store_true', help='only say whether they are up to date')
    args = parser.parse_args()
    for path in pages():
        old = path.read_text()
        new = render(old)
        if args.check and new != old:
            sys.exit(f'{path} is not what {Path(__file__).name} writes: run it')
        if not args.check:
            path.write_text(new)


def pages() -> list[Path]:
    r"""Returns the files with tables."""
    return [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


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


def main_models(dataset: str) -> str:
    r"""All models on a dataset, settings chosen on validation; the best bold, the second best italic."""
    rows = pd.read_csv(QUALITY / 'runs.csv')
    rows = rows[(rows['experiment'] == 'main') & (rows['dataset'] == dataset)]
    tests = pd.read_csv(QUALITY / 'significance.csv')
    tests = tests[(tests['experiment'] == 'main') & (tests['dataset'] == dataset)].set_index('variant')
    metrics = ['recall@10', 'recall@20', 'ndcg@10', 'ndcg@20']
    means = rows.groupby('variant')[[f'test_{metric}' for metric in metrics]].mean()
    lines = []
    for variant in means['test_ndcg@20'].sort_values().index:
        part = rows[rows['variant'] == variant]
        cells = []
        for metric in metrics:
            place = int((means[f'test_{metric}'] > means.loc[variant, f'test_{metric}']).sum())
            mark = {0: '**', 1: '*'}.get(place, '')
            cells.append(f'{mark}{spread(part[f"test_{metric}"])}{mark}')
        p = f'{tests.loc[variant, "p"]:.1g}' if variant in tests.index else ''
        lines.append([f'{variant} ({len(part)})', *cells, p, f'{part["best_epoch"].mean():.0f}'])
    return markdown(['model (seeds)', *metrics, 'p against LIRDRec', 'best epoch'], lines)


def ablation(dataset: str) -> str:
    r"""One change at a time, against the paper's configuration."""
    rows = pd.read_csv(QUALITY / 'runs.csv')
    rows = rows[(rows['experiment'] == 'ablation') & (rows['dataset'] == dataset)]
    base = rows[rows['variant'] == 'LIRDRec']['test_ndcg@20'].mean()
    lines = []
    for variant in dict.fromkeys(rows['variant']):
        part = rows[rows['variant'] == variant]
        change = '' if variant == 'LIRDRec' else f'{part["test_ndcg@20"].mean() / base - 1:+.1%}'
        cells = [spread(part['test_recall@20']), spread(part['test_ndcg@20']), change]
        lines.append([f'{variant} ({len(part)})', *cells, f'{part["best_epoch"].mean():.0f}'])
    return markdown(['variant (seeds)', 'recall@20', 'ndcg@20', 'change', 'best epoch'], lines)


def cold() -> str:
    r"""One item in five never seen in training."""
    rows = pd.read_csv(QUALITY / 'cold.csv').fillna('')
    lines = []
    for (dataset, model, graph, ids), part in rows.groupby(['dataset', 'model', 'item_graph', 'id_rows'], sort=False):
        name = ', '.join(
            filter(None, [model, {'': '', 'knn': ''}.get(graph, f'{graph} item graph'), ids and f'{ids} IDs'])
        )
        cells = [spread(part[metric]) for metric in ('cold_recall@20', 'cold_ndcg@20', 'all_recall@20')]
        lines.append([f'{dataset}: {name} ({len(part)})', *cells])
    header = ['model (seeds)', 'recall@20 among cold items', 'ndcg@20 among cold items', 'recall@20 among all items']
    return markdown(header, lines)


def precision() -> str:
    r"""Half precision and compressed features on Scientific."""
    rows = pd.read_csv(QUALITY / 'runs.csv')
    rows = rows[rows['experiment'] == 'precision']
    lines = [
        [f'{variant} ({len(part)})', spread(part['test_recall@20']), spread(part['test_ndcg@20'])]
        for variant, part in rows.groupby('variant', sort=False)
    ]
    return markdown(['(seeds)', 'recall@20', 'ndcg@20'], lines)


def propagation() -> str:
    r"""Forward and backward at Baby's size with 192 columns."""
    rows = pd.read_csv(SPEED / 'propagation.csv')
    rows = rows[(rows['graph'] == 'baby') & (rows['width'] == 192) & (rows['pass'] == 'forward + backward')]
    lines = []
    for kernel in dict.fromkeys(rows['kernel']):
        cells = []
        for layers in (0, 2):
            row = rows[(rows['kernel'] == kernel) & (rows['layers'] == layers)].iloc[0]
            cells += [f'{row["ms"]:.1f}', f'{row["torch_sparse_ratio"]:.1f}', f'{row["torch_csr_ratio"]:.1f}']
        lines.append([kernel, *cells])
    header = ['', 'one product, ms', '× torch_sparse', '× torch CSR', 'two layers, ms', '× torch_sparse', '× torch CSR']
    return markdown(header, lines)


def ranking() -> str:
    r"""Full ranking of all users with all metrics."""
    rows = pd.read_csv(SPEED / 'ranking.csv')
    lines = [
        [
            f'{row["size"]}, {row["implementation"]}',
            f'{row["users"]:,}',
            f'{row["items"]:,}',
            f'{row["seconds"]:.2f}',
            f'{row["extra_mib"]:.0f}',
            f'{row["times_faster"]:.1f}',
        ]
        for _, row in rows.iterrows()
    ]
    return markdown(['', 'users', 'items', 'seconds', 'MiB beyond embeddings', 'times faster'], lines)


def knn() -> str:
    r"""The search for the item graph."""
    rows = pd.read_csv(SPEED / 'knn.csv')
    lines = [
        [
            f'{row["items"]:,} × {row["width"]}, {row["competitor"]}',
            f'{row["seconds"]:.1f}',
            f'{row["recall"]:.3f}',
            f'{row["extra_mib"]:.0f}',
        ]
        for _, row in rows.iterrows()
    ]
    return markdown(['', 'seconds', 'recall', 'MiB beyond features'], lines)


def memory() -> str:
    r"""Peak memory of training."""
    rows = pd.read_csv(SPEED / 'memory.csv')
    lines = [
        [
            f'{row["size"]}, {row["precision"]}',
            f'{row["users"]:,}',
            f'{row["items"]:,}',
            f'{row["interactions"]:,}',
            f'{row["features_gib"]:.2f}',
            f'{row["with_validation_gib"]:.2f}',
            f'{row["epoch_s"]:.0f}',
        ]
        for _, row in rows.iterrows()
    ]
    header = ['size', 'users', 'items', 'interactions', 'features, GiB', 'peak of the process, GiB', 'epoch, s']
    return markdown(header, lines)


def time_to_quality() -> str:
    r"""Seconds until validation recall@20 is that of the straightforward implementation's best."""
    rows = pd.read_csv(SPEED / 'time_to_quality.csv')
    columns = ['seconds_to_90%', 'seconds_to_95%', 'seconds_to_100%']
    lines = []
    for name, part in rows.groupby('competitor', sort=False):
        cells = [f'{part[column].median():.1f}'.replace('inf', 'never') for column in columns]
        best = f'{part["best_val_recall@20"].mean():.4f}'.removeprefix('0')
        lines.append([f'{name} ({len(part)})', f'{part["seconds_an_epoch"].median():.2f}', best, *cells])
    header = ['(seeds)', 'seconds an epoch', 'best validation recall@20', 'seconds to 90 %', 'to 95 %', 'to 100 %']
    return markdown(header, lines)


def scale() -> str:
    r"""Catalogues that outgrow full-graph training."""
    rows = pd.read_csv(SPEED / 'scale.csv')
    lines = [
        [
            f'{row["items"]:,}',
            f'{row["users"]:,}',
            f'{row["interactions"]:,}',
            f'{row["knn_s"]:.0f}',
            f'{row["knn_recall"]:.3f}',
            f'{row["step_s"]:.2f}',
            f'{row["epoch_s"] / 60:.0f}',
            f'{row["inference_s"]:.0f}',
            f'{row["inference_peak_gib"]:.1f}',
        ]
        for _, row in rows.iterrows()
    ]
    header = ['items', 'users', 'interactions', 'item graph, s', 'its recall', 'step, s', 'epoch, min', 'inference, s']
    return markdown([*header, 'peak, GiB'], lines)


def retrieval() -> str:
    r"""Indexes of the Retriever."""
    rows = pd.read_csv(SPEED / 'retrieval.csv')
    lines = [
        [
            f'{row["items"]:,}, {row["index"]} {row["settings"].strip("{}")}',
            f'{row["recall@20"]:.3f}',
            f'{row["p50_ms"]:.2f}',
            f'{row["p99_ms"]:.2f}',
            f'{row["batch_users_per_s"]:,}',
            f'{row["build_s"]:.0f}',
        ]
        for _, row in rows.iterrows()
    ]
    return markdown(['items, index', 'recall@20', 'p50, ms', 'p99, ms', 'users a second in batches', 'build, s'], lines)


def onboard() -> str:
    r"""Items onboarded, or there from the start."""
    rows = pd.read_csv(QUALITY / 'onboard.csv')
    lines = []
    for (dataset, method), part in rows.groupby(['dataset', 'method'], sort=False):
        cells = ['', ''] if dataset == 'generated' else [spread(part[f'{key}_recall@20']) for key in ('cold', 'all')]
        seconds, change = ('', '') if method != 'onboarded' else (f'{part["seconds"].median():.2f}', '0')
        if part['largest_change'].max() > 0:
            change = f'{part["largest_change"].max():.0e}'
        name = f'{dataset}, {part["new"].iloc[0]:,} into {part["items"].iloc[0]:,}: {method} ({len(part)})'
        lines.append([name, *cells, seconds, change])
    header = [
        'items (seeds)',
        'recall@20 among new items',
        'among all items',
        'seconds',
        'largest change of the others',
    ]
    return markdown(header, lines)


TABLES = {
    'onboard': onboard,
    'faithful': faithful,
    'text': text,
    'missing': missing,
    'epoch': epoch,
    'main-scientific': lambda: main_models('scientific'),
    'main-movielens': lambda: main_models('movielens'),
    'ablation-scientific': lambda: ablation('scientific'),
    'ablation-movielens': lambda: ablation('movielens'),
    'cold': cold,
    'precision': precision,
    'propagation': propagation,
    'ranking': ranking,
    'knn': knn,
    'memory': memory,
    'time_to_quality': time_to_quality,
    'scale': scale,
    'retrieval': retrieval,
}

if __name__ == '__main__':
    main()
