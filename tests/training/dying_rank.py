r"""Runs the distributed example in which the second process is killed in the middle of the epoch ``DIE``."""

import os
import runpy
import signal
from pathlib import Path

from lirdrec_pyg import LIRDRec

loss, epochs, steps = LIRDRec.loss, LIRDRec.on_epoch_start, []


def on_epoch_start(self, epoch):
    steps.clear()
    if epoch == int(os.environ['DIE']) and os.environ['RANK'] == '1':
        steps.append(0)
    epochs(self, epoch)


def dying(self, *args):
    if steps:
        steps.append(0)
    if len(steps) == 3:  # at the second step
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(self, *args)


LIRDRec.loss, LIRDRec.on_epoch_start = dying, on_epoch_start
runpy.run_path(str(Path(__file__).parents[2] / 'examples' / 'distributed.py'), run_name='__main__')
