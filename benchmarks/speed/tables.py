r"""The tables of ``docs``, made of the rows of the speed benchmarks; ``benchmarks.quality.tables`` writes them."""

from pathlib import Path

from benchmarks.markdown import read, table

RESULTS = Path(__file__).parent / 'results'


def epoch() -> str:
    r"""An epoch and a validation at Baby's size, against the straightforward implementation in the same run; runs
    without it say nothing here."""
    lines = []
    rows = read(RESULTS / 'train_epoch.csv', size='baby')
    for name, part in rows[rows['times_faster'].notna()].groupby('competitor', sort=False):
        ratio = ' – '.join(dict.fromkeys(f'{part["times_faster"].agg(how):.2f}' for how in ('min', 'max')))
        lines.append([f'{name} ({len(part)})', f'{part["epoch_and_validation_s"].median():.1f}', ratio])
    return table(['(runs)', 'seconds', 'times faster, in each run'], lines)


def propagation() -> str:
    r"""Forward and backward at Baby's size with 192 columns."""
    rows = read(RESULTS / 'propagation.csv', graph='baby', width=192, **{'pass': 'forward + backward'})
    lines = []
    for kernel, part in rows.groupby('kernel', sort=False):
        cells = []
        for layers in (0, 2):
            row = part[part['layers'] == layers].iloc[0]
            cells += [f'{row["ms"]:.1f}', f'{row["torch_sparse_ratio"]:.1f}', f'{row["torch_csr_ratio"]:.1f}']
        lines.append([str(kernel), *cells])
    header = ['', 'one product, ms', '× torch_sparse', '× torch CSR', 'two layers, ms', '× torch_sparse', '× torch CSR']
    return table(header, lines)


def ranking() -> str:
    r"""Full ranking of all users with all metrics."""
    lines = [
        [
            f'{row["size"]}, {row["implementation"]}',
            f'{row["users"]:,}',
            f'{row["items"]:,}',
            f'{row["seconds"]:.2f}',
            f'{row["extra_mib"]:.0f}',
            f'{row["times_faster"]:.1f}',
        ]
        for _, row in read(RESULTS / 'ranking.csv').iterrows()
    ]
    return table(['', 'users', 'items', 'seconds', 'MiB beyond embeddings', 'times faster'], lines)


def knn() -> str:
    r"""The search for the item graph."""
    lines = [
        [
            f'{row["items"]:,} × {row["width"]}, {row["competitor"]}',
            f'{row["seconds"]:.1f}',
            f'{row["recall"]:.3f}',
            f'{row["extra_mib"]:.0f}',
        ]
        for _, row in read(RESULTS / 'knn.csv').iterrows()
    ]
    return table(['', 'seconds', 'recall', 'MiB beyond features'], lines)


def memory() -> str:
    r"""Peak memory of training."""
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
        for _, row in read(RESULTS / 'memory.csv').iterrows()
    ]
    header = ['size', 'users', 'items', 'interactions', 'features, GiB', 'peak of the process, GiB', 'epoch, s']
    return table(header, lines)


def time_to_quality() -> str:
    r"""Seconds until validation recall@20 is that of the straightforward implementation's best."""
    lines = []
    for name, part in read(RESULTS / 'time_to_quality.csv').groupby('competitor', sort=False):
        cells = [f'{part[f"seconds_to_{share}%"].median():.1f}'.replace('inf', 'never') for share in (90, 95, 100)]
        best = f'{part["best_val_recall@20"].mean():.4f}'.removeprefix('0')
        faster = ' / '.join(f'{value:.1f}'.replace('0.0', '–') for value in part['times_faster_to_100%'])
        lines.append([f'{name} ({len(part)})', f'{part["seconds_an_epoch"].median():.2f}', best, *cells, faster])
    header = ['(seeds)', 'seconds an epoch', 'best validation recall@20', 'seconds to 90 %', 'to 95 %', 'to 100 %']
    header.append('times faster, seed by seed')
    return table(header, lines)


def scaling() -> str:
    r"""A step as one quantity grows."""
    names = ['interactions', 'items', 'width', 'layers']
    lines = [
        [row['varied'], *(f'{row[name]:,}' for name in names), f'{row["step_ms"]:,.0f}', f'{row["peak_mib"]:,}']
        for _, row in read(RESULTS / 'scaling.csv').iterrows()
    ]
    return table(['varied', *names, 'step, ms', 'peak, MiB'], lines)


def scale() -> str:
    r"""Catalogues that outgrow full-graph training."""
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
        for _, row in read(RESULTS / 'scale.csv').iterrows()
    ]
    header = ['items', 'users', 'interactions', 'item graph, s', 'its recall', 'step, s', 'epoch, min', 'inference, s']
    return table([*header, 'peak, GiB'], lines)


def retrieval() -> str:
    r"""Indexes of the Retriever."""
    lines = [
        [
            f'{row["items"]:,}, {row["index"]} {row["settings"].strip("{}")}',
            f'{row["recall@20"]:.3f}',
            f'{row["p50_ms"]:.2f}',
            f'{row["p99_ms"]:.2f}',
            f'{row["batch_p50_ms"]:.0f}',
            f'{row["batch_p99_ms"]:.0f}',
            f'{row["batch_users_per_s"]:,}',
            f'{row["build_s"]:.0f}',
        ]
        for _, row in read(RESULTS / 'retrieval.csv').iterrows()
    ]
    header = ['items, index', 'recall@20', 'one user: p50, ms', 'p99, ms', 'batch of 100: p50, ms', 'p99, ms']
    return table([*header, 'users a second in batches', 'build, s'], lines)
