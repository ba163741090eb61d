import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from lirdrec_pyg._io import replacing
from lirdrec_pyg.training.trainer import Callback, Row, Trainer


class EarlyStopping(Callback):
    r"""Stops when the monitored metric was not better for more than ``patience`` epochs, as the released implementation
    of LIRDRec does.

    Args:
        patience (int): The number of epochs.
    """

    def __init__(self, patience: int) -> None:
        if not patience > 0:
            raise ValueError(f"'patience' needs to be positive (got {patience})")
        self.patience = patience

    def on_start(self, trainer: Trainer) -> None:
        if trainer.val is not None and trainer.epoch - trainer.best_epoch > self.patience:
            trainer.stop()

    def on_epoch(self, trainer: Trainer, row: Row) -> None:
        self.on_start(trainer)


class Checkpoint(Callback):
    r"""Saves the run before the first and after each epoch. Where several processes train, the first one writes.

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
