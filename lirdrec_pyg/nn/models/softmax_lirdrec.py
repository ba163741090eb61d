from collections.abc import Mapping
from typing import Any, Literal

from lirdrec_pyg.nn.models.lirdrec import LIRDRec
from lirdrec_pyg.nn.pwc import PWCVariant


class SoftmaxLIRDRec(LIRDRec):
    r"""What our ablations make of :class:`LIRDRec`; this configuration is ours, not that of the paper.

    Trained by a softmax over the cosines with all items in place of BPR on triplets, and with the views weighed by an
    attention in place of progressive weight copying. Validation alone chose it, see ``docs/evidence.md`` for what it
    buys and where. It goes with ``ItemKNNGraph(k=5)``.

    Args:
        num_users (int): The number of users.
        in_channels (mapping of str to int): The width of each modality, in the data's order.
        hidden_channels (int, optional): The width of a view. (default: :obj:`64`)
        pwc (str, optional): The variant of :class:`~lirdrec_pyg.nn.PWC`. (default: ``'attention'``)
        loss (str, optional): The objective. (default: ``'softmax'``)
        **kwargs (optional): The other arguments of :class:`LIRDRec`.
    """

    def __init__(
        self,
        num_users: int,
        in_channels: Mapping[str, int],
        hidden_channels: int = 64,
        *,
        pwc: PWCVariant = 'attention',
        loss: Literal['bpr', 'softmax'] = 'softmax',
        **kwargs: Any,
    ) -> None:
        super().__init__(num_users, in_channels, hidden_channels, pwc=pwc, loss=loss, **kwargs)
