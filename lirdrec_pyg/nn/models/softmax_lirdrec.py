from collections.abc import Mapping
from typing import Any, Literal

from lirdrec_pyg.nn.models.lirdrec import LIRDRec


class SoftmaxLIRDRec(LIRDRec):
    r"""What our ablations make of :class:`LIRDRec`; this configuration is ours, not that of the paper.

    Trained by a softmax over the cosines with all items in place of BPR on triplets, with dropout within the encoders.
    Scores take the root of an item's length: where items that nobody has bought compete with others,
    ``scoring='cosine'`` serves them better. Where the next interaction is asked for and times are known, make it
    sequential by ``history=10`` and :class:`~lirdrec_pyg.transforms.RecentItems`; on dense
    interactions with poor content, add :class:`~lirdrec_pyg.transforms.CollaborativeFeatures` to the modalities. The more items there are to tell
    apart, the lower the temperature: with some thousands, 0.1 is much better than 0.2. See ``docs/evidence.md`` for how
    this was chosen, what it buys and where.

    Args:
        num_users (int): The number of users.
        in_channels (mapping of str to int): The width of each modality, in the data's order.
        hidden_channels (int, optional): The width of a view. (default: :obj:`64`)
        dropout (float, optional): The dropout probability within the encoders. (default: :obj:`0.3`)
        loss (str, optional): The objective. (default: ``'softmax'``)
        scoring (str or float, optional): The exponent of the length of an item. (default: :obj:`0.5`)
        **kwargs (optional): The other arguments of :class:`LIRDRec`.
    """

    def __init__(
        self,
        num_users: int,
        in_channels: Mapping[str, int],
        hidden_channels: int = 64,
        *,
        dropout: float = 0.3,
        loss: Literal['bpr', 'softmax'] = 'softmax',
        scoring: Literal['dot', 'cosine'] | float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_users, in_channels, hidden_channels, dropout=dropout, loss=loss, scoring=scoring, **kwargs)
