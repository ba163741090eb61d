import contextlib
import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Adam, Optimizer
from torch_geometric.data import HeteroData
from torch_geometric.transforms import Compose

from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.ranking import METRICS, evaluate
from lirdrec_pyg.training import processes
from lirdrec_pyg.training.checkpoint import (
    FORMAT,
    compare,
    data_identity,
    label_identity,
    load_checkpoint,
    raw_ids,
    save_checkpoint,
    unwrap,
)
from lirdrec_pyg.training.loader import Loader, WholeGraph
from lirdrec_pyg.training.memory import keep_freed_memory
from lirdrec_pyg.transforms import FlushDenormals, HalfPrecision
from lirdrec_pyg.typing import INTERACTS, ITEM, Embeddings, check, modalities

BATCH_SIZE = 2048  # at least, by default
STEPS = 16  # of an epoch, by default
Row = dict[str, float]
Precision = Literal['fp32', 'bf16']
PathLike = str | os.PathLike[str]


class FitResult(NamedTuple):
    r"""What :func:`~lirdrec_pyg.fit` returns.

    .. code-block:: python

        result = fit(model, train, val, epochs=2)
        print(result.best_epoch, result.best_value, result.log[0]['loss'])

    Args:
        log (list of dict): One row an epoch: ``epoch``, ``loss``, the monitored metric and ``seconds``.
        best_epoch (int): The epoch whose weights the model now has (0: none was better than the first state).
        best_value (float): The monitored metric at that epoch; ``nan`` without a validation split.
    """

    log: list[Row]
    best_epoch: int
    best_value: float

    def __repr__(self) -> str:
        return f'FitResult({len(self.log)} epochs, best_epoch={self.best_epoch}, best_value={self.best_value:.4f})'


class Callback:
    r"""Watches a training run; override what is needed. ``trainer.stop()`` ends the run.

    TensorBoard, for example:

    .. code-block:: python

        class TensorBoard(Callback):
            def __init__(self, folder: str) -> None:
                self.writer = SummaryWriter(folder)

            def on_epoch(self, trainer: Trainer, row: dict[str, float]) -> None:
                for name, value in row.items():
                    self.writer.add_scalar(name, value, trainer.epoch)

        fit(model, train, val, epochs=2, callbacks=[TensorBoard('runs/first')])
    """

    def on_start(self, trainer: 'Trainer') -> None:
        r"""Called once, before the first epoch or when a run goes on."""

    def on_backward(self, trainer: 'Trainer', loss: Tensor) -> None:
        r"""Called after each backward pass, before the update: gradients are in place."""

    def on_step(self, trainer: 'Trainer') -> None:
        r"""Called after each update."""

    def on_epoch(self, trainer: 'Trainer', row: Row) -> None:
        r"""Called after each epoch and its validation, with its row of the log."""

    def on_end(self, trainer: 'Trainer') -> None:
        r"""Called once, when the run has ended, also by an error."""


class Trainer:
    r"""One training run, which can be stepped through, saved and resumed. :func:`~lirdrec_pyg.fit` is its shortcut.

    .. code-block:: python

        trainer = Trainer(model, train, val, lr=1e-3)
        for _ in range(10):
            loss = trainer.train_epoch()
            recall = trainer.validate()
        trainer.save('run.pt')
        trainer.restore_best()

    The same seed, data and initial model give the same result, bit for bit on CPU, also if the run was saved and
    resumed in between. The global random state is left as it was.

    Started by ``torchrun --nproc-per-node N``, the processes train as one: each takes its share of the triplets, and
    gradients and metrics are brought together. The first one writes. On the whole graph, losses are those of one
    process. With a loader that samples, each process samples for itself, and ``batch_size`` counts for each.

    Args:
        model (Recommender): The model to train. One within :func:`torch.compile` is trained without it. Of an
            ``AveragedModel``, its ``module`` is trained and nothing averaged: to average, train the model itself with a
            callback whose ``on_step`` calls ``update_parameters(trainer.model)``.
        train (HeteroData): The training split, with ``InteractionGraph()`` applied.
        val (HeteroData, optional): The validation split. (default: ``None``)
        batch_size (int, optional): The number of triplets in a step. (default: :func:`default_batch_size`)
        lr (float, optional): The learning rate. (default: :func:`default_lr`)
        monitor (str, optional): The metric that decides, ``'<metric>@<k>'``. (default: ``'recall@20'``)
        seed (int, optional): The seed of shuffling, negatives and dropout. (default: :obj:`0`)
        precision (str, optional): ``'bf16'`` trains on :class:`~lirdrec_pyg.transforms.HalfPrecision` data.
            (default: ``'fp32'``)
        optimizer (callable, optional): Makes the optimiser, *e.g.*, ``lambda params: SGD(params, lr=0.1)``, in place
            of ``lr``. (default: fused Adam)
        loader (Loader, optional): Gives the batches in place of ``batch_size``, *e.g.*,
            :class:`~lirdrec_pyg.MiniBatches`. (default: triplets on the whole graph)
        callbacks (sequence of Callback, optional): Watchers. (default: none)

    Attributes:
        epoch (int): The number of epochs so far.
        step (int): The number of steps of the current epoch so far.
        log (list of dict): One row an epoch.
        best_epoch (int), best_value (float): The best epoch so far, and its metric.

    Raises:
        ValueError: If an argument is out of range or would be ignored, or parameters are in half precision.
    """

    def __init__(
        self,
        model: Any,
        train: HeteroData,
        val: HeteroData | None = None,
        *,
        batch_size: int | None = None,
        lr: float | None = None,
        monitor: str = 'recall@20',
        seed: int = 0,
        precision: Precision = 'fp32',
        optimizer: Callable[[list[Parameter]], Optimizer] | None = None,
        loader: Loader | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.model: Recommender = unwrap(model)
        train = check(train, 'train', unique=True)
        val = None if val is None else check(val, 'val', labels=True)
        self._metric, self._k = parse_metric(monitor, val)
        for name, value in [('batch_size', batch_size), ('lr', lr)]:
            if value is not None and not value > 0:
                raise ValueError(f"'{name}' needs to be positive (got {value})")
        if loader is not None and batch_size is not None:
            raise ValueError(f"'batch_size' needs to be that of the 'loader': leave it out (got {batch_size})")
        if optimizer is not None and lr is not None:
            raise ValueError(f"'lr' needs to be set where 'optimizer' makes the optimiser: leave it out (got {lr})")
        if precision not in ('fp32', 'bf16'):
            raise ValueError(f"'precision' needs to be 'fp32' or 'bf16' (got {precision!r})")
        self.train, self.val = train, val
        self.monitor, self.seed, self.precision = monitor, int(seed), precision
        self.callbacks = list(callbacks)
        self.params = [param for param in self.model.parameters() if param.requires_grad]
        if not self.params:
            raise ValueError(f"'model' needs parameters to train (got {type(self.model).__name__}, which has none)")
        low = next((param.dtype for param in self.params if param.dtype in (torch.half, torch.bfloat16)), None)
        if low is not None:
            raise ValueError(
                f"'model' needs parameters in float32 or float64 to train, since small updates are lost in fewer bits "
                f"(got {low}): call `model.float()`, and pass `precision='bf16'` for products in bfloat16"
            )
        self.device = self.params[0].device
        processes.join(self.device)
        processes.broadcast(self.model)

        self._transform = Compose([HalfPrecision(None if self.device.type == 'cpu' else False)] * (precision == 'bf16'))
        if loader is None:
            graph = self._transform(FlushDenormals()(train))
            batch_size = default_batch_size(train) if batch_size is None else int(batch_size)
            self.loader: Loader = WholeGraph(graph, batch_size, self.seed)
        else:
            self.loader = loader
        self.loader.check(self.model)
        self.model.ids = raw_ids(train, self.model)
        if optimizer is None:
            lr = default_lr(self.model, batch_size) if lr is None else float(lr)
            fused = self.device.type in ('cpu', 'cuda')
            self.optimizer: Optimizer = Adam(self.params, lr=lr, fused=fused)
        else:
            self.optimizer = optimizer(self.params)
        self._settings = {
            'monitor': monitor,
            'seed': self.seed,
            'precision': precision,
            'optimizer': type(self.optimizer).__name__,
            'groups': [
                {name: len(value) if name == 'params' else _plain(value) for name, value in group.items()}
                for group in self.optimizer.param_groups
            ],
            'loader': type(self.loader).__name__,
            **self.loader.identity(),
        }
        self._identity: dict[str, Any] = {}
        self.epoch = self.step = 0
        self.log: list[Row] = []
        self.best_epoch, self.best_value = 0, float('-inf')
        self._best_state = _clone(self.model.state_dict())
        self._asked = False  # by this process
        self.stopped = False  # agreed by all

    @property
    def is_first_process(self) -> bool:
        r"""Whether this process is the one that writes and shows."""
        return processes.rank() == 0

    def stop(self) -> None:
        r"""Ends the run, in all processes. Within an epoch it ends after the current step, or the next one of several
        processes. Such an epoch does not count: it has no row in the log and is in no checkpoint."""
        self._asked = True

    def train_epoch(self) -> float:
        r"""Trains one epoch, adds its row to the log, and returns the mean loss of its steps.

        Raises:
            FloatingPointError: If the loss is not finite; names epoch, step and the first tensor at fault.
        """
        clock = time.perf_counter()
        self.epoch, self.step = self.epoch + 1, 0
        self._asked = self.stopped = False
        self.model.train()
        self.model.on_epoch_start(self.epoch)
        buffers = processes.Buffers(self.model)
        losses, rows = [], []
        with self._draws():
            for graph, *triplets in self._batches():
                if self.stopped or (self._asked and processes.count() == 1):
                    self.stopped = True
                    break
                self.step += 1
                losses.append(self._step(graph, *triplets))
                rows.append(len(triplets[0]))
            else:
                self.stopped = False  # it was the last step anyway
        self._check_loss(losses, graph, 1)
        buffers.merge()
        loss = torch.stack(losses)
        if processes.count() > 1:
            weight = torch.tensor(rows, dtype=loss.dtype, device=loss.device)
            loss = processes.total(loss * weight) / processes.total(weight)
        row = {'epoch': self.epoch, 'loss': float(loss.mean()), 'seconds': time.perf_counter() - clock}
        if self.stopped:
            self.epoch -= 1
        else:
            self.log.append(row)
        return row['loss']

    @contextlib.contextmanager
    def _draws(self) -> Iterator[None]:
        r"""Seeds what an epoch draws by seed and epoch alone, so that a run can go on from any epoch.

        Modules that draw get a generator of this run, so that two runs in two threads do not disturb each other. Those
        of others draw from torch's global one, which is seeded, too, and left as it was.
        """
        seed = _seed(self.seed, self.epoch, processes.rank() if self.loader.sampled else 0)
        generator = torch.Generator(self.device).manual_seed(seed)
        drawing = [module for module in self.model.modules() if hasattr(module, 'generator')]
        with torch.random.fork_rng(devices=[self.device] if self.device.type == 'cuda' else []):
            torch.manual_seed(seed)
            try:
                for module in drawing:
                    module.generator = generator  # type: ignore[assignment]
                yield
            finally:
                for module in drawing:
                    module.generator = None  # type: ignore[assignment]

    def _batches(self) -> Iterator[Any]:
        for graph, *triplets in self.loader:
            if self.loader.sampled:
                graph = self._transform(graph).to(self.device)
            yield graph, *(index.to(self.device, non_blocking=True) for index in triplets)

    def _step(self, graph: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model.loss(graph, user, pos, neg)
        if self.device.type == 'cpu':  # elsewhere asking would wait for the device: asked once an epoch
            self._check_loss([loss.detach()], graph, self.step)
        loss.backward()
        self.stopped = processes.average_gradients(self.params, len(user), self._asked)
        for callback in self.callbacks:
            callback.on_backward(self, loss)
        self.optimizer.step()
        for callback in self.callbacks:
            callback.on_step(self)
        return loss.detach()

    def validate(self) -> float:
        r"""Returns the monitored metric on the validation split, ``nan`` without one. It joins the row of the epoch;
        the best weights so far are kept."""
        clock = time.perf_counter()
        self.model.eval()
        if self.val is None:
            return float('nan')
        with torch.no_grad():
            value = self._evaluate(self.loader.encode(self.model))
        if self.epoch > 0:
            self.log[-1] = {name: self.log[-1][name] for name in ('epoch', 'loss')} | {
                self.monitor: value,
                'seconds': self.log[-1]['seconds'] + time.perf_counter() - clock,
            }
            if value > self.best_value:
                self.best_epoch, self.best_value = self.epoch, value
                self._best_state = _clone(self.model.state_dict())
        return value

    def _evaluate(self, embeddings: Embeddings) -> float:
        r"""Ranks for the validation users; of several processes, each for its share."""
        assert self.val is not None
        val = self.val
        number, own = processes.count(), processes.rank()
        if number == 1 or self._metric == 'coverage':  # which is no mean over users
            return evaluate(embeddings, val, k=self._k, metrics=[self._metric])[self.monitor]
        label = val[INTERACTS].edge_label_index
        share = copy.copy(val)
        share[INTERACTS].edge_label_index = label[:, label[0] % number == own]
        users = share[INTERACTS].edge_label_index[0].unique().numel()
        value = evaluate(embeddings, share, k=self._k, metrics=[self._metric])[self.monitor] if users else 0.0
        total = processes.total(torch.tensor([value * users, users], dtype=torch.double, device=embeddings.item.device))
        return float(total[0] / total[1])

    def fit(self, epochs: int) -> FitResult:
        r"""Trains until there have been that many epochs, or a callback stops the run, and leaves the model in ``eval``
        mode with the best weights.

        Returns:
            FitResult: The log, the best epoch and its value.

        Raises:
            FloatingPointError: If the loss is not finite; names epoch, step and the first tensor at fault.
        """
        if not epochs > 0:
            raise ValueError(f"'epochs' needs to be positive (got {epochs})")
        try:
            with keep_freed_memory():
                self._asked = False
                self._tell('on_start')
                while self.epoch < epochs and not processes.any_of(self._asked, self.device):
                    epoch = self.epoch
                    self.train_epoch()
                    if self.epoch > epoch:
                        self.validate()
                        self._tell('on_epoch', self.log[-1])
        finally:
            self._tell('on_end')
        self.restore_best()
        if self.val is None:
            return FitResult(self.log, self.epoch, float('nan'))
        return FitResult(self.log, self.best_epoch, self.best_value)

    def _tell(self, event: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *args)

    def restore_best(self) -> None:
        r"""Gives the model the weights that were best on the validation split, in ``eval`` mode."""
        if self.val is not None:
            self.model.load_state_dict(self._best_state)
        self.model.eval()

    def identity(self) -> dict[str, Any]:
        r"""Returns all that the run depends on, as a checkpoint holds it: a run is resumed by its equal alone."""
        if not self._identity:
            hparams = self.model.settings()
            self._identity = {
                'model': hparams['class'].partition(':')[2],
                'hparams': hparams,
                'data': data_identity(self.train),
                'validation': label_identity(self.val),
                'settings': self._settings,
            }
        return self._identity

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the state of the run, of plain values and tensors."""
        return {
            'format': FORMAT,
            **self.identity(),
            'ids': self.model.ids,
            'epoch': self.epoch,
            'model_state': self.model.state_dict(),
            'optimizer_state': self.optimizer.state_dict(),
            'loader_state': self.loader.state_dict(),
            'best_epoch': self.best_epoch,
            'best_value': self.best_value,
            'best_state': self._best_state,
            'log': self.log,
        }

    def save(self, path: PathLike) -> None:
        r"""Writes a checkpoint, whole or not at all, which :meth:`resume` and :func:`~lirdrec_pyg.load_model` read."""
        if self.is_first_process:
            save_checkpoint(self.state_dict(), path)

    def resume(self, path: PathLike) -> None:
        r"""Goes on where a checkpoint ends.

        Raises:
            FileNotFoundError: If there is no checkpoint.
            ValueError: If it is damaged, or of another model, other data or other settings: names what differs.
        """
        state = load_checkpoint(path)
        compare(path, state, self.identity())
        self.model.load_state_dict(state['model_state'])
        self.optimizer.load_state_dict(state['optimizer_state'])
        self.loader.load_state_dict(state['loader_state'])
        self.epoch, self.log = state['epoch'], state['log']
        self.best_epoch, self.best_value, self._best_state = (
            state[f'best_{name}'] for name in ('epoch', 'value', 'state')
        )

    def _check_loss(self, losses: list[Tensor], data: HeteroData, first_step: int) -> None:
        finite = torch.isfinite(torch.stack(losses))
        if finite.all():
            return
        step = first_step + int((~finite).nonzero()[0])
        tensors = {f"data['item'].x_{name}": data[ITEM][f'x_{name}'] for name in modalities(data)}
        tensors |= {f'parameter {name}': param for name, param in self.model.named_parameters()}
        with torch.no_grad():
            tensors |= {f'{name} embeddings': z for name, z in self.model.embed(data)._asdict().items()}
        culprit = next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), 'the loss alone')
        raise FloatingPointError(
            f'the loss is not finite in epoch {self.epoch}, step {step}: first at fault is {culprit}'
        )

    def __repr__(self) -> str:
        settings = ', '.join(f'{name}={getattr(self, name)!r}' for name in ('monitor', 'seed', 'precision', 'epoch'))
        return f'{type(self).__name__}({type(self.model).__name__}, {settings})'


def default_batch_size(train: HeteroData) -> int:
    r"""Returns the batch size for a training split: :obj:`16` equal steps an epoch, and at least :obj:`2048` triplets.

    They are equal since a last step of a few triplets is as large as the others, and mostly noise. On the whole graph,
    a step costs about the same whatever the batch. With a fixed number of steps, an epoch takes time in proportion to
    the graph; with a fixed batch, to the square of it.

    .. code-block:: python

        print(default_batch_size(train))
    """
    return max(BATCH_SIZE, math.ceil(train[INTERACTS].edge_index.size(1) / STEPS))


def default_lr(model: Recommender, batch_size: int | None = None) -> float:
    r"""Returns the learning rate for a model, that of ``model.fit_defaults`` for :obj:`2048` triplets. With more, it
    grows with the square root of the batch, as Adam asks for (`"On the SDEs and Scaling Rules for Adaptive Gradient
    Algorithms" <https://arxiv.org/abs/2205.10287>`_).

    .. code-block:: python

        print(default_lr(model, batch_size=8192))

    Args:
        model (Recommender): The model.
        batch_size (int, optional): The number of triplets in a step. (default: that of a loader, :obj:`2048`)
    """
    return float(model.fit_defaults['lr']) * max(1.0, (batch_size or BATCH_SIZE) / BATCH_SIZE) ** 0.5


def parse_metric(monitor: str, val: HeteroData | None) -> tuple[str, int]:
    metric, _, k = monitor.partition('@')
    if metric not in METRICS or not k.isdigit():
        raise ValueError(f"'monitor' needs to be of the form 'recall@20', one of {list(METRICS)} (got '{monitor}')")
    if val is not None and not 1 <= int(k) <= val[ITEM].num_nodes:
        raise ValueError(f"'monitor' needs a k in [1, {val[ITEM].num_nodes}], the number of items (got '{monitor}')")
    return metric, int(k)


def _seed(*numbers: int) -> int:
    r"""Returns a seed that is another one for other numbers."""
    return int(np.random.SeedSequence([number % 2**63 for number in numbers]).generate_state(1, np.uint64)[0] >> 1)


def _plain(value: Any) -> Any:
    r"""Returns a setting of an optimiser as a checkpoint can hold it."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value.item() if isinstance(value, Tensor | np.generic) else value


def _clone(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value.detach().clone() for key, value in state.items()}
