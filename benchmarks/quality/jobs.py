r"""What a job is, and how it is run: a model is trained on a dataset with some settings and a seed, and a CSV row tells
how good it is.

The cells of :data:`KEYS` tell one job from another. The settings among them are JSON, in words that do not change:
:func:`arguments` says what they are in the library of today.
"""

import copy
import json
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.quality import catalogues, published, users
from benchmarks.quality.variants import MODELS, Concatenation, ScaledBPR, UniformBesideBatch
from lirdrec_pyg import Recommender, autofit, calibrate, evaluate, fit, nn
from lirdrec_pyg.transforms import InteractionGraph, ModalityGraphs, RecentItems
from lirdrec_pyg.typing import INTERACTS, SIMILAR_TO

ROWS = rows.RESULTS / 'quality' / 'runs.csv'
KEYS = ('experiment', 'variant', 'dataset', 'split', 'model', 'seed', 'settings')
METRICS = ['recall', 'ndcg', 'precision', 'map', 'hit', 'mrr', 'coverage', 'popularity']
KS = [5, 10, 20, 50]
RELEASED: dict[str, Any] = {'batch_size': 2048, 'stopping': 'released'}  # how the first rows were trained
ROUNDING = 1.5e-6  # rows have six decimals
Settings = dict[str, dict[str, Any]]  # of the model, of `fit`, of the content, of validation
Job = dict[str, Any]

# What settings say, and what it is in the library.
FUSIONS: dict[str, tuple[type[nn.Fusion], dict[str, str]]] = {
    'released': (nn.PWC, {'pwc_init': 'init', 'pwc_decay': 'decay'}),
    'ema': (nn.PaperPWC, {'pwc_rate': 'rate'}),
    'attention': (nn.AttentionFusion, {}),
    'static': (nn.StaticFusion, {}),
    'uniform': (nn.UniformFusion, {}),
}
POWERS = {'dot': 1.0, 'cosine': 0.0}


def job(
    dataset: str,
    model: str = 'LIRDRec',
    seed: int = 0,
    settings: Settings | None = None,
    experiment: str = '',
    variant: str = '',
    test: bool = True,
) -> Job:
    r"""Returns a job.

    Args:
        dataset (str): One of ``catalogues.py``.
        model (str, optional): A class of :mod:`lirdrec_pyg.nn` or of ``variants.py``, or ``'autofit'``.
            (default: ``'LIRDRec'``)
        seed (int, optional): The seed of initial weights, training and content. (default: :obj:`0`)
        settings (dict, optional): What differs from the defaults, by group: ``'model'``, ``'fit'``, ``'content'`` and
            ``'val'``. (default: nothing)
        experiment (str, optional): The experiment that the job belongs to. (default: none)
        variant (str, optional): Its name there. (default: none)
        test (bool, optional): Whether to test. A job that only chooses settings does not: its row has no test metrics.
            (default: :obj:`True`)
    """
    return {
        'experiment': experiment,
        'variant': variant,
        'dataset': dataset,
        'model': model,
        'seed': seed,
        'settings': settings or {},
        'test': test,
    }


def arguments(model: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], float | None]:
    r"""Returns the arguments of a model's constructor for the settings of its rows, and the power by which the length
    of an embedding counts, if the settings name one.

    =============================================  ==================================================
    settings                                       arguments
    =============================================  ==================================================
    ``loss``, ``temperature``, ``num_sampled``     ``objective=BPR()`` or ``SampledSoftmax``
    ``learn_scale``                                ``objective=ScaledBPR()``
    ``num_negatives``                              ``objective=UniformBesideBatch``, of AlphaRec ``InfoNCE``
    ``pwc``, ``pwc_init``, ``pwc_decay``, …        ``fusion=PWC(init, decay)`` and others
    ``fusion=false``                               ``fusion=Concatenation()``
    ``history``                                    ``recent_items``
    ``scoring``                                    the power
    all others                                     as they are
    =============================================  ==================================================

    Raises:
        ValueError: If a setting would be ignored or has no such value.
    """
    out = dict(settings)
    words = 'temperature', 'num_negatives', 'num_sampled', 'learn_temperature'
    softmax = {name: out.pop(name) for name in words if name in out}
    loss = out.pop('loss', {'SoftmaxLIRDRec': 'softmax', 'AlphaRec': 'infonce'}.get(model, 'bpr'))
    if loss not in ('bpr', 'softmax', 'infonce'):
        raise ValueError(f"'loss' needs to be 'bpr', 'softmax' or 'infonce' (got {loss!r})")
    learn_scale = out.pop('learn_scale', False)
    if learn_scale and loss != 'bpr':
        raise ValueError(f"'learn_scale' needs 'loss' to be 'bpr' (got '{loss}')")
    if softmax and loss == 'bpr':
        raise ValueError(f"{sorted(softmax)} need 'loss' to be 'softmax' (got 'bpr')")
    if 'loss' in settings or softmax or learn_scale:
        if loss == 'infonce':
            out['objective'] = nn.InfoNCE(**softmax)
        elif 'num_negatives' in softmax:
            out['objective'] = UniformBesideBatch(**softmax)
        elif loss == 'softmax':
            softmax |= {'num_negatives': softmax.pop('num_sampled')} if 'num_sampled' in softmax else {}
            out['objective'] = nn.SampledSoftmax(**softmax)
        else:
            out['objective'] = ScaledBPR() if learn_scale else nn.BPR()

    pwc = out.pop('pwc', 'released')
    if pwc not in FUSIONS:
        raise ValueError(f"'pwc' needs to be one of {sorted(FUSIONS)} (got {pwc!r})")
    cls, names = FUSIONS[pwc]
    given = {names[name]: out.pop(name) for name in names if name in out}
    if 'pwc' in settings or given:
        out['fusion'] = cls(**given)
    elif out.get('fusion') is True:  # the usual one
        del out['fusion']
    elif out.get('fusion') is False:
        out['fusion'] = Concatenation()

    if 'history' in out:
        out['recent_items'] = out.pop('history')
    scoring = out.pop('scoring', None)
    return out, None if scoring is None else POWERS[scoring] if scoring in POWERS else float(scoring)


def fit_arguments(model: Recommender, settings: Mapping[str, Any]) -> dict[str, Any]:
    r"""Returns the arguments of ``fit`` for the settings of a row.

    What they leave out is what it was when the first rows were made: a batch of :obj:`2048`, the model's learning rate,
    and the end at the first peak. With ``rule=true``, it is today's default. ``calibrate=true`` is about what follows
    training.
    """
    out = {name: value for name, value in settings.items() if name != 'calibrate'}
    if out.pop('rule', False) or not any(param.requires_grad for param in model.parameters()):
        return out
    return {**RELEASED, 'lr': model.fit_defaults['lr']} | out


def splits(job: Job, root: Path, test: bool, hide: bool = False) -> tuple[HeteroData, ...]:
    r"""Returns the training and the validation split of a job.

    Args:
        job (dict): The job.
        root (Path): The folder of the datasets.
        test (bool): Whether to return the test split, too.
        hide (bool, optional): Whether validation is to training what the test is, see :func:`catalogues.hide`.
            (default: :obj:`False`)
    """
    settings = job['settings']
    data = catalogues.load(job['dataset'], root)
    train, val, held_out = catalogues.split(job['dataset'])(data)
    if hide:
        train, val = catalogues.hide(train, val, latest=job['dataset'] in catalogues.BY_TIME)
    if job['model'] == 'autofit':  # which chooses by itself
        return (train, val, held_out) if test else (train, val)
    train = catalogues.content(train, seed=job['seed'], **settings.get('content', {}))
    if recent := arguments(job['model'], settings.get('model', {}))[0].get('recent_items'):
        train = RecentItems(recent)(train)
    if job['model'] == 'PublishedMGCN':
        train = ModalityGraphs(settings.get('content', {}).get('k', 10))(train)
    train = InteractionGraph()(train)
    return (train, val, held_out) if test else (train, val)


def build(job: Job, train: HeteroData) -> Recommender:
    r"""Returns the model of a job in its initial state."""
    cls = (MODELS | published.MODELS).get(job['model']) or getattr(nn, job['model'], None)
    if not (isinstance(cls, type) and issubclass(cls, Recommender)):
        raise ValueError(f"'model' needs to be a recommender of lirdrec_pyg.nn (got '{job['model']}')")
    kwargs, power = arguments(job['model'], job['settings'].get('model', {}))
    if issubclass(cls, nn.LIRDRec) and SIMILAR_TO not in train.edge_types:
        kwargs['num_item_layers'] = 0  # the content's k is 0
    model = cls.from_data(train, seed=job['seed'], **kwargs)
    if power is not None:
        model.set_power(power)
    return model


def run(job: Job, root: Path) -> rows.Row:
    r"""Trains and tests, and returns the row."""
    return train_and_test(job, root)[0]


def train_and_test(job: Job, root: Path) -> tuple[rows.Row, Tensor, Tensor]:
    r"""Returns the row of a job, the test users, and ndcg@20 of each: none of them where the job does not test."""
    tests = bool(job['test'])
    with rows.PeakMemory() as memory:
        train, val, *held_out = splits(job, root, test=tests)
        clock, cpu = time.perf_counter(), time.process_time()
        some = some_users(val, **job['settings'].get('val', {}))
        if job['model'] == 'autofit':
            model, train, result, *_ = autofit(train, some, seed=job['seed'], progress=False)
        else:
            model = build(job, train)
            fitting = fit_arguments(model, job['settings'].get('fit', {}))
            result = fit(model, train, some, seed=job['seed'], progress=False, **fitting)
            if job['settings'].get('fit', {}).get('calibrate', False):
                calibrate(model, train, some)
        seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu
    row = key(job)
    row |= {'best_epoch': result.best_epoch, 'epochs': len(result.log), 'seconds': round(seconds, 1)}
    row['cpu_seconds'] = round(cpu_seconds, 1)  # of all threads: what others on the machine do counts little
    with torch.no_grad():
        embeddings = model(train)
    for name, split in zip(('val', 'test'), (val, *held_out), strict=tests):
        row |= {f'{name}_{k}': round(v, 6) for k, v in evaluate(embeddings, split, k=KS, metrics=METRICS).items()}
    if not tests:  # the file has a cell for each
        row |= {f'test_{name.removeprefix("val_")}': '' for name in row if name.startswith('val_')}
    row |= rows.environment() | {'peak_rss_mib': round(memory.peak)}  # not that of the runs before it
    if not tests:
        return row, torch.empty(0, dtype=torch.long), torch.empty(0)
    return row, *users.ndcg(embeddings, held_out[0], ranked=max(KS))


def some_users(split: HeteroData, users: int | None = None) -> HeteroData:
    r"""Returns a split with the positives of some of its users, the same at every call. On a large dataset, to rank for
    all users takes longer than an epoch."""
    label = split[INTERACTS].edge_label_index
    held = label[0].unique()
    if users is None or users >= held.numel():
        return split
    drawn = held[torch.randperm(held.numel(), generator=torch.Generator().manual_seed(0))[:users]]
    split, kept = copy.copy(split), torch.isin(label[0], drawn)
    for key in ('edge_label_index', 'edge_label_time'):
        if key in split[INTERACTS]:
            split[INTERACTS][key] = split[INTERACTS][key][..., kept]
    return split


def key(job: Job) -> rows.Row:
    r"""Returns the cells that tell one job from another."""
    split = repr(catalogues.split(job['dataset']))
    return {
        'experiment': job['experiment'],
        'variant': job['variant'],
        'dataset': job['dataset'],
        'split': split,
        'model': job['model'],
        'seed': job['seed'],
        'settings': json.dumps(job['settings'], sort_keys=True),
    }


def known(path: Path) -> set[tuple[str, ...]]:
    r"""Returns the keys of the rows that a file has."""
    return {tuple(row[name] for name in KEYS) for row in rows.read(path)}


def run_all(jobs: Iterable[Job], root: Path, path: Path, shard: str = '0/1') -> None:
    r"""Runs the jobs that have no row yet, and appends their rows.

    Args:
        jobs (iterable): The jobs.
        root (Path): The folder of the datasets.
        path (Path): The CSV file.
        shard (str, optional): ``'i/n'`` runs every n-th job, from the i-th on. (default: all)
    """
    part = re.fullmatch(r'(\d+)/(\d+)', shard)
    if part is None or int(part[1]) >= int(part[2]):
        raise ValueError(f"'shard' needs to be of the form '0/2', the first less than the second (got '{shard}')")
    for number, one in enumerate(jobs):
        cells = tuple(str(value) for value in key(one).values())
        if number % int(part[2]) != int(part[1]) or cells in known(path):
            continue
        row = elsewhere(one, path) if one['test'] else None
        if row is None:
            row, of, value = train_and_test(one, root)
            if one['test']:
                users.save(row, path, of, value)
        rows.append(path, row)
        tested = ''
        if one['test']:
            tested = f'test recall@20 {float(row["test_recall@20"]):.4f}, ndcg@20 {float(row["test_ndcg@20"]):.4f}, '
        print(
            f'{one["dataset"]} {one["experiment"]} {one["variant"] or one["model"]} seed {one["seed"]}: '
            f'val ndcg@20 {float(row["val_ndcg@20"]):.4f}, {tested}best epoch {row["best_epoch"]}, {row["seconds"]} s',
            flush=True,
        )


def elsewhere(job: Job, path: Path) -> rows.Row | None:
    r"""Returns the row of the same run in another experiment, under the names of this one. There is none where the
    metrics of each user are lacking."""
    cells = {name: str(value) for name, value in key(job).items()}
    for row in rows.read(path):
        same = all(row[name] == cells[name] for name in KEYS if name not in ('experiment', 'variant'))
        if same and users.has(row, path):
            users.copy(row, cells, path)
            return row | cells
    return None


def rerun(cells: list[str], root: Path, path: Path) -> float:
    r"""Runs rows again and returns the largest difference of a metric. It writes nothing but what is lacking of the
    metrics of each user.

    Args:
        cells (list of str): The cells of the rows, such as ``['experiment=main', 'seed=0']``.
        root (Path): The folder of the datasets.
        path (Path): The CSV file.
    """
    wanted = {name: value for name, _, value in (cell.partition('=') for cell in cells)}
    if strange := wanted.keys() - {name for row in rows.read(path)[:1] for name in row}:
        raise ValueError(f"'rerun' needs cells like 'seed=0' of the columns of '{path}' (got {sorted(strange)})")
    found = [row for row in rows.read(path) if all(row[name] == value for name, value in wanted.items())]
    if not found:
        raise ValueError(f"no row of '{path}' has the cells {wanted}")
    largest = 0.0
    for old in found:
        settings = json.loads(old['settings'])
        test = old['test_ndcg@20'] != ''
        one = job(old['dataset'], old['model'], int(old['seed']), settings, old['experiment'], old['variant'], test)
        if key(one)['split'] != old['split']:
            raise ValueError(f"'split' needs to be that of the row, {old['split']} (got {key(one)['split']})")
        torch.set_num_threads(int(old['threads']))
        new, of, value = train_and_test(one, root)
        difference = max(abs(new[name] - float(value)) for name, value in old.items() if '@' in name and value != '')
        name = ' '.join([old['dataset'], old['experiment'], old['variant'] or old['model'], 'seed', old['seed']])
        what = 'test_ndcg@20' if test else 'val_ndcg@20'
        print(f'{name}: {what.replace("_", " ")} {new[what]:.6f}, metrics at most {difference:.1e} away', flush=True)
        if test and difference <= ROUNDING and not users.has(old, path):
            users.save(old, path, of, value)
        largest = max(largest, difference)
    return largest
