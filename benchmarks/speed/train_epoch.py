r"""Times a training epoch plus a validation of LIRDRec at Baby's size, and where the time of a step goes, against a
straightforward implementation of the same mathematics (``straightforward.py``) in the same run.

    python -m benchmarks.speed.train_epoch
    python -m benchmarks.speed.train_epoch --root data/graphs --repeats 5 --plot train_epoch.png
    python -m benchmarks.speed.train_epoch --compile --only 'fp32 r=128' 'fp32 r=128, compiled'
    python -m benchmarks.speed.train_epoch --quick

Competitors take turns, an epoch each, in batches of 2,048, or where it says so in the 16 steps that `fit` takes by
default. The compressed ones keep r principal components of each modality. --compile adds them once more with what
torch.compile takes: the weights of the views. Not the rest, which are products with sparse matrices or by oneDNN, and
functions with backward passes of their own.
"""

import argparse
import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.speed.graphs import interactions, with_features
from benchmarks.speed.straightforward import StraightforwardTrainer, time_epoch
from lirdrec_pyg import BPRSampler, LIRDRec, Trainer
from lirdrec_pyg.nn import PWC
from lirdrec_pyg.transforms import DCT, PCA, FixedSplit, HalfPrecision, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, modalities

RESULTS = rows.RESULTS / 'speed' / 'train_epoch.csv'
PHASES = ['sampling', 'encoder', 'propagation', 'rest of forward', 'of it fusion', 'of it loss', 'backward']
PHASES += ['of it propagation', 'optimiser']


class WatchedPWC(PWC):
    r"""PWC that says when it starts and ends to weigh, by torch.compile if asked to.

    Args:
        backend (str, optional): That of torch.compile. (default: not compiled)
    """

    def __init__(self, backend: str | None = None) -> None:
        super().__init__()
        self.backend = backend
        self.compiled: Callable[..., Tensor] | None = None
        self.mark: Callable[[], None] | None = None  # called before and after

    def weight(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        if self.backend is not None and self.compiled is None:
            self.compiled = torch.compile(super().weight, backend=self.backend)
        if self.mark is not None:
            self.mark()
        out = super().weight(x, index) if self.compiled is None else self.compiled(x, index)
        if self.mark is not None:
            self.mark()
        return out


class Ours:
    r"""Trains ours an epoch at a time."""

    def __init__(
        self,
        train: HeteroData,
        val: HeteroData,
        precision: str,
        layout: str,
        device: str,
        backend: str | None = None,
        batch_size: int | None = 2048,
    ) -> None:
        self.train = InteractionGraph(layout)(train).to(device)
        self.precision, self.device = precision, device
        self.model = LIRDRec.from_data(self.train, seed=0, fusion=WatchedPWC(backend)).to(device)
        self.trainer = Trainer(self.model, self.train, val, batch_size=batch_size, precision=precision)

    def epoch(self) -> float:
        r"""Trains one more epoch, and returns its seconds with its validation."""
        return self.trainer.fit(self.trainer.epoch + 1).log[-1]['seconds']


def phases(ours: Ours, steps: int = 12, profile: Path | None = None) -> dict[str, float]:
    r"""Returns the median milliseconds of each phase of a step."""
    model, device = ours.model, ours.device
    train = HalfPrecision()(ours.train) if ours.precision == 'bf16' else ours.train
    spent: dict[str, float] = defaultdict(float)
    direction = ['forward']

    def watch(module: torch.nn.Module, name: Callable[[], str]) -> list[torch.utils.hooks.RemovableHandle]:
        clock: list[float] = []

        def before(*args: object) -> None:
            rows.synchronize(device)
            clock.append(time.perf_counter())

        def after(*args: object) -> None:
            rows.synchronize(device)
            spent[name()] += time.perf_counter() - clock.pop()

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    fused: list[float] = []

    def mark_fusion() -> None:
        rows.synchronize(device)
        fused.append(time.perf_counter())

    model.fusion.mark = mark_fusion
    handles = watch(model.propagation.conv, lambda: f'propagation {direction[0]}')
    for encoder in [*model.encoders.values(), model.shared_encoder]:
        handles += watch(encoder, lambda: 'encoder')
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    sampler = BPRSampler(train[INTERACTS].edge_index, train[USER].num_nodes, train[ITEM].num_nodes)
    clock = time.perf_counter()
    batches = list(sampler)
    sampling = (time.perf_counter() - clock) / len(batches)
    model.train()
    model.on_epoch_start(1)
    records = []

    def step(batch: tuple[Tensor, ...]) -> None:
        spent.clear()
        fused.clear()
        direction[0] = 'forward'
        marks = []

        def mark() -> None:
            rows.synchronize(device)
            marks.append(time.perf_counter())

        mark()
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(train, *(index.to(device) for index in batch))
        mark()
        direction[0] = 'backward'
        loss.backward()
        mark()
        optimizer.step()
        mark()
        forward, backward, update = (b - a for a, b in pairwise(marks))
        known = spent['encoder'] + spent['propagation forward']
        parts = [sampling, spent['encoder'], spent['propagation forward'], forward - known]
        parts += [fused[1] - fused[0], marks[1] - fused[1], backward]
        records.append([*parts, spent['propagation backward'], update])

    for index in range(steps):
        step(batches[index % len(batches)])
    if profile is not None:
        with torch.profiler.profile() as trace:
            step(batches[0])
        trace.export_chrome_trace(str(profile))
    for handle in handles:
        handle.remove()
    model.fusion.mark = None
    columns = zip(*records[2:], strict=True)
    return {name: 1e3 * statistics.median(column) for name, column in zip(PHASES, columns, strict=True)}


def matmul_ceiling(num_items: int, width: int, dtype: torch.dtype, device: str) -> float:
    r"""Returns the GFLOP/s of a product of the encoder's form."""
    x, weight = torch.randn(num_items, width, device=device).to(dtype), torch.randn(256, width, device=device).to(dtype)
    seconds = min(rows.timed(lambda: torch.nn.functional.linear(x, weight), 7, device))
    return 2 * num_items * width * 256 / seconds / 1e9


def count(components: str) -> int | dict[str, int]:
    r"""Returns what :class:`PCA` takes for ``'128'``, or for ``'64+128'`` of image and text."""
    image, plus, text = components.partition('+')
    return {'image': int(image), 'text': int(text)} if plus else int(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, help='a folder with baby.inter (default: generated interactions)')
    parser.add_argument('--size', default='baby', help='baby, sports, clothing or elec (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=3, help='epochs of each, after one to warm up')
    parser.add_argument('--only', nargs='+', help='some of: straightforward, fp32, bf16, fp32 r=128, …')
    parser.add_argument('--components', nargs='+', default=['128', '64+128'], help='r, or those of image and text')
    parser.add_argument('--layout', default='csr', help='of the adjacency (default: %(default)s)')
    parser.add_argument('--compile', nargs='?', const='inductor', metavar='BACKEND', help='add compiled competitors')
    parser.add_argument('--device', default='cpu', help='default: %(default)s')
    parser.add_argument('--quick', action='store_true', help='a hundredth of the size; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    parser.add_argument('--plot', type=Path, help='draw where the time of a step goes, as PNG')
    parser.add_argument('--profile', type=Path, help='write a trace of a step of the last one, for chrome://tracing')
    args = parser.parse_args()
    scale = 0.01 if args.quick else 1.0
    data, source = interactions(args.size, args.root, scale=scale)
    widths = {'image': 64, 'text': 16} if args.quick else {'image': 4096, 'text': 384}
    components = ['16'] if args.quick else args.components
    data = with_features(data, widths)
    data = ItemKNNGraph(k=min(10, data[ITEM].num_nodes), weights={'image': 0.1, 'text': 0.9})(data)
    train, val, _ = FixedSplit()(DCT()(data))
    small = {r: FixedSplit()(DCT()(PCA(count(r))(data))) for r in components}

    makers: dict[str, Callable[[], Ours]] = {
        'fp32': lambda: Ours(train, val, 'fp32', args.layout, args.device),
        'bf16': lambda: Ours(train, val, 'bf16', args.layout, args.device),
    }
    for r, (compressed, held_out, _) in small.items():
        for precision in ('fp32', 'bf16'):
            maker = functools.partial(Ours, compressed, held_out, precision, args.layout, args.device)
            makers[f'{precision} r={r}'] = maker
            makers[f'{precision} r={r}, 16 steps'] = functools.partial(maker, batch_size=None)
            if args.compile is not None:
                makers[f'{precision} r={r}, compiled'] = functools.partial(maker, args.compile)
    names = ['straightforward', *makers] if args.only is None else args.only
    seconds: dict[str, list[float]] = {name: [] for name in names}
    competitors = {name: makers[name]() for name in names if name != 'straightforward'}
    baseline = None
    if 'straightforward' in names:
        graph = InteractionGraph()(train)
        baseline = StraightforwardTrainer(LIRDRec.from_data(graph, seed=0), graph, val, device=args.device)
    for repeat in range(1 + args.repeats):
        for name in names:
            if name == 'straightforward':
                assert baseline is not None
                spent, _, _ = time_epoch(baseline, repeat + 1)
            else:
                spent = competitors[name].epoch()
            if repeat > 0:
                seconds[name].append(spent)
            print(f'{name:<22}{"(warm-up) " if repeat == 0 else ""}{spent:.2f} s', flush=True)

    out = []
    for name in names:
        row: rows.Row = {'competitor': name, 'size': args.size if not args.quick else 'quick', 'interactions': source}
        row |= {'users': data[USER].num_nodes, 'items': data[ITEM].num_nodes}
        row |= {'train_interactions': train[INTERACTS].edge_index.size(1), 'layout': args.layout}
        row |= {'epoch_and_validation_s': round(statistics.median(seconds[name]), 3), 'repeats': args.repeats}
        ratio = float('nan')
        if 'straightforward' in names:
            ratio = statistics.median(seconds['straightforward']) / statistics.median(seconds[name])
        row['times_faster'] = round(ratio, 2)
        measured = dict.fromkeys(PHASES, float('nan'))
        reached = ceiling = float('nan')
        if name != 'straightforward':
            ours = competitors[name]
            measured = phases(ours, profile=args.profile if name == names[-1] else None)
            width = 2 * sum(ours.train[ITEM][f'x_{m}'].size(1) for m in modalities(ours.train))
            dtype = torch.bfloat16 if ours.precision == 'bf16' else torch.float32
            if measured['encoder'] > 0:
                reached = 2 * data[ITEM].num_nodes * width * 256 / measured['encoder'] / 1e6
            ceiling = matmul_ceiling(data[ITEM].num_nodes, width // 2, dtype, args.device)
        row |= {f'{phase.replace(" ", "_")}_ms': round(value, 2) for phase, value in measured.items()}
        row |= {'encoder_gflops': round(reached, 1), 'matmul_ceiling_gflops': round(ceiling, 1)}
        out.append(row | rows.call(args) | rows.environment(args.device))
    shown = ['competitor', 'epoch_and_validation_s', 'times_faster', *(c for c in out[0] if c.endswith('_ms'))]
    print(rows.table(out, [*shown, 'encoder_gflops', 'matmul_ceiling_gflops']))
    if args.rows or not args.quick:
        for row in out:
            rows.append(args.rows or RESULTS, row)
    if args.plot:
        plot(out, args.plot)


def plot(out: list[rows.Row], path: Path) -> None:
    r"""Draws where the time of a step goes."""
    import matplotlib.pyplot as plt

    parts = ['sampling', 'encoder', 'propagation', 'fusion', 'loss', 'other_forward', 'backward', 'optimiser']
    bars = [
        {'fusion_ms': row['of_it_fusion_ms'], 'loss_ms': row['of_it_loss_ms'], **row}
        | {'other_forward_ms': row['rest_of_forward_ms'] - row['of_it_fusion_ms'] - row['of_it_loss_ms']}
        for row in out
        if row['competitor'] != 'straightforward'
    ]
    figure, axes = plt.subplots(figsize=(7, 0.6 * len(bars) + 1.6), layout='constrained')
    left = [0.0] * len(bars)
    for part in parts:
        widths = [row[f'{part}_ms'] for row in bars]
        axes.barh([row['competitor'] for row in bars], widths, left=left, label=part.replace('_', ' '))
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel('milliseconds of a training step')
    axes.set_title(f"LIRDRec at {bars[0]['size']}'s size, {bars[0]['threads']} threads")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == '__main__':
    main()
