from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.models.lirdrec import Features, LIRDRec
from lirdrec_pyg.typing import Embeddings


def encode_layerwise(
    model: LIRDRec, data: HeteroData, features: Features | None = None, batch_size: int = 16384
) -> Embeddings:
    r"""Returns what ``model(data)`` does, with little memory: items are encoded some at a time, and then each layer of
    the graph is computed for all nodes.

    .. code-block:: python

        embeddings = encode_layerwise(model, train, batch_size=16)  # as model(train), in less memory

    Args:
        model (LIRDRec): The model.
        data (HeteroData): The training split, with ``InteractionGraph()`` applied. It stays on its device.
        features (Features, optional): Features that ``data`` does not hold, such as
            :class:`~lirdrec_pyg.MappedFeatures`. (default: those of ``data``)
        batch_size (int, optional): The number of items encoded at once. (default: :obj:`16384`)

    Returns:
        The embeddings, on the device of the model.

    Raises:
        ValueError: If the modalities are not those of the model.
    """
    return model.encode_layerwise(data, features, batch_size)
