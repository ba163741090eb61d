r"""A training run: its batches, its callbacks and its checkpoints."""

from lirdrec_pyg.training.callbacks import Checkpoint, CSVLog, EarlyStopping, ProgressBar, ReleasedEarlyStopping
from lirdrec_pyg.training.checkpoint import load_checkpoint, load_model
from lirdrec_pyg.training.fitting import fit
from lirdrec_pyg.training.lazy_adam import LazyAdam
from lirdrec_pyg.training.loader import Loader, WholeGraph
from lirdrec_pyg.training.mapped_features import MappedFeatures
from lirdrec_pyg.training.minibatch import MiniBatches
from lirdrec_pyg.training.neighbor_sampler import UniformNeighborSampler
from lirdrec_pyg.training.probes import GradientBiasProbe, ModalityWeightMonitor
from lirdrec_pyg.training.sampler import BPRSampler
from lirdrec_pyg.training.trainer import Callback, FitResult, Trainer, default_batch_size, default_lr

__all__ = [
    'BPRSampler',
    'CSVLog',
    'Callback',
    'Checkpoint',
    'EarlyStopping',
    'FitResult',
    'GradientBiasProbe',
    'LazyAdam',
    'Loader',
    'MappedFeatures',
    'MiniBatches',
    'ModalityWeightMonitor',
    'ProgressBar',
    'ReleasedEarlyStopping',
    'Trainer',
    'UniformNeighborSampler',
    'WholeGraph',
    'default_batch_size',
    'default_lr',
    'fit',
    'load_checkpoint',
    'load_model',
]
