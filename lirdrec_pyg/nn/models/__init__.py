from lirdrec_pyg.nn.models.lightgcn import LightGCN
from lirdrec_pyg.nn.models.lirdrec import LIRDRec
from lirdrec_pyg.nn.models.popularity import Popularity
from lirdrec_pyg.nn.models.recommender import Recommender

__all__ = ['LIRDRec', 'LightGCN', 'Popularity', 'Recommender']
