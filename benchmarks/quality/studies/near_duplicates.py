r"""What do colour variants do to the item graph? On H&M, the articles of one product code differ in their colour alone.
For those that have such siblings: how many of an article's neighbours are these, and how many siblings are found?

    python -m benchmarks.quality.studies.near_duplicates --root data
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks import rows
from benchmarks.quality import catalogues
from lirdrec_pyg.transforms import ItemKNNGraph
from lirdrec_pyg.typing import ITEM, SIMILAR_TO, modalities

RESULTS = rows.RESULTS / 'quality' / 'near_duplicates.csv'


def measure(dataset: str, root: Path, weights: dict[str, float], k: int) -> dict[str, Any]:
    r"""Returns the row of one item graph.

    Args:
        dataset (str): A dataset whose ``items.tsv`` has a ``product_code``.
        root (Path): The folder of the datasets.
        weights (dict): The weight of each modality in the graph.
        k (int): The neighbours of an article, itself included.
    """
    data = catalogues.load(dataset, root)
    codes = pd.read_csv(root / dataset / 'items.tsv', sep='\t', dtype=str, keep_default_na=False, quoting=3)
    product = torch.from_numpy(pd.factorize(codes['product_code'])[0])
    siblings = product.bincount()[product] - 1
    store = ItemKNNGraph(k=k, weights=weights)(data)[SIMILAR_TO]
    neighbor, item = store.edge_index
    weight = store.edge_weight * (neighbor != item)
    sibling = (product[neighbor] == product[item]) & (neighbor != item)
    count = data[ITEM].num_nodes
    total = torch.zeros(count).index_add_(0, item, weight)
    own = torch.zeros(count).index_add_(0, item, weight * sibling)
    found = item[sibling].bincount(minlength=count)
    having = siblings > 0
    return {
        'dataset': dataset,
        'weights': ', '.join(f'{name} {value:g}' for name, value in weights.items()),
        'k': k,
        'items': count,
        'products': int(product.max()) + 1,
        'items_with_siblings': int(having.sum()),
        'siblings': round(float(siblings[having].float().mean()), 3),
        'neighbours_of_same_product': round(float((own / total)[having].mean()), 4),
        'siblings_found': round(float((found / siblings)[having].mean()), 4),
        'all_neighbours_of_same_product': round(float(((own / total)[having] > 0.999).float().mean()), 4),
        'by_chance': round(float((siblings[having] / (count - 1)).mean()), 5),
    } | rows.environment()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--dataset', default='hm_week', help='one with product codes (default: %(default)s)')
    parser.add_argument('--k', type=int, default=10, help='neighbours, the item included (default: %(default)s)')
    parser.add_argument('--rows', type=Path, default=RESULTS, help='the CSV file to append to')
    args = parser.parse_args()
    names = modalities(catalogues.load(args.dataset, args.root))
    for weights in [{name: 1.0} for name in names] + [dict.fromkeys(names, 1 / len(names))]:
        shown = ', '.join(f'{name} {value:g}' for name, value in weights.items())
        if not rows.has(args.rows, dataset=args.dataset, weights=shown, k=args.k):
            row = measure(args.dataset, args.root, weights, args.k)
            rows.append(args.rows, row)
            print(
                {name: row[name] for name in ('weights', 'neighbours_of_same_product', 'siblings_found', 'by_chance')}
            )


if __name__ == '__main__':
    main()
