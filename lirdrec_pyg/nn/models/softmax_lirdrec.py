from collections.abc import Mapping
from typing import Any

from lirdrec_pyg.nn.models.lirdrec import LIRDRec
from lirdrec_pyg.nn.objectives import Objective, SampledSoftmax


class SoftmaxLIRDRec(LIRDRec):
    r"""LIRDRec with other defaults than the paper's: a softmax in place of BPR, and dropout. They are ours.

    It trains in a fraction of the epochs. Scores take the square root of an embedding's length. Where items without
    interactions compete with others, ``set_power(0)`` serves them better. With some thousands of items,
    ``objective=SampledSoftmax(temperature=0.1)`` is much better than the default of 0.2. Where the next interaction is
    asked for, use ``recent_items=10``. ``docs/findings/tuning.md`` says how this was chosen.

    .. code-block:: python

        model = SoftmaxLIRDRec.from_data(train, seed=0, hidden_channels=8)
        fit(model, train, val, epochs=2)

    Args:
        num_users (int): The number of users.
        in_channels (mapping of str to int): The width of each modality, in the data's order.
        dropout (float, optional): The dropout probability within the encoders. (default: :obj:`0.3`)
        objective (Objective, optional): What training minimises. (default: :class:`~lirdrec_pyg.nn.SampledSoftmax`)
        **kwargs (optional): The other arguments of :class:`LIRDRec`.
    """

    def __init__(
        self,
        num_users: int,
        in_channels: Mapping[str, int],
        *,
        dropout: float = 0.3,
        objective: Objective | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_users, in_channels, dropout=dropout, objective=objective or SampledSoftmax(), **kwargs)
        self.set_power(0.5)
