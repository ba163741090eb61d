r"""What is best done where images are missing? Takes the images of 30 % of the items away, and trains LIRDRec in two
ways: with these items marked as lacking one (ours), or with the mean of the other images in their place (the released
preprocessing). It is tested on all items, and on those without an image alone.

    python -m benchmarks.quality.studies.missing --root data
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks import rows
from benchmarks.quality import jobs
from lirdrec_pyg import evaluate, fit
from lirdrec_pyg.transforms import ItemKNNGraph
from lirdrec_pyg.typing import ITEM, SIMILAR_TO

RESULTS = rows.RESULTS / 'quality' / 'missing.csv'
SHARE = 0.3


def measure(dataset: str, root: Path, fill: str, weight: float, seed: int) -> dict[str, Any]:
    r"""Returns the row of one run."""
    content = {'drop': SHARE, 'fill': fill, 'weights': {'image': weight, 'text': 1 - weight}}
    job = jobs.job(dataset, 'LIRDRec', seed, {'content': content}, 'missing', fill)
    train, val, test = jobs.splits(job, root, test=True)
    generator = torch.Generator().manual_seed(seed)  # as catalogues.content draws
    num_items = train[ITEM].num_nodes
    lacking = torch.zeros(num_items, dtype=torch.bool)
    lacking[torch.randperm(num_items, generator=generator)[: round(SHARE * num_items)]] = True

    image_graph = ItemKNNGraph(k=10, weights={'image': 1.0})(train)[SIMILAR_TO]
    source, target = image_graph.edge_index
    source, target = source[source != target], target[source != target]
    among = float(lacking[source[lacking[target]]].float().mean()) if lacking[target].any() else 0.0

    model = jobs.build(job, train)
    result = fit(model, train, val, seed=seed, progress=False, **jobs.RELEASED)
    with torch.no_grad():
        z = model(train)
    metrics = evaluate(z, test, k=20, groups={'lacking': lacking, 'having': ~lacking})
    row = {'dataset': dataset, 'share': SHARE, 'fill': fill, 'image_weight': weight, 'seed': seed}
    row |= {'best_epoch': result.best_epoch, 'val_recall@20': round(result.best_value, 6)}
    row |= {f'test_{name}': round(value, 6) for name, value in metrics.items()}
    return row | {'image_neighbours_also_lacking': round(among, 4)} | rows.environment()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--dataset', default='scientific', help='one with images (default: %(default)s)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='one run for each')
    parser.add_argument('--rows', type=Path, default=RESULTS, help='the CSV file to append to')
    args = parser.parse_args()
    for seed in args.seeds:
        for weight in (0.1, 0.5):
            for fill in ('mask', 'mean'):
                if not rows.has(args.rows, dataset=args.dataset, fill=fill, image_weight=weight, seed=seed):
                    row = measure(args.dataset, args.root, fill, weight, seed)
                    rows.append(args.rows, row)
                    print({name: value for name, value in row.items() if 'test' in name or name in ('fill', 'seed')})


if __name__ == '__main__':
    main()
