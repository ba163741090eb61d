import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module, ModuleList, Parameter, Sequential
from torch.nn.init import xavier_normal_

from lirdrec_pyg.nn.kernels import view_linear

PWCVariant = Literal['released', 'ema', 'attention', 'static', 'uniform']


class PWC(Module):
    r"""Progressive weight copying, the fusion of the `"LIRDRec" <https://arxiv.org/abs/2505.04960>`_ paper: weighs the
    views of each user before they are concatenated.

    .. math::
        \mathbf{u} = \big\Vert_v \, w_{uv} \mathbf{z}_{uv}

    With :math:`f` one two-layer network a view (:math:`d \to d/4 \to 1`) the variants are:

    * ``'released'`` (what the released implementation does):
      :math:`\mathbf{w}_u = \mathrm{softmax}(a f(\mathbf{z}_u) + (1 - a) \boldsymbol{\theta}_u)` with
      :math:`a(t) = \sigma(\mathrm{logit}(a_0) + \tfrac{1}{2} t (t + 1) \ln b)` in epoch :math:`t`, where
      :math:`\boldsymbol{\theta}_u` is a parameter that from the second epoch on starts each epoch as the last
      :math:`\mathbf{w}_u` of the epoch before. It contracts to uniform weights. Once :math:`a(t)` is below
      :math:`10^{-12}`, far below what rounding leaves of :math:`\boldsymbol{\theta}_u`, the networks are left out.
    * ``'ema'`` (what the paper describes): :math:`\mathbf{w}_u = (1 - \tau) \mathbf{s}_u + \tau \, \mathrm{softmax}
      f(\mathbf{z}_u)`, where the target state :math:`\mathbf{s}_u`, uniform at first, starts each epoch as the last
      :math:`\mathbf{w}_u`: the weights grow in progressively at the rate :math:`\tau`.
    * ``'attention'``: :math:`\mathbf{w}_u = \mathrm{softmax} f(\mathbf{z}_u)`.
    * ``'static'``: one learned vector for all users, :math:`\mathbf{w} = \mathrm{softmax} \boldsymbol{\theta}`.
    * ``'uniform'``: :math:`w_{uv} = 1 / |V|`.

    All that the variants remember is in ``state_dict``. Call :meth:`on_epoch_start` before each epoch.

    Args:
        channels (int): The width :math:`d` of a view.
        num_views (int): The number of views :math:`|V|`.
        num_users (int): The number of users.
        variant (str, optional): See above. (default: ``'released'``)
        init (float, optional): :math:`a_0 \in (0, 1)` of ``'released'``. (default: :obj:`0.9`)
        decay (float, optional): :math:`b \in (0, 1]` of ``'released'``. (default: :obj:`0.9`)
        rate (float, optional): :math:`\tau \in (0, 1]` of ``'ema'``. (default: :obj:`0.1`)

    Shapes:
        - **input:** :math:`(N, |V|, d)` and, if these are not all users in order, their ids :math:`(N)`
        - **output:** :math:`(N, |V| d)`
    """

    def __init__(
        self,
        channels: int,
        num_views: int,
        num_users: int,
        variant: PWCVariant = 'released',
        init: float = 0.9,
        decay: float = 0.9,
        rate: float = 0.1,
    ) -> None:
        super().__init__()
        if variant not in get_args(PWCVariant):
            raise ValueError(f"'variant' needs to be one of {list(get_args(PWCVariant))} (got '{variant}')")
        if not 0 < init < 1:
            raise ValueError(f"'init' needs to be in (0, 1) (got {init})")
        for name, value in [('decay', decay), ('rate', rate)]:
            if not 0 < value <= 1:
                raise ValueError(f"'{name}' needs to be in (0, 1] (got {value})")
        self.channels = channels
        self.num_views = num_views
        self.num_users = num_users
        self.variant = variant
        self.init = init
        self.decay = decay
        self.rate = rate

        self.nets = ModuleList()
        if variant in ('released', 'ema', 'attention'):
            hidden = max(channels // 4, 1)
            self.nets.extend(
                Sequential(Linear(channels, hidden), torch.nn.LeakyReLU(), Linear(hidden, 1)) for _ in range(num_views)
            )
        if variant == 'released':
            self.theta = Parameter(torch.empty(num_users, num_views))
        elif variant == 'static':
            self.theta = Parameter(torch.empty(num_views))
        elif variant == 'ema':
            self.register_buffer('theta', torch.empty(num_users, num_views))
        if variant in ('released', 'ema'):
            self.register_buffer('last_weight', torch.empty(num_users, num_views))
        self.register_buffer('epoch', torch.tensor(0))
        self.last_weight: Tensor
        self.epoch: Tensor
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for net in self.nets:
            for lin in (net[0], net[2]):  # type: ignore[index]
                lin.reset_parameters()
        if self.variant == 'released':
            xavier_normal_(self.theta)
        elif self.variant == 'static':
            torch.nn.init.zeros_(self.theta)
        elif self.variant == 'ema':
            self.theta.fill_(1 / self.num_views)
        if self.variant in ('released', 'ema'):
            self.last_weight.fill_(1 / self.num_views)
        self.epoch.zero_()
        self._gate = self.init

    @property
    def gate(self) -> float:
        r"""The weight :math:`a(t)` of the network's prediction in the current epoch (variant ``'released'``)."""
        return self._gate

    def _update_gate(self) -> None:
        t = int(self.epoch)
        logit = math.log(self.init / (1 - self.init)) + 0.5 * t * (t + 1) * math.log(self.decay)
        self._gate = 1 / (1 + math.exp(min(-logit, 700.0)))

    def _load_from_state_dict(self, *args: object) -> None:
        super()._load_from_state_dict(*args)  # type: ignore[arg-type]
        self._update_gate()

    @torch.no_grad()
    def on_epoch_start(self, epoch: int) -> None:
        r"""Moves on to the given epoch, counted from one."""
        if epoch < 1:
            raise ValueError(f"'epoch' needs to be positive (got {epoch})")
        self.epoch.fill_(epoch)
        self._update_gate()
        if epoch > 1 and self.variant in ('released', 'ema'):
            self.theta.copy_(self.last_weight)

    def weight(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        r"""Returns the weights :math:`\mathbf{w}` of the views, :math:`(N, |V|)`.

        Args:
            x (Tensor): The views of the users, :math:`(N, |V|, d)`.
            index (Tensor, optional): Their ids :math:`(N)`, if these are not all users in order.
        """
        if self.variant == 'uniform':
            return x.new_full(x.shape[:2], 1 / self.num_views)
        if self.variant == 'static':
            return self.theta.softmax(dim=-1).expand(x.size(0), -1)
        if self.variant == 'attention':
            return self._predict(x).softmax(dim=-1)
        theta = self.theta if index is None else self.theta.index_select(0, index)
        if self.variant == 'released':
            if self._gate >= 1e-12:
                theta = self._gate * self._predict(x) + (1 - self._gate) * theta
            weight = theta.t().softmax(dim=0).t()  # much faster than along a last axis of few views
        else:
            weight = (1 - self.rate) * theta + self.rate * self._predict(x).softmax(dim=-1)
        if self.training and torch.is_grad_enabled():
            if index is None:
                self.last_weight.copy_(weight.detach())
            else:
                self.last_weight[index] = weight.detach()
        return weight

    def _predict(self, x: Tensor) -> Tensor:
        lin1, lin2 = zip(*((net[0], net[2]) for net in self.nets), strict=True)  # type: ignore[index]
        weight, bias = torch.stack([lin.weight for lin in lin1]), torch.stack([lin.bias for lin in lin1])
        h = view_linear(x, weight, bias)  # [V, N, d / 4]
        h = F.leaky_relu(h) @ torch.stack([lin.weight for lin in lin2]).transpose(1, 2)  # [V, N, 1]
        return h.squeeze(-1).t() + torch.cat([lin.bias for lin in lin2])

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        return (x * self.weight(x, index).unsqueeze(-1)).flatten(1)

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.channels}, num_views={self.num_views}, num_users={self.num_users}, '
            f"variant='{self.variant}')"
        )
