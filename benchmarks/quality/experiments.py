r"""The experiments: each gives the jobs of one question on a dataset."""

import copy
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import rows
from benchmarks.quality.jobs import ROWS, Job, Settings, job

SETTINGS = rows.RESULTS / 'quality'
SEEDS = {'scientific': range(5), 'movielens': range(5)}
LARGER = ('scientific_text', 'microlens_50k')  # too large to tune on
QUICK: Settings = {  # how all models train on MicroLens-50k where there are many to compare
    'fit': {'batch_size': 32768, 'lr': 5e-3, 'patience': 10},
    'val': {'users': 10_000},
}

# The default batch size of `fit`, a sixteenth of the training interactions.
BATCHES = {'hm_week': 2884, 'beauty': 9611, 'microlens_50k': 16232, 'lastfm': 3165}

# Models with the same trials, in the order of what they cost, and both objectives.
FOOTING = {
    'BPRMF': 'BPRMF',
    'LightGCN': 'LightGCN',
    'VBPR': 'VBPR',
    'item IDs alone': 'ItemIDs',
    'LIRDRec': 'LIRDRec',
    'FREEDOM': 'FREEDOM',
    'MGCN': 'PublishedMGCN',
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    'BPR': {'learn_scale': True},
    'softmax': {'loss': 'softmax', 'learn_temperature': True},
}

# How the framework of the published splits trains.
PAPER = {'lr': 1e-3, 'batch_size': 2048, 'patience': 20, 'stopping': 'released'}


def seeds(dataset: str) -> range:
    r"""Returns the seeds of a dataset: five where it is small."""
    return SEEDS.get(dataset, range(3))


def jobs(
    experiment: str, dataset: str, variants: dict[str, tuple[str, Settings]], runs: range, test: bool = True
) -> Iterator[Job]:
    r"""Yields a job for each seed and each variant."""
    for seed in runs:
        for variant, (model, settings) in variants.items():
            yield job(dataset, model, seed, settings, experiment, variant, test)


def precision(dataset: str) -> Iterator[Job]:
    r"""Do half precision and compressed features cost quality?"""
    variants: dict[str, tuple[str, Settings]] = {
        'fp32': ('LIRDRec', {}),
        'bf16': ('LIRDRec', {'fit': {'precision': 'bf16'}}),
        'bf16, r=128': ('LIRDRec', {'fit': {'precision': 'bf16'}, 'content': {'components': 128}}),
        'bf16, r=64 (image), 128 (text)': (
            'LIRDRec',
            {'fit': {'precision': 'bf16'}, 'content': {'components': {'image': 64, 'text': 128}}},
        ),
        'bf16, r=96': ('LIRDRec', {'fit': {'precision': 'bf16'}, 'content': {'components': 96}}),
        'bf16, r=64': ('LIRDRec', {'fit': {'precision': 'bf16'}, 'content': {'components': 64}}),
    }
    return jobs('precision', dataset, variants, range(5))


def compression(dataset: str) -> Iterator[Job]:
    r"""Does it cost quality to keep the components that explain most of the variance? The models train as in
    :func:`precision` and :func:`untuned`, in batches of one size."""
    variants: dict[str, tuple[str, Settings]] = {}
    temperature = {'temperature': 0.1} if dataset in LARGER else {}
    models: dict[str, Settings] = {
        'LIRDRec': {'fit': {'batch_size': 2048, 'precision': 'bf16'}},
        'SoftmaxLIRDRec': {
            'model': temperature,
            'fit': {'batch_size': 2048, 'lr': 1e-3, 'monitor': 'ndcg@20', 'precision': 'bf16'},
        },
    }
    if dataset in LARGER:  # the paper's rate takes a hundred epochs more
        models['LIRDRec']['fit'] |= {'lr': 1e-3}
    for model, settings in models.items():
        variants[model] = model, settings
        variants[f'{model}, auto'] = model, {**settings, 'content': {'components': 'auto'}}
    return jobs('compression', dataset, variants, range(5))


def text(dataset: str) -> Iterator[Job]:
    r"""Do text features of our own route carry LIRDRec above LightGCN?"""
    variants: dict[str, tuple[str, Settings]] = {
        'LIRDRec': ('LIRDRec', {'fit': {'lr': 1e-3}}),
        'LightGCN': ('LightGCN', {'fit': {'lr': 1e-3}, 'model': {'num_layers': 2}}),
    }
    return jobs('text', dataset, variants, range(3))


def main(dataset: str) -> Iterator[Job]:
    r"""Which model is best, each with the settings that validation chose?"""
    variants: dict[str, tuple[str, Settings]] = {'Popularity': ('Popularity', {}), 'ContentKNN': ('ContentKNN', {})}
    for name, known in chosen(dataset).items():
        variants[name] = known['model'], known['settings'] | (QUICK if dataset == 'microlens_50k' else {})
    if dataset == 'microlens_50k':  # it still gains, slowly, at half a minute an epoch
        _, settings = variants['MGCN']
        variants['MGCN'] = 'MGCN', {**settings, 'fit': {**QUICK['fit'], 'epochs': 150}}
    return jobs('main', dataset, variants, seeds(dataset))


def preset(dataset: str, hidden: bool = False) -> Iterator[Job]:
    r"""Does our configuration beat the paper's, each with the settings that validation ndcg@20 chose?"""
    metric = 'ndcg@20_hidden' if hidden else 'ndcg@20'
    if hidden and dataset in LARGER:
        variants = {model: best_candidate(dataset, model) for model in ('LIRDRec', 'SoftmaxLIRDRec')}
    else:
        variants = {
            name: trained(dataset, one['model'], one['settings']) for name, one in chosen(dataset, metric).items()
        }
    if hidden and dataset.startswith('scientific') and len(variants) == 2:  # is it the latest items, or the rest?
        (_, paper), (_, ours) = variants['LIRDRec'], variants['SoftmaxLIRDRec']
        without = {name: value for name, value in ours['model'].items() if name != 'history'}
        variants['SoftmaxLIRDRec, no history'] = 'SoftmaxLIRDRec', {**ours, 'model': without}
        variants['LIRDRec, history'] = 'LIRDRec', {**paper, 'model': {**paper['model'], 'history': 10}}
    return jobs('preset, hidden' if hidden else 'preset', dataset, variants, seeds(dataset))


def trained(dataset: str, model: str, settings: Settings, **fit: Any) -> tuple[str, Settings]:
    r"""Returns settings with how to train: in half precision, as when they were chosen, and on MicroLens-50k in larger
    batches, to save time."""
    settings = copy.deepcopy(settings)
    settings['fit'] = {**settings.get('fit', {}), 'precision': 'bf16'}
    if dataset == 'microlens_50k':
        settings['fit'] |= {'batch_size': 8192, 'lr': 2e-3, 'patience': 4, **fit}
        if model == 'SoftmaxLIRDRec':
            settings['model'] = {**settings['model'], 'num_negatives': 4096}
    return model, settings


def candidates(dataset: str) -> Iterator[Job]:
    r"""Which settings of Scientific serve a larger dataset? There are two for each model. Those of the paper's
    configuration were chosen with and without hidden interactions. Ours has two temperatures, as there are more items
    to tell apart. They don't test."""
    (paper, ours), before = chosen(dataset, 'ndcg@20_hidden').values(), chosen(dataset, 'ndcg@20')['LIRDRec']
    variants = {
        'LIRDRec, 1': trained(dataset, 'LIRDRec', paper['settings']),
        'LIRDRec, 2': trained(dataset, 'LIRDRec', before['settings'], lr=1e-3, patience=10),
    }
    for number, temperature in enumerate((0.2, 0.1), start=1):
        settings = {**ours['settings'], 'model': {**ours['settings']['model'], 'temperature': temperature}}
        variants[f'SoftmaxLIRDRec, {number}'] = trained(dataset, 'SoftmaxLIRDRec', settings)
    return jobs('preset, candidates', dataset, variants, range(1), test=False)


def best_candidate(
    dataset: str, model: str, experiment: str = 'preset, candidates', number: int = 2, metric: str = 'ndcg@20'
) -> tuple[str, Settings]:
    r"""Returns the one of :func:`candidates`, or of another experiment, with the best validation metric."""
    cells = {'experiment': experiment, 'dataset': dataset, 'model': model, 'seed': '0'}
    found = [row for row in rows.read(ROWS) if all(row[name] == value for name, value in cells.items())]
    if len(found) < number:
        raise ValueError(f"{model} on '{dataset}' has {len(found)} of {number} candidates: run '{experiment}' first")
    best = max(found, key=lambda row: float(row[f'val_{metric}']))
    return model, json.loads(best['settings'])


def published_candidates(dataset: str) -> Iterator[Job]:
    r"""Which settings of the grids of the framework does validation choose on its own splits? Weights of the penalty
    below these are as good as none. They don't test."""
    variants: dict[str, tuple[str, Settings]] = {
        f'LightGCN, {layers}': ('PublishedLightGCN', {'model': {'num_layers': layers}, 'fit': PAPER})
        for layers in (1, 2, 3, 4)
    }
    for weight in (1e-2, 0.1, 1.0, 2.0):
        variants[f'BPRMF, {weight:g}'] = 'PublishedBPRMF', {'model': {'reg_weight': weight}, 'fit': PAPER}
    return jobs('published, candidates', dataset, variants, range(1), test=False)


def published(dataset: str) -> Iterator[Job]:
    r"""Do graph, sampling, ranking and metrics give the published figures of ID-based models on the published splits?
    What does the objective alone reach there, and LIRDRec's pipeline without content? LightGCN has as many layers as
    validation chose for BPR; with the softmax all else is untuned. LIRDRec has three views of 64."""
    _, gcn = best_candidate(dataset, 'PublishedLightGCN', 'published, candidates', 4, 'recall@20')
    layers = gcn['model']['num_layers']
    softmax: dict[str, Any] = {'loss': 'softmax', 'scoring': 0.5}
    variants: dict[str, tuple[str, Settings]] = {
        'BPRMF': best_candidate(dataset, 'PublishedBPRMF', 'published, candidates', 4, 'recall@20'),
        'LightGCN': ('PublishedLightGCN', gcn),
        'LightGCN, 192': ('LightGCN', {'model': {'num_layers': layers, 'hidden_channels': 192}, 'fit': PAPER}),
        'item IDs alone': ('ItemIDs', {'model': {'hidden_channels': 192}, 'fit': PAPER}),
    }
    for width in (64, 192):
        model = {**softmax, 'num_layers': layers, 'hidden_channels': width}
        variants[f'LightGCN, softmax, {width}'] = 'LightGCN', {'model': model, 'fit': PAPER}
    variants['item IDs alone, softmax'] = 'ItemIDs', {'model': {**softmax, 'hidden_channels': 192}, 'fit': PAPER}
    return jobs('published', dataset, variants, range(3))


def untuned(dataset: str) -> Iterator[Job]:
    r"""What does our configuration reach as it stands? Only the temperature depends on the dataset: it is lower where
    there are more items. Beside it are the closest models of others, as their papers have them: AlphaRec; EASE, which
    has no content; BM3 in the first configuration of its released launcher; and MGCN."""
    settings: Settings = {'model': {'temperature': 0.1} if dataset in LARGER else {}, 'fit': {'monitor': 'ndcg@20'}}
    fit: dict[str, Any] = {'monitor': 'ndcg@20'}
    others: dict[str, tuple[str, Settings]] = {
        'AlphaRec': ('AlphaRec', {'fit': fit}),
        'BM3': ('BM3', {'model': {'num_layers': 1, 'dropout': 0.3, 'reg_weight': 0.1}, 'fit': fit}),
        'PublishedMGCN': ('PublishedMGCN', {'fit': fit}),
    }
    if dataset == 'microlens_50k':
        others = {
            name: (model, known | {'fit': QUICK['fit'] | fit, 'val': QUICK['val']})
            for name, (model, known) in others.items()
        }
    else:  # the embeddings of EASE are as wide as there are items
        others['EASE'] = 'EASE', {}
    variants = {'SoftmaxLIRDRec': trained(dataset, 'SoftmaxLIRDRec', settings)} | others
    return jobs('preset, untuned', dataset, variants, seeds(dataset))


def defaults(dataset: str) -> Iterator[Job]:
    r"""Which model is best as the library ships it? Nothing is tuned, and all take what ``fit`` does by default.
    Validation ndcg@20 ends training."""
    names = ['LIRDRec', 'SoftmaxLIRDRec', 'LightGCN', 'BPRMF', 'VBPR', 'FREEDOM', 'BM3', 'AlphaRec']
    fit: dict[str, Any] = {'rule': True, 'monitor': 'ndcg@20'}
    variants: dict[str, tuple[str, Settings]] = {'autofit': ('autofit', {}), 'Popularity': ('Popularity', {})}
    if dataset != 'microlens_50k':  # its embeddings are as wide as there are items
        variants['EASE'] = 'EASE', {}
    variants |= {name: (name, {'fit': fit}) for name in names}
    variants['MGCN'] = 'PublishedMGCN', {'fit': fit}
    return jobs('defaults', dataset, variants, range(3))


def batch(dataset: str) -> Iterator[Job]:
    r"""Do the default batch size and learning rate cost quality, beside batches of 2,048? For BPR the rate is ten times
    the paper's, which takes a third of the epochs. The softmax is estimated from 4,096 items on either side."""
    bpr, softmax = {'lr': 1e-3, 'monitor': 'ndcg@20'}, {'monitor': 'ndcg@20'}
    scaled = 1e-3 * max(1.0, BATCHES.get(dataset, 2048) / 2048) ** 0.5
    model = {'learn_temperature': True, 'num_sampled': 4096}
    rule = {'stopping': 'climbing', 'precision': 'bf16'}
    variants: dict[str, tuple[str, Settings]] = {
        'BPR, 2048': ('LIRDRec', {'fit': bpr | rule}),
        'BPR, default': ('LIRDRec', {'fit': bpr | rule | {'batch_size': BATCHES.get(dataset, 2048), 'lr': scaled}}),
        'softmax, 2048': ('SoftmaxLIRDRec', {'model': model, 'fit': softmax | rule}),
        'softmax, default': ('SoftmaxLIRDRec', {'model': model, 'fit': softmax | rule | {'rule': True}}),
    }
    return jobs('batch', dataset, variants, seeds(dataset))


def chosen(dataset: str, metric: str = 'recall@20') -> dict[str, Any]:
    r"""Returns the settings that ``tune.py`` chose by a metric.

    A model that was not tuned on a dataset takes those of Scientific, without the weights of modalities, which the
    dataset may not have.
    """
    path = SETTINGS / f'settings_{metric}.json'
    if not path.is_file():
        raise FileNotFoundError(f"there is no '{path}': run `python -m benchmarks.quality.tune` first")
    known = json.loads(path.read_text())
    carried = copy.deepcopy(known.get('scientific', {}))
    for one in carried.values() if dataset != 'scientific' else ():
        one['settings'].get('content', {}).pop('weights', None)
    return carried | known.get(dataset, {})


def ablated(
    dataset: str, model: str = 'LIRDRec', content: Any = None, fit: Any = None, **kwargs: Any
) -> tuple[str, Settings]:
    r"""Returns a model with the settings of all ablations but those given."""
    fit = {'lr': 1e-3, **({'precision': 'bf16'} if fit is None else fit)}
    settings = {'model': kwargs, 'fit': fit, 'content': content or {}}
    if dataset == 'microlens_50k':
        settings |= QUICK
        if kwargs.get('loss') == 'softmax':
            kwargs['num_negatives'] = 4096
    return model, {name: value for name, value in settings.items() if value}


def ablation(dataset: str) -> Iterator[Job]:
    r"""What does each part add? All else is as in the paper. To save time, models train in half precision and at ten
    times the paper's learning rate, which takes a third of the epochs to the same validation recall. On MicroLens-50k
    they train as in ``QUICK``."""

    variant = functools.partial(ablated, dataset)
    variants = {
        'LIRDRec': variant(),
        'softmax': variant(loss='softmax'),
        'softmax, scored by cosines': variant(loss='softmax', scoring='cosine'),
        'PWC ema': variant(pwc='ema'),
        'PWC attention': variant(pwc='attention'),
        'PWC static': variant(pwc='static'),
        'PWC uniform': variant(pwc='uniform'),
        'no PWC': variant('Ablated', fusion=False),
        'no transform': variant(content={'transform': 'none'}),
        'DCT over items, too': variant(content={'transform': 'dct2'}),
        'random rotation': variant(content={'transform': 'rotation'}),
        'PCA': variant(content={'transform': 'pca'}),
        'whitened PCA': variant(content={'transform': 'whiten'}),
        'no item graph': variant(content={'k': 0}),
    }
    if dataset == 'scientific':
        variants |= {
            'no shared branch': variant('Ablated', shared=False),
            'no own branches': variant('Ablated', own=False),
            'one user table': variant('Ablated', one_user_table=True),
            'k = 5': variant(content={'k': 5}),
            'k = 20': variant(content={'k': 20}),
            'image weight 0.3': variant(content={'weights': {'image': 0.3, 'text': 0.7}}),
            'image weight 0.5': variant(content={'weights': {'image': 0.5, 'text': 0.5}}),
            '1 layer': variant(num_layers=1),
            '3 layers': variant(num_layers=3),
            'learned rotation': variant('LearnedRotation', content={'transform': 'none'}, fit={}),
        }
    return jobs('ablation', dataset, variants, range(5) if dataset == 'scientific' else range(3))


def pwc(dataset: str) -> Iterator[Job]:
    r"""Does it matter how fast the weights of the views are copied? Varies :math:`a_0` and :math:`b` of the released
    form, and :math:`\tau` of the paper's. :math:`\tau = 1` is an attention. All else is as in :func:`ablation`."""
    variants = {'a0 0.9, b 0.9': ablated(dataset)}
    for init in (0.5, 0.99):
        variants[f'a0 {init:g}, b 0.9'] = ablated(dataset, pwc_init=init)
    for decay in (0.99, 1.0):
        variants[f'a0 0.9, b {decay:g}'] = ablated(dataset, pwc_decay=decay)
    variants |= {f'tau {rate:g}': ablated(dataset, pwc='ema', pwc_rate=rate) for rate in (0.01, 0.5, 1.0)}
    variants['tau 0.1'] = ablated(dataset, pwc='ema')
    return jobs('PWC', dataset, variants, seeds(dataset))


def sequences(dataset: str) -> Iterator[Job]:
    r"""Does progressive weight copying over a user's recent items pay where the next one is asked for? Beside it are
    the encoder with one weight for each position, and none. The dataset needs times."""
    fit: dict[str, Any] = {'monitor': 'ndcg@20'}
    variants = {'no recent items': trained(dataset, 'SoftmaxLIRDRec', {'fit': fit})}
    model: dict[str, Any] = {'history': 10}
    variants['recent items'] = trained(dataset, 'SoftmaxLIRDRec', {'model': model, 'fit': fit})
    for name, kind in (('PWC, released', 'released'), ('PWC, as in the paper', 'ema')):
        variants[name] = trained(dataset, 'SequentialPWC', {'model': {**model, 'time_fusion': kind}, 'fit': fit})
    return jobs('sequences', dataset, variants, seeds(dataset))


def footing(dataset: str) -> dict[str, tuple[str, Settings]]:
    r"""Returns models by objective and width: what they rank by has 64 columns, or 192. All but LIRDRec have a vector
    for each item. "item IDs alone" are LIRDRec's pipeline, without the item graph."""
    views = 2 if dataset in ('scientific_text', 'lastfm', 'beauty') else 3  # of LIRDRec
    out: dict[str, tuple[str, Settings]] = {}
    for width in (64, 192):
        own: dict[str, int] = {'LIRDRec': round(width / views), 'VBPR': width // 2}
        for name, model in FOOTING.items():
            for objective, words in OBJECTIVES.items():
                settings: Settings = {'model': {'hidden_channels': own.get(name, width), **words}}
                if name == 'item IDs alone':
                    settings['content'] = {'k': 0}
                half = {'precision': 'bf16'} if model in ('LIRDRec', 'ItemIDs') else {}
                settings['fit'] = {'rule': True, 'monitor': 'ndcg@20', 'patience': 20, 'calibrate': True, **half}
                out[f'{name}, {objective}, {width}'] = model, settings
    return out


def footing_candidates(dataset: str) -> Iterator[Job]:
    r"""Which settings of one space does validation choose for each model, objective and width? They don't test."""
    variants: dict[str, tuple[str, Settings]] = {}
    for name, (model, settings) in footing(dataset).items():
        for lr in (1e-3, 5e-3):
            for weight in (1e-4, 1e-2):
                one = copy.deepcopy(settings)
                one['fit']['lr'], one['model']['reg_weight'] = lr, weight
                variants[f'{name}: lr {lr:g}, weight {weight:g}'] = model, one
    return jobs('equal footing, candidates', dataset, variants, range(1), test=False)


def equal_footing(dataset: str) -> Iterator[Job]:
    r"""What does the objective give, what does width, what does content, what leaving out item IDs? Every model has
    both objectives and both widths, with what validation chose among as many trials of the same space. Both objectives
    have a scale that is trained, and the exponent of the length is chosen on validation."""
    known = [row for row in rows.read(ROWS) if row['experiment'] == 'equal footing, candidates']
    variants: dict[str, tuple[str, Settings]] = {}
    for name, (model, _) in footing(dataset).items():
        found = [row for row in known if row['dataset'] == dataset and row['variant'].startswith(f'{name}: ')]
        if len(found) == 4:
            variants[name] = model, json.loads(max(found, key=lambda row: float(row['val_ndcg@20']))['settings'])
    if not variants:
        raise ValueError(f"no model has all its candidates on '{dataset}': run 'equal footing, candidates' first")
    return jobs('equal footing', dataset, variants, range(3))


def item_ids(dataset: str) -> Iterator[Job]:
    r"""Does LIRDRec gain by a vector for each item, as one more view? Does it lose if these take the place of its
    content? Models train as in :func:`ablation`, but for LightGCN, which was tuned. Each is as wide as LIRDRec with
    such a view, but for the paper's, which comes first."""
    views = 2 if dataset == 'scientific_text' else 3
    width = 64 * (views + 1)
    ids = functools.partial(ablated, dataset, 'Ablated', own=False, shared=False, item_ids=True, hidden_channels=width)
    variants = {
        'LIRDRec': ablated(dataset),
        'LIRDRec, as wide': ablated(dataset, hidden_channels=round(width / views)),
        'LIRDRec and item IDs': ablated(dataset, 'Ablated', item_ids=True),
        'item IDs alone': ids(),
        'item IDs alone, no item graph': ids(content={'k': 0}),
        'LightGCN, as wide': ('LightGCN', copy.deepcopy(chosen(dataset)['LightGCN']['settings'])),
    }
    _, wide = variants['LightGCN, as wide']
    wide['model']['hidden_channels'] = width
    if dataset == 'microlens_50k':
        wide |= QUICK
    return jobs('item IDs', dataset, variants, seeds(dataset))


def transfer(dataset: str) -> Iterator[Job]:
    r"""Where does dropping IDs stop paying? Content is made less informative, which LightGCN does not see."""
    fit = {'lr': 1e-3, 'precision': 'bf16'}

    def worse(**content: Any) -> tuple[str, Settings]:
        return 'LIRDRec', {'fit': fit, 'content': content}

    known = chosen(dataset).get('LightGCN', {'settings': {}})
    variants: dict[str, tuple[str, Settings]] = {'LightGCN': ('LightGCN', known['settings']), 'content': worse()}
    variants |= {f'noise {level:g}': worse(noise=level) for level in (1.0, 2.0, 4.0)}
    variants |= {f'permute {level:g}': worse(permute=level) for level in (0.25, 0.5, 1.0)}
    variants |= {f'columns {level:g}': worse(columns=level) for level in (0.1, 0.02)}
    if dataset == 'movielens':
        variants['titles alone'] = worse(only=['text'])
    return jobs('transfer', dataset, variants, range(3))


EXPERIMENTS: dict[str, Callable[[str], Iterator[Job]]] = {
    'precision': precision,
    'compression': compression,
    'defaults': defaults,
    'batch': batch,
    'text': text,
    'main': main,
    'ablation': ablation,
    'PWC': pwc,
    'sequences': sequences,
    'equal footing, candidates': footing_candidates,
    'equal footing': equal_footing,
    'item IDs': item_ids,
    'transfer': transfer,
    'preset': preset,
    'preset, candidates': candidates,
    'published, candidates': published_candidates,
    'published': published,
    'preset, untuned': untuned,
    'preset, hidden': functools.partial(preset, hidden=True),
}
