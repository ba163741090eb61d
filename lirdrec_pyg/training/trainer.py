import csv
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Adam, Optimizer
from torch_geometric.data import HeteroData
from tqdm import tqdm

from lirdrec_pyg.nn.models.recommender import Recommender, plain
from lirdrec_pyg.ranking import METRICS, evaluate
from lirdrec_pyg.training.memory import keep_freed_memory
from lirdrec_pyg.training.sampler import BPRSampler
from lirdrec_pyg.transforms.flush_denormals import FlushDenormals
from lirdrec_pyg.transforms.half_precision import HalfPrecision
from lirdrec_pyg.typing import INTERACTS, ITEM, SIMILAR_TO, USER, Embeddings, modalities

FORMAT = 1  # of the checkpoint
Row = dict[str, float]
ModelT = TypeVar('ModelT', bound=Recommender)


class FitResult(NamedTuple):
    r"""What :func:`fit` returns.

    Args:
        history (list of dict): One row an epoch: ``epoch``, ``loss``, the monitored metric and ``seconds``.
        best_epoch (int): The epoch whose weights the model now has (0: none was better than the first state).
        best_value (float): The monitored metric at that epoch; ``nan`` without a validation view.
    """

    history: list[Row]
    best_epoch: int
    best_value: float


class Loader(Protocol):
    r"""Batches, each with the graph on which to encode it."""

    def __iter__(self) -> Iterator[tuple[HeteroData, Tensor, Tensor, Tensor]]:
        r"""One epoch of (graph, users, positives, negatives), ids local to the graph."""

    def check(self, model: Any) -> None:
        r"""Raises a :class:`ValueError` if the model can't be trained on these batches."""

    def encode(self, model: Any) -> Embeddings:
        r"""Returns the embeddings of all users and items."""

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the state from which the next epoch is drawn."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        r"""Restores it."""


class Callback:
    r"""Watches :func:`fit`; override what is needed."""

    def on_backward(self, model: Recommender, epoch: int, step: int, loss: Tensor) -> None:
        r"""Called after each backward pass, before the update: gradients are in place."""

    def on_step(self, model: Recommender, epoch: int, step: int) -> None:
        r"""Called after each update."""

    def on_epoch(self, model: Recommender, row: Row) -> None:
        r"""Called after each epoch with its row of the history."""


def fit(
    model: Recommender,
    train: HeteroData,
    val: HeteroData | None = None,
    *,
    epochs: int = 1000,
    batch_size: int = 2048,
    lr: float | None = None,
    patience: int | None = None,
    monitor: str = 'recall@20',
    seed: int = 0,
    precision: Literal['fp32', 'bf16'] = 'fp32',
    optimizer: Callable[[list[Parameter]], Optimizer] | None = None,
    loader: Loader | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    history_csv: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> FitResult:
    r"""Trains a model on triplets of :class:`~lirdrec_pyg.training.sampler.BPRSampler`, with early stopping on a
    validation metric, and leaves it in ``eval`` mode with the best weights.

    The same seed, data and initial model give the same result, bit for bit on CPU, also if training was interrupted
    and resumed. The global random state is left as it was.

    Args:
        model (Recommender): The model to train. One without parameters is only evaluated.
        train (HeteroData): The training view, with ``InteractionGraph()`` applied.
        val (HeteroData, optional): The validation view. Without it, training runs for all epochs. (default: ``None``)
        epochs (int, optional): The number of epochs at most. (default: :obj:`1000`)
        batch_size (int, optional): The number of triplets in a step. (default: :obj:`2048`)
        lr (float, optional): The learning rate. (default: that of ``model.fit_defaults``)
        patience (int, optional): Stop when the metric was not better for more than that many epochs, as the released
            implementation of LIRDRec does. (default: that of ``model.fit_defaults``)
        monitor (str, optional): The metric that decides, ``'<metric>@<k>'``. (default: ``'recall@20'``)
        seed (int, optional): The seed of shuffling, negatives and dropout. (default: :obj:`0`)
        precision (str, optional): ``'bf16'`` keeps a copy of the features in bfloat16 and takes the products with them
            in it, the bulk of the work, and on CPU rounds edge weights and what passes between the layers of the graph
            to it, too; parameters, all accumulation and the loss stay in single precision. It pays most where the
            processor has bfloat16 instructions. (default: ``'fp32'``)
        optimizer (callable, optional): Makes the optimiser, *e.g.*, ``lambda params: SGD(params, lr=0.1)``;
            ``lr`` then has no effect. (default: fused Adam at ``lr``)
        loader (Loader, optional): Gives the batches and encodes for validation, *e.g.*,
            :class:`~lirdrec_pyg.MiniBatches`; ``batch_size`` then has no effect. (default: triplets on the whole graph)
        checkpoint (path, optional): A file written before the first and after each epoch, atomically; Ctrl-C leaves
            that of the last whole epoch. (default: :obj:`None`)
        resume (bool, optional): Continue from ``checkpoint``. (default: :obj:`False`)
        history_csv (path, optional): A CSV file of the history, rewritten after each epoch. (default: :obj:`None`)
        callbacks (sequence of Callback, optional): Watchers. (default: none)
        progress (bool, optional): Show a progress bar. (default: :obj:`True`)

    Raises:
        ValueError: If an argument is out of range, or the checkpoint is corrupt, of another model or other data.
        FileNotFoundError: If there is no checkpoint to resume from.
        FloatingPointError: If the loss is not finite; names epoch, step and the first tensor at fault.
    """
    lr = model.fit_defaults['lr'] if lr is None else lr
    patience = int(model.fit_defaults['patience']) if patience is None else patience
    for name, value in [('epochs', epochs), ('batch_size', batch_size), ('patience', patience), ('lr', lr)]:
        if not value > 0:
            raise ValueError(f"'{name}' needs to be positive (got {value})")
    metric, _, k = monitor.partition('@')
    if metric not in METRICS or not k.isdigit():
        raise ValueError(f"'monitor' needs to be of the form 'recall@20', one of {list(METRICS)} (got '{monitor}')")
    if val is not None and not 1 <= int(k) <= val[ITEM].num_nodes:
        raise ValueError(f"'monitor' needs a k in [1, {val[ITEM].num_nodes}], the number of items (got '{monitor}')")
    if precision not in ('fp32', 'bf16'):
        raise ValueError(f"'precision' needs to be 'fp32' or 'bf16' (got {precision!r})")
    if resume and checkpoint is None:
        raise ValueError("'resume' needs a 'checkpoint' to resume from (got None)")
    if loader is not None:
        loader.check(model)

    def validate() -> float:
        model.eval()
        if val is None:
            return float('nan')
        with torch.no_grad():
            embeddings = model.encode(train) if loader is None else loader.encode(model)
        return evaluate(embeddings, val, k=int(k), metrics=[metric])[monitor]

    params = [param for param in model.parameters() if param.requires_grad]
    if len(params) == 0:
        return FitResult([], 0, validate())

    device = params[0].device
    half = precision == 'bf16'
    if loader is None:
        train = FlushDenormals()(train)
        train = HalfPrecision()(train) if half else train
        sampler: Any = BPRSampler(
            train[INTERACTS].edge_index, train[USER].num_nodes, train[ITEM].num_nodes, batch_size=batch_size, seed=seed
        )
    else:
        sampler = loader

    def batches() -> Iterator[tuple[HeteroData, Tensor, Tensor, Tensor]]:
        for batch in sampler:
            if loader is None:
                yield train, *(index.to(device, non_blocking=True) for index in batch)
            else:
                graph, *triplets = batch
                graph = (HalfPrecision()(graph) if half else graph).to(device)
                yield graph, *(index.to(device, non_blocking=True) for index in triplets)

    if optimizer is None:
        optim: Optimizer = Adam(params, lr=float(lr), fused=device.type in ('cpu', 'cuda'))
    else:
        optim = optimizer(params)
    settings = {
        'optimizer': type(optim).__name__,
        'batch_size': batch_size,
        'lr': lr,
        'monitor': monitor,
        'seed': seed,
        'precision': precision,
    }
    settings = {name: plain(value) for name, value in settings.items()}
    header = {
        'format': FORMAT,
        'model': type(model).__name__,
        'hparams': model.hparams,
        'data': fingerprint(train),
        'settings': settings,
    }
    history: list[Row] = []
    best_epoch, best_value, best_state = 0, float('-inf'), _clone(model.state_dict())

    def save(epoch: int) -> None:
        if checkpoint is None:
            return
        state = {
            **header,
            'epoch': epoch,
            'model_state': model.state_dict(),
            'optimizer_state': optim.state_dict(),
            'sampler_state': sampler.state_dict(),
            'rng_state': torch.get_rng_state(),
            'cuda_rng_state': torch.cuda.get_rng_state(device) if device.type == 'cuda' else None,
            'best_epoch': best_epoch,
            'best_value': best_value,
            'best_state': best_state,
            'history': history,
        }
        save_atomically(state, checkpoint)

    with keep_freed_memory(), torch.random.fork_rng(devices=[device] if device.type == 'cuda' else []):
        torch.manual_seed(seed)
        start = 1
        if resume:
            state = load_checkpoint(checkpoint, header)  # type: ignore[arg-type]
            model.load_state_dict(state['model_state'])
            optim.load_state_dict(state['optimizer_state'])
            sampler.load_state_dict(state['sampler_state'])
            torch.set_rng_state(state['rng_state'])
            if device.type == 'cuda' and state['cuda_rng_state'] is not None:
                torch.cuda.set_rng_state(state['cuda_rng_state'], device)
            history, start = state['history'], state['epoch'] + 1
            best_epoch, best_value, best_state = state['best_epoch'], state['best_value'], state['best_state']
        else:
            save(0)

        bar = tqdm(range(start, epochs + 1), desc=type(model).__name__, unit='epoch', disable=not progress)
        for epoch in bar:
            if val is not None and epoch - 1 - best_epoch > patience:
                break
            clock = time.perf_counter()
            loss = _train_epoch(model, batches(), optim, epoch, device, callbacks)
            row: Row = {'epoch': epoch, 'loss': loss}
            if val is not None:
                value = row[monitor] = validate()
                if value > best_value:
                    best_epoch, best_value, best_state = epoch, value, _clone(model.state_dict())
            row['seconds'] = time.perf_counter() - clock
            history.append(row)
            shown = {'loss': f'{loss:.4f}'} | ({monitor: f'{value:.4f}', 'best': f'{best_value:.4f}'} if val else {})
            bar.set_postfix(shown)
            for callback in callbacks:
                callback.on_epoch(model, row)
            save(epoch)
            if history_csv is not None:
                write_csv(history, history_csv)
        bar.close()

    if val is not None:
        model.load_state_dict(best_state)
    model.eval()
    last = history[-1]['epoch'] if history else 0
    return FitResult(history, best_epoch if val else int(last), best_value if val else float('nan'))


def _train_epoch(
    model: Recommender,
    batches: Iterable[tuple[HeteroData, Tensor, Tensor, Tensor]],
    optimizer: Optimizer,
    epoch: int,
    device: torch.device,
    callbacks: Sequence[Callback],
) -> float:
    model.train()
    model.on_epoch_start(epoch)
    losses = []
    for step, (graph, user, pos, neg) in enumerate(batches, start=1):
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(graph, user, pos, neg)
        losses.append(loss.detach())
        if device.type == 'cpu':  # elsewhere asking would wait for the device: asked once an epoch
            _check_loss(losses[-1:], model, graph, epoch, step)
        loss.backward()
        for callback in callbacks:
            callback.on_backward(model, epoch, step, loss)
        optimizer.step()
        for callback in callbacks:
            callback.on_step(model, epoch, step)
    _check_loss(losses, model, graph, epoch, 1)
    return float(torch.stack(losses).mean())


def _check_loss(losses: list[Tensor], model: Recommender, data: HeteroData, epoch: int, first_step: int) -> None:
    finite = torch.isfinite(torch.stack(losses))
    if finite.all():
        return
    step = first_step + int((~finite).nonzero()[0])
    tensors = {f"data['item'].x_{name}": data[ITEM][f'x_{name}'] for name in modalities(data)}
    tensors |= {f'parameter {name}': param for name, param in model.named_parameters()}
    with torch.no_grad():
        tensors |= {f'{name} embeddings': z for name, z in model.encode(data)._asdict().items()}
    culprit = next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), 'the loss alone')
    raise FloatingPointError(f'the loss is not finite in epoch {epoch}, step {step}: first at fault is {culprit}')


def _clone(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value.detach().clone() for key, value in state.items()}


def fingerprint(data: HeteroData) -> dict[str, Any]:
    r"""Returns what a checkpoint remembers of the data it was trained on."""
    out = {
        'num_users': data[USER].num_nodes,
        'num_items': data[ITEM].num_nodes,
        'modalities': modalities(data),
        'interactions': _sha256(data[INTERACTS].edge_index),
    }
    if SIMILAR_TO in data.edge_types and 'edge_index' in data[SIMILAR_TO]:
        out['item_graph'] = _sha256(data[SIMILAR_TO].edge_index)
    for name in modalities(data):  # of large features not all rows, to save time
        x = data[ITEM][f'x_{name}']
        out[f'x_{name}'] = _sha256(x[:: max(1, len(x) // 1024)])
    return out


def _sha256(x: Tensor) -> str:
    x = x.detach().cpu().contiguous().as_subclass(Tensor)
    return hashlib.sha256(x.view(torch.uint8).numpy().tobytes()).hexdigest()


def save_atomically(state: dict[str, Any], path: str | os.PathLike[str]) -> None:
    r"""Writes a checkpoint to a temporary file beside ``path``, then renames it: the old one stays whole until then."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        torch.save(state, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | os.PathLike[str], expected: dict[str, Any] | None = None) -> dict[str, Any]:
    r"""Reads a checkpoint of :func:`fit`, without executing anything in it.

    Args:
        path (path): The file.
        expected (dict, optional): Entries that must be the same in the file, *e.g.*, ``model`` or ``data``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is corrupt, no checkpoint, or differs from ``expected``.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at '{path}'")
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        raise ValueError(f"'{path}' is corrupt or not a checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict) or state.get('format') != FORMAT:
        found = state.get('format') if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"'{path}' is not a checkpoint of format {FORMAT} (got {found})")
    for key, value in (expected or {}).items():
        if state[key] != value:
            raise ValueError(f"the checkpoint '{path}' has another '{key}' (expected {value}, got {state[key]})")
    return state


def load_model(cls: type[ModelT], path: str | os.PathLike[str]) -> ModelT:
    r"""Builds a model from a checkpoint of :func:`fit`, with its best weights, in ``eval`` mode.

    Args:
        cls (type): The class of the model, *e.g.*, :class:`~lirdrec_pyg.nn.LIRDRec`.
        path (path): The file.
    """
    state = load_checkpoint(path, {'model': cls.__name__})
    model = cls(**state['hparams'])
    model.load_state_dict(state['best_state'] if state['best_epoch'] else state['model_state'])
    return model.eval()


def write_csv(rows: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    r"""Writes rows as CSV, to a temporary file first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        with open(temporary, 'w', newline='') as file:
            writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
