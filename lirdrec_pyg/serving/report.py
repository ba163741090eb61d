import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg._io import write_bytes
from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.serving._cards import item_cards, user_cards
from lirdrec_pyg.serving._charts import number
from lirdrec_pyg.serving._numbers import curves, facts, new_items, table, training
from lirdrec_pyg.serving._page import Ids, Page, clean
from lirdrec_pyg.serving._pictures import Images
from lirdrec_pyg.typing import ITEM, USER, check

if TYPE_CHECKING:
    from jinja2 import Template


@torch.no_grad()
def report(
    model: Recommender,
    data: HeteroData,
    path: str | os.PathLike[str] = 'report.html',
    *,
    split: HeteroData | None = None,
    users: Ids | int = 6,
    items: Ids | int = 6,
    k: int = 10,
    images: Images | None = None,
    log: Any = None,
    compare: Mapping[str, Recommender] | None = None,
    candidates: Tensor | None = None,
    max_users: int | None = 10_000,
    title: str = 'Recommendations to look at',
    seed: int = 0,
) -> Path:
    r"""Writes one HTML page to look at what a model recommends: users with what they like and what they should like,
    items with their neighbours, new items, the training run, and metrics beside two simple models.

    .. code-block:: python

        result = fit(model, train, val)
        report(model, train, 'report.html', split=test, log=result)  # images='pictures': a folder of pictures

    The page needs no other file and no network, so it can be sent to somebody. Equal input gives equal bytes. It takes
    100 to 400 KB, and some 8 KB more a picture; there are at most 600 pictures.

    Args:
        model (Recommender): The trained model.
        data (HeteroData): The training split, which the model is called on.
        path (path, optional): Where to write. A file that is there is replaced. (default: ``'report.html'``)
        split (HeteroData, optional): The validation or test split. It gives the metrics, and marks what users did
            choose. (default: neither)
        users (sequence or int, optional): The raw ids of the users to show, or how many to draw by ``seed``, at most
            100. (default: :obj:`6`)
        items (sequence or int, optional): The same for the items whose neighbours are shown. (default: :obj:`6`)
        k (int, optional): The number of items recommended to each user, at most 50. (default: :obj:`10`)
        images (path, mapping or callable, optional): The pictures of the items: a folder that holds
            ``<raw id>.jpg`` (or ``.png``, ``.webp`` …), a mapping of raw ids to paths, or a function that gives the
            path for a raw id or :obj:`None`. It needs ``pillow``. (default: none, tiles show titles alone)
        log (FitResult or list of dict, optional): What :func:`~lirdrec_pyg.fit` returned, or its ``log``.
        compare (mapping of str to Recommender, optional): Other trained models by name, for the metrics and curves.
            Popularity and content kNN are always among them, the latter where items have content.
        candidates (Tensor, optional): The items that may be recommended, a bool mask :math:`(|\mathcal{I}|)`.
            (default: all)
        max_users (int, optional): How many users metrics and curves count; of more, so many are drawn by ``seed``.
            :obj:`None` counts all. (default: :obj:`10_000`)
        title (str, optional): The title of the page.
        seed (int, optional): The seed of what is drawn. (default: :obj:`0`)

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: If ``images`` is a folder that is not there.
        ImportError: If there are images, but no ``pillow``.
        TypeError: If there is no model, or ``images`` or ``log`` is something else.
        ValueError: If a number is out of range, an id is unknown, or an argument does not fit the data.
    """
    if not isinstance(model, Recommender):
        raise TypeError(f"'model' needs to be a Recommender: give the model itself (got a {type(model).__name__})")
    data = check(data)
    page = Page(model, data, split, k, images, compare, candidates, max_users, seed)
    shown_users, shown_items, run = page.chosen(USER, users), page.chosen(ITEM, items), training(log)
    cards, views = user_cards(page, shown_users)
    context = {
        'title': clean(title),
        'model': page.name,
        'settings': repr(model),
        'facts': facts(page),
        'k': page.k,
        'users': cards,
        'users_drawn': isinstance(users, int),
        'items': item_cards(page, shown_items),
        'items_drawn': isinstance(items, int),
        'parts': views,
        'new': new_items(page),
        'table': table(page),
        'curves': curves(page),
        'counted': len(page.counted),
        'of_users': page.num_countable,
        'split': split is not None,
        'training': run,
        'pictures': page.pictures,
        'seed': seed,
    }
    html = template().render(context)
    page.pictures.warn()
    path = Path(path)
    write_bytes(path, html.encode('utf-8', 'replace'))
    return path


def template() -> 'Template':
    r"""Returns the template of the page, which escapes all that it is given."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ImportError("'jinja2' is needed for this: pip install jinja2") from error

    source = files('lirdrec_pyg.serving').joinpath('report.html.jinja').read_text('utf-8')
    env = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters |= {'grouped': lambda value: f'{value:,}', 'number': number}
    return env.from_string(source)
