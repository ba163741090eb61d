from lirdrec_pyg.nn.encoder import ModalityEncoder
from lirdrec_pyg.nn.fusion import PWC
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
from lirdrec_pyg.nn.recent_items import RecentItemsEncoder

__all__ = [
    'BM3',
    'BPRMF',
    'FREEDOM',
    'MGCN',
    'PWC',
    'VBPR',
    'ContentKNN',
    'LIRDRec',
    'LightGCN',
    'ModalityEncoder',
    'Popularity',
    'Propagation',
    'RecentItemsEncoder',
    'Recommender',
    'SoftmaxLIRDRec',
    'WeightedLGConv',
]
