from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import Any, Literal

from torch.nn import Parameter
from torch.optim import Optimizer
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.ranking import evaluate
from lirdrec_pyg.training import processes
from lirdrec_pyg.training.callbacks import Checkpoint, CSVLog, EarlyStopping, ProgressBar, ReleasedEarlyStopping
from lirdrec_pyg.training.checkpoint import unwrap
from lirdrec_pyg.training.loader import Loader
from lirdrec_pyg.training.trainer import Callback, FitResult, PathLike, Precision, Trainer, parse_metric

LEAST_STEPS = 64  # that the default patience waits
STOPPING: dict[str, type[EarlyStopping]] = {'climbing': EarlyStopping, 'released': ReleasedEarlyStopping}


def fit(
    model: Any,
    train: HeteroData,
    val: HeteroData | None = None,
    *,
    epochs: int = 1000,
    batch_size: int | None = None,
    lr: float | None = None,
    patience: int | None = None,
    stopping: Literal['climbing', 'released'] = 'climbing',
    monitor: str = 'recall@20',
    seed: int = 0,
    precision: Precision = 'fp32',
    optimizer: Callable[[list[Parameter]], Optimizer] | None = None,
    loader: Loader | None = None,
    checkpoint: PathLike | None = None,
    resume: bool = False,
    overwrite: bool = False,
    log_csv: PathLike | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> FitResult:
    r"""Trains a model with early stopping on a validation metric, and leaves it in ``eval`` mode with the best weights.

    It is a :class:`~lirdrec_pyg.Trainer` with the callbacks ``EarlyStopping``, ``Checkpoint``, ``CSVLog`` and
    ``ProgressBar``, and keeps what that promises: bit-equal resume, and the global random state left alone.

    .. code-block:: python

        model = LIRDRec.from_data(train, seed=0)
        result = fit(model, train, val, epochs=3, checkpoint='run.pt')
        print(result)

    Args:
        model (Recommender): The model to train. One without parameters is only evaluated.
        train (HeteroData): The training split, with ``InteractionGraph()`` applied.
        val (HeteroData, optional): The validation split. Without it, training runs for all epochs.
            (default: ``None``)
        epochs (int, optional): The number of epochs at most. (default: :obj:`1000`)
        batch_size (int, optional): The number of triplets in a step. (default: a sixteenth of an epoch, and at least
            :obj:`2048`; see :func:`~lirdrec_pyg.training.default_batch_size`)
        lr (float, optional): The learning rate. (default: that of ``model.fit_defaults``, times the square root of
            ``batch_size / 2048`` where that is above one; see :func:`~lirdrec_pyg.training.default_lr`)
        patience (int, optional): Stop when the metric was not better for more than that many epochs, and does not
            climb; see :class:`~lirdrec_pyg.training.EarlyStopping`. (default: that of ``model.fit_defaults``,
            and so many that they have :obj:`64` steps)
        stopping (str, optional): ``'released'`` stops at the first peak that lasts, as the released implementation
            does: :class:`~lirdrec_pyg.training.ReleasedEarlyStopping`. (default: ``'climbing'``)
        monitor (str, optional): The metric that decides, ``'<metric>@<k>'``. (default: ``'recall@20'``)
        seed (int, optional): The seed of shuffling, negatives and dropout. (default: :obj:`0`)
        precision (str, optional): ``'bf16'`` stores features and edge weights in bfloat16 for training, and takes the
            products with them in it. Parameters, sums and the loss stay in single precision.
            (default: ``'fp32'``)
        optimizer (callable, optional): Makes the optimiser, *e.g.*, ``lambda params: SGD(params, lr=0.1)``, in place
            of ``lr``. (default: fused Adam)
        loader (Loader, optional): Gives the batches in place of ``batch_size``, *e.g.*,
            :class:`~lirdrec_pyg.MiniBatches`. (default: triplets on the whole graph)
        checkpoint (path, optional): A file to write after each epoch. (default: :obj:`None`)
        resume (bool, optional): Go on from ``checkpoint``. (default: :obj:`False`)
        overwrite (bool, optional): Start anew where ``checkpoint`` exists. (default: :obj:`False`)
        log_csv (path, optional): A CSV file of the log. (default: :obj:`None`)
        callbacks (sequence of Callback, optional): Watchers. (default: none)
        progress (bool, optional): Show a progress bar. (default: :obj:`True`)

    Returns:
        FitResult: The log, the best epoch and its value.

    Raises:
        ValueError: If an argument is out of range or would be ignored, or the checkpoint is damaged, of another model
            or other data.
        FileExistsError: If there is a checkpoint, and neither ``resume`` nor ``overwrite`` is set.
        FileNotFoundError: If there is no checkpoint to resume from.
        FloatingPointError: If the loss is not finite; names epoch, step and the first tensor at fault.
    """
    if not epochs > 0:
        raise ValueError(f"'epochs' needs to be positive (got {epochs})")
    if patience is not None and not patience > 0:
        raise ValueError(f"'patience' needs to be positive (got {patience})")
    if patience is not None and val is None:
        raise ValueError(f"'patience' needs a validation split, 'val', to wait for (got {patience} and None)")
    if stopping not in STOPPING:
        raise ValueError(f"'stopping' needs to be one of {list(STOPPING)} (got {stopping!r})")
    for name, given in [('resume', resume), ('overwrite', overwrite)]:
        if given and checkpoint is None:
            raise ValueError(f"'{name}' needs a 'checkpoint' to {name} (got None)")
    if resume and overwrite:
        raise ValueError("'resume' and 'overwrite' exclude each other (got both)")
    if checkpoint is not None and not (resume or overwrite) and processes.rank() == 0 and Path(checkpoint).exists():
        raise FileExistsError(f"'{checkpoint}' exists: pass 'resume=True' to go on from it, or 'overwrite=True'")
    if not any(param.requires_grad for param in unwrap(model).parameters()):
        return _validated(unwrap(model), train, val, monitor)
    trainer = Trainer(
        model,
        train,
        val,
        batch_size=batch_size,
        lr=lr,
        monitor=monitor,
        seed=seed,
        precision=precision,
        optimizer=optimizer,
        loader=loader,
        callbacks=callbacks,
    )
    if resume and checkpoint is not None:
        trainer.resume(checkpoint)
    rule = STOPPING[stopping]
    trainer.callbacks.append(rule(int(patience or _default_patience(trainer))))
    if checkpoint is not None:
        trainer.callbacks.append(Checkpoint(checkpoint))
    if log_csv is not None:
        trainer.callbacks.append(CSVLog(log_csv))
    if progress:
        trainer.callbacks.append(ProgressBar(epochs))
    return trainer.fit(epochs)


def _default_patience(trainer: Trainer) -> int:
    r"""Returns the patience that suits the model, and more where an epoch has few steps."""
    patience = int(trainer.model.fit_defaults['patience'])
    steps = len(trainer.loader) if isinstance(trainer.loader, Sized) else LEAST_STEPS
    return max(patience, -(-LEAST_STEPS // max(steps, 1)))


def _validated(model: Recommender, train: HeteroData, val: HeteroData | None, monitor: str) -> FitResult:
    r"""Returns what there is to tell of a model without parameters."""
    metric, k = parse_metric(monitor, val)
    model.eval()
    value = float('nan') if val is None else evaluate(model(train), val, k=k, metrics=[metric])[monitor]
    return FitResult([], 0, value)
