r"""Draws the figures of the README from the rows in ``benchmarks/*/results``, into ``docs/figures``.

python -m benchmarks.quality.figures
python -m benchmarks.quality.figures --only ablation transfer
"""

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import pandas as pd

matplotlib.use('Agg')

import matplotlib.pyplot as plt

from benchmarks.speed import knn, propagation, scaling

ROOT = Path(__file__).parents[2]
QUALITY = ROOT / 'benchmarks' / 'quality' / 'results'
SPEED = ROOT / 'benchmarks' / 'speed' / 'results'
NAMES = {'scientific': 'Scientific', 'movielens': 'MovieLens-100K', 'microlens_50k': 'MicroLens-50k'}


def experiment(name: str) -> pd.DataFrame:
    r"""Returns the rows of an experiment of ``run.py``."""
    rows = pd.read_csv(QUALITY / 'runs.csv')
    rows = rows[rows['experiment'] == name]
    if rows.empty:
        raise FileNotFoundError(f"no rows of '{name}'")
    return rows


def seeds(rows: pd.DataFrame) -> str:
    r"""Returns how many seeds each variant has."""
    count = rows.groupby('variant')['seed'].nunique()
    return f'{count.min()} seeds' if count.min() == count.max() else f'{count.min()} to {count.max()} seeds'


def main_models(path: Path) -> None:
    r"""Draws ndcg@20 of each model on each dataset."""
    rows = experiment('main')
    panels(rows, path, 'test ndcg@20', lambda part: part, 'Settings chosen on validation')


def ablation(path: Path) -> None:
    r"""Draws what each change does to ndcg@20, relative to the paper's configuration."""

    def relative(part: pd.DataFrame) -> pd.DataFrame:
        base = part[part['variant'] == 'LIRDRec']['test_ndcg@20'].mean()
        return part.assign(**{'test_ndcg@20': 100 * (part['test_ndcg@20'] / base - 1)})

    panels(experiment('ablation'), path, 'test ndcg@20 against LIRDRec, %', relative, 'One change at a time')


def panels(rows: pd.DataFrame, path: Path, label: str, change: Callable[[Any], Any], title: str) -> None:
    r"""Draws a bar for each variant, with the standard deviation over the seeds, and a panel for each dataset."""
    datasets = list(dict.fromkeys(rows['dataset']))
    height = 1.4 + 0.27 * max(rows[rows['dataset'] == name]['variant'].nunique() for name in datasets)
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(5.5 * len(datasets), height), layout='constrained', squeeze=False
    )
    for axis, name in zip(axes[0], datasets, strict=True):
        part = change(rows[rows['dataset'] == name])
        group = part.groupby('variant')['test_ndcg@20'].agg(['mean', 'std']).sort_values('mean')
        colors = ['C1' if variant == 'SoftmaxLIRDRec' else 'C0' for variant in group.index]
        axis.barh([str(variant) for variant in group.index], group['mean'], xerr=group['std'], color=colors, capsize=2)
        axis.set_title(f'{NAMES.get(name, name)}, {seeds(part)}')
        axis.set_xlabel(f'{label} (mean ± sd)')
        axis.grid(alpha=0.3, axis='x')
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def transfer(path: Path) -> None:
    r"""Draws LIRDRec on worse and worse content against LightGCN, which sees none, and where they cross."""
    rows = experiment('transfer')
    kinds = {
        'noise': ('length of the noise added to unit features', 0.0),
        'permute': ('share of items with traded features', 0.0),
        'columns': ('share of feature columns kept', 1.0),
    }
    datasets = list(dict.fromkeys(rows['dataset']))
    figure, axes = plt.subplots(
        len(datasets), len(kinds), figsize=(11, 3.1 * len(datasets)), layout='constrained', squeeze=False, sharey='row'
    )
    for line, dataset in zip(axes, datasets, strict=True):
        part = rows[rows['dataset'] == dataset]
        group = part.groupby('variant')['test_ndcg@20'].agg(['mean', 'std'])
        base = group.loc['LightGCN']
        for axis, (kind, (label, best)) in zip(line, kinds.items(), strict=True):
            points = [(best, *group.loc['content'])]
            points += [
                (float(str(name).split()[1]), *values)
                for name, values in group.iterrows()
                if str(name).startswith(kind)
            ]
            level, mean, std = zip(*sorted(points), strict=True)
            axis.errorbar(level, mean, yerr=std, marker='o', capsize=2, label='LIRDRec')
            axis.axhline(base['mean'], color='C1', label='LightGCN, item IDs and no content')
            axis.axhspan(base['mean'] - base['std'], base['mean'] + base['std'], color='C1', alpha=0.2)
            for a, b in zip(range(len(level)), range(1, len(level)), strict=False):
                over, under = mean[a] - base['mean'], mean[b] - base['mean']
                if over * under < 0:
                    at = level[a] + (level[b] - level[a]) * over / (over - under)
                    axis.axvline(at, color='black', linestyle=':')
                    axis.annotate(f'{at:.2g}', (at, base['mean']), xytext=(4, 4), textcoords='offset points')
            axis.set_xlabel(label)
            axis.grid(alpha=0.3)
        line[0].set_ylabel('test ndcg@20 (mean ± sd)')
        line[1].set_title(f'{NAMES.get(dataset, dataset)}, {seeds(part)}; dotted: where they cross')
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def pwc(path: Path) -> None:
    r"""Draws the mean weight of each view over the epochs, and the spread over users."""
    rows = pd.read_csv(QUALITY / 'pwc.csv')
    datasets, variants = list(dict.fromkeys(rows['dataset'])), list(dict.fromkeys(rows['variant']))
    figure, axes = plt.subplots(
        len(datasets), len(variants), figsize=(2.5 * len(variants) + 1, 2.7 * len(datasets)), layout='constrained',
        squeeze=False, sharey=True, sharex=True,
    )  # fmt: skip
    for line, dataset in zip(axes, datasets, strict=True):
        views = list(dict.fromkeys(rows[rows['dataset'] == dataset]['view']))
        for axis, variant in zip(line, variants, strict=True):
            part = rows[(rows['dataset'] == dataset) & (rows['variant'] == variant)]
            for number, view in enumerate(views):
                mean = part[part['view'] == view].groupby('epoch')[['mean', 'std']].mean()
                axis.plot(mean.index, mean['mean'], color=f'C{number}', label=view)
                low, high = mean['mean'] - mean['std'], mean['mean'] + mean['std']
                axis.fill_between(mean.index, low, high, color=f'C{number}', alpha=0.2)
            axis.set_title(f"'{variant}'", fontsize=10)
            axis.grid(alpha=0.3)
        line[0].set_ylabel(f'{NAMES.get(dataset, dataset)}\nweight, mean ± sd over users')
        line[-1].legend(fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel('epoch')
    figure.suptitle(f'Weights of the views by variant of PWC, mean of {rows["seed"].nunique()} seeds')
    figure.savefig(path, dpi=110)


def cold(path: Path) -> None:
    r"""Draws the cold items, as the example does."""
    example = script('cold_start')
    example.plot(example.read(found(QUALITY / 'cold.csv')), path)


def gradient_bias(path: Path) -> None:
    r"""Draws the gradient bias, as the example does: a picture for each dataset and one of all conditions."""
    script('gradient_bias').plot(found(QUALITY / 'gradient_bias.csv'), path)


def script(name: str) -> ModuleType:
    r"""Returns an example as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'examples' / f'{name}.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(path)
    return path


def speed(module: ModuleType, name: str) -> Callable[[Path], None]:
    r"""Returns what draws the rows of a speed benchmark, as itself does."""

    def draw(path: Path) -> None:
        module.plot(pd.read_csv(found(SPEED / f'{name}.csv')).to_dict('records'), path)

    return draw


FIGURES: dict[str, Callable[[Path], None]] = {
    'main': main_models,
    'ablation': ablation,
    'transfer': transfer,
    'pwc': pwc,
    'cold': cold,
    'gradient_bias': gradient_bias,
    'propagation': speed(propagation, 'propagation'),
    'scaling': speed(scaling, 'scaling'),
    'knn': speed(knn, 'knn'),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', default=list(FIGURES), choices=list(FIGURES), help='default: all')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'figures', help='default: %(default)s')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        path = args.out / f'{name}.png'
        try:
            FIGURES[name](path)
        except FileNotFoundError as error:
            print(f'{name}: no rows yet ({error})')
        else:
            print(f'{name}: drawn')
        plt.close('all')


if __name__ == '__main__':
    main()
