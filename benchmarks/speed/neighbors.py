r"""How long it takes to sample the sub-graph of a batch: our sampler in plain torch against that of torch-sparse.

    python -m benchmarks.speed.neighbors
    python -m benchmarks.speed.neighbors --quick

Both take turns on the same batches. The competitor needs the extra torch-sparse; without it ours runs alone.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch_geometric import typing as support
from torch_geometric.data import HeteroData
from torch_geometric.sampler import BaseSampler, EdgeSamplerInput, NeighborSampler

from benchmarks import rows
from benchmarks.speed.graphs import power_law
from lirdrec_pyg.training import UniformNeighborSampler
from lirdrec_pyg.typing import INTERACTS, ITEM, REV_INTERACTS, SIMILAR_TO, USER

RESULTS = Path(__file__).parents[1] / 'results' / 'speed' / 'neighbors.csv'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--items', type=int, default=100_000, help='default: %(default)s')
    parser.add_argument('--interactions', type=int, default=1_000_000, help='default: %(default)s')
    parser.add_argument('--batch-size', type=int, default=2048, help='triplets (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=15, help='batches, after two (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='default: %(default)s')
    parser.add_argument('--quick', action='store_true', help='1,000 items; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    args = parser.parse_args()
    if args.quick:
        args.items, args.interactions, args.batch_size, args.repeats = 1000, 10_000, 64, 2
    torch.set_num_threads(args.threads)
    num_users = args.interactions // 10
    data = HeteroData()
    data[USER].num_nodes, data[ITEM].num_nodes = num_users, args.items
    edge_index = power_law(num_users, args.items, args.interactions)
    data[INTERACTS].edge_index, data[REV_INTERACTS].edge_index = edge_index, edge_index.flip(0)
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(args.items).repeat_interleave(10)
    data[SIMILAR_TO].edge_index = torch.stack([torch.randint(args.items, target.shape, generator=generator), target])

    out = []
    for counts in ([4, 2, 0], [10, 5, 5], [-1, 5, 0]):
        hops = {INTERACTS: counts, REV_INTERACTS: counts, SIMILAR_TO: [-1, 0, 0]}
        samplers: dict[str, BaseSampler] = {'ours': UniformNeighborSampler(data, hops)}
        if support.WITH_TORCH_SPARSE:
            samplers['torch-sparse'] = NeighborSampler(data, hops)
        seconds: dict[str, list[float]] = {name: [] for name in samplers}
        edges: dict[str, int] = {}
        for repeat in range(args.repeats + 2):
            pair = torch.randint(edge_index.size(1), (args.batch_size,), generator=generator)
            negative = torch.randint(args.items, pair.shape, generator=generator)
            row, col = torch.cat([edge_index[0, pair]] * 2), torch.cat([edge_index[1, pair], negative])
            batch = EdgeSamplerInput(torch.arange(len(row)), row, col, input_type=INTERACTS)
            for name, sampler in samplers.items():
                clock = time.perf_counter()
                found = sampler.sample_from_edges(batch)
                if repeat > 1:
                    seconds[name].append(time.perf_counter() - clock)
                edges[name] = sum(edge.numel() for edge in found.edge.values())
        for name, spent in seconds.items():
            line: rows.Row = {'sampler': name, 'items': args.items, 'interactions': args.interactions}
            line |= {'num_neighbors': str(counts), 'batch_size': args.batch_size, 'repeats': args.repeats}
            line |= {'ms': round(1e3 * statistics.median(spent), 2), 'edges': edges[name]}
            line['times_faster'] = round(statistics.median(seconds['torch-sparse']) / statistics.median(spent), 2) if (
                'torch-sparse' in seconds
            ) else ''  # fmt: skip
            out.append(line | rows.call(args) | rows.environment())
    print(rows.table(out, ['sampler', 'num_neighbors', 'ms', 'edges', 'times_faster']))
    if args.rows or not args.quick:
        rows.append(args.rows or RESULTS, *out)


if __name__ == '__main__':
    main()
