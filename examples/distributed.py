r"""Trains LIRDRec in several processes, on CPU or on one GPU each: a plain script, started by torchrun.

    python examples/distributed.py
    torchrun --nproc-per-node 2 examples/distributed.py
    torchrun --nproc-per-node 2 examples/distributed.py --root data --name baby --checkpoint runs/baby.pt
    torchrun --nproc-per-node 2 examples/distributed.py --root data --name baby --checkpoint runs/baby.pt --resume

`fit` joins the processes, gives each its share of every batch and averages the gradients: losses are those of one
process. The first process writes. When a process dies, `--resume` goes on from the last whole epoch, with any number of
processes. What differs from a script for one process: each has a device of its own, and only the first one prints.
"""

import argparse
import os
from pathlib import Path

import torch

from lirdrec_pyg import Callback, LIRDRec, Trainer, fit
from lirdrec_pyg.datasets import FakeMultimodal, MMRecDataset
from lirdrec_pyg.nn import BPR, SampledSoftmax
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph


class Report(Callback):
    r"""Prints a line for each epoch."""

    def on_epoch(self, trainer: Trainer, row: dict[str, float]) -> None:
        if trainer.is_first_process:
            shown = f'loss {row["loss"]:.6f}, validation recall@20 {row["recall@20"]:.6f}'
            print(f'epoch {trainer.epoch}: {shown}', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', help='holds the folder <name> of the MMRec format (default: generated data)')
    parser.add_argument('--name', default='baby', help='its name (default: %(default)s)')
    parser.add_argument('--cache-dir', help='where to keep the processed data (default: inside the folder)')
    parser.add_argument('--epochs', type=int, default=5, help='default: %(default)s')
    parser.add_argument('--batch-size', type=int, default=2048, help='of all processes together (default: %(default)s)')
    parser.add_argument('--lr', type=float, default=1e-3, help='default: %(default)s')
    parser.add_argument('--loss', choices=['bpr', 'softmax'], default='bpr', help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--checkpoint', type=Path, help='the file to write after each epoch')
    parser.add_argument('--resume', action='store_true', help='go on from --checkpoint')
    args = parser.parse_args()

    fake = FakeMultimodal(num_users=200, num_items=120, seed=0)
    data = (MMRecDataset(args.root, args.name, cache_dir=args.cache_dir) if args.root else fake)[0]
    train, val, _ = FixedSplit()(DCT()(ItemKNNGraph(k=10)(data)))
    cuda = torch.cuda.is_available()
    device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', '0'))) if cuda else torch.device('cpu')
    train, val = InteractionGraph()(train).to(device), val.to(device)
    objective = SampledSoftmax() if args.loss == 'softmax' else BPR()
    model = LIRDRec.from_data(train, seed=args.seed, objective=objective).to(device)
    settings = {'epochs': args.epochs, 'patience': args.epochs, 'batch_size': args.batch_size, 'lr': args.lr}
    settings |= {'seed': args.seed, 'checkpoint': args.checkpoint, 'resume': args.resume}
    fit(model, train, val, **settings, callbacks=[Report()], progress=False)


if __name__ == '__main__':
    main()
