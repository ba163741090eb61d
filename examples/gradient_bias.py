r"""Do item IDs learn less where features are trained beside them? Measures the gradient bias that the LIRDRec paper
argues from, where IDs and projections of features are in one model: VBPR, FREEDOM, and LIRDRec with item IDs added.

For each epoch and source (the ID table, each projection) it records how the gradient and the update move an item, how
far the source has come since the start, and the validation recall of the whole model and of its ID and feature parts
alone. Every list of choices is combined with every other; what has rows in --rows is not run again.

    python examples/gradient_bias.py --quick
    python examples/gradient_bias.py --root data --dataset scientific --rows rows.csv --plot bias.png
    python examples/gradient_bias.py --root data --optimizer sgd --loss bpr softmax --rows rows.csv
    python examples/gradient_bias.py --root data --init matched --id-scale 0.1 1 10 --rows rows.csv
    python examples/gradient_bias.py --root data --dataset movielens --keep 1 0.5 0.25 --rows rows.csv
    python examples/gradient_bias.py --rows rows.csv --plot-only --plot bias.png
"""

import argparse
import csv
import fcntl
import io
import itertools
import warnings
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.functional import normalize
from torch.optim import SGD
from torch_geometric.data import HeteroData

import lirdrec_pyg
from lirdrec_pyg import Callback, Embeddings, LIRDRec, Recommender, Trainer, evaluate, fit
from lirdrec_pyg.datasets import FakeMultimodal, MMRecDataset, MovieLens100K
from lirdrec_pyg.nn import BPR, FREEDOM, VBPR, SampledSoftmax
from lirdrec_pyg.training import GradientBiasProbe
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph, RandomSplit
from lirdrec_pyg.typing import INTERACTS, ITEM, modalities

PARTS = {  # what can be trained: both, or one without the other
    'VBPR': ('both', 'ids', 'features'),
    'FREEDOM': ('both', 'ids'),  # it has no features without IDs
    'LIRDRec': ('both', 'features'),  # and this no IDs without features
}
CHOICES = ('dataset', 'keep', 'model', 'parts', 'loss', 'optimizer', 'init', 'id_scale', 'feature_norm', 'seed')
BASE = {'keep': 1.0, 'loss': 'bpr', 'optimizer': 'adam', 'init': 'own', 'id_scale': 1.0, 'feature_norm': 'own'}
Config = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='holds amazon_scientific_2018/ and ml-100k/')
    parser.add_argument('--cache-dir', help='where to keep the processed data (default: inside the dataset folder)')
    parser.add_argument('--dataset', nargs='+', default=['scientific'], choices=['scientific', 'movielens', 'fake'])
    parser.add_argument('--keep', type=float, nargs='+', default=[1.0], help='shares of the training interactions kept')
    parser.add_argument('--model', nargs='+', default=list(PARTS), choices=list(PARTS), help='(default: all)')
    parser.add_argument(
        '--parts', nargs='+', default=['both', 'ids', 'features'], help='what is trained (default: all)'
    )
    parser.add_argument('--loss', nargs='+', default=['bpr'], choices=['bpr', 'softmax'], help='(default: bpr)')
    parser.add_argument('--optimizer', nargs='+', default=['adam'], choices=['adam', 'sgd'], help='(default: adam)')
    parser.add_argument(
        '--adam-lr', type=float, nargs='+', default=[1e-3], help='learning rates of Adam (default: 1e-3)'
    )
    parser.add_argument(
        '--sgd-lr', type=float, nargs='+', default=[10.0], help='of SGD; no one suits all (default: 10)'
    )
    parser.add_argument(
        '--init',
        nargs='+',
        default=['own'],
        choices=['own', 'matched'],
        help='IDs start as the model has it, or with rows as long as the projected features (default: own)',
    )
    parser.add_argument('--id-scale', type=float, nargs='+', default=[1.0], help='then times this (default: 1)')
    parser.add_argument(
        '--feature-norm',
        nargs='+',
        default=['own'],
        choices=['own', 'unit'],
        help='features as they are, or of length one: an ID is a one-hot feature of length one (default: own)',
    )
    parser.add_argument('--seed', type=int, nargs='+', default=[0, 1, 2], help='one run for each (default: 0 1 2)')
    parser.add_argument('--epochs', type=int, default=60, help='of each run, all of them (default: %(default)s)')
    parser.add_argument('--hidden-channels', type=int, default=64, help='(default: %(default)s)')
    parser.add_argument('--rows', type=Path, help='the CSV file: a row for each run, epoch and source')
    parser.add_argument(
        '--plot', type=Path, help='FILE.png: writes FILE-<dataset>.png and FILE-conditions.png of --rows'
    )
    parser.add_argument('--plot-only', action='store_true', help='run nothing, draw what --rows has')
    parser.add_argument('--quick', action='store_true', help='three epochs on a small generated dataset')
    args = parser.parse_args()
    if args.quick:
        args.dataset, args.seed, args.epochs, args.hidden_channels = ['fake'], [0], 3, 8
    if args.plot and not args.rows:
        parser.error('--plot draws from --rows: name the file')
    if not args.plot_only:
        for config in configs(args):
            if args.rows and config in known(args.rows):
                print(f'{describe(config)}: found in {args.rows}')
                continue
            rows = run(config, args.root, args.cache_dir)
            if args.rows and rows:
                append(args.rows, rows)
            if rows:
                print(f'{describe(config)}: {summary(rows)}', flush=True)
    if args.plot:
        plot(args.rows, args.plot)


def configs(args: argparse.Namespace) -> list[Config]:
    r"""Returns every combination that makes sense, once."""
    found: list[Config] = []
    for values in itertools.product(*(getattr(args, name) for name in CHOICES)):
        config = dict(zip(CHOICES, values, strict=True))
        if config['parts'] not in PARTS[config['model']]:
            continue
        if config['parts'] == 'features':  # has no IDs
            config |= {'init': 'own', 'id_scale': 1.0}
        for lr in args.adam_lr if config['optimizer'] == 'adam' else args.sgd_lr:
            one = config | {'lr': lr, 'epochs': args.epochs, 'hidden_channels': args.hidden_channels}
            if one not in found:
                found.append(one)
    return found


def run(config: Config, root: Path, cache_dir: str | None) -> list[dict[str, Any]]:
    r"""Trains one model and returns a row for each epoch and source."""
    train, val = load(config, root, cache_dir)
    model, ids, features = build(config, train)
    probe = GradientBiasProbe(train, ids, features)
    recall = PartRecall(config, train, val)
    rate: dict[str, Any] = {'lr': config['lr']}
    if config['optimizer'] == 'sgd':
        rate = {'optimizer': lambda params: SGD(params, lr=config['lr'])}
    try:
        fit(
            model,
            train,
            val,
            epochs=config['epochs'],
            batch_size=2048,
            patience=config['epochs'],
            seed=config['seed'],
            callbacks=[recall, probe],
            progress=False,
            **rate,
        )
    except (FloatingPointError, ValueError) as error:  # the rate was too high: the epochs before count
        if 'finite' not in str(error):
            raise
        print(f'{describe(config)}: {error}')
    degree = torch.bincount(train[INTERACTS].edge_index[1], minlength=train[ITEM].num_nodes)
    third = len(degree) // 3
    order = degree.argsort(stable=True)
    constant = config | {
        'num_items': len(degree),
        'interactions_per_item': round(float(degree.float().mean()), 3),
        'lirdrec_pyg': lirdrec_pyg.__version__,
        'torch': torch.__version__,
        'threads': torch.get_num_threads(),
    }
    rows = []
    for row in probe.epoch_rows:
        grad = probe.item_grads[row['name']][row['epoch'] - 1]
        thirds = {
            'item_grad_rare': float(grad[order[:third]].mean()),
            'item_grad_frequent': float(grad[order[-third:]].mean()),
        }
        rows.append(constant | row | thirds | recall.epochs[row['epoch'] - 1])
    return rows


def load(config: Config, root: Path, cache_dir: str | None) -> tuple[HeteroData, HeteroData]:
    r"""Returns the training split, as all models need it, and the validation split."""
    if config['dataset'] == 'scientific':
        data = MMRecDataset(str(root / 'amazon_scientific_2018'), 'scientific', cache_dir=cache_dir)[0]
        train, val, _ = FixedSplit()(data)
    elif config['dataset'] == 'movielens':
        train, val, _ = RandomSplit(seed=0)(MovieLens100K(str(root / 'ml-100k'))[0])
    else:
        train, val, _ = FixedSplit()(FakeMultimodal(num_users=200, num_items=120, seed=0)[0])
    edge_index = train[INTERACTS].edge_index
    train, val = copy(train), copy(val)
    train[INTERACTS].edge_index = subsample(edge_index, config['keep'], config['seed'])
    if config['feature_norm'] == 'unit':
        for name in modalities(train):
            train[ITEM][f'x_{name}'] = normalize(train[ITEM][f'x_{name}'])
    weights = {'image': 0.1, 'text': 0.9} if set(modalities(train)) == {'image', 'text'} else None
    train = InteractionGraph()(ItemKNNGraph(k=10, weights=weights)(DCT()(train)))
    return train, val


def subsample(edge_index: Tensor, keep: float, seed: int) -> Tensor:
    r"""Returns a random share of the interactions, at least one of each user."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(edge_index.size(1), generator=generator)
    shuffled = edge_index[:, order]
    by_user = shuffled[0].argsort(stable=True)
    first = torch.ones_like(by_user, dtype=torch.bool)
    first[1:] = shuffled[0][by_user].diff() != 0
    kept = torch.arange(len(order)) < round(keep * len(order))
    kept[by_user[first]] = True
    return edge_index[:, order[kept].sort().values]


class ItemIDs(Module):
    r"""An encoder that looks items up, whatever their content."""

    def __init__(self, num_items: int, channels: int) -> None:
        super().__init__()
        self.weight = Parameter(torch.empty(num_items, channels))
        torch.nn.init.xavier_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight


def lirdrec_with_ids(train: HeteroData, seed: int, **kwargs: Any) -> LIRDRec:
    r"""LIRDRec with one more view, of item IDs: a modality ``'id'`` without features, whose encoder is a table."""
    train[ITEM].x_id = torch.empty(train[ITEM].num_nodes, 0)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Initializing zero-element tensors')
        model = LIRDRec.from_data(train, seed=seed, **kwargs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.encoders['id'] = ItemIDs(train[ITEM].num_nodes, model.hidden_channels)
    return model


def build(config: Config, train: HeteroData) -> tuple[Recommender, list[str], dict[str, str]]:
    r"""Returns a model, its ID table and its projections with what each of them reads."""
    objective = {'bpr': BPR, 'softmax': SampledSoftmax}[config['loss']]()
    kwargs = {'seed': config['seed'], 'hidden_channels': config['hidden_channels'], 'objective': objective}
    features = {f'projections.{name}': f'x_{name}' for name in modalities(train)}
    ids = 'item'
    if config['model'] == 'LIRDRec':
        features = {f'encoders.{name}': f'x_{name}' for name in modalities(train)} | {'shared_encoder': 'spectrum'}
        ids = 'encoders.id.weight'
        if config['parts'] == 'features':
            return LIRDRec.from_data(train, **kwargs), [], features
        model: Recommender = lirdrec_with_ids(train, **kwargs)
    elif config['model'] == 'VBPR':
        penalty = {} if config['loss'] == 'bpr' else {'reg_weight': 0.0}  # cosines have no length to penalise
        model = VBPR.from_data(train, **penalty, **kwargs)
    else:  # all interactions in each epoch, so that both objectives see one graph
        model = FREEDOM.from_data(train, dropout=0.0, **kwargs)

    table = model.get_parameter(ids)
    with torch.no_grad():
        if config['init'] == 'matched':
            vectors = [model.get_submodule(name)(train[ITEM][key]) for name, key in features.items()]
            table *= sum(x.norm(dim=1).mean() for x in vectors) / len(vectors) / table.norm(dim=1).mean()
        table *= config['id_scale']
    if config['parts'] == 'features':
        zero_and_freeze(table)
        return model, [], features
    if config['parts'] == 'ids':
        for name in features:
            zero_and_freeze(*model.get_submodule(name).parameters())
        return model, [ids], {}
    return model, [ids], features


def zero_and_freeze(*params: Parameter) -> None:
    for param in params:
        torch.nn.init.zeros_(param).requires_grad_(False)


class PartRecall(Callback):
    r"""The validation recall of the whole model and, where scores are a sum over IDs and features, of each of the two
    alone, after each epoch."""

    def __init__(self, config: Config, train: HeteroData, val: HeteroData) -> None:
        self.config, self.train, self.val = config, train, val
        self.epochs: list[dict[str, Any]] = []

    @torch.no_grad()
    def on_epoch(self, trainer: Trainer, row: dict[str, float]) -> None:
        found: dict[str, Any] = {'train_loss': row['loss'], 'recall': row['recall@20']}
        found |= {'recall_ids': '', 'recall_features': ''}
        if self.config['parts'] == 'both' and self.config['model'] != 'FREEDOM':
            model, d = trainer.model, self.config['hidden_channels']
            user, item = model(self.train)
            start = d * list(model.encoders).index('id') if isinstance(model, LIRDRec) else 0
            own = torch.zeros(item.size(1), dtype=torch.bool)
            own[start : start + d] = True
            for part, columns in [('ids', own), ('features', ~own)]:
                embeddings = Embeddings(user[:, columns], item[:, columns])
                found[f'recall_{part}'] = evaluate(embeddings, self.val, k=20, metrics=['recall'])['recall@20']
        self.epochs.append(found)


def describe(config: Config) -> str:
    changed = [f'{name}={config[name]}' for name, value in BASE.items() if config[name] != value]
    names = [
        config['dataset'],
        config['model'],
        config['parts'],
        *changed,
        f'lr={config["lr"]}',
        f'seed={config["seed"]}',
    ]
    return ' '.join(names)


def summary(rows: list[dict[str, Any]]) -> str:
    r"""Returns the best recall and what a step moves an item by, as a share of its vector, on average over epochs."""
    recall = max(row['recall'] for row in rows)
    means = {}
    for name in dict.fromkeys(row['name'] for row in rows):
        own = [row['item_update'] / row['norm'] for row in rows if row['name'] == name]
        means[name] = sum(own) / len(own)
    moves = ', '.join(f'{name} {value:.1e}' for name, value in means.items())
    return f'best recall@20 {recall:.4f}; a step moves an item by {moves}'


def known(path: Path) -> list[Config]:
    r"""Returns the configurations that have rows."""
    if not path.is_file():
        return []
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    types: dict[str, Callable[[str], Any]] = dict.fromkeys(['keep', 'id_scale', 'lr'], float)
    types |= dict.fromkeys(['seed', 'epochs', 'hidden_channels'], int)
    names = [*CHOICES, 'lr', 'epochs', 'hidden_channels']
    cells = dict.fromkeys(tuple(row[name] for name in names) for row in rows)
    return [{name: types.get(name, str)(cell) for name, cell in zip(names, row, strict=True)} for row in cells]


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    r"""Appends all rows of a run in one go, safely beside other processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a+', newline='') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        header = next(csv.reader(file), None)
        if header not in (None, list(rows[0])):
            raise ValueError(f"'{path}' needs to have the columns {list(rows[0])} (got {header})")
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        if header is None:
            writer.writeheader()
        writer.writerows(rows)
        file.write(text.getvalue())


def plot(path: Path, out: Path) -> None:
    r"""Draws the curves of each dataset in its plain setting, and the ratio of the two sources in all settings."""
    import matplotlib
    import pandas as pd

    matplotlib.use('Agg')
    rows = pd.read_csv(path)
    for name in ('item_update', 'displacement'):
        rows[f'{name}_share'] = rows[name] / rows['norm']
    base = rows[(rows[list(BASE)] == pd.Series(BASE)).all(axis=1)]
    for dataset, part in base.groupby('dataset'):
        curves(part, dataset, out.with_name(f'{out.stem}-{dataset}{out.suffix}'))
    conditions(rows, out.with_name(f'{out.stem}-conditions{out.suffix}'))


def curves(rows: Any, dataset: str, path: Path) -> None:
    r"""Draws a line of panels for each model: gradients, updates, convergence and validation recall."""
    import matplotlib.pyplot as plt

    models = [name for name in PARTS if name in set(rows['model'])]
    figure, axes = plt.subplots(len(models), 4, figsize=(17, 3.6 * len(models)), squeeze=False)
    panels = [
        ('item_grad', 'gradient that an item feels'),
        ('item_update_share', 'move in a step / length of the vector'),
        ('displacement_share', 'move in an epoch / length of the vector'),
    ]
    for line, model in zip(axes, models, strict=True):
        own = rows[rows['model'] == model]
        both = own[own['parts'] == 'both']
        for axis, (column, label) in zip(line, panels, strict=False):
            for i, name in enumerate(dict.fromkeys(both['name'])):
                source = both[both['name'] == name]
                is_id = source['kind'].iloc[0] == 'id'
                color = 'black' if is_id else f'C{i - 1}'
                short = 'item IDs' if is_id else name.replace('_', ' ').split('.')[-1]
                band(axis, source, column, color=color, label=short)
                if is_id and column == 'item_grad':
                    band(axis, source, 'item_grad_frequent', color='black', linestyle='--', label='IDs, frequent third')
                    band(axis, source, 'item_grad_rare', color='black', linestyle=':', label='IDs, rarest third')
            axis.set(yscale='log', ylabel=label, xlabel='epoch')
        line[0].set_title(model, loc='left', fontweight='bold')
        last = line[3]
        for parts, color, label in [
            ('both', 'C3', 'IDs and features'),
            ('features', 'C0', 'features, trained alone'),
            ('ids', 'black', 'IDs, trained alone'),
        ]:
            part = own[own['parts'] == parts]
            if len(part):
                band(last, part[part['name'] == part['name'].iloc[0]], 'recall', color=color, label=label)
        ids = both[both['kind'] == 'id']
        if ids['recall_ids'].notna().any():
            band(last, ids, 'recall_features', color='C0', linestyle='--', label='features of both')
            band(last, ids, 'recall_ids', color='black', linestyle='--', label='IDs of both')
        last.set(ylabel='validation recall@20', xlabel='epoch')
        for axis in line:
            axis.grid(alpha=0.3)
            axis.legend(fontsize=7)
    figure.suptitle(f'{dataset}: BPR, Adam, own initialisation; {spread(rows)}')
    save(figure, path)


def band(axis: Any, rows: Any, column: str, **style: Any) -> None:
    r"""Draws the mean over seeds against epochs, and a standard deviation to both sides."""
    grouped = rows.groupby('epoch')[column]
    mean, std = grouped.mean(), grouped.std().fillna(0)
    axis.plot(mean.index, mean, linewidth=1.5, **style)
    axis.fill_between(mean.index, mean - std, mean + std, color=style['color'], alpha=0.15, linewidth=0)


def conditions(rows: Any, path: Path) -> None:
    r"""Draws a line for each setting: how much more features move items than IDs do, and what the parts reach."""
    import matplotlib.pyplot as plt

    rates = [f' at {lr:g}' if optimizer == 'sgd' else '' for optimizer, lr in rows[['optimizer', 'lr']].values]
    rows = rows.assign(optimizer=rows['optimizer'] + rates)
    keys = ['dataset', *BASE]
    settings = [tuple(cells) for cells in rows[keys].drop_duplicates().itertuples(index=False)]
    settings.sort(key=lambda cells: (cells[0], sum(a != b for a, b in zip(cells[1:], BASE.values(), strict=True))))
    figure, axes = plt.subplots(1, 3, figsize=(16, 2.2 + 0.5 * len(settings)), sharey=True)
    names = []
    for y, cells in enumerate(settings):
        part = rows[(rows[keys] == list(cells)).all(axis=1)]
        changed = [f'{k}={v}' for (k, b), v in zip(BASE.items(), cells[1:], strict=True) if v != b and k != 'keep']
        names.append(', '.join([f'{cells[0]}, {part["interactions_per_item"].iloc[0]:.0f} per item', *changed]))
        for i, model in enumerate(PARTS):
            own = part[part['model'] == model]
            both = own[own['parts'] == 'both']
            both = both[both.groupby('seed')['epoch'].transform('max') == both['epochs']]  # that did not diverge
            if len(both):
                for axis, column in zip(axes, ['item_grad', 'item_update_share'], strict=False):
                    mean = both.groupby(['seed', 'kind'])[column].median().unstack()
                    dot(axis, mean['feature'] / mean['id'], y, i, marker='o', label=model)
            for parts, marker in [('both', 'o'), ('features', '^'), ('ids', 'x')]:
                best = own[own['parts'] == parts].groupby('seed')['recall'].max()
                if len(best):
                    dot(axes[2], best, y, i, marker=marker, label=f'{model}: {parts}')
    axes[0].set_yticks(range(len(settings)), names)
    axes[0].set_ylim(len(settings) - 0.5, -0.5)
    for axis, title in zip(
        axes, ['gradient that an item feels', 'move in a step / length of the vector'], strict=False
    ):
        axis.set(xscale='log', title=title, xlabel='features : IDs')
        axis.axvline(1, color='grey', linewidth=1)
    axes[2].set(title='quality, by what was trained', xlabel='best validation recall@20')
    for axis in axes:
        axis.grid(alpha=0.3)
        handles, labels = axis.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        axis.legend(unique.values(), unique.keys(), fontsize=7, loc='upper left', bbox_to_anchor=(1, 1))
    figure.suptitle(f'BPR, Adam and own initialisation where not named; {spread(rows)}')
    save(figure, path)


def spread(rows: Any) -> str:
    counts = rows.groupby([name for name in CHOICES if name != 'seed'])['seed'].nunique()
    low, high = counts.min(), counts.max()
    return 'one seed' if high == 1 else f'mean ± sd over {high if low == high else f"{low} to {high}"} seeds'


def dot(axis: Any, values: Any, y: int, index: int, **style: Any) -> None:
    error = values.std() if len(values) > 1 else 0
    axis.errorbar(
        values.mean(), y + 0.2 * (index - 1), xerr=error, color=f'C{index}', linestyle='', markersize=5, **style
    )


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.stem}.tmp{path.suffix}')
    figure.tight_layout()
    figure.savefig(temporary, dpi=120)
    temporary.replace(path)
    print(f'wrote {path}')


if __name__ == '__main__':
    main()
