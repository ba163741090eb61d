r"""Trains a model on a dataset for some seeds and appends a CSV row for each: all metrics, settings and versions. A row
that exists is not run again, so an interrupted queue goes on where it was.

    python -m benchmarks.quality.run --root data --dataset scientific --model LIRDRec --seeds 0 1 2
    python -m benchmarks.quality.run --root data --dataset scientific --model LightGCN --set fit.lr=1e-2
    python -m benchmarks.quality.run --root data --experiment ablation --dataset scientific
    python -m benchmarks.quality.run --root data --rerun experiment=main dataset=scientific variant=BM3 seed=0

A setting belongs to one of four groups:

- ``model.``: the model, in the words of ``jobs.arguments``, such as ``model.loss=softmax``, or arguments of its
  constructor;
- ``fit.``: arguments of ``fit``;
- ``content.``: arguments of ``catalogues.content``, such as ``k`` and ``weights`` of the item graph;
- ``val.``: ``users``, how many of them choose the epoch.

Experiments are lists of jobs, see ``experiments.py``; datasets are in ``catalogues.py``. ndcg@20 of each test user is
kept beside the rows, in the folder ``users``, for tests of significance.

``--rerun`` runs the rows with the given cells again and fails unless their metrics come out the same, to 1e-6. Other
machines round otherwise. It writes nothing but what is lacking of the metrics of each user.
"""

import argparse
import copy
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import rows
from benchmarks.quality import experiments, jobs


def parse(settings: list[str]) -> jobs.Settings:
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
    parser.add_argument('--rows', type=Path, default=jobs.ROWS, help='the CSV file to append to')
    parser.add_argument('--shard', default='0/1', help='run only every n-th job: 0/2 here, 1/2 there')
    args = parser.parse_args()
    if args.rerun:
        if jobs.rerun(args.rerun, args.root, args.rows) > jobs.ROUNDING:
            sys.exit('these rows did not come out again')
        return
    if args.experiment:
        if strange := set(args.experiment) - experiments.EXPERIMENTS.keys():
            parser.error(f'--experiment takes {list(experiments.EXPERIMENTS)} (got {sorted(strange)})')
        if any(given is not None for given in (args.model, args.seeds, args.set)):
            parser.error('--experiment decides about --model, --seeds and --set')
        todo = [
            job
            for name in args.experiment
            for dataset in args.dataset
            for job in experiments.EXPERIMENTS[name](dataset)
        ]
    else:
        model, seeds, settings = args.model or 'LIRDRec', args.seeds or range(5), parse(args.set or [])
        todo = [jobs.job(dataset, model, seed, settings) for dataset in args.dataset for seed in seeds]
    print_known(todo, args.rows)
    jobs.run_all(copy.deepcopy(todo), args.root, args.rows, args.shard)


def print_known(todo: list[jobs.Job], path: Path) -> None:
    r"""Prints the rows that need not be run."""
    wanted = {tuple(str(value) for value in jobs.key(one).values()) for one in todo}
    found = [row for row in rows.read(path) if tuple(row[name] for name in jobs.KEYS) in wanted]
    for row in found:
        metrics = {name: row.get(name) for name in ('val_ndcg@20', 'test_recall@20', 'test_ndcg@20')}
        shown = ', '.join(f'{name.replace("_", " ")} {float(value):.4f}' for name, value in metrics.items() if value)
        print(f'{row["dataset"]} {row["experiment"]} {row["variant"] or row["model"]} seed {row["seed"]}: {shown}')
    left = len(wanted) - len(found)
    print(f'{len(found)} rows found in {path}, ' + (f'{left} to run' if left else 'nothing to run'), flush=True)


if __name__ == '__main__':
    main()
