import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch_geometric.data import HeteroData

from lirdrec_pyg._io import digest, load_sealed, save_sealed
from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.nn.part import build, find_class
from lirdrec_pyg.typing import INTERACTS

FORMAT, KIND = 2, 'lirdrec_pyg checkpoint'
logger = logging.getLogger('lirdrec_pyg')


def unwrap(model: Any) -> Recommender:
    r"""Returns the model within :func:`torch.compile`, :class:`~torch.optim.swa_utils.AveragedModel` and the like.

    Raises:
        ValueError: If there is none.
    """
    inner = model
    while not isinstance(inner, Recommender):
        wrapped = getattr(inner, '_orig_mod', None) or getattr(inner, 'module', None)
        if not isinstance(wrapped, Module):
            raise ValueError(f"'model' needs to be a Recommender (got {type(model).__name__})")
        inner = wrapped
    return inner


def data_identity(data: HeteroData) -> dict[str, str]:
    r"""Returns a digest of each thing of the data that training may depend on, all but texts, under a name to tell."""
    out = {}
    for kind, store in [*data.node_items(), *data.edge_items()]:
        for key, value in store.items():
            if key == 'raw_id' or not isinstance(value, list | str):
                out[f'{kind if isinstance(kind, str) else kind[1]}.{key}'] = digest(_plain_adjacency(value))
    return out


def label_identity(data: HeteroData | None) -> str | None:
    r"""Returns a digest of what validation depends on: the positives and what is not ranked."""
    return None if data is None else digest(data[INTERACTS].edge_label_index, data[INTERACTS].edge_index)


def _plain_adjacency(value: Any) -> Any:
    return value.csr() if type(value).__name__ == 'SparseTensor' else value


def raw_ids(data: HeteroData, model: Recommender) -> dict[str, list[str] | None]:
    r"""Returns the raw ids of the nodes for which the model has a row each, :obj:`None` where the data has none."""
    out: dict[str, list[str] | None] = {}
    for kind in sorted(set(model.tables().values())):
        ids = data[kind].get('raw_id')
        out[kind] = None if ids is None else [str(one) for one in ids]
    return out


def save_checkpoint(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    r"""Writes a checkpoint whole or not at all. It is a file of :func:`torch.save` with a checksum."""
    save_sealed(dict(state), path, KIND)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    r"""Reads a checkpoint of :func:`~lirdrec_pyg.fit`, without executing anything in it.

    .. code-block:: python

        state = load_checkpoint('model.pt')  # what `fit(…, checkpoint='model.pt')` wrote
        print(list(state))

    Returns:
        dict: The state of the run, by name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or no checkpoint.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at '{path}'")
    try:
        state: dict[str, Any] = load_sealed(path, KIND)
    except OSError:
        raise
    except Exception as error:
        why = error if type(error) is ValueError else type(error).__name__
        raise ValueError(f"'{path}' is corrupt or not a checkpoint ({why}): use another copy of it") from error
    if state.get('format') != FORMAT:
        raise ValueError(f"'{path}' is not a checkpoint of format {FORMAT} (got {state.get('format')})")
    return state


def compare(path: str | os.PathLike[str], saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    r"""Raises a :class:`ValueError` that names the first thing in which a checkpoint differs from a run."""
    for key, value in own.items():
        known = saved[key]
        if known == value or (key == 'validation' and None in (known, value)):
            continue
        if isinstance(value, dict) and isinstance(known, dict):
            names = [name for name in {**known, **value} if known.get(name) != value.get(name)]
            got = ', '.join(names) if key == 'data' else ', '.join(
                f'{name}: {known.get(name)!r} there, {value.get(name)!r} here' for name in names
            )  # fmt: skip
        else:
            got = f'{known!r} there, {value!r} here'
        raise ValueError(
            f"the checkpoint '{path}' has another '{key}' ({got}): resume with what it was made of, or start anew with "
            'another file'
        )


def load_model(path: str | os.PathLike[str], data: HeteroData | None = None, seed: int = 0) -> Recommender:
    r"""Builds a model from a checkpoint of :func:`~lirdrec_pyg.fit`, with its best weights, in ``eval`` mode and in
    their precision. It is the model alone, without what it was wrapped in.

    With data, its users (and items, where the model has a vector for each) are aligned by raw id: who was known keeps
    their vectors, who is new starts as in training, who is gone is dropped. How many of each is logged. This is a warm
    start: train the model further by ``fit``.

    .. code-block:: python

        model = load_model('model.pt')  # what `fit(…, checkpoint='model.pt')` wrote
        print(evaluate(model(train), test, k=10))

    Args:
        path (path): The file.
        data (HeteroData, optional): A training split with other users or items than those of the checkpoint.
            (default: those of the checkpoint)
        seed (int, optional): The seed of the vectors of who is new. (default: :obj:`0`)

    Returns:
        Recommender: The model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no checkpoint, the class of the model is not known, or one side has no raw ids.
    """
    state = load_checkpoint(path)
    settings, ids = state['hparams'], state['ids']
    weights = state['best_state'] if state['best_epoch'] else state['model_state']
    if data is not None:
        found = find_class(settings['class']).sizes(data)  # type: ignore[attr-defined]
        settings = settings | {name: found[name] for name in ('num_users', 'num_items') if name in found}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Recommender = build(settings)
    model.to(next((x.dtype for x in weights.values() if x.is_floating_point() and x.dim() > 0), None))
    if data is not None:
        own = raw_ids(data, model)
        weights = _aligned(weights, model, ids, own, path)
        ids = own
    model.load_state_dict(weights)
    model.ids = ids
    return model.eval()


def _aligned(
    weights: Mapping[str, Tensor],
    model: Recommender,
    old: Mapping[str, list[str] | None],
    new: Mapping[str, list[str] | None],
    path: str | os.PathLike[str],
) -> dict[str, Tensor]:
    r"""Returns weights whose rows are those of the nodes with the new raw ids."""
    places = {}
    for kind, ids in new.items():
        known = old.get(kind)
        if ids is None or known is None:
            lacking = 'the data has' if ids is None else f"the checkpoint '{path}' has"
            raise ValueError(f"rows of {kind}s need raw ids to be aligned by, `data['{kind}'].raw_id` ({lacking} none)")
        position = {raw: row for row, raw in enumerate(known)}
        rows = torch.tensor([position.get(raw, -1) for raw in ids], dtype=torch.long)
        places[kind] = (rows >= 0).nonzero().view(-1), rows[rows >= 0]
        kept = len(places[kind][0])
        logger.warning('%ss by raw id: %d known, %d new, %d gone', kind, kept, len(ids) - kept, len(known) - kept)
    out = {}
    for name, initial in model.state_dict().items():
        kind = model.tables().get(name, '')
        if not kind:
            out[name] = weights[name]
        else:
            out[name] = initial.clone()
            target, source = places[kind]
            out[name][target] = weights[name][source].to(initial.dtype)
    return out
