r"""ID-free multimodal recommendation on PyTorch Geometric."""

from lirdrec_pyg import datasets, nn, transforms
from lirdrec_pyg.evaluate import evaluate
from lirdrec_pyg.fit import Callback, FitResult, fit, load_model
from lirdrec_pyg.nn import LightGCN, LIRDRec, Popularity, Recommender
from lirdrec_pyg.retrieve import recommend
from lirdrec_pyg.sampling import BPRSampler
from lirdrec_pyg.typing import Embeddings

__version__ = '0.1.0'

__all__ = [
    'BPRSampler',
    'Callback',
    'Embeddings',
    'FitResult',
    'LIRDRec',
    'LightGCN',
    'Popularity',
    'Recommender',
    '__version__',
    'datasets',
    'evaluate',
    'fit',
    'load_model',
    'nn',
    'recommend',
    'transforms',
]
