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


def precision(dataset: str) -> Iterator[Job]:
    r"""Do half precision and compressed features cost quality?"""
    variants: dict[str, tuple[str, Settings]] = {
        'fp32': ('LIRDRec', {}),
        'bf16': ('LIRDRec', {'fit': {'precision': 'bf16'}}),
        'bf16, r=128': ('LIRDRec', {'fit': {'precision': 'bf16'}, 'content': {'components': 128}}),
        'bf16, r=64': ('LIRDRec', {'fit': {'precision': 'bf16'}, 'content': {'components': 64}}),
    }
    return jobs('precision', dataset, variants, range(5))


def text(dataset: str) -> Iterator[Job]:
    r"""Do text features of our own route carry LIRDRec above LightGCN?"""
    variants: dict[str, tuple[str, Settings]] = {
        'LIRDRec': ('LIRDRec', {'fit': {'lr': 1e-3}}),
        'LightGCN': ('LightGCN', {'fit': {'lr': 1e-3}, 'model': {'num_layers': 2}}),
    }
    return jobs('text', dataset, variants, range(3))


EXPERIMENTS: dict[str, Callable[[str], Iterator[Job]]] = {'precision': precision, 'text': text}
