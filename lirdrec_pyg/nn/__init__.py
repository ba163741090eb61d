r"""The models, and the parts that they are made of: encoders, fusions, objectives and propagation."""

from lirdrec_pyg.nn.encoder import ModalityEncoder
from lirdrec_pyg.nn.fusion import PWC, AttentionFusion, Fusion, PaperPWC, StaticFusion, UniformFusion
from lirdrec_pyg.nn.models import (
    BM3,
    BPRMF,
    EASE,
    FREEDOM,
    MGCN,
    VBPR,
    AlphaRec,
    ContentKNN,
    InfoNCE,
    LightGCN,
    LIRDRec,
    Popularity,
    Recommender,
    SoftmaxLIRDRec,
)
from lirdrec_pyg.nn.objectives import BPR, Batch, Objective, SampledSoftmax
from lirdrec_pyg.nn.propagation import Propagation, WeightedLGConv
from lirdrec_pyg.nn.recent_items import RecentItemsEncoder

__all__ = [
    'BM3',
    'BPR',
    'BPRMF',
    'EASE',
    'FREEDOM',
    'MGCN',
    'PWC',
    'VBPR',
    'AlphaRec',
    'AttentionFusion',
    'Batch',
    'ContentKNN',
    'Fusion',
    'InfoNCE',
    'LIRDRec',
    'LightGCN',
    'ModalityEncoder',
    'Objective',
    'PaperPWC',
    'Popularity',
    'Propagation',
    'RecentItemsEncoder',
    'Recommender',
    'SampledSoftmax',
    'SoftmaxLIRDRec',
    'StaticFusion',
    'UniformFusion',
    'WeightedLGConv',
]
