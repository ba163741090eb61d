from lirdrec_pyg.transforms.collaborative_features import CollaborativeFeatures
from lirdrec_pyg.transforms.dct import DCT
from lirdrec_pyg.transforms.history import History
from lirdrec_pyg.transforms.interaction_graph import InteractionGraph
from lirdrec_pyg.transforms.item_knn_graph import ItemKNNGraph
from lirdrec_pyg.transforms.pca import PCA
from lirdrec_pyg.transforms.splits import ColdItemSplit, FixedSplit, LeaveLastOut, RandomSplit, TemporalSplit

__all__ = [
    'DCT',
    'PCA',
    'ColdItemSplit',
    'CollaborativeFeatures',
    'FixedSplit',
    'History',
    'InteractionGraph',
    'ItemKNNGraph',
    'LeaveLastOut',
    'RandomSplit',
    'TemporalSplit',
]
