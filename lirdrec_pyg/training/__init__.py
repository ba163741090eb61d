from lirdrec_pyg.training.minibatch import LazyAdam, MappedFeatures, MiniBatches, encode_layerwise
from lirdrec_pyg.training.probes import GradientBiasProbe, ModalityWeightMonitor
from lirdrec_pyg.training.sampler import BPRSampler
from lirdrec_pyg.training.trainer import Callback, FitResult, fit, load_model

__all__ = [
    'BPRSampler',
    'Callback',
    'FitResult',
    'GradientBiasProbe',
    'LazyAdam',
    'MappedFeatures',
    'MiniBatches',
    'ModalityWeightMonitor',
    'encode_layerwise',
    'fit',
    'load_model',
]
