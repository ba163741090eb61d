r"""ID-free multimodal recommendation on PyTorch Geometric."""

from lirdrec_pyg import datasets, nn, transforms
from lirdrec_pyg.autofit import AutofitResult, autofit
from lirdrec_pyg.nn import LightGCN, LIRDRec, Popularity, Recommender, SoftmaxLIRDRec
from lirdrec_pyg.ranking import calibrate, evaluate
from lirdrec_pyg.serving import (
    LiveModel,
    Retriever,
    encode_layerwise,
    encode_new_items,
    explain,
    fold_in_users,
    item_layers,
    new_item_scale,
    onboard_items,
    recommend,
    report,
)
from lirdrec_pyg.training import (
    BPRSampler,
    Callback,
    FitResult,
    LazyAdam,
    MappedFeatures,
    MiniBatches,
    Trainer,
    fit,
    load_model,
)
from lirdrec_pyg.typing import Embeddings

__version__ = '0.1.0'

__all__ = [
    'AutofitResult',
    'BPRSampler',
    'Callback',
    'Embeddings',
    'FitResult',
    'LIRDRec',
    'LazyAdam',
    'LightGCN',
    'LiveModel',
    'MappedFeatures',
    'MiniBatches',
    'Popularity',
    'Recommender',
    'Retriever',
    'SoftmaxLIRDRec',
    'Trainer',
    '__version__',
    'autofit',
    'calibrate',
    'datasets',
    'encode_layerwise',
    'encode_new_items',
    'evaluate',
    'explain',
    'fit',
    'fold_in_users',
    'item_layers',
    'load_model',
    'new_item_scale',
    'nn',
    'onboard_items',
    'recommend',
    'report',
    'transforms',
]
