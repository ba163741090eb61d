r"""The tables of ``docs`` that are made of the rows of the speed benchmarks. ``tables.py`` writes them."""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from benchmarks import rows
from benchmarks.report.markdown import read, table

RESULTS = rows.RESULTS / 'speed'
MACHINE = 'AMD EPYC (with bf16)'  # that of the tables and figures, where they name none
XEON = 'Intel(R) Xeon(R) Processor (bf16 by AMX)'
MACHINES = {MACHINE: 'EPYC', XEON: 'Xeon', 'NVIDIA H100 80GB HBM3': 'H100'}


EPOCH = 'straightforward', 'fp32', 'bf16', 'fp32 r=128', 'bf16 r=128', 'bf16 r=227+171', 'bf16 r=227+171, 16 steps'


def measured(name: str, device: str = MACHINE, **cells: Any) -> pd.DataFrame:
    r"""Returns the rows of a benchmark on one machine."""
    return read(RESULTS / f'{name}.csv', device=device, **cells)


def epoch(names: Sequence[str] = EPOCH) -> str:
    r"""An epoch and a validation at Baby's size on each machine, against the straightforward implementation in the same
    run; runs without it say nothing here."""
    rows = read(RESULTS / 'train_epoch.csv', size='baby')
    rows = rows[rows['times_faster'].notna() & rows['competitor'].isin(names)]
    lines = []
    for name, part in rows.groupby('competitor', sort=False):
        cells = []
        for device in MACHINES:
            own = part[part['device'] == device]
            ratio = ' – '.join(dict.fromkeys(f'{own["times_faster"].agg(how):.2f}' for how in ('min', 'max')))
            cells += [f'{own["epoch_and_validation_s"].median():.2f}', ratio] if len(own) > 0 else ['', '']
        lines.append([str(name), *cells])
    header = [cell for name in MACHINES.values() for cell in (f'{name}, s', 'times faster')]
    return table(['', *header], lines)


def compiled() -> str:
    r"""The same with torch.compile."""
    return epoch([f'{precision} r=128{suffix}' for precision in ('fp32', 'bf16') for suffix in ('', ', compiled')])


def propagation() -> str:
    r"""Forward and backward at Baby's size with 192 columns."""
    rows = measured('propagation', graph='baby', width=192, **{'pass': 'forward + backward'})
    lines = []
    for kernel, part in rows.groupby('kernel', sort=False):
        cells = []
        for layers in (0, 2):
            row = part[part['layers'] == layers].iloc[-1]
            cells += [f'{row["ms"]:.1f}', f'{row["torch_sparse_ratio"]:.1f}', f'{row["torch_csr_ratio"]:.1f}']
        lines.append([str(kernel), *cells])
    header = ['', 'one product, ms', '× torch_sparse', '× torch CSR', 'two layers, ms', '× torch_sparse', '× torch CSR']
    return table(header, lines)


def propagation_gpu() -> str:
    r"""The same on a GPU, with the memory beyond inputs and graph."""
    cells = {'graph': 'baby', 'width': 192, 'pass': 'forward + backward'}
    rows = measured('propagation', 'NVIDIA H100 80GB HBM3', **cells)
    lines = []
    for kernel, part in rows.groupby('kernel', sort=False):
        found = [part[part['layers'] == layers].iloc[-1] for layers in (0, 2)]
        texts = [f'{row[key]:.{digits}f}' for row in found for key, digits in (('ms', 2), ('torch_csr_ratio', 1))]
        lines.append([str(kernel), *texts, f'{found[1]["peak_cuda_mib"]:.0f}'])
    return table(['', 'one product, ms', '× torch CSR', 'two layers, ms', '× torch CSR', 'peak, MiB'], lines)


def ranking() -> str:
    r"""Full ranking of all users with all metrics."""
    return _ranking(measured('ranking'))


def ranking_gpu() -> str:
    r"""The same on a GPU."""
    return _ranking(measured('ranking', 'NVIDIA H100 80GB HBM3'))


def _ranking(rows: pd.DataFrame) -> str:
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
        for _, row in measured('knn').iterrows()
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
        for _, row in measured('memory').iterrows()
    ]
    header = ['size', 'users', 'items', 'interactions', 'features, GiB', 'peak of the process, GiB', 'epoch, s']
    return table(header, lines)


def time_to_quality() -> str:
    r"""Seconds until validation recall@20 is that of the straightforward implementation's best."""
    lines = []
    for name, part in measured('time_to_quality').groupby('competitor', sort=False):
        cells = [f'{part[f"seconds_to_{share}%"].median():.1f}'.replace('inf', 'never') for share in (90, 95, 100)]
        best = f'{part["best_val_recall@20"].mean():.4f}'.removeprefix('0')
        faster = ' / '.join(f'{value:.1f}'.replace('0.0', '–') for value in part['times_faster_to_100%'])
        lines.append([f'{name} ({len(part)})', f'{part["seconds_an_epoch"].median():.2f}', best, *cells, faster])
    header = ['(seeds)', 'seconds an epoch', 'best validation recall@20', 'seconds to 90 %', 'to 95 %', 'to 100 %']
    header.append('times faster, seed by seed')
    return table(header, lines)


def scaling() -> str:
    r"""A step as one quantity grows."""
    return _scaling(measured('scaling'))


def scaling_gpu() -> str:
    r"""The same on a GPU, whose memory it is."""
    return _scaling(measured('scaling', 'NVIDIA H100 80GB HBM3'))


def _scaling(rows: pd.DataFrame) -> str:
    names = ['interactions', 'items', 'width', 'layers']
    lines = [
        [row['varied'], *(f'{row[name]:,}' for name in names), f'{row["step_ms"]:,.0f}', f'{row["peak_mib"]:,}']
        for _, row in rows.iterrows()
    ]
    return table(['varied', *names, 'step, ms', 'peak, MiB'], lines)


def scale() -> str:
    r"""Catalogues that outgrow full-graph training."""
    lines = [
        [
            f'{row["items"]:,}',
            f'{row["users"]:,}',
            f'{row["interactions"]:,}',
            'whole graph' if row['num_neighbors'] == 'all' else 'mini-batches',
            f'{row["knn_s"]:.0f}',
            f'{row["knn_recall"]:.3f}',
            f'{row["step_s"]:.2f}',
            f'{row["epoch_s"] / 60:.1f}',
            f'{row["inference_s"]:.0f}',
            f'{row["inference_peak_gib"]:.1f}',
        ]
        for _, row in measured('scale', XEON).iterrows()
    ]
    header = ['items', 'users', 'interactions', 'trained on', 'item graph, s', 'its recall', 'step, s', 'epoch, min']
    header += ['inference, s']
    return table([*header, 'peak, GiB'], lines)


def electronics() -> str:
    r"""From features on disk to a tested model at Electronics' size, the newest row of each stage."""
    rows = read(RESULTS / 'electronics.csv')  # of whatever machine
    rows = rows[~rows['measured']]  # a curve of other sizes is measured
    rows = rows[rows['interactions'] == rows['interactions'].max()]
    rows = rows.drop_duplicates('stage', keep='last').set_index('stage')
    stages = [stage for stage in ('compress', 'graph', 'train', 'test') if stage in rows.index]
    told = {stage: json.loads(cell) for stage, cell in rows['told'].items()}
    names = {'compress': 'compression', 'graph': 'item graph', 'train': 'training', 'test': 'test'}
    lines = []
    for stage in stages:
        what = ', '.join(f'{name} {value}' for name, value in told[stage].items())
        lines.append([names[stage], f'{rows["minutes"][stage]:.1f}', f'{rows["peak_gib"][stage]:.1f}', what])
    whole = rows.loc[stages]
    lines.append(['all', f'{whole["minutes"].sum():.1f}', f'{whole["peak_gib"].max():.1f}', ''])
    if 'straightforward' in rows.index:
        other, of = rows.loc['straightforward'], told['straightforward']
        what = f'extrapolated from {of["steps"]} steps of {of["step_s"]:.1f} s to {of["epochs"]} epochs'
        lines.append(['straightforward: training', f'{other["minutes"]:,.0f}', f'{other["peak_gib"]:.1f}', what])
    return table(['stage', 'minutes', 'peak, GiB', 'what it tells'], lines)


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
        for _, row in measured('retrieval').iterrows()
    ]
    header = ['items, index', 'recall@20', 'one user: p50, ms', 'p99, ms', 'batch of 100: p50, ms', 'p99, ms']
    return table([*header, 'users a second in batches', 'build, s'], lines)
