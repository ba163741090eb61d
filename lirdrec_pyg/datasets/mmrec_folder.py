import errno
from pathlib import Path

import numpy as np
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg._io import replacing, save_array
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, check, check_modality_name, check_pairs, modalities

COLUMNS = {'rating': 'rating', 'time': 'timestamp', 'split': 'x_label'}


def save_mmrec(data: HeteroData, root: str, name: str) -> Path:
    r"""Writes data as a folder ``<root>/<name>`` in the format of the MMRec framework.
    :class:`~lirdrec_pyg.datasets.MMRecDataset` loads it as the same graph and features.

    The folder holds ``<name>.inter``; for each modality ``<modality>_feat.npy`` and, where items lack it,
    ``<modality>_mask.npy``; ``users.tsv`` and ``items.tsv`` with the raw ids as strings (the numbers from 0 where there
    are none). ``items.tsv`` also has titles, texts and image URLs, where known, each on one line.

    Data without features can be written, too: put ``<modality>_feat.npy``, made of the texts or images in the order of
    ``items.tsv``, into the folder.

    .. code-block:: python

        folder = save_mmrec(data, 'data', 'shop')
        print(sorted(path.name for path in folder.iterdir()))  # image_feat.npy, items.tsv, …

    Args:
        data (HeteroData): The data, with all of its interactions. Where it has ``split``, that becomes ``x_label``.
        root (str): The folder in which to make the folder.
        name (str): Its name.

    Returns:
        The folder, which appears when it is complete.

    Raises:
        FileExistsError: If the folder is there already.
        OSError: If it can't be written. Nothing is left of it.
        ValueError: If the data is one split, breaks the contract, or has users without interactions.
    """
    import pandas as pd

    store = data[INTERACTS]
    folder = Path(root).expanduser() / name
    if folder.name != name or name in ('.', '..'):
        raise ValueError(f"'name' needs to be the name of a folder (got {name!r})")
    there = f"'{folder}' is there already: remove it, or pass another 'name'"
    if 'edge_label_index' in store:
        raise ValueError("'data' needs to hold all interactions (got one split, which has `edge_label_index`)")
    size = data[USER].num_nodes, data[ITEM].num_nodes
    edge_index = check_pairs(store.edge_index, size, unique=True)
    lonely = np.bincount(edge_index[0].numpy(), minlength=size[0]) == 0
    if lonely.any():
        raise ValueError(f"'data' needs an interaction of each user (got none of {int(lonely.sum())} users, first: "
                         f'user {int(lonely.argmax())})')  # fmt: skip
    data = check(data)
    store = data[INTERACTS]
    for modality in modalities(data):
        check_modality_name(modality)
    if folder.exists():
        raise FileExistsError(there)
    try:
        with replacing(folder, folder=True) as temporary:
            table = pd.DataFrame(dict(zip(['userID', 'itemID'], store.edge_index.numpy(), strict=True)))
            for key, column in COLUMNS.items():
                if key in store:
                    values = store[key].numpy()
                    table[column] = values.astype(np.float64) if values.dtype.kind == 'f' else values
            table.to_csv(temporary / f'{name}.inter', sep='\t', index=False)
            for modality in modalities(data):
                save_array(temporary / f'{modality}_feat.npy', data[ITEM][f'x_{modality}'].numpy())
                if f'has_{modality}' in data[ITEM]:
                    save_array(temporary / f'{modality}_mask.npy', data[ITEM][f'has_{modality}'].numpy())
            _write_nodes(temporary / 'users.tsv', data, USER, ['raw_id'])
            _write_nodes(temporary / 'items.tsv', data, ITEM, ['raw_id', 'title', 'text', 'image_url'])
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # of another one that was faster
            raise FileExistsError(there) from error
        raise
    return folder


def _write_nodes(path: Path, data: HeteroData, node_type: str, keys: list[str]) -> None:
    store = data[node_type]
    ids = [str(i) for i in range(store.num_nodes)]
    raw = store.get('raw_id', ids)
    texts = {key: store[key] for key in keys if key in store}
    raw = raw.tolist() if isinstance(raw, Tensor | np.ndarray) else raw
    texts['raw_id'] = [None if value is None else str(value) for value in raw]  # None is refused below
    columns = {f'{node_type}ID': ids}
    for key in keys:
        if key in texts:
            columns[key] = [' '.join((value or '').split()) for value in texts[key]]
    if columns['raw_id'] != texts['raw_id']:
        raise ValueError(f"'raw_id' of '{node_type}' needs to be without None, tabs, line breaks and repeated spaces")
    with path.open('w', encoding='utf-8', newline='\n') as file:
        for row in ([*columns], *zip(*columns.values(), strict=True)):
            file.write('\t'.join(row) + '\n')
