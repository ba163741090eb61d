r"""Your own shop in one file: two tables in, recommendations out, new products included.

    python examples/own_catalogue.py
    python examples/own_catalogue.py --orders orders.csv --products products.csv --time date
    python examples/own_catalogue.py --orders sales.parquet --products articles.csv --user client --item article

Without tables it writes those of a small bookshop to --folder first. Without --time, a tenth of each user's orders is
drawn for validation and for test each; with it, these are the last ones. Without --text-encoder, texts are encoded by a
hashed bag of words, so that it runs anywhere; any callable that takes texts and returns a matrix will do.
"""

import argparse
import hashlib
from pathlib import Path

import torch
from torch import Tensor

from lirdrec_pyg import Popularity, autofit, evaluate, recommend
from lirdrec_pyg.datasets import InteractionTable
from lirdrec_pyg.features import SentenceTransformerEncoder, encode_texts
from lirdrec_pyg.transforms import LeaveLastOut, RandomSplit

PRODUCTS = """sku,name,about
B01,Sourdough at Home,bread baking flour oven
B02,The Bread Bible,bread baking yeast flour
B03,Cakes and Tarts,cake baking sugar oven
B04,Italian Kitchen,cooking pasta tomato oven
B05,One Pot Dinners,cooking stew vegetables
B06,Knife Skills,cooking knife vegetables
B07,Learning Python,programming python beginners
B08,Fluent Python,programming python advanced
B09,Deep Learning,programming networks python
B10,Graph Algorithms,programming networks graphs
B11,Linear Algebra,mathematics matrices graphs
B12,Probability,mathematics chance beginners
B13,Just In: Rye Bread,bread baking rye yeast
B14,Just In: Graph Learning,programming graphs networks python
"""
TASTES = {
    'ann': 'B01 B02 B03 B04', 'bea': 'B02 B01 B04 B03', 'cem': 'B04 B05 B06 B01', 'dag': 'B05 B06 B04 B03',
    'eva': 'B07 B08 B09 B10', 'fox': 'B08 B07 B10 B09', 'gil': 'B09 B10 B11 B08', 'han': 'B11 B12 B10 B09',
    'ida': 'B03 B01 B02 B05', 'jan': 'B10 B09 B08 B11', 'kai': 'B06 B04 B05 B02', 'lea': 'B12 B11 B07 B10',
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', type=Path, default=Path('runs/bookshop'), help='where files go (%(default)s)')
    parser.add_argument('--orders', type=Path, help='a table with a row for each order (CSV, Parquet)')
    parser.add_argument('--products', type=Path, help='a table with a row for each product')
    parser.add_argument('--user', default='customer', help='the column of who ordered (default: %(default)s)')
    parser.add_argument('--item', default='sku', help='the column of what, in both tables (default: %(default)s)')
    parser.add_argument('--time', help='the column of when (default: none; the bookshop has one)')
    parser.add_argument('--text', nargs='+', default=['name', 'about'], help='the columns that say what a product is; '
                        'the first is shown (default: name about)')  # fmt: skip
    parser.add_argument('--text-encoder', help='a model of sentence-transformers (default: hashed words)')
    parser.add_argument('--minutes', type=float, help='for training, at most (default: no limit)')
    parser.add_argument('--seed', type=int, default=0, help='of weights and sampling (default: %(default)s)')
    args = parser.parse_args()
    if (args.orders is None) != (args.products is None):
        parser.error('--orders and --products go together')
    if args.orders is None:
        args.orders, args.products = write_bookshop(args.folder)
        args.user, args.item, args.time, args.text = 'customer', 'sku', 'date', ['name', 'about']

    table = InteractionTable(args.orders, args.products, user=args.user, item=args.item, time=args.time, text=args.text)
    print(table)
    encoder = SentenceTransformerEncoder(args.text_encoder) if args.text_encoder else hashed_words
    text = encode_texts(table.texts, encoder, args.folder, ids=table.item_ids, progress=False)
    data = table.to_hetero_data({'text': text})

    train, val, test = (LeaveLastOut() if args.time else RandomSplit(seed=args.seed))(data)
    result = autofit(train, val, seed=args.seed, minutes=args.minutes, progress=False)
    print(result)
    train, embeddings = result.train, result.embeddings()
    for name, found in [('Popularity', Popularity()(train)), ('LIRDRec', embeddings)]:
        metrics = evaluate(found, test, k=5)
        print(f'{name:<12}' + '  '.join(f'{key} {value:.4f}' for key, value in metrics.items()))

    file = args.folder / 'recommendations.csv'
    frame = recommend(embeddings, train, train['user'].raw_id, k=3)
    frame.to_csv(file, index=False)
    for customer, rows in list(frame.groupby('user'))[:4]:
        print(f'{customer}: ' + ', '.join(rows['title']))
    print(f'all of them are in {file}')


def hashed_words(texts: list[str], width: int = 64) -> Tensor:
    r"""Returns the counts of hashed words, :math:`(N, 64)`."""
    out = torch.zeros(len(texts), width)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            out[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % width] += 1
    return out


def write_bookshop(folder: Path) -> tuple[Path, Path]:
    r"""Writes the tables of a small bookshop."""
    folder.mkdir(parents=True, exist_ok=True)
    orders, products = folder / 'orders.csv', folder / 'products.csv'
    products.write_text(PRODUCTS)
    lines = [
        f'{who},{sku},2026-01-{day:02d}' for who, skus in TASTES.items() for day, sku in enumerate(skus.split(), 1)
    ]
    orders.write_text('customer,sku,date\n' + '\n'.join(lines) + '\n')
    return orders, products


if __name__ == '__main__':
    main()
