r"""Training runs for test_distributed.py, which starts this in one and in two processes: `task out [path how]`."""

import json
import os
import signal
import sys

import torch

from lirdrec_pyg import Callback, LIRDRec, MiniBatches, Trainer, fit, load_model
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import SampledSoftmax
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph

torch.set_num_threads(1)
KWARGS = {'lr': 5e-3, 'seed': 3, 'progress': False}


def splits():
    data = ItemKNNGraph(k=4)(DCT()(FakeMultimodal(num_users=200, num_items=120, seed=0)[0]))
    train, val, _ = FixedSplit()(data)
    return InteractionGraph()(train), val


class Die(Callback):
    r"""Kills the second process in the middle of an epoch."""

    def on_step(self, trainer):
        if (trainer.epoch, trainer.step) == (3, 2) and not trainer.is_first_process:
            os.kill(os.getpid(), signal.SIGKILL)


class StopOne(Callback):
    r"""Asks for an end in one process alone."""

    def __init__(self, within):
        self.within = within

    def on_step(self, trainer):
        if self.within and (trainer.epoch, trainer.step) == (2, 1) and not trainer.is_first_process:
            trainer.stop()

    def on_epoch(self, trainer, row):
        if not self.within and trainer.epoch == 2 and not trainer.is_first_process:
            trainer.stop()


def state(trainer):
    return {name: value.double().sum().item() for name, value in trainer.model.state_dict().items()}


def whole(objective=None, epochs=3, checkpoint=None, **kwargs):
    train, val = splits()
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, objective=objective, dropout=0.2)
    result = fit(model, train, val, epochs=epochs, batch_size=255, checkpoint=checkpoint, **KWARGS, **kwargs)
    return {'log': result.log, 'user': model.user.detach().flatten()[::50].tolist()}


def main() -> None:
    task, out, *rest = sys.argv[1:]
    found = {}
    if task == 'whole':
        found['bpr'], found['softmax'] = whole(), whole(SampledSoftmax())
        found['long'] = whole(epochs=25, patience=25)['log'][-1]  # networks of PWC are left out from epoch 24 on
        found['stopped'] = [len(whole(epochs=5, callbacks=[StopOne(within)])['log']) for within in (True, False)]
        train, val = splits()
        model = LIRDRec.from_data(train, seed=torch.distributed.get_rank() if world() > 1 else 0, hidden_channels=8)
        trainer = Trainer(model, train, val, monitor='coverage@5')  # all processes start from the first one's weights
        trainer.train_epoch()
        found['coverage'] = trainer.validate()
    elif task == 'resume':
        path, how = rest
        found['parts'] = whole(
            epochs=4, checkpoint=path, resume=how == 'resume', callbacks=[Die()] * (how == 'die')
        )  # fmt: skip
        found['loaded'] = load_model(path).user.detach().flatten()[::50].tolist()
    elif task == 'sampled':
        train, val = splits()
        for sparse in (False, True):
            from lirdrec_pyg import LazyAdam

            model = LIRDRec.from_data(train, seed=0, hidden_channels=8, sparse=sparse)
            loader = MiniBatches(train, [-1, -1, -1], batch_size=64)
            result = fit(
                model, train, val, epochs=3, loader=loader, seed=3, progress=False,
                optimizer=lambda params: LazyAdam(params, lr=5e-3),
            )  # fmt: skip
            found[str(sparse)] = {'log': result.log, 'steps': len(loader), 'weight': model.fusion.last_weight.tolist()}
    rank = os.environ.get('RANK', '0')
    with open(f'{out}.{rank}', 'w') as file:
        json.dump(found, file)


def world() -> int:
    return int(os.environ.get('WORLD_SIZE', '1'))


if __name__ == '__main__':
    main()
