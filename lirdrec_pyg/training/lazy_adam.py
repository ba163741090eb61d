from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Adam


class LazyAdam(Adam):
    r"""Adam that, given a sparse gradient, updates its rows alone, and their moments: a step costs what its rows do,
    not the table. Bias correction counts all steps. Dense gradients are treated as by :class:`~torch.optim.Adam`.

    .. code-block:: python

        model = LIRDRec.from_data(train, seed=0, sparse=True)
        loader = MiniBatches(train, num_neighbors=[10, 10, 5], batch_size=128)
        fit(model, train, val, epochs=2, loader=loader, optimizer=lambda params: LazyAdam(params, lr=1e-3))

    Args:
        params (iterable): The parameters.
        **kwargs (optional): The arguments of :class:`~torch.optim.Adam`, without ``weight_decay``, ``amsgrad`` and
            ``maximize``.

    Raises:
        ValueError: If one of these is given.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        for name in ('weight_decay', 'amsgrad', 'maximize'):
            value = param_group.get(name, self.defaults[name])
            if value:
                raise ValueError(f"'{name}' needs to be left out, as rows are updated without it (got {value})")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        held: list[tuple[Parameter, Tensor]] = []
        for group in self.param_groups:
            for param in group['params']:
                if param.grad is not None and param.grad.is_sparse:
                    self._update_rows(param, param.grad.coalesce(), group)
                    held.append((param, param.grad))
                    param.grad = None
        out = super().step(closure)
        for param, grad in held:
            param.grad = grad
        return out

    def _update_rows(self, param: Parameter, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        if not state:
            state['step'] = torch.tensor(0.0)
            state['exp_avg'] = torch.zeros_like(param)
            state['exp_avg_sq'] = torch.zeros_like(param)
        state['step'] += 1
        index, value = grad.indices()[0], grad.values()
        (beta1, beta2), step = group['betas'], float(state['step'])
        first = state['exp_avg'].index_select(0, index).lerp_(value, 1 - beta1)
        second = state['exp_avg_sq'].index_select(0, index).mul_(beta2).addcmul_(value, value, value=1 - beta2)
        state['exp_avg'].index_copy_(0, index, first)
        state['exp_avg_sq'].index_copy_(0, index, second)
        scale = second.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group['eps'])
        param.index_add_(0, index, first.div_(scale), alpha=-group['lr'] / (1 - beta1**step))
