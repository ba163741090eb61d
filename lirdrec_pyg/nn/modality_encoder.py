import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module


class ModalityEncoder(Module):
    r"""The item encoder of the `"LIRDRec" <https://arxiv.org/abs/2505.04960>`_ paper.

    .. math::
        \mathbf{h} = \mathbf{W}_2 \, \mathrm{LeakyReLU}(\mathbf{W}_1 \mathbf{x} + \mathbf{b}_1)

    Args:
        in_channels (int): The width of the features.
        hidden_channels (int): The width between the layers.
        out_channels (int): The width of the output.

    Shapes:
        - **input:** :math:`(N, C_\mathrm{in})`
        - **output:** :math:`(N, C_\mathrm{out})`
    """

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.out_channels = out_channels
        self.lin1 = Linear(in_channels, hidden_channels)
        self.lin2 = Linear(hidden_channels, out_channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.lin1.reset_parameters()
        self.lin2.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.leaky_relu(self.lin1(x)))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_channels}, {self.hidden_channels}, {self.out_channels})'
