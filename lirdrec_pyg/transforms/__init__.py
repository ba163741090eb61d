r"""Splits, graphs, and what the content of items becomes before training."""

from lirdrec_pyg.transforms.collaborative_features import CollaborativeFeatures
from lirdrec_pyg.transforms.dct import DCT
from lirdrec_pyg.transforms.flush_denormals import FlushDenormals
from lirdrec_pyg.transforms.half_precision import HalfPrecision
from lirdrec_pyg.transforms.interaction_graph import InteractionGraph
from lirdrec_pyg.transforms.item_knn_graph import ItemKNNGraph
from lirdrec_pyg.transforms.modality_graphs import ModalityGraphs
from lirdrec_pyg.transforms.pca import PCA, Components, compress_features
from lirdrec_pyg.transforms.recent_items import RecentItems
from lirdrec_pyg.transforms.splits import ColdItemSplit, FixedSplit, LeaveLastOut, RandomSplit, TemporalSplit

__all__ = [
    'DCT',
    'PCA',
    'ColdItemSplit',
    'CollaborativeFeatures',
    'Components',
    'FixedSplit',
    'FlushDenormals',
    'HalfPrecision',
    'InteractionGraph',
    'ItemKNNGraph',
    'LeaveLastOut',
    'ModalityGraphs',
    'RandomSplit',
    'RecentItems',
    'TemporalSplit',
    'compress_features',
]
