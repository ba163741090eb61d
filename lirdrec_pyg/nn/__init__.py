from lirdrec_pyg.nn.modality_encoder import ModalityEncoder
from lirdrec_pyg.nn.models import LightGCN, LIRDRec, Popularity, Recommender
from lirdrec_pyg.nn.propagation import Propagation, WeightedLGConv
from lirdrec_pyg.nn.pwc import PWC

__all__ = [
    'PWC',
    'LIRDRec',
    'LightGCN',
    'ModalityEncoder',
    'Popularity',
    'Propagation',
    'Recommender',
    'WeightedLGConv',
]
