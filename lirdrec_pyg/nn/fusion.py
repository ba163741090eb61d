r"""How the views of a user become one vector."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, ModuleList, Parameter, Sequential
from torch.nn.init import xavier_normal_, zeros_

from lirdrec_pyg.nn.kernels import on_host, view_linear
from lirdrec_pyg.nn.part import Part


class Fusion(Part, ABC):
    r"""Weighs the views of each user before they are concatenated.

    .. math::
        \mathbf{u} = \big\Vert_v \, w_{uv} \mathbf{z}_{uv}

    A new one is a class with :meth:`weight`, and with :meth:`build` if it has parameters:

    .. code-block:: python

        class Gate(Fusion):
            def build(self, channels: int, num_views: int, num_users: int) -> None:
                super().build(channels, num_views, num_users)
                self.lin = torch.nn.Linear(channels, 1)

            def weight(self, x: Tensor, index: Tensor | None = None) -> Tensor:
                return self.lin(x).squeeze(-1).sigmoid()

        model = LIRDRec.from_data(train, fusion=Gate())

    The model takes a copy, and builds it to its sizes.

    Shapes:
        - **input:** the views :math:`(N, |V|, d)` and, if these are not of all users in order, their ids :math:`(N)`
        - **output:** :math:`(N, |V| d)`
    """

    per_user: tuple[str, ...] = ()  # parameters and buffers with a row for each user

    def build(self, channels: int, num_views: int, num_users: int) -> None:
        r"""Makes the parameters for views of the given width and number. Called once, by the model."""
        self.channels = channels
        self.num_views = num_views
        self.num_users = num_users

    def reset_parameters(self) -> None:
        r"""Sets the parameters to their initial state."""

    @abstractmethod
    def weight(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        r"""Returns the weights of the views, :math:`(N, |V|)`.

        Args:
            x (Tensor): The views of the users, :math:`(N, |V|, d)`.
            index (Tensor, optional): Their ids :math:`(N)`, if these are not all users in order.
        """

    def weight_of_new(self, x: Tensor) -> Tensor:
        r"""Returns the weights :math:`(N, |V|)` for users who were not in training."""
        return self.weight(x)

    def remember(self, weight: Tensor, index: Tensor | None = None) -> None:
        r"""Called in each training step with the weights of :meth:`weight`, detached."""

    def on_epoch_start(self, epoch: int) -> None:
        r"""Called before each training epoch, counted from one."""

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        return weighted(x, self.weight(x, index))


def weighted(x: Tensor, weight: Tensor) -> Tensor:
    r"""Returns weighted views side by side, :math:`(N, |V| d)`."""
    return (x * weight.unsqueeze(-1)).flatten(1)


class _Predicting(Fusion):
    r"""A fusion with one two-layer network a view, :math:`d \to d/4 \to 1`, that predicts its weight."""

    def build(self, channels: int, num_views: int, num_users: int) -> None:
        super().build(channels, num_views, num_users)
        hidden = max(channels // 4, 1)
        self.nets = ModuleList(
            Sequential(Linear(channels, hidden), torch.nn.LeakyReLU(), Linear(hidden, 1)) for _ in range(num_views)
        )

    def reset_parameters(self) -> None:
        for net in self.nets:
            for lin in (net[0], net[2]):  # type: ignore[index]
                lin.reset_parameters()

    def predict(self, x: Tensor) -> Tensor:
        r"""Returns what the networks say of each view, :math:`(N, |V|)`."""
        lin1, lin2 = zip(*((net[0], net[2]) for net in self.nets), strict=True)  # type: ignore[index]
        weight, bias = torch.stack([lin.weight for lin in lin1]), torch.stack([lin.bias for lin in lin1])
        h = view_linear(x, weight, bias)  # [V, N, d / 4]
        h = F.leaky_relu(h) @ torch.stack([lin.weight for lin in lin2]).transpose(1, 2)  # [V, N, 1]
        return h.squeeze(-1).t() + torch.cat([lin.bias for lin in lin2])


class _Progressive(_Predicting):
    r"""A fusion whose state of each user, ``theta``, starts an epoch as the weights that the last one ended with."""

    per_user = ('theta', 'last_weight')
    last_weight: Tensor
    theta: Tensor

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.last_weight.fill_(1 / self.num_views)

    @torch.no_grad()
    def on_epoch_start(self, epoch: int) -> None:
        if epoch < 1:
            raise ValueError(f"'epoch' needs to be positive (got {epoch})")
        if epoch > 1:
            self.theta.copy_(self.last_weight)

    def remember(self, weight: Tensor, index: Tensor | None = None) -> None:
        if index is None:
            self.last_weight.copy_(weight)
        else:
            self.last_weight[index] = weight.to(self.last_weight.dtype)

    def weight(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        return self._mix(x, self.theta if index is None else self.theta.index_select(0, index))

    def weight_of_new(self, x: Tensor) -> Tensor:
        return self._mix(x, self.theta.mean(dim=0, keepdim=True).expand(x.size(0), -1))

    @abstractmethod
    def _mix(self, x: Tensor, theta: Tensor) -> Tensor: ...


class PWC(_Progressive):
    r"""Progressive weight copying as the released implementation of `"LIRDRec" <https://arxiv.org/abs/2505.04960>`_
    has it.

    .. math::
        \mathbf{w}_u = \mathrm{softmax}(a f(\mathbf{z}_u) + (1 - a) \boldsymbol{\theta}_u), \quad
        a(t) = \sigma(\mathrm{logit}(a_0) + \tfrac{1}{2} t (t + 1) \ln b)

    in epoch :math:`t`, with one two-layer network :math:`f` a view (:math:`d \to d/4 \to 1`).
    :math:`\boldsymbol{\theta}_u` is a parameter. From the second epoch on it starts each epoch as the last
    :math:`\mathbf{w}_u` of the epoch before. The weights become uniform by and by. Once :math:`a(t)` is below
    :math:`10^{-12}`, less than rounding changes, the networks are left out on CPU. On a GPU they stay, times nearly
    zero: a step there takes the epoch from a buffer, and does the same in each.

    .. code-block:: python

        model = LIRDRec.from_data(train, seed=0, fusion=PWC(init=0.9, decay=0.9))
        print(model.fusion.gate)

    Args:
        init (float, optional): :math:`a_0 \in (0, 1)`. (default: :obj:`0.9`)
        decay (float, optional): :math:`b \in (0, 1]`. (default: :obj:`0.9`)
    """

    epoch: Tensor

    def __init__(self, init: float = 0.9, decay: float = 0.9) -> None:
        super().__init__()
        if not 0 < init < 1:
            raise ValueError(f"'init' needs to be in (0, 1) (got {init})")
        _check_share('decay', decay)
        self.init = init
        self.decay = decay

    def build(self, channels: int, num_views: int, num_users: int) -> None:
        super().build(channels, num_views, num_users)
        self.theta = Parameter(torch.empty(num_users, num_views))
        self.register_buffer('last_weight', torch.empty(num_users, num_views))
        self.register_buffer('epoch', torch.tensor(0))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        xavier_normal_(self.theta)
        self.epoch.zero_()

    @property
    def gate(self) -> float:
        r"""The weight :math:`a(t)` of the networks in the current epoch."""
        return 1 / (1 + math.exp(min(-self._logit(self.number('epoch')), 700.0)))

    def _logit(self, t: Any) -> Any:
        return math.log(self.init / (1 - self.init)) + 0.5 * t * (t + 1) * math.log(self.decay)

    def on_epoch_start(self, epoch: int) -> None:
        super().on_epoch_start(epoch)
        self.epoch.fill_(epoch)

    def _mix(self, x: Tensor, theta: Tensor) -> Tensor:
        if not on_host(theta):
            logit = self._logit(self.epoch.to(theta.dtype))
            theta = logit.sigmoid() * self.predict(x) + (-logit).sigmoid() * theta
        elif (gate := self.gate) >= 1e-12:
            theta = gate * self.predict(x) + (1 - gate) * theta
        return theta.t().softmax(dim=0).t()  # much faster than along a last axis of few views


class PaperPWC(_Progressive):
    r"""Progressive weight copying as the `"LIRDRec" <https://arxiv.org/abs/2505.04960>`_ paper describes it: a moving
    average of what networks predict.

    .. math::
        \mathbf{w}_u = (1 - \tau) \mathbf{s}_u + \tau \, \mathrm{softmax} f(\mathbf{z}_u)

    The target state :math:`\mathbf{s}_u` is uniform at first. It starts each epoch as the last :math:`\mathbf{w}_u`, so
    that the weights grow in at the rate :math:`\tau`. The networks :math:`f` are those of :class:`PWC`.

    .. code-block:: python

        model = LIRDRec.from_data(train, seed=0, fusion=PaperPWC(rate=0.1))

    Args:
        rate (float, optional): :math:`\tau \in (0, 1]`. (default: :obj:`0.1`)
    """

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        _check_share('rate', rate)
        self.rate = rate

    def build(self, channels: int, num_views: int, num_users: int) -> None:
        super().build(channels, num_views, num_users)
        self.register_buffer('theta', torch.empty(num_users, num_views))
        self.register_buffer('last_weight', torch.empty(num_users, num_views))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.theta.fill_(1 / self.num_views)

    def _mix(self, x: Tensor, theta: Tensor) -> Tensor:
        return (1 - self.rate) * theta + self.rate * self.predict(x).softmax(dim=-1)


class AttentionFusion(_Predicting):
    r"""Weights that networks predict, :math:`\mathbf{w}_u = \mathrm{softmax} f(\mathbf{z}_u)`, with :math:`f` as in
    :class:`PWC`.

    .. code-block:: python

        model = LIRDRec.from_data(train, seed=0, fusion=AttentionFusion())
    """

    def weight(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        return self.predict(x).softmax(dim=-1)


class StaticFusion(Fusion):
    r"""One learned vector of weights for all users, :math:`\mathbf{w} = \mathrm{softmax} \boldsymbol{\theta}`.

    .. code-block:: python

        model = LIRDRec.from_data(train, seed=0, fusion=StaticFusion())
    """

    def build(self, channels: int, num_views: int, num_users: int) -> None:
        super().build(channels, num_views, num_users)
        self.theta = Parameter(torch.zeros(num_views))

    def reset_parameters(self) -> None:
        zeros_(self.theta)

    def weight(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        return self.theta.softmax(dim=-1).expand(x.size(0), -1)


class UniformFusion(Fusion):
    r"""The same weight for each view, :math:`w_{uv} = 1 / |V|`.

    .. code-block:: python

        model = LIRDRec.from_data(train, seed=0, fusion=UniformFusion())
    """

    def weight(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        return x.new_full(x.shape[:2], 1 / self.num_views)


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"'{name}' needs to be in (0, 1] (got {value})")
