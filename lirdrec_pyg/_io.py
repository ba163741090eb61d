r"""Files that are whole or not there, and the one identity of what they were made of."""

import contextlib
import datetime
import decimal
import dis
import functools
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import struct
import sys
import time
import types
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]
BY_REPR = (
    complex, range, slice, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta, torch.dtype, torch.device,
)  # fmt: skip
BY_VERSION = ('builtins', 'abc', 'typing', 'torch', 'torch_geometric')  # classes whose code changes with their package
RACY = 2 * 10**9  # nanoseconds within which a file may change twice with one time stamp
SMALL = 64 << 20  # bytes that are hashed as fast as a table of digests is worth it


# Writing -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: PathLike, folder: bool = False) -> Iterator[Path]:
    r"""Gives a new file (or folder) beside ``path`` to write to. When the block ends without an error, it takes the
    place of ``path``. Whoever reads ``path`` sees the old file or the new one, whole.

    Folders that lack are made. The content is on the disk before the name is. A folder takes no other folder's place,
    unless that is empty. What writers left that were killed is removed. An :class:`OSError` says what was not written.
    """
    path, lock, temporary = Path(path), None, None
    with naming(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path)
            temporary, lock = _reserve(path, folder)
            if path.is_file():
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            yield temporary
            for written in temporary.rglob('*') if folder else [temporary]:
                if written.is_file():
                    with written.open('rb') as file:
                        os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            if lock is not None:
                os.close(lock)
            if temporary is not None:
                _remove(temporary)


@contextlib.contextmanager
def naming(path: PathLike) -> Iterator[None]:
    r"""Makes an :class:`OSError` of the block say what was being written, and that what was there is whole."""
    try:
        yield
    except OSError as error:
        if type(error).__module__ != 'builtins':  # of a download
            raise
        first = getattr(error, 'first', error)  # what is written within another is named by that
        why = f'{first.strerror or first}' + (f": '{first.filename}'" if first.filename else '')
        named = OSError(first.errno, f"'{path}' was not written, and what was there is whole ({why})")
        named.first = first  # type: ignore[attr-defined]
        raise named from first


@contextlib.contextmanager
def locked(path: PathLike) -> Iterator[bool]:
    r"""Lets one block at a time run with a folder, or else a lock file, ``path``, of all processes and threads; the
    others wait. Both stay. Gives whether there is a lock: not all file systems have them."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_CLOEXEC | (os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT), 0o666)
    try:
        held = False
        with contextlib.suppress(OSError):
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
                held = True
        yield held
    finally:
        os.close(lock)


@contextlib.contextmanager
def in_turn(path: PathLike) -> Iterator[None]:
    r"""Lets one long block at a time run with a lock file ``path``, which is there as long as a block runs. The others
    wait, and are told for whom. Where no lock can be made, the block runs without one."""
    path, lock = Path(path), None
    with contextlib.suppress(OSError):  # of a file system without locks, or one that nothing can be written to
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _queue(path)
    try:
        yield
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):  # the folder is gone
                path.unlink()  # those who wait hold what is no more, and make their own
            fcntl.flock(lock, fcntl.LOCK_UN)  # a process that the block forked may have it open, too
            os.close(lock)


def _queue(path: Path) -> int | None:
    r"""Returns the descriptor of the locked file ``path``, once nobody else has it."""
    while fcntl is not None:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(lock, 200, 0).decode(errors='replace') or 'another process'
                warnings.warn(f"{holder} holds '{path}': this waits until that is done", stacklevel=6)
                fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(path)):
                    os.ftruncate(lock, 0)
                    os.pwrite(lock, f'process {os.getpid()} on {socket.gethostname()}'.encode(), 0)
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
    return None


def write_bytes(path: PathLike, content: bytes) -> None:
    r"""Writes a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def save_array(path: PathLike, x: np.ndarray[Any, Any]) -> None:
    r"""Writes a ``.npy`` file. :func:`numpy.save` leaves that to the C library and sees no error when its last bytes
    find no room."""
    with Path(path).open('wb') as file:
        np.save(types.SimpleNamespace(write=file.write), x, allow_pickle=False)


def _reserve(path: Path, folder: bool) -> tuple[Path, int | None]:
    r"""Makes a temporary file or folder that is locked as long as its descriptor is open, so none sweeps it away."""
    while True:
        temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:12]}.tmp')
        if folder:
            temporary.mkdir()
        else:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        with contextlib.suppress(FileNotFoundError):  # it was swept away before it was locked
            lock = None if fcntl is None else os.open(temporary, os.O_RDONLY)
            if lock is not None:
                with contextlib.suppress(OSError):  # not all file systems have locks
                    fcntl.flock(lock, fcntl.LOCK_EX)
            if temporary.exists():
                return temporary, lock
            if lock is not None:
                os.close(lock)


def _sweep(path: Path) -> None:
    r"""Removes the temporary files of ``path`` that no living process writes to."""
    pattern = re.compile(re.escape(f'.{path.name}.') + r'[0-9a-f]{12}\.tmp')
    for name in os.listdir(path.parent) if fcntl is not None else []:
        if pattern.fullmatch(name):
            with contextlib.suppress(OSError):  # of another's that goes on, or is gone
                lock = os.open(path.parent / name, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(path.parent / name)
                finally:
                    os.close(lock)


def _remove(temporary: Path) -> None:
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.unlink(missing_ok=True)


# Sealed files --------------------------------------------------------------------------------------------------------


def save_sealed(value: Any, path: PathLike, kind: str) -> None:
    r"""Writes a value by :func:`torch.save`, whole or not at all, with its kind and sha256 as the comment of the zip
    file. :func:`torch.load` reads it as any other."""
    with replacing(path) as temporary:
        try:
            with temporary.open('wb') as out:
                torch.save(value, out)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # such as no room
                raise error.__context__ from None
            raise
        comment = f'{kind} sha256:'.encode()
        with temporary.open('r+b') as file:
            file.seek(-2, os.SEEK_END)  # the length of the comment, of which there is none yet
            file.write(struct.pack('<H', len(comment) + 64) + comment)
        seal = file_digest(temporary)
        with temporary.open('ab') as file:
            file.write(seal.encode())


def load_sealed(path: PathLike, kind: str) -> Any:
    r"""Reads a file of :func:`save_sealed`, without executing anything in it.

    Raises:
        ValueError: If it is of another kind, or a byte of it changed.
    """
    end = f'{kind} sha256:'.encode()
    out = hashlib.sha256()
    with Path(path).open('rb') as file:
        left = os.fstat(file.fileno()).st_size - 64
        tail = b''
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            out.update(block)
            tail, left = (tail + block)[-len(end) :], left - len(block)
        if tail != end:
            raise ValueError('it is cut short or of another kind')
        if file.read() != out.hexdigest().encode():
            raise ValueError('its checksum does not fit')
    return torch.load(path, map_location='cpu', weights_only=True)


# Digests of files ----------------------------------------------------------------------------------------------------


def file_digest(path: PathLike) -> str:
    r"""Returns the sha256 of a file's content."""
    out = hashlib.sha256()
    with Path(path).open('rb') as file:
        while block := file.read(1 << 20):
            out.update(block)
    return out.hexdigest()


def file_digests(paths: Sequence[PathLike], table: PathLike) -> list[str | None]:
    r"""Returns the sha256 of each regular file, :obj:`None` where there is none that can be read.

    Large sets of files are not read again at each call: ``table`` keeps their digests, each with the file's stamp
    (size, times, inode). A stamp is trusted only if it was some seconds old when the file was read: a younger file may
    change once more with the same stamp, so it is read again.
    """
    table = Path(table)
    try:
        known = json.loads(table.read_text())
    except (OSError, ValueError, RecursionError):
        known = {}
    known = known if isinstance(known, dict) else {}
    out: list[str | None] = []
    kept, read = {}, 0
    for path in map(os.path.abspath, paths):
        try:
            if not os.path.isfile(path):
                raise FileNotFoundError
            stamp = _stamp(path)
            entry = known.get(path)
            if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp and isinstance(entry[1], str)):
                now = time.time_ns()
                entry = [stamp, file_digest(path)]
                read += stamp[0]
                if max(stamp[1:3]) > now - RACY or _stamp(path) != stamp:
                    out.append(entry[1])
                    continue
        except OSError:  # none, gone meanwhile, or one that may not be read
            out.append(None)
            continue
        kept[path] = entry
        out.append(entry[1])
    if read > SMALL:
        with contextlib.suppress(OSError):  # it only saves time
            write_bytes(table, json.dumps({**known, **kept}).encode())
    return out


def _stamp(path: str) -> list[int]:
    state = os.stat(path)
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev]


# Digests of values ---------------------------------------------------------------------------------------------------


def digest(*parts: Any, code: bool = False) -> str:
    r"""Returns the sha256 of values of any kind that has a content: numbers, strings, tensors, arrays, paths (by the
    content of their file), lists, mappings, and objects by their class and attributes.

    Equal values have equal digests in any process. Each value is written with its type and length, so that no two
    different ones look alike. The order of a mapping counts.

    Args:
        *parts (Any): The values.
        code (bool, optional): Whether a class counts by the code of its methods, too, or by the version of its package
            if that is PyTorch or PyG. What the methods call elsewhere does not count. (default: :obj:`False`)

    Raises:
        TypeError: If a part has no content to tell it by, such as a function. See :func:`has_identity`.
    """
    out = _Digest(code)
    try:
        for part in parts:
            out.add(part)
    except RecursionError as error:
        raise TypeError('a value that is nested that deeply has no content to tell it by') from error
    return out.hash.hexdigest()


def try_digest(*parts: Any, code: bool = False) -> str | None:
    r"""Returns :func:`digest`, or :obj:`None` if a part has no content to tell it by."""
    try:
        return digest(*parts, code=code)
    except TypeError:
        return None


def has_identity(value: Any, code: bool = False) -> bool:
    r"""Whether :func:`digest` can tell a value from others by its content. A plain function has none."""
    return try_digest(value, code=code) is not None


class _Digest:
    r"""A digest that values are added to."""

    def __init__(self, code: bool) -> None:
        self.hash = hashlib.sha256()
        self.code = code
        self.above: set[int] = set()  # the containers and objects that the next value is within
        self.classes: set[type] = set()  # whose code was added

    def write(self, kind: str, content: bytes = b'') -> None:
        self.hash.update(b'%s:%d:' % (kind.encode(), len(content)))
        self.hash.update(content)

    def add(self, value: Any) -> None:
        if isinstance(value, np.generic):
            value = np.asarray(value) if value.dtype.kind in 'mMV' else value.item()
        if isinstance(value, Enum):
            self.write('enum', f'{_name(type(value))}.{value.name}'.encode())
            self.add(value.value)
        elif isinstance(value, str):
            self.write('str', value.encode('utf-8', 'surrogatepass'))
        elif value is None or value is Ellipsis or isinstance(value, bool | int):
            self.write(type(value).__name__, str(value).encode())
        elif isinstance(value, float):
            self.write('float', struct.pack('<d', value))
        elif isinstance(value, bytes):
            self.write('bytes', value)
        elif isinstance(value, Tensor):
            self.add_tensor(value)
        elif isinstance(value, np.ndarray):
            self.add_array(value)
        elif isinstance(value, Path):
            self.add_file(value)
        elif isinstance(value, type):
            self.add_class(value)
        elif isinstance(value, BY_REPR):
            self.write(_name(type(value)), repr(value).encode())
        elif isinstance(value, re.Pattern):
            self.write('pattern')
            self.add((value.pattern, value.flags))
        elif isinstance(value, torch.Generator):
            self.add_tensor(value.get_state())
        elif isinstance(value, types.CodeType):
            self.add_code(value)
        else:
            self.add_object(value)

    def add_tensor(self, value: Tensor) -> None:
        value = value.detach()
        value = value.as_subclass(Tensor) if value.layout == torch.strided else value  # of PyG's own kinds
        parts = [value]
        if value.layout in (torch.sparse_csr, torch.sparse_bsr):
            parts = [value.crow_indices(), value.col_indices(), value.values()]
        elif value.layout in (torch.sparse_csc, torch.sparse_bsc):
            parts = [value.ccol_indices(), value.row_indices(), value.values()]
        elif value.is_sparse:
            value = value.coalesce()
            parts = [value.indices(), value.values()]
        self.write('tensor', f'{value.layout} {value.dtype} {tuple(value.shape)} {len(parts)}'.encode())
        for part in parts:
            part = part.cpu().resolve_conj().resolve_neg().contiguous()
            self.write('values', f'{part.dtype} {tuple(part.shape)}'.encode())
            if part.numel():
                self.hash.update(part.reshape(-1).view(torch.uint8).numpy().data)

    def add_array(self, value: np.ndarray[Any, Any]) -> None:
        self.write('array', f'{value.dtype.descr} {value.shape}'.encode())
        if isinstance(value, np.ma.MaskedArray):
            self.write('masked')
            self.add_array(np.ma.getmaskarray(value))
            value = value.filled()
        if value.dtype.hasobject:
            self.add(value.tolist())
        elif value.size:
            self.hash.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)

    def add_file(self, value: Path) -> None:
        if value.is_file():
            self.write('file', file_digest(value).encode())
        elif value.exists():
            raise TypeError(f"what is within '{value}' is not known, so it has no content to tell it by")
        else:
            self.write('no file', str(value).encode('utf-8', 'surrogateescape'))

    def add_object(self, value: Any) -> None:
        r"""Adds a container by what it holds, and an object by its class and attributes, as PyG's transforms are."""
        if id(value) in self.above:
            raise TypeError(f'an object within itself has no content to tell it by (got {type(value).__name__})')
        self.above.add(id(value))
        kind, attributes = type(value).__name__, dict(getattr(value, '__dict__', {}))
        if isinstance(value, Mapping):
            self.write(kind, str(len(value)).encode())
            for key, entry in value.items():
                self.add(key)
                self.add(entry)
        elif isinstance(value, AbstractSet):
            self.write(kind, ''.join(sorted(digest(entry, code=self.code) for entry in value)).encode())
        elif isinstance(value, Sequence):
            self.write(kind, str(len(value)).encode())
            for entry in value:
                self.add(entry)
        else:
            slots = [slot for base in type(value).__mro__ for slot in _slots(base)]
            if type(value) is object or _hides_state(type(value), len(slots)):
                raise TypeError(f'what {_name(type(value))} holds is not known, so it has no content to tell it by')
            attributes |= {slot: getattr(value, slot) for slot in slots if hasattr(value, slot)}
        if attributes or type(value) not in (dict, list, tuple, set, frozenset):
            self.add_class(type(value))
            self.write('attributes', str(len(attributes)).encode())
            for name, entry in sorted(attributes.items()):
                self.add(name)
                self.add(entry)
        self.above.remove(id(value))

    def add_class(self, value: type) -> None:
        self.write('class', _name(value).encode())
        for base in value.__mro__ if self.code else []:
            if base in self.classes:
                continue
            self.classes.add(base)
            package = base.__module__.partition('.')[0]
            self.write('base', f'{_name(base)} {getattr(sys.modules.get(package), "__version__", "")}'.encode())
            if package not in BY_VERSION:
                self.add_methods(base)

    def add_methods(self, base: type) -> None:
        r"""Adds the code of a class: its methods, and those of its values that they read and never set."""
        methods = {}
        for name, member in sorted(vars(base).items()):
            if isinstance(member, property):
                member = member.fget
            elif isinstance(member, functools.cached_property):
                member = member.func
            member = getattr(member, '__func__', member)  # of static and class methods
            if isinstance(member, types.FunctionType):
                methods[name] = member
        used: set[str] = set()
        for name, function in methods.items():
            self.add(name)
            self.add_function(function)
            used.update(function.__code__.co_names)
        for function in methods.values():
            used -= {step.argval for step in dis.get_instructions(function) if step.opname == 'STORE_ATTR'}
        for name in sorted(used & vars(base).keys() - methods.keys()):
            if not hasattr(vars(base)[name], '__get__') and not name.startswith('__'):
                self.add(name)
                self.add(vars(base)[name])

    def add_function(self, function: Any) -> None:
        if isinstance(function, types.MethodType):
            self.add(function.__self__)
            function = function.__func__
        if id(function) in self.above:
            return
        self.above.add(id(function))
        self.add_code(function.__code__)
        self.add((function.__defaults__, function.__kwdefaults__))
        for cell in function.__closure__ or ():
            content = cell.cell_contents
            if isinstance(content, types.FunctionType | types.MethodType):
                self.add_function(content)
            else:
                self.add(content)
        self.above.remove(id(function))

    def add_code(self, code: types.CodeType) -> None:
        self.write('code', code.co_code)
        self.add((code.co_consts, code.co_names, code.co_varnames))


def _name(value: type) -> str:
    return f'{value.__module__}.{value.__qualname__}'


def _slots(base: type) -> list[str]:
    slots = vars(base).get('__slots__', ())
    slots = [slots] if isinstance(slots, str) else list(slots)
    names = [slot for slot in slots if slot not in ('__dict__', '__weakref__')]
    return [f'_{base.__name__.lstrip("_")}{name}' if re.match(r'__.*(?<!__)$', name) else name for name in names]


def _hides_state(value: type, slots: int) -> bool:
    r"""Whether instances hold more than their attributes: functions, locks, what is written in C."""
    pointers = slots + (value.__dictoffset__ > 0) + (value.__weakrefoffset__ > 0)
    return value.__itemsize__ > 0 or value.__basicsize__ > object.__basicsize__ + pointers * struct.calcsize('P')
