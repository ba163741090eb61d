r"""LIRDRec in a hundred lines of PyTorch Geometric: the model on stock `LGConv` and `torch.fft`, formula beside code.

    python examples/lirdrec_in_pyg.py

Nothing of lirdrec_pyg is imported. Read this to see what the paper (https://arxiv.org/abs/2505.04960) does. lirdrec_pyg
does the same faster, on data of your own; from equal weights both agree to 1e-5, which a test holds. The data are
generated: items have topics, which show in their images and texts, and users have tastes.
"""

import argparse
import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LeakyReLU, Linear, ModuleList, Parameter, Sequential
from torch_geometric.data import HeteroData
from torch_geometric.metrics import LinkPredNDCG, LinkPredRecall
from torch_geometric.nn import LGConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm


def dct(x: Tensor) -> Tensor:
    r"""s_k = c_k Σ_n x_n cos(π k (2n + 1) / 2C), c_0 = √(1/C), c_k = √(2/C): the orthonormal type II, by one FFT."""
    size = x.size(-1)
    v = torch.fft.fft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1))
    k = torch.arange(size)
    s = (v * torch.exp(-0.5j * math.pi * k / size)).real
    return s * torch.where(k == 0, math.sqrt(1 / size), math.sqrt(2 / size))


def knn_graph(x: Tensor, k: int) -> Tensor:
    r"""Edges neighbour → item, from the k items (itself included) of the largest cosine."""
    x = F.normalize(x)
    return torch.stack([(x @ x.t()).topk(k).indices.flatten(), torch.arange(len(x)).repeat_interleave(k)])


class LIRDRec(torch.nn.Module):
    def __init__(self, num_users: int, widths: list[int], d: int = 64, num_layers: int = 2, reg: float = 1e-4):
        super().__init__()
        views = [*widths, sum(widths)]  # one view for each modality, and a shared one
        self.num_layers, self.reg, self.epoch = num_layers, reg, 1
        self.user = Parameter(torch.nn.init.xavier_normal_(torch.empty(num_users, len(views), d)))  # P; items have none
        self.encoders = ModuleList(
            Sequential(Linear(width, 4 * d), LeakyReLU(0.01), Linear(4 * d, d, bias=False)) for width in views
        )
        self.nets = ModuleList(Sequential(Linear(d, d // 4), LeakyReLU(0.01), Linear(d // 4, 1)) for _ in views)
        self.theta = Parameter(torch.nn.init.xavier_normal_(torch.empty(num_users, len(views))))
        self.conv = LGConv(normalize=False)  # the weights were normalised once

    def forward(self, data: HeteroData) -> tuple[Tensor, Tensor]:
        # h_m = W2_m φ(W1_m x_m + b_m) for each modality; the shared view has the spectra of all for x
        xs = [data['item'].x_image, data['item'].x_text]
        xs.append(torch.cat([dct(x) for x in xs], dim=-1))
        h = torch.stack([encoder(x) for encoder, x in zip(self.encoders, xs, strict=True)], dim=1)
        # z⁰ = ‖_v normalize [P_v; H_v],  z = Σ_l Âˡ z⁰,  Â = D^-½ A D^-½
        z = layer = F.normalize(torch.cat([self.user, h]), dim=-1).flatten(1)
        for _ in range(self.num_layers):
            layer = self.conv(layer, data.edge_index, data.edge_weight)
            z = z + layer
        user, item = z.split([len(self.user), len(h)])
        # u = ‖_v w_uv z_uv,  w_u = softmax(a f(z_u) + (1 - a) θ_u),  a(t) = σ(logit a₀ + ½ t(t + 1) ln b)
        a, t = torch.tensor(0.9), self.epoch
        a = torch.sigmoid(torch.logit(a) + t * (t + 1) / 2 * math.log(0.9))
        views = user.view_as(self.user)
        f = torch.cat([net(views[:, v]) for v, net in enumerate(self.nets)], dim=1)
        self.weight = (a * f + (1 - a) * self.theta).softmax(dim=1)
        user = (self.weight.unsqueeze(-1) * views).flatten(1)
        # i = z_i + (S z)_i on the cosine-kNN graphs of the modalities
        return user, item + self.conv(item, data.similar, data.similar_weight)

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        # mean softplus(s⁻ - s⁺) + λ (mean U² + mean I²),  s = ⟨u, i⟩
        u, i = self(data)
        difference = (u[user] * (i[neg] - i[pos])).sum(dim=-1)
        return F.softplus(difference).mean() + self.reg * (u.square().mean() + i.square().mean())

    def start_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if epoch > 1:  # progressive weight copying: θ_u ← the last w_u
            self.theta.data.copy_(self.weight.detach())


def add_graphs(data: HeteroData, k: int = 10, image_weight: float = 0.1) -> HeteroData:
    r"""Adds Â, over users and then items, and S, whose edges weigh 1/k times the modality's weight."""
    user, item = data['user', 'item'].edge_index
    item = item + data['user'].num_nodes
    edges = torch.stack([torch.cat([user, item]), torch.cat([item, user])])
    data.edge_index, data.edge_weight = gcn_norm(edges, add_self_loops=False)
    graphs = [knn_graph(data['item'].x_image, k), knn_graph(data['item'].x_text, k)]
    data.similar = torch.cat(graphs, dim=1)
    share = torch.tensor([image_weight, 1 - image_weight]) / k
    data.similar_weight = share.repeat_interleave(graphs[0].size(1))
    return data


def generate(num_users: int = 300, num_items: int = 200, num_topics: int = 8) -> tuple[HeteroData, Tensor]:
    r"""Returns data to train on, and a further item of each user to find."""
    topic = torch.randn(num_items, num_topics).softmax(dim=1)
    taste = torch.randn(num_users, num_topics)
    liked = (taste @ topic.t() + 0.2 * torch.randn(num_users, num_items)).topk(9).indices
    data = HeteroData()
    data['user'].num_nodes, data['item'].num_nodes = num_users, num_items
    for name, width in (('image', 48), ('text', 24)):
        x = topic @ torch.randn(num_topics, width)
        data['item'][f'x_{name}'] = x + 0.1 * torch.randn_like(x)
    held_out = torch.randint(9, (num_users, 1))
    rest = liked.scatter(1, held_out, -1).flatten()
    user = torch.arange(num_users).repeat_interleave(9)
    data['user', 'item'].edge_index = torch.stack([user, rest])[:, rest >= 0]
    return add_graphs(data), torch.stack([torch.arange(num_users), liked.gather(1, held_out).flatten()])


def test(score: Tensor, data: HeteroData, wanted: Tensor) -> str:
    user, item = data['user', 'item'].edge_index
    top = score.index_put((user, item), torch.tensor(-torch.inf)).topk(10).indices  # never what one has
    out = []
    for metric in (LinkPredRecall(k=10), LinkPredNDCG(k=10)):
        metric.update(top, wanted)
        out.append(f'{type(metric).__name__[8:].lower()}@10 {float(metric.compute()):.4f}')
    return '  '.join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--epochs', type=int, default=60, help='(default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of data, weights and sampling (default: %(default)s)')
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    data, wanted = generate()
    user, pos = data['user', 'item'].edge_index
    num_users, num_items = data['user'].num_nodes, data['item'].num_nodes
    popularity = pos.bincount(minlength=num_items).float().expand(num_users, -1)
    print(f'popularity  {test(popularity, data, wanted)}')

    model = LIRDRec(num_users, [data['item'].x_image.size(1), data['item'].x_text.size(1)])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    known, seen = user * num_items + pos, pos.unique()
    for epoch in range(1, args.epochs + 1):
        model.start_epoch(epoch)
        for batch in torch.randperm(len(user)).split(512):
            neg = seen[torch.randint(len(seen), batch.shape)]
            while (bad := torch.isin(user[batch] * num_items + neg, known)).any():  # negatives are new to their user
                neg[bad] = seen[torch.randint(len(seen), (int(bad.sum()),))]
            optimizer.zero_grad()
            loss = model.loss(data, user[batch], pos[batch], neg)
            loss.backward()
            optimizer.step()
        if epoch % 20 == 0:
            with torch.no_grad():
                u, i = model(data)
            print(f'epoch {epoch:3}   {test(u @ i.t(), data, wanted)}  loss {loss.item():.4f}')


if __name__ == '__main__':
    main()
