r"""Names, types and the data contract.

Everything a model sees is one :class:`~torch_geometric.data.HeteroData`:

* ``data['user'].num_nodes`` and ``data['item'].num_nodes``.
* ``data['item'].x_<modality>``: ``[I, C_m]`` float features of one modality, *e.g.*, ``x_image`` or ``x_text``; any
  number of modalities of any width. Optional ``data['item'].has_<modality>``: ``[I]`` bool where some items lack it;
  the rows of items that lack it are zero.
* ``data['item'].spectrum``: ``[I, ΣC_m]`` float, written by :class:`~lirdrec_pyg.transforms.DCT`.
* ``data['user', 'interacts', 'item'].edge_index``: ``[2, E]`` (user, item), optionally ``time [E]``, ``rating [E]`` and
  ``split [E]`` (0 = train, 1 = validation, 2 = test). After a split, ``edge_index`` holds the *training* interactions
  in all three splits and ``edge_label_index [2, P]`` the positives of the split itself.
* ``data['item', 'similar_to', 'item'].edge_index`` and ``edge_weight``: source = neighbour, target = item.
* ``adj_t`` and ``edge_weight`` of ``interacts``, ``rev_interacts`` and ``similar_to``, written by
  :class:`~lirdrec_pyg.transforms.InteractionGraph`.
* ``data['user'].recent_items`` ``[U, n]`` and ``data['user', 'interacts', 'item'].recent_items`` ``[E, n]``, the latest
  items of each user and before each interaction, written by :class:`~lirdrec_pyg.transforms.RecentItems`.
* ``data['user'].raw_id``, ``data['item'].raw_id`` and, where known, ``data['item'].title``: lists of :class:`str`.
"""

from typing import NamedTuple

from torch import Tensor
from torch_geometric.data import HeteroData

USER = 'user'
ITEM = 'item'
INTERACTS = (USER, 'interacts', ITEM)
REV_INTERACTS = (ITEM, 'rev_interacts', USER)
SIMILAR_TO = (ITEM, 'similar_to', ITEM)

TRAIN, VAL, TEST = 0, 1, 2  # the values of `split`


class Embeddings(NamedTuple):
    r"""Final representations; the score of a pair is their inner product.

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, D)`
        - **item:** :math:`(|\mathcal{I}|, D)`
    """

    user: Tensor
    item: Tensor

    def scaled(self, power: float) -> 'Embeddings':
        r"""Returns embeddings whose length counts by another power: each row :math:`\mathbf{x}` becomes
        :math:`\mathbf{x} \, \Vert \mathbf{x} \Vert_2^{p - 1}`.

        With one nothing changes; with zero each row has unit length and the score is the cosine. Items with many
        interactions have long rows: a smaller power gives new items a better place. Users are scaled alike, which
        changes no ranking of theirs.

        Args:
            power (float): The power :math:`p \geq 0` of the length.
        """
        if not 0 <= power < float('inf'):
            raise ValueError(f"'power' needs to be a non-negative number (got {power})")
        if power == 1:
            return self
        lengths = (x.norm(dim=-1, keepdim=True).clamp_min(1e-12) for x in self)
        return Embeddings(*(x / length * length**power for x, length in zip(self, lengths, strict=True)))


def modalities(data: HeteroData) -> list[str]:
    r"""Returns the modalities of the items in the data's order, *e.g.*, ``['image', 'text']``."""
    return [key[2:] for key in data[ITEM].keys() if key.startswith('x_')]  # noqa: SIM118


def modality_features(data: HeteroData, modality: str) -> tuple[Tensor, Tensor | None]:
    r"""Returns the features ``[I, C]`` of a modality and, where some items lack it, their ``[I]`` bool mask."""
    store = data[ITEM]
    if f'x_{modality}' not in store:
        raise ValueError(f"unknown modality '{modality}' (the data has {modalities(data)})")
    return store[f'x_{modality}'], store.get(f'has_{modality}')
