r"""Times the propagation of LightGCN, y = Σ Â^l z over l = 0 … L, forward and forward + backward: each layout through
the library's ``Propagation``, against stock ``LGConv`` on torch CSR, ``torch.sparse.mm`` on COO and ``torch_sparse``,
which multiply the square Â and leave the backward pass to their own autograd.

    python -m benchmarks.speed.propagation --root data/graphs
    python -m benchmarks.speed.propagation --graphs baby elec --widths 192 --plot propagation.png
    python -m benchmarks.speed.propagation --quick

Zero layers stand for the product Â z alone, the kernel. Competitors agree in value and gradient, which is checked
first, and take turns. ``gb_per_s`` counts a row gathered for each non-zero and one written for each node, a layer;
``ceiling_gb_per_s`` is what a large copy reads and writes, which rows that are still in a cache let a kernel exceed.
``torch_csr_ratio`` and ``torch_sparse_ratio`` say how many times longer these two take. Peak memory is that beyond
inputs and graph, on CUDA.
"""

import argparse
import statistics
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.nn import LGConv

from benchmarks import rows
from benchmarks.speed.graphs import SIZES, interactions
from benchmarks.speed.peak import extra_memory
from lirdrec_pyg.nn.propagation import Edges, Propagation, WeightedLGConv, edges
from lirdrec_pyg.transforms import FixedSplit, InteractionGraph
from lirdrec_pyg.transforms.interaction_graph import Layout, adjacency
from lirdrec_pyg.typing import INTERACTS, ITEM, USER

RESULTS = rows.RESULTS / 'speed' / 'propagation.csv'
SHOWN = ['graph', 'nonzeros', 'width', 'layers', 'kernel', 'pass', 'ms', 'gb_per_s']
SHOWN += ['torch_csr_ratio', 'torch_sparse_ratio']
CSR, TORCH_SPARSE = 'LGConv, torch CSR', 'torch_sparse'
Kernel = Callable[..., tuple[Tensor, ...]]  # users and items, apart or in one matrix, to the same
Passes = dict[str, Callable[[], tuple[Tensor, ...]]]


def copy_ceiling(device: str, mib: int) -> float:
    r"""Returns the GB/s that a large copy reads and writes."""
    source = torch.ones(mib * 2**18, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(rows.timed(lambda: target.copy_(source), 7, device)) / 1e9


def layered(multiply: Callable[[Tensor], Tensor], num_layers: int) -> Kernel:
    r"""Returns the sum of the layers as everyone writes it, or one product for none."""

    def run(x: Tensor) -> tuple[Tensor]:
        if num_layers == 0:
            return (multiply(x),)
        out = x
        for _ in range(num_layers):
            x = multiply(x)
            out = out + x
        return (out,)

    return run


def product(user: Tensor, item: Tensor, to_item: Edges, to_user: Edges) -> tuple[Tensor, Tensor]:
    r"""Returns one product by the library's kernel, whose backward pass is the other direction's."""
    one = Propagation(0, num_item_layers=1)
    return one.smooth(item, to_user, to_item), one.smooth(user, to_item, to_user)


def plain_product(user: Tensor, item: Tensor, to_item: Edges, to_user: Edges) -> tuple[Tensor, Tensor]:
    r"""Returns one product on plain edges, whose backward pass is autograd's own."""
    conv, size = WeightedLGConv(), (user.size(0), item.size(0))
    return conv(item, *to_user, size=size[::-1]), conv(user, *to_item, size=size)


def competitors(data: HeteroData, num_layers: int, device: str) -> dict[str, Kernel]:
    r"""Returns every way to propagate on a training split."""
    kernels: dict[str, Kernel] = {}
    for layout in get_args(Layout):
        with suppress(ImportError):  # of torch-sparse
            to_item, to_user, _, _ = edges(InteractionGraph(layout)(data).to(device))
            one = plain_product if layout == 'edge_index' else product
            ours = Propagation(num_layers) if num_layers > 0 else one
            kernels[f'Propagation, {layout}'] = partial(ours, to_item=to_item, to_user=to_user)

    graph = InteractionGraph('edge_index')(data)
    user, item = graph[INTERACTS].edge_index
    item = item + data[USER].num_nodes
    index = torch.stack([torch.cat([user, item]), torch.cat([item, user])])
    weight, size = graph[INTERACTS].edge_weight.repeat(2), (data.num_nodes, data.num_nodes)
    csr = adjacency(index, weight, size, 'csr').to(device)
    conv = LGConv(normalize=False)
    kernels[CSR] = layered(lambda x: conv(x, csr), num_layers)
    coo = csr.to_sparse_coo().coalesce()
    kernels['torch.sparse.mm, COO'] = layered(lambda x: torch.sparse.mm(coo, x), num_layers)
    with suppress(ImportError):
        adj_t = adjacency(index, weight, size, 'SparseTensor').to(device)
        kernels[TORCH_SPARSE] = layered(adj_t.matmul, num_layers)
    return kernels


def passes(kernel: Kernel, inputs: list[Tensor], grads: list[Tensor]) -> Passes:
    r"""Returns what is timed of a kernel."""

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return kernel(*inputs)

    return {'forward': forward, 'forward + backward': lambda: torch.autograd.grad(kernel(*inputs), inputs, grads)}


def prepare(kernels: dict[str, Kernel], num_users: int, num_items: int, width: int, device: str) -> dict[str, Passes]:
    r"""Returns what is timed of each kernel, on equal inputs."""
    generator = torch.Generator().manual_seed(0)
    x, grad = torch.randn(2, num_users + num_items, width, generator=generator).to(device)
    todo = {}
    for name, kernel in kernels.items():
        sizes = [num_users, num_items] if name.startswith('Propagation') else [num_users + num_items]
        inputs = [part.detach().requires_grad_() for part in x.split(sizes)]
        todo[name] = passes(kernel, inputs, list(grad.split(sizes)))
    return todo


def measure(todo: dict[str, Passes], repeats: int, device: str) -> list[rows.Row]:
    r"""Returns a row for each competitor and pass, after a check that all agree."""
    expected = {key: torch.cat(function()) for key, function in todo[CSR].items()}
    peaks = {}
    for name, functions in todo.items():
        for key, function in functions.items():
            torch.testing.assert_close(torch.cat(function()), expected[key], rtol=1e-4, atol=1e-5)
            peaks[name, key] = round(extra_memory(function, device), 1) if device.startswith('cuda') else float('nan')
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in peaks}
    for _ in range(repeats):
        for name, key in peaks:
            seconds[name, key] += rows.timed(todo[name][key], 1, device, warmup=0)
    median = {key: statistics.median(values) for key, values in seconds.items()}
    nan = float('nan')
    return [
        {'kernel': name, 'pass': key, 'ms': round(1e3 * value, 4), 'repeats': repeats}
        | {'torch_csr_ratio': round(median[CSR, key] / value, 2)}
        | {'torch_sparse_ratio': round(median.get((TORCH_SPARSE, key), nan) / value, 2)}
        | {'peak_cuda_mib': peaks[name, key]}
        for (name, key), value in median.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, help='a folder with <graph>.inter (default: generated graphs)')
    parser.add_argument('--graphs', nargs='+', help=f'files of --root, or of {", ".join(SIZES)} (default: all)')
    parser.add_argument('--widths', type=int, nargs='+', default=[64, 192, 384], help='columns')
    parser.add_argument('--layers', type=int, nargs='+', default=[0, 1, 2], help='numbers L of layers')
    parser.add_argument('--repeats', type=int, default=9, help='of each (default: %(default)s)')
    parser.add_argument('--device', default='cpu', help='default: %(default)s')
    parser.add_argument('--max-gib', type=float, default=2, help='leaves out edge_index where a layer takes more')
    parser.add_argument('--quick', action='store_true', help='a hundredth of the size; rows only with --rows')
    parser.add_argument('--rows', type=Path, help='the CSV file to append to')
    parser.add_argument('--plot', type=Path, help='draw forward + backward at the most layers, as PNG')
    parser.add_argument('--profile', type=Path, help='write a trace of a pass of each, for chrome://tracing')
    args = parser.parse_args()
    if args.quick:
        args.graphs, args.widths, args.repeats = args.graphs or ['baby'], [8, 16], 3
    names = args.graphs or (sorted(p.stem for p in args.root.glob('*.inter')) if args.root else list(SIZES))
    ceiling = copy_ceiling(args.device, 16 if args.quick else 512)
    print(f'a large copy: {ceiling:.1f} GB/s', flush=True)

    out = []
    for name in names:
        data, source = interactions(name, args.root, scale=0.01 if args.quick else 1.0)
        train = FixedSplit()(data)[0]
        nodes, nnz = data.num_nodes, 2 * train[INTERACTS].edge_index.size(1)
        for num_layers in args.layers:
            kernels = competitors(train, num_layers, args.device)
            for width in args.widths:
                use = dict(kernels)
                if nnz * width * 4 > args.max_gib * 2**30:
                    del use['Propagation, edge_index']
                    print(f'{name}, {width} columns: edge_index left out, a layer takes {nnz * width / 2**28:.1f} GiB')
                todo = prepare(use, data[USER].num_nodes, data[ITEM].num_nodes, width, args.device)
                found = measure(todo, args.repeats, args.device)
                for row in found:
                    moved = (nnz + nodes) * width * 4 * max(1, num_layers) * (1 if row['pass'] == 'forward' else 2)
                    row |= {'gb_per_s': round(moved / row['ms'] / 1e6, 1), 'ceiling_gb_per_s': round(ceiling, 1)}
                graph: rows.Row = {'graph': name if not args.quick else 'quick', 'source': source, 'nodes': nodes}
                graph |= {'nonzeros': nnz, 'width': width, 'layers': num_layers}
                print(rows.table([graph | row for row in found], SHOWN), flush=True)
                found = [graph | row | rows.call(args) | rows.environment(args.device) for row in found]
                out += found
                if args.rows or not args.quick:
                    for row in found:
                        rows.append(args.rows or RESULTS, row)
    if args.profile:
        with torch.profiler.profile() as trace:
            for name, functions in todo.items():
                with torch.profiler.record_function(name):
                    functions['forward + backward']()
        trace.export_chrome_trace(str(args.profile))
    if args.plot:
        plot(out, args.plot)


def plot(out: list[rows.Row], path: Path) -> None:
    r"""Draws milliseconds against columns, a panel for each graph, at the largest number of layers."""
    import matplotlib.pyplot as plt

    layers = max(row['layers'] for row in out)
    out = [row for row in out if row['layers'] == layers and row['pass'] == 'forward + backward']
    graphs = list(dict.fromkeys(row['graph'] for row in out))
    figure, axes = plt.subplots(
        1, len(graphs), figsize=(4.4 * len(graphs) + 2.9, 4), layout='constrained', sharey=True, squeeze=False
    )
    for panel, graph in zip(axes[0], graphs, strict=True):
        for kernel in dict.fromkeys(row['kernel'] for row in out):
            points = [(row['width'], row['ms']) for row in out if (row['graph'], row['kernel']) == (graph, kernel)]
            panel.loglog(*zip(*points, strict=True), marker='o', label=kernel)
        panel.set_xticks(widths := sorted({row['width'] for row in out}), labels=[str(width) for width in widths])
        panel.minorticks_off()
        panel.set_title(f'{graph}, {out[0]["threads"]} threads')
        panel.set_xlabel('columns')
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel(f'← better     ms, forward + backward, {layers} layers')
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside right upper', fontsize=9)
    figure.savefig(path, dpi=150)


if __name__ == '__main__':
    main()
