r"""Trains LIRDRec in several processes, on CPU by gloo or on GPUs by nccl: each takes its share of every batch, and
DistributedDataParallel averages the gradients, so that the losses are those of one process.

    python examples/distributed.py
    torchrun --nproc-per-node 2 examples/distributed.py
    torchrun --nproc-per-node 2 examples/distributed.py --root data --name baby --checkpoint runs/baby.pt
    torchrun --nproc-per-node 2 examples/distributed.py --root data --name baby --checkpoint runs/baby.pt --resume

All processes draw the same batches from the same seed. Each ranks its share of the validation users. The first one
writes the checkpoint after each epoch, to a temporary file first: when a process dies, `--resume` goes on from the
last whole epoch, with any number of processes, and `lirdrec_pyg.load_model` reads the same file.
"""

import argparse
import os
from copy import copy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.data import HeteroData

from lirdrec_pyg import BPRSampler, LIRDRec, evaluate
from lirdrec_pyg.datasets import FakeMultimodal, MMRecDataset
from lirdrec_pyg.training.trainer import FORMAT, fingerprint, load_checkpoint, save_atomically
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, USER


class Step(torch.nn.Module):
    r"""The loss of triplets as a module's output, which is what DistributedDataParallel watches."""

    def __init__(self, model: LIRDRec, train: HeteroData) -> None:
        super().__init__()
        self.model = model
        self.train_view = train

    def forward(self, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        return self.model.loss(self.train_view, user, pos, neg)


def share(batch: tuple[Tensor, ...], rank: int, world: int) -> tuple[list[Tensor], float]:
    r"""Returns a process' part of a batch and its weight: the mean over the processes of weighted means over their
    parts is the mean over the batch."""
    size = len(batch[0])
    part = [index[rank::world] for index in batch]
    if len(part[0]) == 0:  # takes part with weight zero
        return [index[:1] for index in batch], 0.0
    return part, len(part[0]) * world / size


def validate(model: LIRDRec, train: HeteroData, val: HeteroData, rank: int, world: int) -> float:
    r"""Returns recall@20 over all users, each ranked by one process."""
    label = val[INTERACTS].edge_label_index
    own = copy(val)
    own[INTERACTS].edge_label_index = label[:, label[0] % world == rank]
    total = torch.zeros(2, dtype=torch.double, device=model.user.device)
    model.eval()
    with torch.no_grad():
        embeddings = model.encode(train)
    if own[INTERACTS].edge_label_index.numel() > 0:
        total[1] = len(own[INTERACTS].edge_label_index[0].unique())
        total[0] = evaluate(embeddings, own, k=20, metrics=['recall'])['recall@20'] * total[1]
    dist.all_reduce(total)
    return float(total[0] / total[1])


def load(args: argparse.Namespace) -> HeteroData:
    if args.root is None:
        return FakeMultimodal(num_users=200, num_items=120, seed=0)[0]
    return MMRecDataset(args.root, args.name, cache_dir=args.cache_dir)[0]


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
    if args.resume and not args.checkpoint:
        parser.error('--resume needs --checkpoint')

    for name, value in [('RANK', '0'), ('WORLD_SIZE', '1'), ('MASTER_ADDR', '127.0.0.1'), ('MASTER_PORT', '29500')]:
        os.environ.setdefault(name, value)  # without torchrun: one process
    cuda = torch.cuda.is_available()
    dist.init_process_group('nccl' if cuda else 'gloo')
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', '0'))) if cuda else torch.device('cpu')
    try:
        run(args, rank, world, device)
    finally:
        dist.destroy_process_group()


def run(args: argparse.Namespace, rank: int, world: int, device: torch.device) -> None:
    train, val, _ = FixedSplit()(DCT()(ItemKNNGraph(k=10)(load(args))))
    train, val = InteractionGraph()(train).to(device), val.to(device)
    model = LIRDRec.from_data(train, seed=args.seed, loss=args.loss).to(device)
    edge_index, sizes = train[INTERACTS].edge_index, (train[USER].num_nodes, train[ITEM].num_nodes)
    sampler = BPRSampler(edge_index, *sizes, args.batch_size, args.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, fused=True)
    header = {'format': FORMAT, 'model': 'LIRDRec', 'hparams': model.hparams, 'data': fingerprint(train)}
    header['settings'] = {'batch_size': args.batch_size, 'lr': args.lr, 'seed': args.seed}
    state: dict[str, Any] = {'epoch': 0, 'best_epoch': 0, 'best_value': float('-inf'), 'best_state': {}, 'history': []}
    if args.resume:
        state = load_checkpoint(args.checkpoint, header)
        model.load_state_dict(state['model_state'])
        optimizer.load_state_dict(state['optimizer_state'])
        sampler.load_state_dict(state['sampler_state'])
    # Buffers are equal already: each process sees all users. Networks of PWC lack a gradient once they are left out.
    settings = {'device_ids': [device.index] if device.type == 'cuda' else None, 'broadcast_buffers': False}
    step = DistributedDataParallel(Step(model, train), find_unused_parameters=True, **settings)

    for epoch in range(state['epoch'] + 1, args.epochs + 1):
        torch.manual_seed(args.seed + epoch)  # of dropout and shared negatives, the same wherever training began
        model.train()
        model.on_epoch_start(epoch)
        losses = []
        for batch in sampler:
            part, weight = share(batch, rank, world)
            optimizer.zero_grad()
            loss = step(*(index.to(device) for index in part)) * weight
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        loss = torch.stack(losses).mean()
        dist.all_reduce(loss)
        value = validate(model, train, val, rank, world)
        row = {'epoch': epoch, 'loss': float(loss) / world, 'recall@20': value}
        state |= {'epoch': epoch, 'history': [*state['history'], row]}
        if value > state['best_value']:
            best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            state |= {'best_epoch': epoch, 'best_value': value, 'best_state': best}
        if rank == 0:
            print(f'epoch {epoch}: loss {row["loss"]:.6f}, validation recall@20 {value:.6f}', flush=True)
            if args.checkpoint:
                parts = {'model_state': model.state_dict(), 'optimizer_state': optimizer.state_dict()}
                save_atomically({**header, **state, **parts, 'sampler_state': sampler.state_dict()}, args.checkpoint)


if __name__ == '__main__':
    main()
