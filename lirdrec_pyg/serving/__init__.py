r"""What serves a trained model: recommendations and reasons, an index that changes, new items and users, and a page."""

from lirdrec_pyg.serving.explain import explain
from lirdrec_pyg.serving.fold_in import fold_in_users
from lirdrec_pyg.serving.layerwise import encode_layerwise
from lirdrec_pyg.serving.live import LiveModel
from lirdrec_pyg.serving.new_items import encode_new_items, item_layers, new_item_scale
from lirdrec_pyg.serving.onboard import onboard_items
from lirdrec_pyg.serving.recommend import recommend
from lirdrec_pyg.serving.report import report
from lirdrec_pyg.serving.retriever import Retriever

__all__ = [
    'LiveModel',
    'Retriever',
    'encode_layerwise',
    'encode_new_items',
    'explain',
    'fold_in_users',
    'item_layers',
    'new_item_scale',
    'onboard_items',
    'recommend',
    'report',
]
