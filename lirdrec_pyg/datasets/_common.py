r"""What the datasets share: reading of raw tables and features with errors that say where, and the cache."""

import zipfile
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import HeteroData, InMemoryDataset

from lirdrec_pyg._io import digest, file_digests, load_sealed, save_sealed, try_digest

if TYPE_CHECKING:
    import pandas as pd

VERSION = 3  # of the processed data: raise it when a dataset's `process` gives something else
Transform = Callable[[HeteroData], HeteroData]


class CachedDataset(InMemoryDataset):
    r"""A dataset that is processed once for each state of its files and arguments.

    The processed file lies in a folder that is named by a digest of all that it was made of. It is read without
    executing anything in it, and any change of a byte is noticed. A ``pre_transform`` counts by its class, attributes
    and code. One that has no identity, such as a function, is applied each time.

    Subclasses have ``cache``, ``files`` and ``arguments``, and a ``process`` that ends with :meth:`write`.
    """

    place = "pass another 'root'"  # what to do where nothing can be written

    def __init__(
        self, root: str, transform: Transform | None, pre_transform: Transform | None, force_reload: bool
    ) -> None:
        self._processed_dir, self._kind = '', ''
        known = try_digest(type(self), pre_transform, code=True)
        self._code = 'without identity' if known is None else known
        self._run = uuid4().hex if known is None else ''  # no other run's data is taken for that of a function
        super().__init__(root, transform, pre_transform, force_reload=force_reload or known is None)
        self.load(self.processed_paths[0])

    @property
    @abstractmethod
    def cache(self) -> Path:
        r"""The folder of all processed data."""

    @property
    @abstractmethod
    def files(self) -> Sequence[Path]:
        r"""The files that the data is made of."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        r"""Returns the arguments that change the data."""

    @property
    def label(self) -> str:
        r"""The start of the name of the folder of processed data."""
        return ''

    @property
    def processed_dir(self) -> str:
        return self._processed_dir

    @property
    def processed_file_names(self) -> str:
        return 'data.pt'

    def _key(self) -> str:
        r"""Returns a digest of all that the data is made of. Files count by their path, content, size and time."""
        digests = file_digests(self.files, self.cache / 'files.json')
        stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in self.files]
        return digest(VERSION, type(self), self.arguments(), self._code, digests, stats)

    def _process(self) -> None:
        key = self._key()
        self._kind = f'dataset {key} {self._run}'
        self._processed_dir = str(self.cache / f'{self.label}{key[:12]}')
        try:
            Path(self.processed_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"can't write to '{self.processed_dir}' ({error.strerror}): {self.place}") from error
        if self.force_reload or not Path(self.processed_paths[0]).is_file():
            self.process()
            if self._key() != key:
                Path(self.processed_paths[0]).unlink()
                raise OSError(f'one of {[str(path) for path in self.files]} changed while it was read: try again')

    def write(self, data: HeteroData, **more: Any) -> None:
        r"""Applies ``pre_transform`` and writes the processed file, with ``more`` beside the data."""
        data = data if self.pre_transform is None else self.pre_transform(data)
        save_sealed((data.to_dict(), more), self.processed_paths[0], self._kind)

    def load(self, path: str, data_cls: type[HeteroData] = HeteroData) -> None:
        try:
            content, self.more = load_sealed(path, self._kind)
        except Exception as error:
            raise ValueError(
                f"'{path}' is damaged or no processed file ({type(error).__name__}: {error}): pass 'force_reload=True'"
            ) from error
        self.data, self.slices = data_cls.from_dict(content), None


def find_masks(files: dict[str, Path]) -> dict[str, Path]:
    r"""Returns the masks that lie beside files of features."""
    masks = {name: path.with_name(f'{name}_mask.npy') for name, path in files.items()}
    return {name: path for name, path in masks.items() if path.is_file()}


def read_table(path: Path, required: list[str]) -> 'pd.DataFrame':
    r"""Reads a tab-separated table with a header as strings; ``name:type`` headers lose their type.

    Raises:
        ValueError: If a required column is missing, or a line has another number of fields than the header.
    """
    import pandas as pd

    lines = path.read_text(encoding='utf-8-sig').rstrip('\n\r').split('\n')
    names = [name.partition(':')[0].strip() for name in lines[0].split('\t')]
    for name in required:
        if name not in names:
            raise ValueError(f"'{path}' lacks the column '{name}' (found {names})")
    for number, line in enumerate(lines, start=1):
        if line.count('\t') != len(names) - 1:
            raise ValueError(
                f"line {number} of '{path}' needs {len(names)} tab-separated fields (got {line.count(chr(9)) + 1}: "
                f'{_shorten(line)})'
            )
    frame = pd.read_csv(
        path, sep='\t', dtype=str, header=0, names=names, index_col=False, keep_default_na=False, na_filter=False,
        quoting=3, skip_blank_lines=False, encoding='utf-8-sig', nrows=len(lines) - 1,
    )  # fmt: skip
    return frame


def numbers(frame: 'pd.DataFrame', column: str, path: Path, integer: bool = False) -> npt.NDArray[Any]:
    r"""Returns a column of a table as int64 where all values are whole numbers that fit, else as float64.

    Raises:
        ValueError: If a value is not a finite number or, with ``integer``, not a whole one.
    """
    import pandas as pd

    parsed = pd.to_numeric(frame[column], errors='coerce')
    if parsed.dtype == np.int64:
        return parsed.to_numpy()  # float64 would round integers above 2**53
    values = parsed.to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    is_int64 = (values == np.round(values)) & (np.abs(values) < 2**63)
    whole = bool(is_int64.all())
    if integer:
        bad |= ~is_int64
    if bad.any():
        row = int(bad.argmax())
        content = '\t'.join(str(value) for value in frame.iloc[row])
        raise ValueError(
            f"line {row + 2} of '{path}': '{column}' needs to be {'an integer' if integer else 'a number'} "
            f'(got {_shorten(str(frame[column].iloc[row]))} in {_shorten(content)})'
        )
    return values.astype(np.int64) if whole else values


def read_npy(path: Path) -> npt.NDArray[Any]:
    r"""Opens an ``.npy`` file without reading it whole, and without pickle."""
    try:
        return np.lib.format.open_memmap(path, mode='r')
    except (ValueError, EOFError) as error:
        raise ValueError(f"'{path}' needs to be a numeric .npy file ({error})") from error


def read_mask(path: Path, num_items: int) -> Tensor:
    r"""Reads which items have a modality.

    Raises:
        ValueError: If it is not a bool vector with an entry for each item.
    """
    array = read_npy(path)
    if array.dtype != np.bool_ or array.shape != (num_items,):
        raise ValueError(f"'{path}' needs to be bool of shape ({num_items},) (got {array.dtype} of shape "
                         f'{array.shape})')  # fmt: skip
    return torch.from_numpy(np.array(array))


def read_features(path: Path, modality: str, has: Tensor | None = None, chunk_size: int = 8192) -> Tensor:
    r"""Reads features as float32 in chunks of rows, so a float64 file does not take up its memory, too.

    Args:
        path (Path): The ``.npy`` file.
        modality (str): The name of the modality, for errors.
        has (torch.Tensor, optional): Which items have the modality; the rows of others become zero.
        chunk_size (int, optional): The number of rows at once.

    Shapes:
        - **has:** :math:`(|\mathcal{I}|)`
        - **output:** :math:`(|\mathcal{I}|, C)`

    Raises:
        ValueError: If it is not a numeric matrix, or a value is NaN or Inf in float32.
    """
    array = read_npy(path)
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in 'fiu':
        raise ValueError(
            f"'{path}' needs to be a numeric matrix with a row for each item (got {array.dtype} of shape {array.shape})"
        )
    out = torch.empty(array.shape, dtype=torch.float32)
    for start in range(0, len(array), chunk_size):
        rows = slice(start, start + chunk_size)
        with np.errstate(over='ignore', invalid='ignore'):
            out[rows] = torch.from_numpy(np.array(array[rows], dtype=np.float32))
        if has is not None and len(has) == len(array):
            out[rows][~has[rows]] = 0
        bad = ~torch.isfinite(out[rows]).all(dim=1)
        if bool(bad.any()):
            row = start + int(bad.nonzero()[0])
            raise ValueError(f"the features of modality '{modality}' need to be finite (got NaN or Inf in row {row} of "
                             f"'{path}')")  # fmt: skip
    return out


def read_ids(path: Path, column: str, data: HeteroData, node_type: str) -> None:
    r"""Adds ``raw_id`` (the ids themselves where there is no file) and, where known, ``title`` of users or items."""
    size = data[node_type].num_nodes
    data[node_type].raw_id = [str(i) for i in range(size)]
    if path.is_file():
        frame = read_table(path, [column])
        ids = numbers(frame, column, path, integer=True)
        if len(ids) != size or not np.array_equal(np.sort(ids), np.arange(size)):
            raise ValueError(
                f"'{column}' of '{path}' needs to name each of 0 to {size - 1} once (got {len(ids)} lines)"
            )
        frame = frame.iloc[np.argsort(ids)]
        raw = [name for name in frame.columns if name not in (column, 'title', 'text')]
        titles = [name for name in ('title', 'text') if name in frame]
        if raw:
            data[node_type].raw_id = frame[raw[0]].tolist()
        if titles:
            data[node_type].title = frame[titles[0]].tolist()


def read_zip(path: str, names: list[str]) -> dict[str, bytes]:
    r"""Returns the contents of files in any folder of a zip file; nothing is written to paths from within it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.rpartition('/')[2]: member for member in archive.namelist()}
            for name in names:
                if name not in members:
                    raise ValueError(f"'{path}' does not hold '{name}'")
            return {name: archive.read(members[name]) for name in names}
    except zipfile.BadZipFile as error:
        raise ValueError(f"'{path}' is not a zip file ({error})") from error


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + '…')
