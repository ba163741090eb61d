import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module, Parameter
from torch.nn.init import ones_

from lirdrec_pyg.nn.kernels import dropout, has_half_products, hidden_layer, on_host


class ModalityEncoder(Module):
    r"""The item encoder of the `"LIRDRec" <https://arxiv.org/abs/2505.04960>`_ paper.

    .. math::
        \mathbf{h} = \mathbf{W}_2 \, \mathrm{LeakyReLU}(\mathbf{W}_1 \mathbf{x} + \mathbf{b}_1)

    The products are taken in the precision of the features, such as ``float32`` or ``bfloat16``. The output and the
    gradients have the precision of the weights.

    .. code-block:: python

        encoder = ModalityEncoder(16, hidden_channels=32, out_channels=8)
        print(encoder(train['item'].x_image).shape)  # (48, 8)

    Args:
        in_channels (int): The width of the features.
        hidden_channels (int): The width between the layers.
        out_channels (int): The width of the output.
        dropout (float, optional): The dropout probability between the layers. (default: :obj:`0.0`)
        spectral_filter (bool, optional): Whether each feature, a frequency of the spectrum, has a weight that is
            trained, one at first. (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(N, C_\mathrm{in})`
        - **output:** :math:`(N, C_\mathrm{out})`
    """

    generator: torch.Generator | None = None  # of a training run

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        dropout: float = 0.0,
        spectral_filter: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.out_channels = out_channels
        self.dropout = dropout
        self.lin1 = Linear(in_channels, hidden_channels)
        self.lin2 = Linear(hidden_channels, out_channels, bias=False)
        self.filter = Parameter(torch.empty(in_channels)) if spectral_filter else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.lin1.reset_parameters()
        self.lin2.reset_parameters()
        if self.filter is not None:
            ones_(self.filter)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.lin1.weight if self.filter is None else self.lin1.weight * self.filter
        h = hidden_layer(x, weight, self.lin1.bias)
        h = dropout(h, self.dropout, self.training, self.generator)
        if on_host(h) and not has_half_products():
            h = h.to(self.lin2.weight.dtype)
        return F.linear(h, self.lin2.weight.to(h.dtype)).to(self.lin2.weight.dtype)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_channels}, {self.hidden_channels}, {self.out_channels})'
