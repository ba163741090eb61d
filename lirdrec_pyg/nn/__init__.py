from lirdrec_pyg.nn.history import HistoryEncoder
from lirdrec_pyg.nn.modality_encoder import ModalityEncoder
from lirdrec_pyg.nn.models import (
    BM3,
    BPRMF,
    FREEDOM,
    MGCN,
    VBPR,
    ContentKNN,
    LightGCN,
    LIRDRec,
    Popularity,
    Recommender,
    SoftmaxLIRDRec,
)
from lirdrec_pyg.nn.propagation import Propagation, WeightedLGConv
from lirdrec_pyg.nn.pwc import PWC

__all__ = [
    'BM3',
    'BPRMF',
    'FREEDOM',
    'MGCN',
    'PWC',
    'VBPR',
    'ContentKNN',
    'HistoryEncoder',
    'LIRDRec',
    'LightGCN',
    'ModalityEncoder',
    'Popularity',
    'Propagation',
    'Recommender',
    'SoftmaxLIRDRec',
    'WeightedLGConv',
]
