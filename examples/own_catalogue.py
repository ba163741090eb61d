r"""Your own shop in one file: two tables and a folder of pictures in; recommendations, and a page to look at them, out.

    python examples/own_catalogue.py
    python examples/own_catalogue.py --orders orders.csv --products products.csv --images photos
    python examples/own_catalogue.py --orders sales.parquet --products articles.csv --user client --item article \\
        --time day --text title --text-encoder all-MiniLM-L6-v2

Products without an order are recommended, too. Without tables, those of a small bookshop are written to --folder first.
With --time, the last order of each customer is for the test and the one before for validation; else a tenth each is
drawn. Without encoders, a text is its words and a picture its colours, so that it runs anywhere. Any callable will do
that takes texts or pictures and returns a matrix.
"""

import argparse
import hashlib
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lirdrec_pyg import Popularity, autofit, evaluate, recommend, report
from lirdrec_pyg.datasets import InteractionTable
from lirdrec_pyg.features import SentenceTransformerEncoder, TransformersImageEncoder, encode_images, encode_texts
from lirdrec_pyg.transforms import LeaveLastOut, RandomSplit

SHELVES = {  # subjects that customers like, and words that tell a book of each
    'Baking': 'bread flour yeast oven cakes sourdough',
    'Cooking': 'pasta stew vegetables knife tomato spices',
    'Gardening': 'soil seeds roses pruning compost trees',
    'Python': 'programming functions classes testing packages scripts',
    'Machine Learning': 'networks training gradients graphs features models',
    'Mathematics': 'proofs matrices chance integrals graphs numbers',
    'Sailing': 'wind knots harbours charts hull weather',
    'Music': 'piano chords rhythm harmony strings songs',
}
TITLES = ['First Steps in', 'The Art of', 'Modern', 'A Short History of', 'The Complete', 'Advanced', 'Just In:']


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
    parser.add_argument('--images', type=Path, help='a folder of pictures, <id of the product>.jpg (default: none)')
    parser.add_argument('--text-encoder', help='a model of sentence-transformers (default: hashed words)')
    parser.add_argument('--image-encoder', help='a model of transformers, such as openai/clip-vit-base-patch32 '
                        '(default: colours)')  # fmt: skip
    parser.add_argument('--minutes', type=float, help='for training, at most (default: no limit)')
    parser.add_argument('--seed', type=int, default=0, help='of weights and sampling (default: %(default)s)')
    args = parser.parse_args()
    if (args.orders is None) != (args.products is None):
        parser.error('--orders and --products go together')
    if args.orders is None:
        args.orders, args.products, args.images = write_bookshop(args.folder)
        args.user, args.item, args.time, args.text = 'customer', 'sku', 'date', ['name', 'about']
    if args.image_encoder and not args.images:
        parser.error('--image-encoder needs --images')

    table = InteractionTable(args.orders, args.products, user=args.user, item=args.item, time=args.time, text=args.text)
    print(table)
    encoder = SentenceTransformerEncoder(args.text_encoder) if args.text_encoder else hashed_words
    features = {'text': encode_texts(table.texts, encoder, args.folder, ids=table.item_ids, progress=False)}
    pictures = {path.stem: path for path in args.images.iterdir()} if args.images else {}
    if pictures:
        look = TransformersImageEncoder(args.image_encoder) if args.image_encoder else colours
        paths = [pictures.get(item) for item in table.item_ids]
        features['image'] = encode_images(paths, look, args.folder, ids=table.item_ids, progress=False)
    data = table.to_hetero_data(features)

    train, val, test = (LeaveLastOut() if args.time else RandomSplit(seed=args.seed))(data)
    result = autofit(train, val, seed=args.seed, minutes=args.minutes, progress=False)
    print(result)
    train, embeddings = result.train, result.embeddings()
    for name, found in [('Popularity', Popularity()(train)), ('LIRDRec', embeddings)]:
        metrics = evaluate(found, test, k=5)
        print(f'{name:<12}' + '  '.join(f'{key} {value:.4f}' for key, value in metrics.items()))

    frame = recommend(embeddings, train, train['user'].raw_id, k=3)
    frame.to_csv(args.folder / 'recommendations.csv', index=False)
    for customer, rows in list(frame.groupby('user'))[:4]:
        print(f'{customer}: ' + ', '.join(rows['title']))
    print(f'all of them are in {args.folder / "recommendations.csv"}')
    page = report(result.model, train, args.folder / 'page.html', split=test, k=min(10, len(table.item_ids)),
                  log=result.fit, images=pictures or None, title='Recommendations of the shop')  # fmt: skip
    print(f'to look at, in a browser: {page}')


def hashed_words(texts: list[str], width: int = 64) -> Tensor:
    r"""Returns the counts of hashed words, :math:`(N, 64)`."""
    out = torch.zeros(len(texts), width)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            out[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % width] += 1
    return out


def colours(images: list[Any]) -> Tensor:
    r"""Returns how far the colours of an 8 x 8 grid over each picture are from white, :math:`(N, 192)`."""
    grids = [np.asarray(image.resize((8, 8)), dtype=np.float32) for image in images]
    return 1 - torch.from_numpy(np.stack(grids)).flatten(1) / 255


def write_bookshop(folder: Path) -> tuple[Path, Path, Path | None]:
    r"""Writes the tables of a small bookshop, in which most of what a customer buys is of one subject, and covers."""
    draw = random.Random(0)
    products, shelves = ['sku,name,about'], []
    for subject, words in SHELVES.items():
        shelves.append(range(len(products), len(products) + len(TITLES) - 1))  # nobody has bought what is just in
        for title in TITLES:
            about = ' '.join([subject.lower(), *draw.sample(words.split(), 4)])
            products.append(f'B{len(products):02d},{title} {subject},{about}')
    orders = ['customer,sku,date']
    for customer in range(160):
        liked = shelves[customer % len(shelves)]
        books = {*draw.sample(liked, 4), *(draw.choice(draw.choice(shelves)) for _ in range(2))}
        days = draw.sample(range(1, 29), len(books))
        orders += [
            f'c{customer:03d},B{book:02d},2026-01-{day:02d}' for book, day in zip(sorted(books), days, strict=True)
        ]
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in [('orders', orders), ('products', products)]:
        (folder / f'{name}.csv').write_text('\n'.join(lines) + '\n')
    return folder / 'orders.csv', folder / 'products.csv', draw_covers(folder, products[1:])


def draw_covers(folder: Path, products: list[str]) -> Path | None:
    r"""Draws the covers of the books, in the colour of their subject, where there is pillow to draw them by."""
    if find_spec('PIL') is None:
        return None
    from PIL import Image, ImageDraw

    (folder / 'covers').mkdir(exist_ok=True)
    for i, line in enumerate(products):
        sku, title, _ = line.split(',')
        cover = Image.new('RGB', (120, 160), f'hsl({360 * (i // len(TITLES)) // len(SHELVES)}, 45%, 60%)')
        ImageDraw.Draw(cover).multiline_text((10, 12), '\n'.join(title.split()), fill='white', font_size=17)
        cover.save(folder / 'covers' / f'{sku}.png')
    return folder / 'covers'


if __name__ == '__main__':
    main()
