r"""Trains a model on a dataset for some seeds and appends a CSV row for each: all metrics, settings and versions. A row
that exists is not run again, so an interrupted queue goes on where it was.

    python -m benchmarks.quality.run --root data --dataset scientific --model LIRDRec --seeds 0 1 2
    python -m benchmarks.quality.run --root data --dataset scientific --model LightGCN --set fit.lr=1e-2
    python -m benchmarks.quality.run --root data --experiment ablation --dataset scientific
    python -m benchmarks.quality.run --root data --rerun experiment=main dataset=scientific variant=BM3 seed=0

A setting is one of the model's constructor (``model.``), of ``fit`` (``fit.``), of the content (``content.``: ``k``
and ``weights`` of the item graph, and ``transform``, what the shared encoder reads) or of what chooses the epoch
(``val.``: ``users``, how many of them). Experiments are lists of jobs, see ``experiments.py``; datasets are in
``catalogues.py``. ndcg@20 of each test user goes to the folder ``users`` beside the rows, for tests of significance.
``--rerun`` takes all from the rows with the given cells and fails unless their metrics come out again, to 1e-6: on the
machine that made them, others round otherwise. It writes nothing but what ``users`` lacks of them.
"""

import argparse
import copy
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.metrics import LinkPredNDCG
from torch_geometric.metrics.link_pred import LinkPredMetricData

from benchmarks import rows
from benchmarks.quality import catalogues
from lirdrec_pyg import Embeddings, Recommender, evaluate, fit, nn
from lirdrec_pyg.ranking import top_k
from lirdrec_pyg.transforms import InteractionGraph, RecentItems
from lirdrec_pyg.typing import INTERACTS, SIMILAR_TO

ROWS = Path(__file__).parent / 'results' / 'runs.csv'
KEYS = ('experiment', 'variant', 'dataset', 'split', 'model', 'seed', 'settings')
METRICS = ['recall', 'ndcg', 'precision', 'map', 'hit', 'mrr', 'coverage']
KS = [5, 10, 20, 50]
ROUNDING = 1.5e-6  # rows have six decimals
Job = dict[str, Any]


def job(
    dataset: str,
    model: str = 'LIRDRec',
    seed: int = 0,
    settings: dict[str, dict[str, Any]] | None = None,
    experiment: str = '',
    variant: str = '',
) -> Job:
    r"""Returns what :func:`run` needs: what to train, on what, with which settings."""
    return {
        'experiment': experiment,
        'variant': variant,
        'dataset': dataset,
        'model': model,
        'seed': seed,
        'settings': settings or {},
    }


def views(job: Job, root: Path, test: bool, hide: bool = False) -> tuple[HeteroData, ...]:
    r"""Returns the training and the validation view of a job; only with ``test`` the test view, too. With ``hide``,
    validation is to training what the test is, see :func:`catalogues.hide`."""
    settings = job['settings']
    data = catalogues.load(job['dataset'], root)
    train, val, held_out = catalogues.split(job['dataset'])(data)
    if hide:
        train, val = catalogues.hide(train, val, latest=job['dataset'] in catalogues.BY_TIME)
    train = catalogues.content(train, seed=job['seed'], **settings.get('content', {}))
    if settings.get('model', {}).get('history'):
        train = RecentItems(settings['model']['history'])(train)
    train = InteractionGraph()(train)
    return (train, val, held_out) if test else (train, val)


def build(job: Job, train: HeteroData) -> Recommender:
    r"""Returns the model of a job in its initial state."""
    cls = catalogues.MODELS.get(job['model']) or getattr(nn, job['model'], None)
    if not (isinstance(cls, type) and issubclass(cls, Recommender)):
        raise ValueError(f"'model' needs to be a recommender of lirdrec_pyg.nn (got '{job['model']}')")
    settings = dict(job['settings'].get('model', {}))
    if issubclass(cls, nn.LIRDRec) and SIMILAR_TO not in train.edge_types:
        settings['num_item_layers'] = 0  # the content's k is 0
    return cls.from_data(train, seed=job['seed'], **settings)


def run(job: Job, root: Path) -> dict[str, Any]:
    r"""Trains and tests, and returns the row."""
    return train_and_test(job, root)[0]


def train_and_test(job: Job, root: Path) -> tuple[dict[str, Any], Tensor, Tensor]:
    r"""Returns the row of a job, the test users, and ndcg@20 of each."""
    with rows.PeakMemory() as memory:
        train, val, test = views(job, root, test=True)
        model = build(job, train)
        clock, cpu = time.perf_counter(), time.process_time()
        some = some_users(val, **job['settings'].get('val', {}))
        result = fit(model, train, some, seed=job['seed'], progress=False, **job['settings'].get('fit', {}))
        seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu
    row = key(job)
    row |= {'best_epoch': result.best_epoch, 'epochs': len(result.history), 'seconds': round(seconds, 1)}
    row['cpu_seconds'] = round(cpu_seconds, 1)  # of all threads: what others on the machine do counts little
    with torch.no_grad():
        embeddings = model.encode(train)
    for name, view in [('val', val), ('test', test)]:
        row |= {f'{name}_{k}': round(v, 6) for k, v in evaluate(embeddings, view, k=KS, metrics=METRICS).items()}
    row |= rows.environment() | {'peak_rss_mib': round(memory.peak)}  # not that of the runs before it
    return row, *per_user(embeddings, test)


def some_users(view: HeteroData, users: int | None = None) -> HeteroData:
    r"""Returns a view with the positives of some of its users, the same at every call: on a large dataset, to rank for
    all of them takes longer than the epoch before it."""
    label = view[INTERACTS].edge_label_index
    held = label[0].unique()
    if users is None or users >= held.numel():
        return view
    drawn = held[torch.randperm(held.numel(), generator=torch.Generator().manual_seed(0))[:users]]
    view = copy.copy(view)
    view[INTERACTS].edge_label_index = label[:, torch.isin(label[0], drawn)]
    return view


def per_user(embeddings: Embeddings, view: HeteroData, k: int = 20) -> tuple[Tensor, Tensor]:
    r"""Returns the users of a view and ndcg@k of each."""
    label = view[INTERACTS].edge_label_index
    users, value = label[0].unique(), []
    for user, top in top_k(embeddings, users, max(KS), view[INTERACTS].edge_index):  # as for the row, where scores tie
        part = label[:, (label[0] >= user[0]) & (label[0] <= user[-1])]
        part = torch.stack([torch.searchsorted(user, part[0].contiguous()), part[1]])
        value.append(LinkPredNDCG(k)._compute(LinkPredMetricData(top, part)))
    return users, torch.cat(value)


def per_user_path(cells: dict[str, Any], path: Path = ROWS) -> Path:
    r"""Returns where the metrics of each user of a row are kept, beside the file of the row, for tests of
    significance."""
    name = hashlib.sha256(json.dumps({key: str(cells[key]) for key in KEYS}).encode()).hexdigest()[:16]
    return path.parent / 'users' / f'{name}.npz'


def save_per_user(path: Path, users: Tensor, value: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ndcg = np.full(int(users.max()) + 1, np.nan, dtype=np.float32)
    ndcg[users.numpy()] = value.numpy()
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        np.savez_compressed(file, ndcg=ndcg)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def load_per_user(path: Path) -> 'pd.Series[float]':
    r"""Returns the metric of each user that has test positives, by id."""
    with np.load(path) as file:
        return pd.Series(file['ndcg'].astype(float)).dropna()


def key(job: Job) -> dict[str, Any]:
    r"""Returns the cells that tell one job from another."""
    split = repr(catalogues.split(job['dataset']))
    return {
        'experiment': job['experiment'],
        'variant': job['variant'],
        'dataset': job['dataset'],
        'split': split,
        'model': job['model'],
        'seed': job['seed'],
        'settings': json.dumps(job['settings'], sort_keys=True),
    }


def known(path: Path) -> set[tuple[str, ...]]:
    r"""Returns the keys of the rows that a file has."""
    return {tuple(row[name] for name in KEYS) for row in rows.read(path)}


def run_all(jobs: Iterable[Job], root: Path, path: Path, shard: str = '0/1') -> None:
    r"""Runs the jobs that have no row yet, or every n-th of them."""
    part = re.fullmatch(r'(\d+)/(\d+)', shard)
    if part is None or int(part[1]) >= int(part[2]):
        raise ValueError(f"'shard' needs to be of the form '0/2', the first less than the second (got '{shard}')")
    for number, one in enumerate(jobs):
        cells = tuple(str(value) for value in key(one).values())
        if number % int(part[2]) != int(part[1]) or cells in known(path):
            continue
        row = elsewhere(one, path)
        if row is None:
            row, users, value = train_and_test(one, root)
            save_per_user(per_user_path(row, path), users, value)
        rows.append(path, row)
        print(
            f'{one["dataset"]} {one["experiment"]} {one["variant"] or one["model"]} seed {one["seed"]}: '
            f'val ndcg@20 {float(row["val_ndcg@20"]):.4f}, test recall@20 {float(row["test_recall@20"]):.4f}, '
            f'ndcg@20 {float(row["test_ndcg@20"]):.4f}, best epoch {row["best_epoch"]}, {row["seconds"]} s',
            flush=True,
        )


def elsewhere(job: Job, path: Path) -> dict[str, Any] | None:
    r"""Returns the row of the same run in another experiment, under the names of this one, if the metrics of each user
    are known, too."""
    cells = {name: str(value) for name, value in key(job).items()}
    for row in rows.read(path):
        if all(row[name] == cells[name] for name in KEYS if name not in ('experiment', 'variant')):
            kept = per_user_path(row, path)
            if kept.is_file():
                shutil.copyfile(kept, per_user_path(cells, path))
                return row | cells
    return None


def rerun(cells: list[str], root: Path, path: Path) -> float:
    r"""Runs the rows with some cells (``['experiment=main', 'seed=0']``) again, and returns the largest difference."""
    wanted = {name: value for name, _, value in (cell.partition('=') for cell in cells)}
    if strange := wanted.keys() - {name for row in rows.read(path)[:1] for name in row}:
        raise ValueError(f"'rerun' needs cells like 'seed=0' of the columns of '{path}' (got {sorted(strange)})")
    found = [row for row in rows.read(path) if all(row[name] == value for name, value in wanted.items())]
    if not found:
        raise ValueError(f"no row of '{path}' has the cells {wanted}")
    largest = 0.0
    for old in found:
        settings = json.loads(old['settings'])
        one = job(old['dataset'], old['model'], int(old['seed']), settings, old['experiment'], old['variant'])
        if key(one)['split'] != old['split']:
            raise ValueError(f"'split' needs to be that of the row, {old['split']} (got {key(one)['split']})")
        torch.set_num_threads(int(old['threads']))
        new, users, value = train_and_test(one, root)
        difference = max(abs(new[name] - float(value)) for name, value in old.items() if '@' in name)
        name = ' '.join([old['dataset'], old['experiment'], old['variant'] or old['model'], 'seed', old['seed']])
        print(f'{name}: test ndcg@20 {new["test_ndcg@20"]:.6f}, metrics at most {difference:.1e} away', flush=True)
        kept = per_user_path(old, path)
        if difference <= ROUNDING and not kept.is_file():
            save_per_user(kept, users, value)
        largest = max(largest, difference)
    return largest


def parse(settings: list[str]) -> dict[str, dict[str, Any]]:
    r"""Returns ``{'fit': {'lr': 0.01}}`` for ``['fit.lr=1e-2']``."""
    out: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, _, value = setting.partition('=')
        group, _, name = name.partition('.')
        if group not in ('model', 'fit', 'content', 'val') or not name or not value:
            raise ValueError(f"a setting needs to be of the form 'fit.lr=1e-3' (got '{setting}')")
        try:
            out.setdefault(group, {})[name] = json.loads(value)
        except json.JSONDecodeError:
            out.setdefault(group, {})[name] = value
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--dataset', nargs='+', default=['scientific'], help='one or more of catalogues.py')
    parser.add_argument('--model', help='a class of lirdrec_pyg.nn (default: LIRDRec)')
    parser.add_argument('--seeds', type=int, nargs='+', help='one run for each (default: 0 1 2 3 4)')
    parser.add_argument('--set', nargs='*', metavar='GROUP.NAME=VALUE', help='settings')
    parser.add_argument('--experiment', nargs='+', help='run these experiments instead')
    parser.add_argument('--rerun', nargs='+', metavar='CELL=VALUE', help='run the rows with these cells again')
    parser.add_argument('--rows', type=Path, default=ROWS, help='the CSV file to append to')
    parser.add_argument('--shard', default='0/1', help='run only every n-th job: 0/2 here, 1/2 there')
    args = parser.parse_args()
    if args.rerun:
        if rerun(args.rerun, args.root, args.rows) > ROUNDING:
            sys.exit('these rows did not come out again')
        return
    if args.experiment:
        from benchmarks.quality import experiments

        if strange := set(args.experiment) - experiments.EXPERIMENTS.keys():
            parser.error(f'--experiment takes {list(experiments.EXPERIMENTS)} (got {sorted(strange)})')
        if any(given is not None for given in (args.model, args.seeds, args.set)):
            parser.error('--experiment decides about --model, --seeds and --set')
        jobs = [
            job
            for name in args.experiment
            for dataset in args.dataset
            for job in experiments.EXPERIMENTS[name](dataset)
        ]
    else:
        model, seeds, settings = args.model or 'LIRDRec', args.seeds or range(5), parse(args.set or [])
        jobs = [job(dataset, model, seed, settings) for dataset in args.dataset for seed in seeds]
    run_all(copy.deepcopy(jobs), args.root, args.rows, args.shard)


if __name__ == '__main__':
    main()
