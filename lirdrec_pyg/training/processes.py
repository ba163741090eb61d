r"""Several processes as one training run, by :mod:`torch.distributed`. With one process nothing here does anything."""

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module, Parameter


def join(device: torch.device) -> None:
    r"""Joins the processes that ``torchrun`` has started, unless the caller has done so: by nccl on GPUs, else gloo."""
    if dist.is_available() and not dist.is_initialized() and int(os.environ.get('WORLD_SIZE', '1')) > 1:
        dist.init_process_group('nccl' if device.type == 'cuda' else 'gloo')


def rank() -> int:
    r"""Returns the number of this process, from zero: as ``torchrun`` says until it has joined the others."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ.get('RANK', '0'))


def count() -> int:
    r"""Returns the number of processes: as ``torchrun`` says until this one has joined the others."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get('WORLD_SIZE', '1'))


def share(batch: Sequence[Tensor]) -> list[Tensor]:
    r"""Returns this process' part of a batch, every ``count()``-th row. It is never empty: a batch of fewer rows than
    processes gives some rows twice."""
    own = torch.arange(rank(), max(len(batch[0]), rank() + 1), count()) % len(batch[0])
    return list(batch) if count() == 1 else [index[own] for index in batch]


def total(values: Tensor) -> Tensor:
    r"""Returns the sum over the processes."""
    if count() > 1:
        dist.all_reduce(values)
    return values


def any_of(value: bool, device: torch.device) -> bool:
    r"""Returns whether the value is true in any process."""
    return bool(total(torch.tensor(float(value), device=device)) > 0)


def broadcast(model: Module) -> None:
    r"""Gives all processes the parameters and buffers of the first."""
    if count() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)
        model.load_state_dict(model.state_dict())  # what modules derive from their buffers


def average_gradients(params: Sequence[Parameter], rows: int, stop: bool) -> bool:
    r"""Turns the gradients of the mean loss over each process' rows into that over all rows.

    Args:
        params (sequence of Parameter): The parameters. A gradient that lacks does so in all processes.
        rows (int): How many rows this process has.
        stop (bool): Whether this process asks all to stop.

    Returns:
        Whether any process asks to stop.
    """
    if count() == 1:
        return stop
    dense = [param.grad for param in params if param.grad is not None and not param.grad.is_sparse]
    flat = torch.cat([*(grad.flatten() for grad in dense), torch.ones_like(dense[0].flatten()[:1])])
    flat.mul_(rows)
    flat = total(torch.cat([flat, flat.new_tensor([float(stop)])]))
    all_rows = flat[-2]
    for grad, part in zip(dense, flat[:-2].split([grad.numel() for grad in dense]), strict=True):
        torch.div(part.view_as(grad), all_rows, out=grad)
    for param in params:
        if param.grad is not None and param.grad.is_sparse:
            param.grad = _gather_sparse(param.grad, rows / all_rows)
    return bool(flat[-1] > 0)


def _gather_sparse(grad: Tensor, weight: Tensor) -> Tensor:
    r"""Returns the weighted sum of a sparse gradient over the processes: the rows of all, each as often as it is there,
    which the optimiser adds up anyway."""
    own, values = grad._indices()[0], grad._values()
    size = own.new_zeros(count())
    size[rank()] = own.numel()
    sizes = total(size).tolist()
    index, value = own.new_empty(sum(sizes)), values.new_empty(sum(sizes), *values.shape[1:])
    sent = []
    for source, parts in enumerate(zip(index.split(sizes), value.split(sizes), strict=True)):
        if source == rank():
            parts[0].copy_(own)
            torch.mul(values, weight, out=parts[1])
        sent += [dist.broadcast(part, src=source, async_op=True) for part in parts]  # all at the same time
    for work in sent:
        work.wait()
    return torch.sparse_coo_tensor(index.unsqueeze(0), value, grad.size(), check_invariants=False)


class Buffers:
    r"""Brings the buffers of a model together at the end of an epoch. Each process has changed those rows that it saw:
    a value that some have changed becomes the mean of theirs."""

    def __init__(self, model: Module) -> None:
        self.buffers = [x for x in model.buffers() if x.is_floating_point()] if count() > 1 else []
        self.before = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def merge(self) -> None:
        for buffer, before in zip(self.buffers, self.before, strict=True):
            changed = (buffer != before).to(buffer.dtype)
            number, value = total(changed.clone()), total(buffer * changed)
            buffer.copy_(torch.where(number > 0, value / number.clamp(min=1), before))
