r"""Callbacks of :func:`~lirdrec_pyg.fit` that record what goes on in training: rows for a table or a figure."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn import Module
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.models.lirdrec import LIRDRec
from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.nn.propagation import edges
from lirdrec_pyg.training.trainer import Callback, Trainer
from lirdrec_pyg.typing import ITEM, modalities

Row = dict[str, Any]


class GradientBiasProbe(Callback):
    r"""Compares how training moves items by their ID embeddings and by the projections of their features, the gradient
    bias that the `"LIRDRec" <https://arxiv.org/abs/2505.04960>`_ paper argues from.

    A source :math:`s`, an ID table or a projection with the parameters :math:`\theta_s`, gives item :math:`i` a vector
    :math:`\mathbf{r}_{si}`: its row, or its projected features. In a step with the gradient :math:`\mathbf{g}_s`,

    * ``grad_norm`` is :math:`\Vert \mathbf{g}_s \Vert` and ``update_norm`` is :math:`\Vert \Delta \theta_s \Vert`;
    * ``item_grad`` is the mean over items of :math:`\Vert \frac{\partial \mathbf{r}_{si}}{\partial \theta_s}
      \mathbf{g}_s \Vert`, how far the gradient moves the item's vector per unit of learning rate. For a row of IDs it
      is the norm of its gradient, which comes from this item alone; in a projection's all items of the batch add up;
    * ``item_update`` is the mean over items of :math:`\Vert \Delta \mathbf{r}_{si} \Vert`, how far the step moves it;
    * ``active`` is the share of items whose vector the gradient moves at all.

    :attr:`rows` has a row for each recorded step and source, and :attr:`epoch_rows` one for each epoch and source: the
    means over its steps and, as series to judge convergence by, the means over items of :math:`\Vert \mathbf{r}_{si}
    \Vert` (``norm``), of its change within the epoch (``displacement``) and since the start (``distance``).
    :attr:`item_grads` and :attr:`item_updates` keep the values of each item: for each source one tensor
    :math:`(|\mathcal{I}|)` an epoch, the mean over its steps. Training itself is not changed in a single bit.

    .. code-block:: python

        probe = GradientBiasProbe(train)
        fit(VBPR.from_data(train, seed=0), train, val, epochs=2, callbacks=[probe])
        print(probe.epoch_rows[0])

    Args:
        data (HeteroData): The training split.
        ids (sequence of str, optional): The parameters with a row per item. (default: ``('item',)``)
        features (mapping of str to str, optional): For each module that projects features, its input among the
            attributes of ``data['item']``. (default: ``{'projections.<modality>': 'x_<modality>'}`` for all modalities,
            which with ``ids`` suits :class:`~lirdrec_pyg.nn.VBPR` and :class:`~lirdrec_pyg.nn.FREEDOM`)
        every (int, optional): Record only each ``every``-th step of an epoch. (default: :obj:`1`)

    Raises:
        ValueError: If ``every`` is not positive, or the model lacks a parameter or module of that name.
    """

    def __init__(
        self,
        data: HeteroData,
        ids: Sequence[str] = ('item',),
        features: Mapping[str, str] | None = None,
        every: int = 1,
    ) -> None:
        if every < 1:
            raise ValueError(f"'every' needs to be positive (got {every})")
        if features is None:
            features = {f'projections.{name}': f'x_{name}' for name in modalities(data)}
        self.ids = list(ids)
        self.features = {name: data[ITEM][key].float() for name, key in features.items()}
        self.every = every
        self.rows: list[Row] = []
        self.epoch_rows: list[Row] = []
        self.item_grads: dict[str, list[Tensor]] = {name: [] for name in [*self.ids, *self.features]}
        self.item_updates: dict[str, list[Tensor]] = {name: [] for name in [*self.ids, *self.features]}
        self._start: dict[str, Tensor] = {}  # each source's vectors before the first step
        self._last: dict[str, Tensor] = {}  # and at the end of the last epoch
        self._before: dict[str, tuple[Row, Tensor, list[Tensor], Tensor]] = {}  # what `on_step` has to complete
        self._steps: dict[str, list[tuple[Row, Tensor, Tensor]]] = {name: [] for name in self.item_grads}

    @torch.no_grad()
    def on_backward(self, trainer: Trainer, loss: Tensor) -> None:
        model, epoch, step = trainer.model, trainer.epoch, trainer.step
        if not self._start:
            self._check(model)
            self._start = self._last = {name: self._vectors(model, name) for name in self.item_grads}
        if (step - 1) % self.every:
            return
        for name in self.item_grads:
            params = self._params(model, name)
            grads = {
                key: torch.zeros_like(param) if param.grad is None else param.grad for key, param in params.items()
            }
            if name in self.features:
                size = _row_norms(_derivative(model.get_submodule(name), self.features[name], grads))
            else:
                size = _row_norms(grads[name])
            row = {
                'epoch': epoch,
                'step': step,
                'name': name,
                'kind': 'feature' if name in self.features else 'id',
                'grad_norm': _norm(grads.values()),
                'item_grad': float(size.mean()),
                'active': float((size > 0).float().mean()),
            }
            old = [param.detach().clone() for param in params.values()]
            self._before[name] = row, size, old, self._vectors(model, name)

    @torch.no_grad()
    def on_step(self, trainer: Trainer) -> None:
        model = trainer.model
        for name, (row, size, old, vectors) in self._before.items():
            params = self._params(model, name).values()
            moved = _row_norms(self._vectors(model, name) - vectors)
            row['update_norm'] = _norm(new - before for new, before in zip(params, old, strict=True))
            row['item_update'] = float(moved.mean())
            self.rows.append(row)
            self._steps[name].append((row, size, moved))
        self._before = {}

    @torch.no_grad()
    def on_epoch(self, trainer: Trainer, row: dict[str, float]) -> None:
        model = trainer.model
        vectors = {name: self._vectors(model, name) for name in self.item_grads}
        for name, steps in self._steps.items():
            rows, grads, updates = zip(*steps, strict=True)
            means = {key: sum(r[key] for r in rows) / len(rows) for key in list(rows[0])[4:]}
            series = {
                'norm': vectors[name],
                'displacement': vectors[name] - self._last[name],
                'distance': vectors[name] - self._start[name],
            }
            self.epoch_rows.append(
                {'epoch': int(row['epoch']), 'name': name, 'kind': rows[0]['kind']}
                | means
                | {key: float(_row_norms(value).mean()) for key, value in series.items()}
            )
            self.item_grads[name].append(torch.stack(grads).mean(dim=0))
            self.item_updates[name].append(torch.stack(updates).mean(dim=0))
            steps.clear()
        self._last = vectors

    def _check(self, model: Recommender) -> None:
        for key, names, known in [
            ('ids', self.ids, dict(model.named_parameters())),
            ('features', self.features, dict(model.named_modules())),
        ]:
            for name in names:  # type: ignore[attr-defined]
                if name not in known:
                    raise ValueError(f"'{key}' needs to name parts of {type(model).__name__} (got '{name}')")

    def _params(self, model: Recommender, name: str) -> dict[str, Tensor]:
        if name in self.ids:
            return {name: model.get_parameter(name)}
        return dict(model.get_submodule(name).named_parameters())

    def _vectors(self, model: Recommender, name: str) -> Tensor:
        r"""Returns what a source gives each item, :math:`(|\mathcal{I}|, d)`."""
        if name in self.ids:
            return model.get_parameter(name).detach().clone()
        module = model.get_submodule(name)
        training = module.training
        out: Tensor = module.eval()(self.features[name])
        module.train(training)
        return out


class ModalityWeightMonitor(Callback):
    r"""Records how a model weighs its views: for each epoch and view the mean, standard deviation, minimum and maximum
    over users of the weights of its :class:`~lirdrec_pyg.nn.Fusion`, in :attr:`rows`.

    It warns, once each, on the collapse to one view, where the mean weight of it exceeds ``dominant``, and to uniform
    weights, where :math:`\mathrm{mean}_u \max_v |w_{uv} - 1 / |V||` falls below ``tolerance``. Weights that never were
    further from uniform have not collapsed.

    .. code-block:: python

        monitor = ModalityWeightMonitor(train)
        fit(LIRDRec.from_data(train, seed=0), train, val, epochs=2, callbacks=[monitor])
        print(monitor.rows[0])

    Args:
        data (HeteroData): The training split; it is encoded once more each epoch.
        views (sequence of str, optional): The names of the views. (default: the modalities and ``'shared'``)
        dominant (float, optional): The mean weight from which a view is the only one. (default: :obj:`0.9`)
        tolerance (float, optional): The distance within which weights are uniform. (default: :obj:`0.01`)

    Raises:
        ValueError: If the model is no :class:`~lirdrec_pyg.nn.LIRDRec`, or has other views.
    """

    def __init__(
        self,
        data: HeteroData,
        views: Sequence[str] | None = None,
        dominant: float = 0.9,
        tolerance: float = 0.01,
    ) -> None:
        self.data = data
        self.views = [*modalities(data), 'shared'] if views is None else list(views)
        self.dominant = dominant
        self.tolerance = tolerance
        self.rows: list[Row] = []
        self._largest = 0.0  # distance from uniform weights so far
        self._warned: set[str] = set()

    @torch.no_grad()
    def on_epoch(self, trainer: Trainer, row: dict[str, float]) -> None:
        model = trainer.model
        weight = self._weight(model)  # [U, V]
        if weight.size(1) != len(self.views):
            raise ValueError(f"'views' needs {weight.size(1)} names (got {self.views})")
        epoch = int(row['epoch'])
        for view, column in zip(self.views, weight.t(), strict=True):
            stats = {'mean': column.mean(), 'std': column.std(), 'min': column.min(), 'max': column.max()}
            self.rows.append({'epoch': epoch, 'view': view} | {key: float(value) for key, value in stats.items()})

        top, index = weight.mean(dim=0).max(dim=0)
        if float(top) > self.dominant:
            self._warn(f"the view '{self.views[index]}', which weighs {float(top):.3f} on average", epoch)
        distance = float((weight - 1 / weight.size(1)).abs().amax(dim=1).mean())
        if distance < self.tolerance <= self._largest:
            self._warn(f'uniform ones, to within {distance:.1e}', epoch)
        self._largest = max(self._largest, distance)

    def _weight(self, model: Recommender) -> Tensor:
        if not isinstance(model, LIRDRec):
            raise ValueError(f"'model' needs a fusion, as LIRDRec has (got {type(model).__name__})")
        training = model.training
        model.eval()
        views, _ = model.propagate(model.content(self.data), self.data, edges(self.data))
        weight = model.fusion.weight(views)
        model.train(training)
        return weight

    def _warn(self, what: str, epoch: int) -> None:
        kind = what.partition(' ')[0]
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(f'the weights of the views have collapsed to {what} (epoch {epoch})', stacklevel=2)


def _derivative(module: Module, x: Tensor, direction: dict[str, Tensor]) -> Tensor:
    r"""Returns the derivative of a module's output as its parameters move in the given direction."""
    x = x.detach().requires_grad_()  # layers with a backward pass of their own then leave it to autograd
    training = module.training
    module.eval()
    with forward_ad.dual_level():
        params = dict(module.named_parameters())
        duals = {name: forward_ad.make_dual(params[name].detach(), value) for name, value in direction.items()}
        tangent: Tensor = forward_ad.unpack_dual(functional_call(module, duals, (x,))).tangent
    module.train(training)
    return tangent.detach()


def _row_norms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def _norm(tensors: Iterable[Tensor]) -> float:
    return float(sum(tensor.square().sum() for tensor in tensors)) ** 0.5
