import csv
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from lirdrec_pyg._io import replacing
from lirdrec_pyg.training.trainer import Callback, Row, Trainer

EARLY = 5  # an epoch
FAST = 0.2  # of the loss
LEARNED = 0.9  # of the loss of the first epoch, below which a model has learned
LONGER = 3  # times as long is the wait for one that has not

logger = logging.getLogger(__name__)


class EarlyStopping(Callback):
    r"""Stops when the monitored metric has not been better for some epochs and is not about to be.

    A run may dip after an early peak and be twice as good in the end. So it ends in epoch :math:`t`, where the best one
    so far is :math:`b`, only if both hold:

    - it has waited long enough: :math:`t - b > \max(p, g t)`, for the patience :math:`p` and its growth :math:`g`. The
      patience is three times as long after a peak that came before the model had learned, while the loss was above nine
      tenths of that of the first epoch: such a peak is of the graph, not of training;
    - the metric does not climb: its mean over the last :math:`p / 4` epochs, at least five, is not above that over as
      many before them by more than the share ``climb``.

    It is logged how the run ended, as a warning where the best epoch came early while the loss went on to fall fast.

    .. code-block:: python

        trainer = Trainer(model, train, val, callbacks=[EarlyStopping(patience=20)])
        trainer.fit(epochs=2)

    Args:
        patience (int): The number of epochs :math:`p`.
        growth (float, optional): The growth :math:`g`. (default: :obj:`0.25`)
        climb (float, optional): The share. (default: :obj:`0.002`)
    """

    def __init__(self, patience: int, growth: float = 0.25, climb: float = 0.002) -> None:
        if not patience > 0:
            raise ValueError(f"'patience' needs to be positive (got {patience})")
        if not 0 <= growth < 1:
            raise ValueError(f"'growth' needs to be in [0, 1) (got {growth})")
        if not climb >= 0:
            raise ValueError(f"'climb' needs to be non-negative (got {climb})")
        self.patience, self.growth, self.climb = patience, growth, climb

    def on_start(self, trainer: Trainer) -> None:
        if trainer.val is None or trainer.epoch - trainer.best_epoch <= self._wait(trainer):
            return
        if self._climbs([row[trainer.monitor] for row in trainer.log]):
            return
        trainer.stop()
        if trainer.is_first_process:
            _tell_end(trainer)

    def on_epoch(self, trainer: Trainer, row: Row) -> None:
        self.on_start(trainer)

    def _wait(self, trainer: Trainer) -> float:
        loss = [row['loss'] for row in trainer.log]
        has_learned = trainer.best_epoch == 0 or loss[trainer.best_epoch - 1] <= LEARNED * loss[0]
        return max(self.patience if has_learned else LONGER * self.patience, self.growth * trainer.epoch)

    def _climbs(self, values: list[float]) -> bool:
        half = max(5, -(-self.patience // 4))
        if len(values) < 2 * half:
            return False
        return sum(values[-half:]) > (1 + self.climb) * sum(values[-2 * half : -half])


class ReleasedEarlyStopping(EarlyStopping):
    r"""Stops when the monitored metric was not better for more than ``patience`` epochs, as the released implementation
    of LIRDRec does. It takes the first peak for the last.

    .. code-block:: python

        trainer = Trainer(model, train, val, callbacks=[ReleasedEarlyStopping(patience=20)])
        trainer.fit(epochs=2)  # as `fit(…, stopping='released')`

    Args:
        patience (int, optional): The number of epochs. (default: :obj:`20`)
    """

    def __init__(self, patience: int = 20) -> None:
        super().__init__(patience, growth=0.0, climb=float('inf'))

    def _wait(self, trainer: Trainer) -> float:
        return self.patience


def _tell_end(trainer: Trainer) -> None:
    loss = [row['loss'] for row in trainer.log]
    best = trainer.best_epoch
    fell = 1 - loss[-1] / loss[best - 1] if best > 0 and loss[best - 1] > 0 else 0.0
    early = best <= EARLY and fell > FAST
    logger.log(
        logging.WARNING if early else logging.INFO,
        'training ended in epoch %d: %s was best in epoch %d, and the loss has fallen by %.0f %% since%s',
        trainer.epoch, trainer.monitor, best, 100 * fell,
        '; a peak that early may not be the last: try a larger `patience`' if early else '',
    )  # fmt: skip


class Checkpoint(Callback):
    r"""Saves the run before the first and after each epoch. Where several processes train, the first one writes.

    .. code-block:: python

        trainer = Trainer(model, train, val, callbacks=[Checkpoint('run.pt')])
        trainer.fit(epochs=2)

    Args:
        path (path): The file. It is replaced whole: who is interrupted has that of the last whole epoch.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_start(self, trainer: Trainer) -> None:
        if trainer.epoch == 0:
            trainer.save(self.path)

    def on_epoch(self, trainer: Trainer, row: Row) -> None:
        trainer.save(self.path)


class CSVLog(Callback):
    r"""Writes the log as a CSV file after each epoch.

    .. code-block:: python

        trainer = Trainer(model, train, val, callbacks=[CSVLog('log.csv')])
        trainer.fit(epochs=2)

    Args:
        path (path): The file, which is replaced whole.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_epoch(self, trainer: Trainer, row: Row) -> None:
        if trainer.is_first_process:
            write_csv(trainer.log, self.path)


class ProgressBar(Callback):
    r"""Shows epochs, loss and the monitored metric as a bar.

    .. code-block:: python

        trainer = Trainer(model, train, val, callbacks=[ProgressBar(epochs=2)])
        trainer.fit(epochs=2)

    Args:
        epochs (int): The number of epochs at most.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.bar: Any = None

    def on_start(self, trainer: Trainer) -> None:
        name = type(trainer.model).__name__
        if trainer.is_first_process:
            self.bar = tqdm(total=self.epochs, initial=trainer.epoch, desc=name, unit='epoch')

    def on_epoch(self, trainer: Trainer, row: Row) -> None:
        if self.bar is not None:
            shown = {'loss': f'{row["loss"]:.4f}'}
            if trainer.val is not None:
                shown |= {trainer.monitor: f'{row[trainer.monitor]:.4f}', 'best': f'{trainer.best_value:.4f}'}
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update()

    def on_end(self, trainer: Trainer) -> None:
        if self.bar is not None:
            self.bar.close()


def write_csv(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    r"""Writes rows as CSV, whole or not at all. The columns are those of all rows."""
    with replacing(path) as temporary, temporary.open('w', newline='') as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
