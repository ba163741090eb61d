from lirdrec_pyg.datasets.fake import FakeMultimodal
from lirdrec_pyg.datasets.mmrec import MMRecDataset
from lirdrec_pyg.datasets.movielens import MovieLens100K

__all__ = ['FakeMultimodal', 'MMRecDataset', 'MovieLens100K']
