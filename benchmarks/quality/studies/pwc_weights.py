r"""How does each variant of progressive weight copying weigh the views, and do the weights collapse? Appends what
``ModalityWeightMonitor`` records in each epoch to ``results/quality/pwc.csv``.

    python -m benchmarks.quality.studies.pwc_weights --root data --dataset scientific movielens
"""

import argparse
import warnings
from pathlib import Path

from benchmarks import rows
from benchmarks.quality import jobs
from lirdrec_pyg import fit
from lirdrec_pyg.training import ModalityWeightMonitor

RESULTS = rows.RESULTS / 'quality' / 'pwc.csv'
VARIANTS = list(jobs.FUSIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--dataset', nargs='+', default=['scientific'], help='one or more of catalogues.py')
    parser.add_argument('--variant', nargs='+', default=VARIANTS, choices=VARIANTS, help='default: all')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='one run for each')
    parser.add_argument('--epochs', type=int, default=60, help='of each run (default: %(default)s)')
    parser.add_argument('--rows', type=Path, default=RESULTS, help='the CSV file to append to')
    args = parser.parse_args()
    for dataset in args.dataset:
        for seed in args.seeds:
            for variant in args.variant:
                cells = {'dataset': dataset, 'variant': variant, 'seed': seed}
                if rows.has(args.rows, **cells, epoch=args.epochs):
                    continue
                job = jobs.job(dataset, 'LIRDRec', seed, {'model': {'pwc': variant}})
                train, _ = jobs.splits(job, args.root, test=False)
                monitor = ModalityWeightMonitor(train)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter('always')
                    fit(jobs.build(job, train), train, epochs=args.epochs, batch_size=2048, lr=1e-3, seed=seed,
                        callbacks=[monitor], progress=False)  # fmt: skip
                said = '; '.join(str(one.message) for one in caught if 'collapsed' in str(one.message))
                print(f'{dataset}, {variant}, seed {seed}: {said or "no collapse"}', flush=True)
                rounded = [
                    {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()}
                    for row in monitor.rows
                ]
                rows.append(args.rows, *(cells | row | {'warning': said} for row in rounded))


if __name__ == '__main__':
    main()
