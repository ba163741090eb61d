r"""A FAISS index that is searched and changed at the same time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

ADDED = 1024  # rows that join an index at once, while searches wait


class Gate:
    r"""Lets in any number of readers or one writer, who goes first."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._readers = self._writers = 0

    @contextmanager
    def read(self) -> Iterator[None]:
        with self._change:
            self._change.wait_for(lambda: not self._writers)
            self._readers += 1
        try:
            yield
        finally:
            with self._change:
                self._readers -= 1
                self._change.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        with self._change:
            self._writers += 1
            try:
                self._change.wait_for(lambda: not self._readers)
                yield
            finally:
                self._writers -= 1
                self._change.notify_all()


class Index:
    r"""An index by row number, by inner product.

    An inverted file (IVF) forgets rows, which then may be others'. Any other kind, such as HNSW, has its rows in the
    order in which they came and keeps them.

    Args:
        made (faiss.Index): An index that holds the first rows.
    """

    def __init__(self, made: Any) -> None:
        self.faiss = made
        self.forgets = _forgets(made)
        self._begun = torch.empty(0, dtype=torch.long)  # rows of a change that was cut off
        self._gate = Gate()

    def search(self, query: Tensor, k: int) -> Tensor:
        r"""Returns :math:`(N, k)` rows, -1 where there are no more."""
        with self._gate.read():
            found = self.faiss.search(query.numpy(), k)[1]
        return torch.from_numpy(found)

    def add(self, x: Tensor, rows: Tensor) -> None:
        r"""Adds rows; those of an index that never forgets need to be the next ones."""
        if self.forgets and len(self._begun):
            self.remove(self._begun)
        self._begun = rows
        for part, numbers in zip(x.split(ADDED), rows.split(ADDED), strict=True) if len(rows) else ():
            part = part.contiguous()
            with self._gate.write():
                if self.forgets:
                    self.faiss.add_with_ids(part.numpy(), numbers.numpy())
                else:
                    self.faiss.add(part.numpy())
            time.sleep(1e-4)  # lets searches in
        self._begun = rows[:0]

    def remove(self, rows: Tensor) -> None:
        r"""Forgets rows."""
        import faiss

        if len(rows):
            with self._gate.write():
                self.faiss.remove_ids(faiss.IDSelectorBatch(rows.numpy()))

    def configure(self, key: str, value: int) -> None:
        r"""Sets a parameter of the search; raises FAISS's error if there is none such."""
        import faiss

        with self._gate.write():
            faiss.ParameterSpace().set_index_parameter(self.faiss, key, value)

    def emptied(self) -> 'Index':
        r"""Returns another index that is trained and set as this one and holds no rows."""
        import faiss

        made = faiss.clone_index(self.faiss)  # type: ignore[attr-defined]
        made.reset()
        return Index(made)

    def to_bytes(self) -> Any:
        import faiss

        return faiss.serialize_index(self.faiss)  # type: ignore[attr-defined]

    @classmethod
    def from_bytes(cls, content: Any) -> 'Index':
        import faiss

        return cls(faiss.deserialize_index(content))  # type: ignore[attr-defined]


def _forgets(made: Any) -> bool:
    import faiss

    while isinstance(made, faiss.IndexPreTransform):
        made = faiss.downcast_index(made.index)  # type: ignore[attr-defined]
    return isinstance(made, faiss.IndexIVF)


def as_rows(values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.int64))
