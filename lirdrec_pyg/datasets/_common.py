r"""What the datasets share: reading of raw tables and features with errors that say where, and the cache."""

import json
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import HeteroData, InMemoryDataset

from lirdrec_pyg._io import digest, file_digest, file_digests, load_sealed, save_sealed, try_digest
from lirdrec_pyg.datasets._tables import read_table
from lirdrec_pyg.typing import LARGEST, node_lists

MAX_UNPACKED = 256 << 20  # bytes of a file in a zip file
VERSION = 4  # of the processed data: raise it when a dataset's `process` gives something else
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

    def _make(self, folder: str) -> None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"can't write to '{folder}' ({error.strerror}): {self.place}") from error

    def _download(self) -> None:
        if not all(Path(path).is_file() for path in self.raw_paths):
            self._make(self.raw_dir)
            self.download()

    def _process(self) -> None:
        key = self._key()
        self._kind = f'dataset {key} {self._run}'
        self._processed_dir = str(self.cache / f'{self.label}{key[:12]}')
        self._make(self._processed_dir)
        if self.force_reload or not Path(self.processed_paths[0]).is_file():
            self.process()
            try:
                unchanged = self._key() == key
            except FileNotFoundError:
                unchanged = False
            if not unchanged:
                Path(self.processed_paths[0]).unlink(missing_ok=True)
                raise OSError(f'one of {[str(path) for path in self.files]} changed while it was read: try again')

    def write(self, data: HeteroData, **more: Any) -> None:
        r"""Applies ``pre_transform`` and writes the processed file, with ``more`` beside the data."""
        data = data if self.pre_transform is None else self.pre_transform(data)
        try:
            save_sealed((data.to_dict(), more), self.processed_paths[0], self._kind)
        except OSError as error:
            raise OSError(error.errno, f'{error.strerror}: {self.place}, or make room') from error

    def load(self, path: str, data_cls: type[HeteroData] = HeteroData) -> None:
        try:
            content, self.more = load_sealed(path, self._kind)
        except Exception as error:
            raise ValueError(
                f"'{path}' is damaged or no processed file ({type(error).__name__}: {error}): pass 'force_reload=True'"
            ) from error
        data = data_cls.from_dict(content)
        for store in data.node_stores:
            for key, value in node_lists(store, store.num_nodes).items():
                store[key] = value
        self.data, self.slices = data, None


def find_masks(files: dict[str, Path]) -> dict[str, Path]:
    r"""Returns the masks that lie beside files of features."""
    masks = {name: path.with_name(f'{name}_mask.npy') for name, path in files.items()}
    return {name: path for name, path in masks.items() if path.is_file()}


def read_npy(path: Path) -> npt.NDArray[Any]:
    r"""Opens an ``.npy`` file without reading it whole, and without pickle."""
    try:
        return np.lib.format.open_memmap(path, mode='r')
    except OSError:
        raise
    except Exception as error:  # NumPy parses the header as Python, with errors of many kinds
        raise ValueError(f"'{path}' needs to be a numeric .npy file ({error})") from error


def read_matrix(path: Path) -> npt.NDArray[Any]:
    r"""Opens a matrix of features without reading it whole.

    Raises:
        ValueError: If it is anything else.
    """
    array = read_npy(path)
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in 'fiu':
        raise ValueError(
            f"'{path}' needs to be a numeric matrix with a row for each item (got {array.dtype} of shape {array.shape})"
        )
    return array


def check_manifest(path: Path, name: str) -> None:
    r"""Refuses features or a mask that are not those of the manifest beside them, where
    :mod:`lirdrec_pyg.features` left one.

    Args:
        path (Path): The file of the features or of the mask.
        name (str): The name that their files start with.
    """
    manifest, mask = path.with_name(f'{name}_manifest.json'), path.with_name(f'{name}_mask.npy')
    if not manifest.is_file():
        return
    try:
        known = json.loads(manifest.read_text(encoding='utf-8'))
        expected = {path.with_name(f'{name}_feat.npy'): known['sha256'], mask: known['mask_sha256']}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{manifest}' is damaged: encode the features again, or remove it") from error
    lacking = expected[mask] is not None and not mask.is_file()
    if path in expected and (lacking or expected[path] != file_digest(path)):
        what = f"'{path}' is not the file of '{manifest}'"
        if lacking:
            what = f"'{mask}', which '{manifest}' names, is not there"
        raise ValueError(f'{what}: encode the features again, or remove the manifest if they are yours')


def read_mask(path: Path, num_items: int) -> Tensor:
    r"""Reads which items have a modality.

    Raises:
        ValueError: If it is not a bool vector with an entry for each item.
    """
    check_manifest(path, path.name.removesuffix('_mask.npy'))
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
        ValueError: If it is not a numeric matrix, or a value is NaN, Inf or too large to sum.
    """
    check_manifest(path, path.name.removesuffix('_feat.npy'))
    array = read_matrix(path)
    out = torch.empty(array.shape, dtype=torch.float32)
    for start in range(0, len(array), chunk_size):
        rows = slice(start, start + chunk_size)
        with np.errstate(over='ignore', invalid='ignore'):
            out[rows] = torch.from_numpy(np.array(array[rows], dtype=np.float32))
        if has is not None and len(has) == len(array):
            out[rows][~has[rows]] = 0
        bad = ~(out[rows].abs() <= LARGEST).all(dim=1)
        if bool(bad.any()):
            row = start + int(bad.nonzero()[0])
            what = 'NaN or Inf' if not np.isfinite(array[row]).all() else f'values beyond {LARGEST:g}'
            raise ValueError(
                f"the features of modality '{modality}' need to be finite (got {what} in row {row} of '{path}')"
            )
    return out


def read_ids(path: Path, column: str, data: HeteroData, node_type: str, encoding: str | None = None) -> None:
    r"""Adds ``raw_id`` (the ids themselves where there is no file) and, where known, ``title`` of users or items."""
    size = data[node_type].num_nodes
    data[node_type].raw_id = [str(i) for i in range(size)]
    if path.is_file():
        table = read_table(path, [column], plain=True, encoding=encoding, rest=True)
        ids = table.numbers(column, integer=True)
        if len(ids) != size or not np.array_equal(np.sort(ids), np.arange(size)):
            raise ValueError(
                f"'{column}' of '{path}' needs to name each of 0 to {size - 1} once (got {len(ids)} lines)"
            )
        frame = table.frame.iloc[np.argsort(ids)]
        raw = [name for name in frame.columns if name not in (column, 'title', 'text') and frame[name].is_unique]
        titles = [name for name in ('title', 'text') if name in frame]
        if raw:
            data[node_type].raw_id = frame['raw_id' if 'raw_id' in raw else raw[0]].tolist()
        if titles:
            data[node_type].title = frame[titles[0]].tolist()


def read_zip(path: str, names: list[str]) -> dict[str, bytes]:
    r"""Returns the contents of files in any folder of a zip file; nothing is written to paths from within it.

    Raises:
        ValueError: If it is damaged or no zip file, or a file lacks or unpacks to more than ``MAX_UNPACKED`` bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.rpartition('/')[2]: member for member in archive.namelist()}
            out = {}
            for name in names:
                if name not in members:
                    raise ValueError(f"'{path}' does not hold '{name}'")
                with archive.open(members[name]) as file:
                    out[name] = file.read(MAX_UNPACKED + 1)
                if len(out[name]) > MAX_UNPACKED:
                    raise ValueError(f"'{name}' in '{path}' needs to be at most {MAX_UNPACKED} bytes long (got more)")
            return out
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"'{path}' is not a zip file, or damaged ({error}): get it again") from error
