from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch_geometric.data import HeteroData
from typing_extensions import Self

from lirdrec_pyg.typing import Embeddings


def plain(value: Any) -> Any:
    r"""Returns Python's numbers for NumPy's, which a checkpoint read without executing anything can't hold."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value.item() if isinstance(value, np.generic) else value


class Recommender(Module, ABC):
    r"""The one interface of every model: :meth:`encode` gives embeddings whose inner product is the score, and
    :meth:`loss` the training objective of a batch of triplets.

    Args:
        **hparams (optional): The constructor arguments of the model, which its checkpoints carry.
    """

    def __init__(self, **hparams: Any) -> None:
        super().__init__()
        self.hparams: dict[str, Any] = {name: plain(value) for name, value in hparams.items()}

    @property
    def fit_defaults(self) -> dict[str, float]:
        r"""The learning rate ``lr`` and the ``patience`` that suit the model; :func:`~lirdrec_pyg.fit` takes these
        where it is given none."""
        return {'lr': 1e-3, 'patience': 20}

    @classmethod
    def from_data(cls, data: HeteroData, seed: int | None = None, **kwargs: Any) -> Self:
        r"""Builds the model that fits the given data.

        Args:
            data (HeteroData): The training view.
            seed (int, optional): The seed of the initial weights. (default: torch's global random state)
            **kwargs (optional): The other arguments of the constructor.
        """
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            return cls(**cls._sizes(data), **kwargs)

    @classmethod
    def _sizes(cls, data: HeteroData) -> dict[str, Any]:
        r"""Returns the constructor arguments that the data decides."""
        return {}

    @abstractmethod
    def encode(self, data: HeteroData) -> Embeddings:
        r"""Returns the embeddings of all users and items of ``data``."""

    @abstractmethod
    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        r"""Returns the training objective of a batch.

        Args:
            data (HeteroData): The training view.
            user (Tensor): Users :math:`(B)`.
            pos (Tensor): An item that each user interacted with :math:`(B)`.
            neg (Tensor): An item that each user did not interact with :math:`(B)`.
        """

    def on_epoch_start(self, epoch: int) -> None:
        r"""Called before each training epoch, counted from one."""
