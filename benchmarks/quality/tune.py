r"""Chooses the settings of each model on a dataset by a validation metric alone. Every model has the same number of
trials. The settings go to ``results/quality/settings_<metric>.json``, from which the experiments ``main`` (recall@20)
and ``preset`` (ndcg@20) take them.

With ``--hide``, every user lacks as many training interactions as it has validation positives. As in the test, some of
what it would rank first is then neither trained on nor counted as found. These settings go to
``settings_<metric>_hidden.json``, for the experiment ``preset, hidden``.

    python -m benchmarks.quality.tune --root data --dataset scientific movielens
    python -m benchmarks.quality.tune --root data --dataset scientific --model LightGCN --trials 12
    python -m benchmarks.quality.tune --root data --dataset scientific --model LIRDRec --metric ndcg@20

The test split is never used. Trials of LIRDRec train in half precision, to save time. All stop after 10 epochs without
gain. Studies are kept in ``runs/tune.db``: one that was interrupted goes on. A model whose settings were chosen in as
many trials is not tuned again, unless ``--again``.
"""

import argparse
import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from benchmarks import rows
from benchmarks.quality import catalogues, jobs
from lirdrec_pyg import fit

RESULTS = rows.RESULTS / 'quality'
Space = Callable[[optuna.Trial, str], jobs.Settings]


def image_weight(trial: optuna.Trial, dataset: str) -> dict[str, Any]:
    r"""Suggests the weights of the item graph, where there are two modalities to weigh."""
    names = {'scientific': ('image', 'text'), 'movielens': ('genre', 'text'), 'microlens_50k': ('word', 'text')}
    if dataset not in names:
        return {}
    weight = trial.suggest_categorical('weight', [0.1, 0.3, 0.5])
    return {'weights': dict(zip(names[dataset], (weight, 1 - weight), strict=True))}


def lirdrec(trial: optuna.Trial, dataset: str) -> jobs.Settings:
    return {
        'model': {
            'num_layers': trial.suggest_int('num_layers', 1, 3),
            'reg_weight': trial.suggest_categorical('reg_weight', [1e-5, 1e-4, 1e-3, 1e-2]),
        },
        'fit': {'lr': trial.suggest_categorical('lr', [1e-4, 3e-4, 1e-3])},
        'content': {'k': trial.suggest_categorical('k', [5, 10, 20]), **image_weight(trial, dataset)},
    }


def softmax(trial: optuna.Trial, dataset: str) -> jobs.Settings:
    settings: jobs.Settings = {
        'model': {
            'scoring': trial.suggest_categorical('scoring', [0.25, 0.5, 1.0]),
            'dropout': trial.suggest_categorical('dropout', [0.0, 0.3]),
            'temperature': trial.suggest_categorical('temperature', [0.15, 0.2]),
        },
        'content': {'k': trial.suggest_categorical('k', [5, 10]), **image_weight(trial, dataset)},
    }
    if dataset in catalogues.BY_TIME:  # whose next interactions are asked for
        settings['model']['history'] = trial.suggest_categorical('history', [0, 10])
    else:
        settings['content']['collaborative'] = trial.suggest_categorical('collaborative', [0, 64])
    return settings


def lightgcn(trial: optuna.Trial, dataset: str) -> jobs.Settings:
    return {
        'model': {
            'num_layers': trial.suggest_int('num_layers', 1, 4),
            'reg_weight': trial.suggest_categorical('reg_weight', [1e-5, 1e-4, 1e-3, 1e-2]),
        },
        'fit': {'lr': trial.suggest_categorical('lr', [1e-3, 2e-3, 5e-3])},
    }


def factors(trial: optuna.Trial, dataset: str) -> jobs.Settings:
    return {
        'model': {'reg_weight': trial.suggest_categorical('reg_weight', [1e-4, 1e-3, 1e-2, 1e-1])},
        'fit': {'lr': trial.suggest_categorical('lr', [5e-4, 1e-3, 2e-3])},
    }


def freedom(trial: optuna.Trial, dataset: str) -> jobs.Settings:
    return {
        'model': {
            'dropout': trial.suggest_categorical('dropout', [0.0, 0.5, 0.8, 0.9]),
            'reg_weight': trial.suggest_categorical('reg_weight', [0.0, 1e-4, 1e-3, 1e-2]),
        },
        'fit': {'lr': trial.suggest_categorical('lr', [5e-4, 1e-3, 2e-3])},
        'content': image_weight(trial, dataset),
    }


def bm3(trial: optuna.Trial, dataset: str) -> jobs.Settings:
    return {
        'model': {
            'num_layers': trial.suggest_int('num_layers', 1, 2),
            'dropout': trial.suggest_categorical('dropout', [0.3, 0.5]),
            'reg_weight': trial.suggest_categorical('reg_weight', [1e-2, 1e-1]),
        },
        'fit': {'lr': trial.suggest_categorical('lr', [5e-4, 1e-3, 2e-3])},
    }


def mgcn(trial: optuna.Trial, dataset: str) -> jobs.Settings:
    return {
        'model': {
            'contrast_weight': trial.suggest_categorical('contrast_weight', [1e-3, 1e-2, 1e-1]),
            'num_layers': trial.suggest_int('num_layers', 2, 3),
        },
        'fit': {'lr': trial.suggest_categorical('lr', [2e-4, 5e-4, 1e-3])},
        'content': image_weight(trial, dataset),
    }


def published_mgcn(trial: optuna.Trial, dataset: str) -> jobs.Settings:
    return {
        'model': {
            'contrast_weight': trial.suggest_categorical('contrast_weight', [0.0, 1e-3, 1e-2, 1e-1]),
            'num_layers': trial.suggest_int('num_layers', 2, 3),
        },
        'fit': {'lr': trial.suggest_categorical('lr', [2e-4, 5e-4, 1e-3])},
        'content': {'k': trial.suggest_categorical('k', [5, 10])},
    }


def alpharec(trial: optuna.Trial, dataset: str) -> jobs.Settings:
    return {
        'model': {
            'temperature': trial.suggest_categorical('temperature', [0.1, 0.15, 0.2]),
            'num_layers': trial.suggest_int('num_layers', 1, 3),
        },
        'fit': {'lr': trial.suggest_categorical('lr', [2e-4, 5e-4, 1e-3])},
    }


def ease(trial: optuna.Trial, dataset: str) -> jobs.Settings:
    return {'model': {'reg_weight': trial.suggest_float('reg_weight', 1.0, 3000.0, log=True)}}


SPACES: dict[str, tuple[str, Space]] = {
    'LIRDRec': ('LIRDRec', lirdrec),
    'SoftmaxLIRDRec': ('SoftmaxLIRDRec', softmax),
    'LightGCN': ('LightGCN', lightgcn),
    'BPRMF': ('BPRMF', factors),
    'VBPR': ('VBPR', factors),
    'FREEDOM': ('FREEDOM', freedom),
    'BM3': ('BM3', bm3),
    'MGCN': ('MGCN', mgcn),
    'PublishedMGCN': ('PublishedMGCN', published_mgcn),
    'AlphaRec': ('AlphaRec', alpharec),
    'EASE': ('EASE', ease),
}


def tune(
    dataset: str,
    name: str,
    root: Path,
    trials: int,
    storage: str | None,
    metric: str = 'recall@20',
    hide: bool = False,
) -> optuna.Study:
    r"""Returns the study of a model on a dataset, with that many trials."""
    model, space = SPACES[name]
    study = optuna.create_study(
        study_name=f'{dataset}: {name}' + (f' by {metric}' if metric != 'recall@20' else '') + ', hidden' * hide,
        storage=storage,
        direction='maximize',
        load_if_exists=True,
    )
    # A study that goes on must not draw again what it began with.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), n_startup_trials=max(4, trials // 2))

    def objective(trial: optuna.Trial) -> float:
        settings = space(trial, dataset)
        if metric != 'recall@20':  # of fit
            settings.setdefault('fit', {})['monitor'] = metric
        trial.set_user_attr('settings', settings)
        for other in trial.study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE]):
            if other.params == trial.params:
                return float(other.value or 0)
        job = jobs.job(dataset, model, 0, settings)
        train, val = jobs.splits(job, root, test=False, hide=hide)
        fitting = {
            'patience': 10,
            'precision': 'bf16' if model.endswith('LIRDRec') else 'fp32',
            **settings.get('fit', {}),
        }
        built = jobs.build(job, train)
        result = fit(built, train, val, seed=0, progress=False, **jobs.fit_arguments(built, fitting))
        return result.best_value

    done = len(study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE]))
    study.optimize(objective, n_trials=max(0, trials - done))
    return study


def tried(path: Path, dataset: str, name: str) -> int:
    r"""Returns in how many trials the settings of a model were chosen, zero if they were not."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    return int(known.get(dataset, {}).get(name, {}).get('trials', 0))


def save(dataset: str, name: str, study: optuna.Study, path: Path, metric: str = 'recall@20') -> None:
    r"""Writes the best settings, beside those of others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix('.lock').open('w') as lock:  # other processes write theirs
        fcntl.flock(lock, fcntl.LOCK_EX)
        _save(dataset, name, study, path, metric)


def _save(dataset: str, name: str, study: optuna.Study, path: Path, metric: str) -> None:
    known = json.loads(path.read_text()) if path.is_file() else {}
    trials = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    known.setdefault(dataset, {})[name] = {
        'model': SPACES[name][0],
        'settings': study.best_trial.user_attrs['settings'],
        f'val_{metric}': round(study.best_value, 6),
        'trials': len(trials),
    }
    rows.replace(path, (json.dumps(known, indent=1, sort_keys=True) + '\n').encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--dataset', nargs='+', default=['scientific'], help='one or more of catalogues.py')
    parser.add_argument('--model', nargs='+', default=list(SPACES), help='default: all')
    parser.add_argument('--trials', type=int, default=12, help='of each model (default: %(default)s)')
    parser.add_argument('--storage', default='sqlite:///runs/tune.db', help='of Optuna (default: %(default)s)')
    parser.add_argument('--metric', default='recall@20', help='of validation (default: %(default)s)')
    parser.add_argument('--hide', action='store_true', help='train on less: validate as will be tested')
    parser.add_argument('--again', action='store_true', help='tune also what has been')
    parser.add_argument('--settings', type=Path, help='the JSON file to write (default: that of the metric)')
    args = parser.parse_args()
    if args.storage.startswith('sqlite:///'):
        Path(args.storage.removeprefix('sqlite:///')).parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = args.settings or RESULTS / f'settings_{args.metric}{"_hidden" * args.hide}.json'
    for dataset in args.dataset:
        for name in args.model:
            if tried(path, dataset, name) >= args.trials and not args.again:
                print(f'{dataset}, {name}: chosen before, see {path}')
                continue
            study = tune(dataset, name, args.root, args.trials, args.storage, args.metric, args.hide)
            save(dataset, name, study, path, args.metric)
            print(
                f'{dataset}, {name}: {study.best_value:.4f} with {study.best_trial.user_attrs["settings"]}', flush=True
            )


if __name__ == '__main__':
    main()
