import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module


class ModalityEncoder(Module):
    r"""The item encoder of the `"LIRDRec" <https://arxiv.org/abs/2505.04960>`_ paper.

    .. math::
        \mathbf{h} = \mathbf{W}_2 \, \mathrm{LeakyReLU}(\mathbf{W}_1 \mathbf{x} + \mathbf{b}_1)

    Features in half precision (``bfloat16``) meet the first layer's weight in their own precision; the weight itself,
    the second layer and the output stay in single precision.

    Args:
        in_channels (int): The width of the features.
        hidden_channels (int): The width between the layers.
        out_channels (int): The width of the output.
        dropout (float, optional): The dropout probability between the layers. (default: :obj:`0.0`)

    Shapes:
        - **input:** :math:`(N, C_\mathrm{in})`
        - **output:** :math:`(N, C_\mathrm{out})`
    """

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.out_channels = out_channels
        self.dropout = dropout
        self.lin1 = Linear(in_channels, hidden_channels)
        self.lin2 = Linear(hidden_channels, out_channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.lin1.reset_parameters()
        self.lin2.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        lin = self.lin1
        h = lin(x) if x.dtype == lin.weight.dtype else F.linear(x, lin.weight.to(x.dtype), lin.bias.to(x.dtype)).float()
        return self.lin2(F.dropout(F.leaky_relu(h), self.dropout, self.training))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_channels}, {self.hidden_channels}, {self.out_channels})'
