r"""When do item IDs pay? Simulates users whose taste the content of items explains to a known share, on a real graph,
and trains models with and without IDs on what they do. Appends a row for each model, share and seed to
``results/quality/when_ids_pay.csv``. What has rows is not run again.

    python -m benchmarks.quality.studies.when_ids_pay --root data --dataset scientific
    python -m benchmarks.quality.studies.when_ids_pay --root data --dataset movielens

The items and their features are those of the dataset. So are the numbers of interactions of each user and of each item;
who interacts with what is drawn anew (:func:`rewire`). A user :math:`u` likes an item :math:`i` by

.. math::
    s_{ui} = \frac{\beta}{\sqrt{d}} \mathbf{p}_u^\top \mathbf{q}_i, \quad
    \mathbf{q}_i = \sqrt{\alpha} \, \mathbf{c}_i + \sqrt{1 - \alpha} \, \mathbf{r}_i

with a normal taste :math:`\mathbf{p}_u`, the first :math:`d` principal components :math:`\mathbf{c}_i` of the item's
features, scaled to variance one, and normal :math:`\mathbf{r}_i`, which nothing but interactions tell of. So the
content explains a share :math:`\alpha` of the variance.

All models are equally wide and train at the same rate on the same splits; validation chooses the epoch and the exponent
of the length. The rows have two that know: ``taste`` ranks by :math:`s_{ui}` and by how often an item is taken,
``taste, content`` by the part of :math:`s_{ui}` that the content explains.
"""

import argparse
import time
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks import rows
from benchmarks.quality import catalogues, jobs
from lirdrec_pyg import Embeddings, Recommender, calibrate, evaluate, fit
from lirdrec_pyg.transforms import InteractionGraph, RandomSplit
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, modalities

RESULTS = rows.RESULTS / 'quality' / 'when_ids_pay.csv'
SHARES = [0.0, 0.25, 0.5, 0.75, 1.0]
CHANNELS = 8  # of a taste
COMPONENTS = 64  # of each modality, that encoders read
SOFTMAX = {'loss': 'softmax', 'scoring': 0.5}


def variants(num_modalities: int) -> dict[str, tuple[str, jobs.Settings]]:
    r"""Returns the models, all as wide as LIRDRec with its views of 64."""
    width = 64 * (num_modalities + 1)
    ids: dict[str, Any] = {'own': False, 'shared': False, 'item_ids': True, 'hidden_channels': width}
    half = {'precision': 'bf16'}
    return {
        'LIRDRec': ('LIRDRec', {'fit': half}),
        'item IDs alone': ('Ablated', {'model': ids, 'fit': half}),
        'LightGCN': ('LightGCN', {'model': {'num_layers': 2, 'hidden_channels': width}}),
        'SoftmaxLIRDRec': ('SoftmaxLIRDRec', {'fit': half}),
        'item IDs alone, softmax': ('Ablated', {'model': ids | SOFTMAX, 'fit': half}),
        'LightGCN, softmax': ('LightGCN', {'model': {'num_layers': 2, 'hidden_channels': width} | SOFTMAX}),
    }


class Taste(NamedTuple):
    r"""What users like, as embeddings whose inner product is :math:`s_{ui}`: the whole, and what content explains."""

    whole: Embeddings
    content: Embeddings


def components(data: HeteroData, channels: int) -> Tensor:
    r"""Returns the first principal components of the items' features, side by side and of length one, scaled to mean
    zero and variance one."""
    x = torch.cat([torch.nn.functional.normalize(data[ITEM][f'x_{name}'].float()) for name in modalities(data)], dim=1)
    u, _, _ = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)
    return u[:, :channels] * len(x) ** 0.5


def draw_taste(data: HeteroData, share: float, strength: float, generator: torch.Generator) -> Taste:
    r"""Returns what users like, of which the content explains a share."""
    content = components(data, CHANNELS)
    user = torch.randn(data[USER].num_nodes, CHANNELS, generator=generator) * strength / CHANNELS**0.5
    other = torch.randn(content.shape, generator=generator)
    explained = share**0.5 * content
    return Taste(Embeddings(user, explained + (1 - share) ** 0.5 * other), Embeddings(user, explained))


def rewire(edge_index: Tensor, score: Tensor, generator: torch.Generator, sweeps: int = 300) -> Tensor:
    r"""Draws interactions of which users and items have as many as in the given ones: random pairs of interactions
    swap their items, by the rule of Metropolis. The more swaps, the nearer are the draws to a probability proportional
    to :math:`\exp \sum_{(u, i)} s_{ui}`.

    Args:
        edge_index (Tensor): Users and items :math:`(2, |\mathcal{E}|)`, each pair once.
        score (Tensor): :math:`s_{ui}`, :math:`(|\mathcal{U}|, |\mathcal{I}|)`.
        generator (torch.Generator): Where the draws come from.
        sweeps (int, optional): How often each interaction is offered another item. (default: :obj:`300`)
    """
    user, item = edge_index[0], edge_index[1].clone()
    present = torch.zeros(score.shape, dtype=torch.bool)
    present[user, item] = True
    half = user.numel() // 2
    for _ in range(sweeps):
        a, b = torch.randperm(user.numel(), generator=generator)[: 2 * half].view(2, half)
        gain = score[user[a], item[b]] + score[user[b], item[a]] - score[user[a], item[a]] - score[user[b], item[b]]
        wanted = torch.rand(half, generator=generator).log() < gain
        wanted &= ~(present[user[a], item[b]] | present[user[b], item[a]])
        a, b = a[wanted], b[wanted]
        new = torch.stack([user[a], user[b]]) * score.size(1) + torch.stack([item[b], item[a]])
        _, index, count = new.unique(return_inverse=True, return_counts=True)
        alone = (count[index] == 1).all(dim=0)  # no other swap wants the same pair
        a, b = a[alone], b[alone]
        present[user[a], item[a]] = present[user[b], item[b]] = False
        item[a], item[b] = item[b], item[a]
        present[user[a], item[a]] = present[user[b], item[b]] = True
    return torch.stack([user, item])


def some_of(data: HeteroData, users: int | None, generator: torch.Generator) -> HeteroData:
    r"""Returns items, features and interactions alone: of so many users, drawn at random, and of the items that they
    have."""
    out, edge_index = HeteroData(), data[INTERACTS].edge_index
    item = torch.arange(data[ITEM].num_nodes)
    if users is not None and users < data[USER].num_nodes:
        drawn = torch.randperm(data[USER].num_nodes, generator=generator)[:users].sort().values
        edge_index = edge_index[:, torch.isin(edge_index[0], drawn)]
        item = edge_index[1].unique()
        edge_index = torch.stack([torch.searchsorted(drawn, edge_index[0]), torch.searchsorted(item, edge_index[1])])
    out[USER].num_nodes = int(edge_index[0].max()) + 1
    for name in modalities(data):
        out[ITEM][f'x_{name}'] = data[ITEM][f'x_{name}'][item]
        if f'has_{name}' in data[ITEM]:
            out[ITEM][f'has_{name}'] = data[ITEM][f'has_{name}'][item]
    out[ITEM].num_nodes = item.numel()
    out[INTERACTS].edge_index = edge_index
    return out


def simulate(data: HeteroData, share: float, strength: float, seed: int) -> tuple[HeteroData, Taste]:
    r"""Returns data whose interactions follow a taste, and the taste."""
    generator = torch.Generator().manual_seed(seed)
    taste = draw_taste(data, share, strength, generator)
    data = copy(data)
    score = taste.whole.user @ taste.whole.item.t()
    data[INTERACTS].edge_index = rewire(data[INTERACTS].edge_index, score, generator)
    return data, taste


def knowing(taste: Embeddings, data: HeteroData, steps: int = 50) -> Embeddings:
    r"""Returns the embeddings of one who knows the taste and how often each item is taken.

    With :math:`b_i` added to its scores, an item is taken as often as it is, if a user takes each with the probability
    :math:`\sigma(s_{ui} + a_u + b_i)`, and as many as it does.
    """
    score = (taste.user @ taste.item.t()).exp()
    user, item = data[INTERACTS].edge_index
    taken, takes = item.bincount(minlength=score.size(1)).float(), user.bincount(minlength=score.size(0)).float()
    of_user, of_item = takes.clone().unsqueeze(1), taken / takes.sum()
    for _ in range(steps):
        odds = score * of_item
        of_user = takes.unsqueeze(1) / (odds / (1 + odds * of_user)).sum(dim=1, keepdim=True)
        odds = score * of_user
        of_item = taken / (odds / (1 + odds * of_item)).sum(dim=0)
    bias = of_item.clamp(min=1e-12).log().unsqueeze(1)
    return Embeddings(torch.cat([taste.user, torch.ones(len(score), 1)], dim=1), torch.cat([taste.item, bias], dim=1))


def measure(
    data: HeteroData, share: float, strength: float, seed: int, names: list[str], **fitting: Any
) -> Iterator[rows.Row]:
    r"""Yields the metrics of each model on one simulation."""
    data, taste = simulate(data, share, strength, seed)
    train, val, test = RandomSplit(seed=seed)(data)
    train = InteractionGraph()(catalogues.content(train, components=COMPONENTS, seed=seed))
    known = variants(len(modalities(data)))
    for name in names:
        row: rows.Row = {'variant': name, 'best_epoch': '', 'epochs': '', 'power': '', 'cpu_seconds': ''}
        if name.startswith('taste'):
            embeddings = knowing(taste.content if name.endswith('content') else taste.whole, data)
        else:
            model, settings = known.get(name, (name, {}))
            built = jobs.build(jobs.job('', model, seed, settings), train)
            clock = time.process_time()
            row |= trained(built, train, val, seed, {**settings.get('fit', {}), **fitting})
            row['cpu_seconds'] = round(time.process_time() - clock, 1)
            embeddings = built.encode(train)
        for split, of in (('val', val), ('test', test)):
            found = evaluate(embeddings, of, k=20, metrics=['recall', 'ndcg'])
            row |= {f'{split}_{metric}': round(value, 6) for metric, value in found.items()}
        yield row


def trained(model: Recommender, train: HeteroData, val: HeteroData, seed: int, fitting: dict[str, Any]) -> rows.Row:
    r"""Trains a model and returns how it went."""
    if not any(param.requires_grad for param in model.parameters()):
        return {}
    result = fit(model, train, val, monitor='ndcg@20', seed=seed, progress=False, **fitting)
    calibrate(model, train, val)
    return {'best_epoch': result.best_epoch, 'epochs': len(result.log), 'power': model.power.item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('data'), help='the folder of the datasets (%(default)s)')
    parser.add_argument('--dataset', nargs='+', default=['scientific'], help='one or more of catalogues.py')
    parser.add_argument('--users', type=int, help='draw so many of them (default: all)')
    parser.add_argument('--shares', type=float, nargs='+', default=SHARES, help='that content explains')
    parser.add_argument('--strength', type=float, default=3.0, help='of the taste, beta (default: %(default)s)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='one simulation for each')
    parser.add_argument('--variant', nargs='+', help='models (default: all)')
    parser.add_argument('--lr', type=float, default=2e-3, help='of all models (default: %(default)s)')
    parser.add_argument('--epochs', type=int, default=1000, help='at most (default: %(default)s)')
    parser.add_argument('--rows', type=Path, default=RESULTS, help='the CSV file to append to')
    args = parser.parse_args()
    for dataset in args.dataset:
        data = some_of(catalogues.load(dataset, args.root), args.users, torch.Generator().manual_seed(0))
        names = args.variant or ['taste', 'taste, content', 'Popularity', *variants(len(modalities(data)))]
        size = {'users': data[USER].num_nodes, 'items': data[ITEM].num_nodes}
        size['interactions'] = data[INTERACTS].edge_index.size(1)
        for seed in args.seeds:
            for share in args.shares:
                cells: rows.Row = {'dataset': dataset, **size, 'strength': args.strength, 'share': share, 'seed': seed}
                left = [name for name in names if not rows.has(args.rows, **cells, variant=name, lr=args.lr)]
                for row in measure(data, share, args.strength, seed, left, lr=args.lr, epochs=args.epochs):
                    rows.append(args.rows, cells | {'lr': args.lr} | row | rows.environment())
                    print(f'{dataset}, share {share:g}, seed {seed}, {row["variant"]}: {row["test_ndcg@20"]:.4f}',
                          flush=True)  # fmt: skip


if __name__ == '__main__':
    main()
