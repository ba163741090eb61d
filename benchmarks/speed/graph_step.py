r"""Compares a training step launched operation by operation with the same step recorded once as a CUDA graph and
replayed: milliseconds, and the losses of 50 steps over several epochs.

**This script has not been run on a GPU yet.** What it would show is not known. Nothing in the library records steps.

    python -m benchmarks.speed.graph_step
    python -m benchmarks.speed.graph_step --quick --rows /tmp/rows.csv

Both start from the same weights and take the same full batches. What is drawn on the device comes from torch's global
generator, whose state a replay advances. Without drawing, losses need to agree to 1e-5.
"""

import argparse
import copy
import statistics
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.speed.graphs import interactions, with_features
from lirdrec_pyg import BPRSampler, LIRDRec, SoftmaxLIRDRec
from lirdrec_pyg.nn import BPR, Recommender, SampledSoftmax
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, USER

RESULTS = rows.RESULTS / 'speed' / 'graph_step.csv'
Batch = tuple[int, list[Tensor]]  # epoch, triplets


class Launched:
    r"""A step whose operations are launched one by one."""

    def __init__(self, model: Recommender, train: HeteroData) -> None:
        self.model, self.train = model.train(), train
        self.capturable = next(model.parameters()).is_cuda
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True, capturable=self.capturable)
        self.epoch = 0

    def step(self, triplets: list[Tensor]) -> Tensor:
        r"""Takes a step, and returns its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model.loss(self.train, *triplets)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def take(self, batch: Batch) -> Tensor:
        r"""Takes the step of a batch, in whose epoch the model is told of it first."""
        epoch, triplets = batch
        if epoch != self.epoch:
            self.model.on_epoch_start(epoch)
            self.epoch = epoch
        return self.step(triplets)


class Recorded(Launched):
    r"""A step that is recorded once and replayed on the triplets of each batch."""

    def __init__(self, model: Recommender, train: HeteroData, triplets: list[Tensor]) -> None:
        super().__init__(model, train)
        first = copy.deepcopy(model.state_dict())
        self.triplets = [index.clone() for index in triplets]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries and the optimiser make what they keep
            for _ in range(3):
                super().step(self.triplets)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = super().step(self.triplets)
        model.load_state_dict(first)  # in place, as all that follows
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def step(self, triplets: list[Tensor]) -> Tensor:
        for own, index in zip(self.triplets, triplets, strict=True):
            own.copy_(index)
        self.graph.replay()
        return self.loss.clone()


def batches(train: HeteroData, size: int, steps: int, device: str) -> Iterator[Batch]:
    r"""Yields full batches, at most a tenth of the steps of each epoch, so that there are several epochs."""
    sizes = train[USER].num_nodes, train[ITEM].num_nodes
    sampler = BPRSampler(train[INTERACTS].edge_index, *sizes, batch_size=size, seed=0)
    epoch = 0
    while True:
        epoch += 1
        for triplets in islice(sampler, max(steps // 10, 1)):
            if len(triplets[0]) == size:
                yield epoch, [index.to(device) for index in triplets]


def models(train: HeteroData) -> dict[str, Recommender]:
    r"""Returns what is compared. The last two draw on the device."""
    return {
        'BPR': LIRDRec.from_data(train, seed=0, objective=BPR()),
        'softmax, all items': LIRDRec.from_data(train, seed=0, objective=SampledSoftmax()),
        'softmax, 1024 items': LIRDRec.from_data(train, seed=0, objective=SampledSoftmax(num_negatives=1024)),
        'SoftmaxLIRDRec': SoftmaxLIRDRec.from_data(train, seed=0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', default='baby', help='baby, sports, clothing or elec (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=2048, help='triplets (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=50, help='whose losses are compared (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=5, help='times that these are timed (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='a hundredth of the size; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit('graph_step: needs a GPU')
    device = 'cuda'
    data, source = interactions(args.size, None, scale=0.01 if args.quick else 1.0)
    data = with_features(data, {'image': 64, 'text': 16} if args.quick else {'image': 4096, 'text': 384})
    train = FixedSplit()(DCT()(ItemKNNGraph(k=10)(data)))[0]
    train = InteractionGraph()(train)
    size = 64 if args.quick else args.batch_size
    taken = list(islice(batches(train, size, args.steps, device), args.steps))
    train = train.to(device)

    out = []
    for name, model in models(train).items():
        model = model.to(device)
        ways = {
            'launched': Launched(copy.deepcopy(model), train),
            'recorded': Recorded(model, train, taken[0][1]),
        }
        losses = {}
        for way, steps in ways.items():
            torch.cuda.manual_seed(0)
            losses[way] = torch.stack([steps.take(batch) for batch in taken])
        worst = (losses['recorded'] - losses['launched']).abs().max() / losses['launched'].abs().max()
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(args.repeats):
            for way, steps in ways.items():  # taking turns
                seconds[way] += rows.timed(lambda steps=steps: [steps.take(batch) for batch in taken], 1, device)
        ms = {way: 1e3 * statistics.median(spent) / len(taken) for way, spent in seconds.items()}
        for way in ways:
            row: rows.Row = {'objective': name, 'step': way, 'size': args.size, 'interactions': source}
            row |= {'batch_size': size, 'steps': len(taken), 'ms': round(ms[way], 3)}
            row |= {'times_faster': round(ms['launched'] / ms[way], 2), 'largest_relative_difference': float(worst)}
            out.append(row | rows.call(args) | rows.environment(device))
    print(rows.table(out, ['objective', 'step', 'ms', 'times_faster', 'largest_relative_difference']))
    if args.rows or not args.quick:
        rows.append(args.rows or RESULTS, *out)


if __name__ == '__main__':
    main()
