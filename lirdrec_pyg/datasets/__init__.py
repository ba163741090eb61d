r"""Published datasets and your own tables become one :class:`~torch_geometric.data.HeteroData`."""

from lirdrec_pyg.datasets.amazon_reviews import AmazonReviews
from lirdrec_pyg.datasets.fake import FakeMultimodal
from lirdrec_pyg.datasets.interaction_table import InteractionTable
from lirdrec_pyg.datasets.microlens import MicroLens
from lirdrec_pyg.datasets.mmrec import MMRecDataset
from lirdrec_pyg.datasets.mmrec_folder import save_mmrec
from lirdrec_pyg.datasets.movielens import MovieLens100K

__all__ = [
    'AmazonReviews',
    'FakeMultimodal',
    'InteractionTable',
    'MMRecDataset',
    'MicroLens',
    'MovieLens100K',
    'save_mmrec',
]
