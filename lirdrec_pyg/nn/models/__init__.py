from lirdrec_pyg.nn.models.alpharec import AlphaRec, InfoNCE
from lirdrec_pyg.nn.models.bm3 import BM3
from lirdrec_pyg.nn.models.bpr_mf import BPRMF
from lirdrec_pyg.nn.models.content_knn import ContentKNN
from lirdrec_pyg.nn.models.ease import EASE
from lirdrec_pyg.nn.models.freedom import FREEDOM
from lirdrec_pyg.nn.models.lightgcn import LightGCN
from lirdrec_pyg.nn.models.lirdrec import LIRDRec
from lirdrec_pyg.nn.models.mgcn import MGCN
from lirdrec_pyg.nn.models.popularity import Popularity
from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.nn.models.softmax_lirdrec import SoftmaxLIRDRec
from lirdrec_pyg.nn.models.vbpr import VBPR

__all__ = [
    'BM3',
    'BPRMF',
    'EASE',
    'FREEDOM',
    'MGCN',
    'VBPR',
    'AlphaRec',
    'ContentKNN',
    'InfoNCE',
    'LIRDRec',
    'LightGCN',
    'Popularity',
    'Recommender',
    'SoftmaxLIRDRec',
]
