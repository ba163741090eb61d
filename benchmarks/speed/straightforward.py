r"""The thing to beat: a faithful straightforward LIRDRec, written from the description of the released method.

It multiplies an uncoalesced COO adjacency through autograd, keeps a copy of the spectrum, draws negatives in a Python
loop, and tests hits row by row. The mathematics are those of :class:`lirdrec_pyg.LIRDRec`.
"""

import math
import random
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from lirdrec_pyg import LIRDRec
from lirdrec_pyg.typing import INTERACTS, ITEM, SIMILAR_TO, USER


class Straightforward(nn.Module):
    r"""LIRDRec for two modalities, with the initial weights of a given model."""

    def __init__(self, model: LIRDRec, train: HeteroData) -> None:
        super().__init__()
        self.names = list(model.in_channels)
        self.layers, self.reg = model.propagation.num_layers, model.reg_weight
        self.num_users, self.num_items = train[USER].num_nodes, train[ITEM].num_nodes
        self.tables = nn.ParameterList([nn.Parameter(model.user.data[:, v].clone()) for v in range(model.num_views)])
        encoders = [*model.encoders.values(), model.shared_encoder]
        self.lin1 = nn.ModuleList([nn.Linear(e.in_channels, e.hidden_channels) for e in encoders])
        self.lin2 = nn.ModuleList([nn.Linear(e.hidden_channels, e.out_channels, bias=False) for e in encoders])
        for own, encoder in zip(self.lin1, encoders, strict=True):
            own.load_state_dict(encoder.lin1.state_dict())
        for own, encoder in zip(self.lin2, encoders, strict=True):
            own.load_state_dict(encoder.lin2.state_dict())
        self.nets = nn.ModuleList(
            [nn.Sequential(nn.Linear(64, 16), nn.LeakyReLU(), nn.Linear(16, 1)) for _ in encoders]
        )
        for own, net in zip(self.nets, model.fusion.nets, strict=True):
            own.load_state_dict(net.state_dict())
        self.theta = nn.Parameter(model.fusion.theta.data.clone())
        self.init, self.decay = model.fusion.init, model.fusion.decay
        self.gate = self.init
        self.inputs = [train[ITEM][f'x_{name}'].clone() for name in self.names] + [train[ITEM].spectrum.clone()]

        user, item = train[INTERACTS].edge_index
        weight = train[INTERACTS].edge_weight
        index = torch.cat(
            [torch.stack([user, item + self.num_users]), torch.stack([item + self.num_users, user])], dim=1
        )
        size = self.num_users + self.num_items
        self.adj = torch.sparse_coo_tensor(index, torch.cat([weight, weight]), (size, size))
        store = train[SIMILAR_TO]
        self.item_adj = torch.sparse_coo_tensor(store.edge_index.flip(0), store.edge_weight, (self.num_items,) * 2)
        self.last_weight: Tensor | None = None

    def to(self, device: Any) -> Any:  # type: ignore[override]
        self.inputs = [x.to(device) for x in self.inputs]
        self.adj, self.item_adj = self.adj.to(device), self.item_adj.to(device)
        return super().to(device)

    def forward(self) -> tuple[Tensor, Tensor]:
        views = []
        for table, lin1, lin2, x in zip(self.tables, self.lin1, self.lin2, self.inputs, strict=True):
            h = lin2(F.leaky_relu(lin1(x)))
            views.append(F.normalize(torch.cat([table, h], dim=0)))
        z = torch.cat(views, dim=1)
        layers = [z]
        for _ in range(self.layers):
            layers.append(torch.sparse.mm(self.adj, layers[-1]))
        z = torch.stack(layers).sum(dim=0)
        user, item = z[: self.num_users], z[self.num_users :]
        item = item + torch.sparse.mm(self.item_adj, item)
        chunks = user.split(64, dim=1)
        pred = torch.cat([net(chunk) for net, chunk in zip(self.nets, chunks, strict=True)], dim=1)
        weight = torch.softmax(self.gate * pred + (1 - self.gate) * self.theta, dim=1)
        self.last_weight = weight.detach()
        return torch.cat([weight[:, v : v + 1] * chunk for v, chunk in enumerate(chunks)], dim=1), item

    def on_epoch_start(self, epoch: int) -> None:
        if epoch > 1 and self.last_weight is not None:
            self.theta.data = self.last_weight.clone()
        logit = math.log(self.init / (1 - self.init)) + 0.5 * epoch * (epoch + 1) * math.log(self.decay)
        self.gate = 1 / (1 + math.exp(min(-logit, 700.0)))

    def loss(self, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        self.result = user_emb, item_emb = self()
        pos_score = (user_emb[user] * item_emb[pos]).sum(dim=1)
        neg_score = (user_emb[user] * item_emb[neg]).sum(dim=1)
        loss = -F.logsigmoid(pos_score - neg_score).mean()
        return loss + self.reg * ((user_emb**2).mean() + (item_emb**2).mean())


class StraightforwardTrainer:
    r"""Trains and validates it, an epoch at a time."""

    def __init__(
        self,
        model: LIRDRec,
        train: HeteroData,
        val: HeteroData,
        lr: float = 1e-4,
        batch: int = 2048,
        device: str = 'cpu',
    ) -> None:
        self.model, self.device = Straightforward(model, train).to(device), device
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr)
        self.batch = batch
        user, item = train[INTERACTS].edge_index.tolist()
        self.pairs = list(zip(user, item, strict=True))
        self.seen: dict[int, set[int]] = {}
        for u, i in self.pairs:
            self.seen.setdefault(u, set()).add(i)
        self.items = sorted(set(item))
        self.truth: dict[int, list[int]] = {}
        for u, i in zip(*val[INTERACTS].edge_label_index.tolist(), strict=True):
            self.truth.setdefault(u, []).append(i)
        self.random = random.Random(0)

    def triplets(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        r"""Shuffles the pairs and draws a negative for each, by rejection."""
        self.random.shuffle(self.pairs)
        rows = []
        for user, pos in self.pairs:
            neg = self.random.choice(self.items)
            while neg in self.seen[user]:
                neg = self.random.choice(self.items)
            rows.append((user, pos, neg))
        parts = torch.tensor(rows).t()
        return list(zip(*(part.split(self.batch) for part in parts), strict=True))

    def epoch(self, number: int, batches: list[tuple[Tensor, Tensor, Tensor]] | None = None) -> list[float]:
        r"""Trains an epoch, on given batches or its own, and returns the losses."""
        self.model.on_epoch_start(number)
        losses = []
        for user, pos, neg in self.triplets() if batches is None else batches:
            self.optimizer.zero_grad()
            loss = self.model.loss(*(index.to(self.device) for index in (user, pos, neg)))
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    @torch.no_grad()
    def validate(self, k: int = 20, batch: int = 4096) -> float:
        r"""Ranks all items for each user and returns recall@k, testing each row's items for hits in Python."""
        user_emb, item_emb = self.model()
        users = sorted(self.truth)
        tops = []
        for start in range(0, len(users), batch):
            block = users[start : start + batch]
            scores = user_emb[block] @ item_emb.t()
            rows = [row for row, user in enumerate(block) for _ in self.seen.get(user, ())]
            columns = [item for user in block for item in self.seen.get(user, ())]
            scores[rows, columns] = -1e10
            tops.append(scores.topk(50, dim=1).indices.cpu().numpy())
        top = np.concatenate(tops)
        hits = [[item in self.truth[user] for item in row] for user, row in zip(users, top, strict=True)]
        recall = [sum(row[:k]) / len(self.truth[user]) for user, row in zip(users, hits, strict=True)]
        return sum(recall) / len(recall)


def time_epoch(trainer: StraightforwardTrainer, number: int) -> tuple[float, float, float]:
    r"""Returns the seconds of an epoch with its validation, its mean loss and its recall@20."""
    clock = time.perf_counter()
    losses = trainer.epoch(number)
    recall = trainer.validate()
    return time.perf_counter() - clock, sum(losses) / len(losses), recall
