r"""The experiments: each gives the jobs of one question on a dataset."""

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.quality.run import Job, job

SEEDS = {'scientific': range(5), 'movielens': range(5)}
Settings = dict[str, dict[str, Any]]


def seeds(dataset: str) -> range:
    r"""Returns the seeds of a dataset: five where it is small."""
    return SEEDS.get(dataset, range(3))


def jobs(experiment: str, dataset: str, variants: dict[str, tuple[str, Settings]], runs: range) -> Iterator[Job]:
    r"""Yields a job for each seed and each variant."""
    for seed in runs:
        for variant, (model, settings) in variants.items():
            yield job(dataset, model, seed, settings, experiment, variant)


def missing(dataset: str) -> Iterator[Job]:
    r"""30 % of the images are taken away: are items without one better marked, or given the mean of the others?"""
    variants: dict[str, tuple[str, Settings]] = {
        'mask': ('LIRDRec', {'content': {'drop': 0.3, 'fill': 'mask'}}),
        'mean': ('LIRDRec', {'content': {'drop': 0.3, 'fill': 'mean'}}),
        'mask, image weight 0.5': (
            'LIRDRec',
            {'content': {'drop': 0.3, 'fill': 'mask', 'weights': {'image': 0.5, 'text': 0.5}}},
        ),
        'mean, image weight 0.5': (
            'LIRDRec',
            {'content': {'drop': 0.3, 'fill': 'mean', 'weights': {'image': 0.5, 'text': 0.5}}},
        ),
    }
    return jobs('missing', dataset, variants, range(3))


def text(dataset: str) -> Iterator[Job]:
    r"""Do text features of our own route carry LIRDRec above LightGCN?"""
    variants: dict[str, tuple[str, Settings]] = {
        'LIRDRec': ('LIRDRec', {'fit': {'lr': 1e-3}}),
        'LightGCN': ('LightGCN', {'fit': {'lr': 1e-3}, 'model': {'num_layers': 2}}),
    }
    return jobs('text', dataset, variants, range(3))


EXPERIMENTS: dict[str, Callable[[str], Iterator[Job]]] = {'missing': missing, 'text': text}
