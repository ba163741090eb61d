r"""The one reader of tables: CSV, TSV and Parquet become columns of ids, numbers, times and texts, or an error that
says where and what to do."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
MAX_LINE = 64 << 20  # bytes of a packed file without a line break
PACKED = {b'\x1f\x8b': gzip.open, b'BZh': bz2.open, b'\xfd7zXZ\x00': lzma.open}
MARKS = {codecs.BOM_UTF8: 'utf-8-sig', codecs.BOM_UTF16_LE: 'utf-16', codecs.BOM_UTF16_BE: 'utf-16'}
NL = b'\n'
NEWLINE, QUOTE = ord('\n'), ord('"')
EXACT = {2: 2**11, 4: 2**24, 8: 2**53}  # bytes of a float -> the first integer that another one is rounded to
MAX_FLOAT = float(np.finfo(np.float32).max)


class Table:
    r"""The columns of a table.

    Args:
        frame (pandas.DataFrame): The columns; its index numbers the rows from zero.
        name (str): The path of the file, or the argument that the table is.
        lines (numpy.ndarray, optional): The line of the file where each row starts, if it has lines.
    """

    def __init__(self, frame: 'pd.DataFrame', name: str, lines: Array | None = None) -> None:
        self.frame, self.name, self.lines = frame, name, lines

    def __len__(self) -> int:
        return len(self.frame)

    def __contains__(self, column: str) -> bool:
        return column in self.frame

    def take(self, rows: Array) -> 'Table':
        r"""Returns the rows of a mask. Errors name them as before."""
        return Table(self.frame[rows], self.name, self.lines)

    def refuse(self, bad: Any, column: str, rule: str) -> None:
        r"""Raises a :class:`ValueError` that names the first bad row."""
        bad = np.asarray(bad, dtype=bool)
        if not bad.any():
            return
        at = int(bad.argmax())
        value, row = self.frame[column].iloc[at], int(self.frame.index[at])
        if self.lines is None:
            raise ValueError(f"'{column}' needs to be {rule} (got {value!r} in row {row})")
        content = '\t'.join(str(field) for field in self.frame.iloc[at])
        raise ValueError(f"line {self.lines[row]} of '{self.name}': '{column}' needs to be {rule} (got "
                         f'{shorten(str(value))} in {shorten(content)})')  # fmt: skip

    def missing(self, column: str) -> Array:
        r"""Returns which rows lack a value: nothing, or nothing but spaces."""
        import pandas as pd

        values = self.frame[column]
        gone = values.isna().to_numpy(dtype=bool)
        if pd.api.types.is_string_dtype(values.dtype) and not isinstance(values.dtype, pd.CategoricalDtype):
            gone = gone | (values.astype(object).where(~gone, '').astype(str).str.strip() == '').to_numpy(dtype=bool)
        return gone

    def ids(self, column: str) -> 'pd.Series[str]':
        r"""Returns ids as strings, empty where there is none. A whole number is the same id in any type.

        Raises:
            ValueError: If a number may stand for several ids, or a value is no id at all.
        """
        import pandas as pd

        values = self.frame[column]
        gone, dtype = values.isna(), values.dtype
        if isinstance(dtype, pd.CategoricalDtype):
            kinds = Table(pd.DataFrame({column: dtype.categories}), self.name).ids(column)
            return pd.Series(
                np.append(kinds.to_numpy(dtype=object), '')[values.cat.codes.to_numpy()], index=values.index, dtype=str
            )
        if pd.api.types.is_float_dtype(dtype):
            numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
            exact = EXACT.get(getattr(dtype, 'itemsize', 8), EXACT[8])
            self.refuse((np.abs(numbers) >= exact) & ~gone, column, f'integers or strings: {dtype} does not tell ids '
                        f'from {exact} on apart')  # fmt: skip
            whole = pd.Series(numbers == np.round(numbers), index=values.index)
            integers = values.where(whole).astype('Int64').astype(str)
            return (integers if (whole | gone).all() else integers.where(whole, values.astype(str))).mask(gone, '')
        if pd.api.types.is_object_dtype(dtype) and pd.api.types.infer_dtype(values, skipna=True) != 'string':
            found = values.map(_as_id)
            self.refuse(found.isna() & ~gone, column, f'a string, or an integer (as a float, below {EXACT[8]})')
            return found.mask(gone, '').astype(str)
        return values.astype(str).str.strip().mask(gone, '')

    def numbers(self, column: str, integer: bool = False, largest: float = np.inf) -> Array:
        r"""Returns a column as int64 where all values are whole numbers that are exact, else as float64.

        Args:
            column (str): The column.
            integer (bool, optional): Whether all values need to be whole. (default: :obj:`False`)
            largest (float, optional): The largest magnitude. (default: any)

        Raises:
            ValueError: If a value is not a finite number, not whole or too large; names the first one.
        """
        parsed = _to_numeric(self.frame[column])
        if parsed.dtype.kind in 'bi' and not parsed.isna().any():
            return parsed.to_numpy(dtype=np.int64)  # float64 would round integers above 2**53
        values = parsed.to_numpy(dtype=np.float64, na_value=np.nan)
        whole = (values == np.round(values)) & (np.abs(values) < 2**63)
        self.refuse(~(whole if integer else np.isfinite(values)), column, 'an integer' if integer else 'a number')
        self.refuse(np.abs(values) > largest, column, f'at most {largest:.3g}')
        exact = np.abs(values) < EXACT[8]
        if integer:
            self.refuse(~exact, column, 'below 2**53, or in a column without decimal points')
        return values.astype(np.int64) if (whole & exact).all() else values

    def times(self, column: str) -> Array:
        r"""Returns times: numbers as int64 or float64, and dates as seconds since 1970.

        Raises:
            ValueError: If a value is neither, or an integer from :math:`2^{63}`; names the first one.
        """
        import pandas as pd

        rule = 'a number or a date'
        values = self.frame[column]
        parsed = _to_numeric(values)
        if parsed.isna().all():
            dates = pd.to_datetime(values.astype(object), errors='coerce', utc=True, format='ISO8601')
            dates = dates if values.dtype.kind != 'm' else dates.mask(dates.notna())
            self.refuse(dates.isna(), column, rule)
            return (dates - pd.Timestamp(0, tz='UTC')).dt.total_seconds().to_numpy()
        self.refuse(~np.isfinite(parsed.to_numpy(dtype=np.float64, na_value=np.nan)), column, rule)
        if pd.api.types.is_float_dtype(parsed.dtype):
            return parsed.to_numpy(dtype=np.float64)
        self.refuse(
            parsed.to_numpy(dtype=np.uint64 if parsed.dtype.kind == 'u' else None) > np.iinfo(np.int64).max,
            column,
            'below 2**63',
        )
        return parsed.to_numpy(dtype=np.int64)

    def texts(self, column: str) -> 'pd.Series[str]':
        r"""Returns texts, empty where there is none. The texts of a list are joined.

        Raises:
            ValueError: If a value is no text, such as a mapping.
        """
        values = self.frame[column]
        if values.dtype != object:
            return values.astype(object).where(values.notna(), '').astype(str)
        texts = values.map(_as_text)
        self.refuse(texts.isna(), column, 'a text, a number or a list of these')
        return texts.astype(str)


def _as_id(value: object) -> str | None:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Decimal):
        return str(int(value)) if value == value // 1 else str(value)
    if isinstance(value, float | np.floating):
        if not abs(float(value)) < EXACT.get(getattr(value, 'itemsize', 8), EXACT[8]):
            return None
        return str(int(value)) if value == value // 1 else str(value)
    if isinstance(value, bytes | Mapping) or np.ndim(value) > 0:  # type: ignore[arg-type]
        return None
    return str(value)


def _as_text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple | np.ndarray):
        parts = [_as_text(part) for part in value]
        return None if None in parts else ' '.join(filter(None, parts))
    import pandas as pd

    if isinstance(value, bytes | Mapping | set):
        return None
    return '' if pd.isna(value) else str(value)  # type: ignore[call-overload]


def _to_numeric(values: 'pd.Series[Any]') -> 'pd.Series[Any]':
    r"""Returns the numbers of a column and of strings in it; dates, which pandas would count as numbers, are none."""
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    if values.dtype.kind in 'mM':
        return pd.Series(np.nan, index=values.index)
    known = ('string', 'integer', 'floating', 'mixed-integer-float', 'boolean', 'empty')
    if values.dtype == object and pd.api.types.infer_dtype(values, skipna=True) not in known:
        values = values.map(lambda value: value if isinstance(value, str | int | float | np.number | Decimal) else None)
    return pd.to_numeric(values, errors='coerce')


def read_table(
    path: Path,
    required: Sequence[str] = (),
    *,
    argument: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    names: Sequence[str] | None = None,
    least: int | None = None,
    plain: bool = False,
    rest: bool = False,
) -> Table:
    r"""Reads a table as strings, or a Parquet file as what it holds.

    What a file is packed in, or that it is Parquet, is told by its first bytes and not by its name.

    Args:
        path (Path): The file.
        required (sequence of str, optional): The columns to read. (default: all)
        argument (str, optional): The argument that the table is, for errors.
        separator (str, optional): What is between two fields. (default: a tab for ``.tsv``, else a comma)
        encoding (str, optional): The encoding. (default: that of the byte order mark, or else UTF-8)
        names (sequence of str, optional): The names of the columns of a file without a header.
        least (int, optional): The fewest fields of a line; those that lack are empty. (default: all)
        plain (bool, optional): Whether fields are between tabs and never quoted, no line is empty, and headers may be
            ``name:type``, whose type is left out. (default: :obj:`False`)
        rest (bool, optional): Whether to read the other columns, too. (default: :obj:`False`)

    Raises:
        FileNotFoundError: If there is no such regular file.
        ValueError: If the file can't be read in that form; names the line where it can.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"no '{path}'" + ('' if argument is None else f" (argument '{argument}')"))
    with path.open('rb') as file:
        magic = file.read(4)
    suffix = Path(path.name.lower().removesuffix('.gz')).suffix
    if magic == b'PAR1' and not plain:
        return _read_parquet(path, required)
    if suffix in ('.parquet', '.pq'):
        raise ValueError(f"'{path}' needs to be a Parquet file (got one that starts with {magic!r}): if it is a text, "
                         "end its name in '.csv' or '.tsv'")  # fmt: skip
    if separator is None:
        separator = '\t' if plain or suffix in ('.tsv', '.tab') else ','
    if len(separator) != 1 or not separator.isascii() or separator in '"\r\n':
        raise ValueError(f"'separator' needs to be one ASCII character such as ';' (got {separator!r})")

    content = read_text(path, encoding)
    if content.isspace() and names is None:
        raise ValueError(f"'{path}' needs a header and a line for each row (got an empty file)")
    if plain:
        content = content.rstrip(b'\n') + b'\n'
    starts, counts, lines = _find_records(content, ord(separator), not plain, path)
    rows = np.arange(len(counts)) if plain else np.flatnonzero(~_find_blank(content, starts, counts))
    if names is None:
        header = content[starts[rows[0]] : starts[rows[0] + 1]].decode()
        names, rows = _find_names(header, required, separator, plain, path), rows[1:]
    columns, counts = [*names], counts[rows]
    ends = np.frombuffer(content, dtype=np.uint8)[starts[rows + 1] - 2]
    if len(rows) and (counts == len(names) + 1).all() and (ends == ord(separator)).all():
        columns.append('\0end')  # each line ends with a separator
    fewest = len(columns) if least is None else least
    bad = (counts > len(columns)) | (counts < fewest)
    if bad.any():
        row = rows[bad.argmax()]
        line = content[starts[row] : starts[row + 1]].decode().rstrip('\n')
        between = {'\t': 'tab-separated fields', ',': 'fields'}.get(separator, f'fields between {separator!r}')
        hint = '' if plain else f': quote a field that has {separator!r} in it'
        raise ValueError(f"line {lines[row]} of '{path}' needs {len(names)} {between} (got {counts[bad.argmax()]}: "
                         f'{shorten(line)}){hint}')  # fmt: skip
    first = rows[0] if len(rows) else len(starts) - 1
    used = list(names) if rest or not required else list(dict.fromkeys(required))
    frame = pd.read_csv(
        io.BytesIO(memoryview(content)[starts[first] :]), sep=separator, header=None, names=columns, index_col=False,
        usecols=used, dtype=str, keep_default_na=False, na_filter=False,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL, skip_blank_lines=False, lineterminator='\n',
    )  # fmt: skip
    if len(frame) != len(starts) - 1 - first:  # no known file does that, but it would shift all that follows
        raise ValueError(f"'{path}' needs {len(starts) - 1 - first} rows (got {len(frame)})")
    if len(frame) != len(rows):
        frame = frame.iloc[rows - first].reset_index(drop=True)
    return Table(frame, str(path), lines[rows])


def read_text(path: Path, encoding: str | None = None) -> bytes:
    r"""Reads a text, unpacked, as UTF-8 whose lines end with ``\n``, the last one, too.

    Raises:
        ValueError: If it is of another encoding or damaged; names the line.
    """
    content = _unpack(path)
    if content.startswith(b'PK\x03\x04'):
        raise ValueError(f"'{path}' needs to be a text (got a zip file, such as a workbook): save the table as CSV")
    if encoding is None:
        encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), 'utf-8')
    try:
        text = content.decode(encoding)
        if codecs.lookup(encoding).name not in ('utf-8', 'ascii'):
            content = text.removeprefix('\ufeff').encode()
        content = content.removeprefix(codecs.BOM_UTF8)
    except LookupError as error:
        raise ValueError(f"'encoding' needs to be one of Python's, such as 'cp1252' (got {encoding!r})") from error
    except UnicodeError as error:
        place = int(getattr(error, 'start', 0))
        raise ValueError(f"line {1 + content.count(NL, 0, place)} of '{path}' needs to be in {encoding} (got "
                         f'{content[place : place + 1]!r}): {_tell_encoding(content)}') from error  # fmt: skip
    if b'\0' in content:
        hint = _tell_encoding(content) if content.count(b'\0') > len(content) // 4 else 'it is damaged, or no text'
        line = 1 + content.count(NL, 0, content.index(b'\0'))
        raise ValueError(f"line {line} of '{path}' needs to be text (got a NUL character): {hint}")
    if b'\r' in content:
        content = content.replace(b'\r\n', b'\n')
        if b'\n' not in content:
            content = content.replace(b'\r', b'\n')
    return content if content.endswith(b'\n') else content + b'\n'


def _tell_encoding(content: bytes) -> str:
    odd = content[1 : 1 << 16 : 2].count(b'\0'), content[0 : 1 << 16 : 2].count(b'\0')
    names = ['utf-8', 'cp1252', 'latin-1']
    if max(odd) > len(content[: 1 << 16]) // 8:
        names = ['utf-16-le', 'utf-16-be'] if odd[0] > odd[1] else ['utf-16-be', 'utf-16-le']
    for name in names:
        try:
            content.decode(name)
        except UnicodeError:
            continue
        return f"'{name}' would fit: pass it as 'encoding', or save the file in UTF-8"
    return 'save the file in UTF-8'


def _unpack(path: Path) -> bytes:
    r"""Returns the content of a file that may be packed, whatever its name says."""
    with path.open('rb') as file:
        magic = file.read(6)
    opener: Any = next((opener for start, opener in PACKED.items() if magic.startswith(start)), None)
    if opener is None:
        return path.read_bytes()
    blocks, length, line = [], 0, 1
    try:
        with opener(path) as file:
            while block := file.read(1 << 22):
                blocks.append(block)
                line += block.count(b'\n')
                length = len(block) - 1 - block.rfind(b'\n') if b'\n' in block else length + len(block)
                if length > MAX_LINE:
                    raise ValueError(f"line {line} of '{path}' needs to be at most {MAX_LINE} bytes long (got more)")
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise ValueError(f"'{path}' is cut short or damaged after line {line - 1} ({error}): get it again") from error
    return b''.join(blocks)


def _find_records(content: bytes, separator: int, quotes: bool, path: Path) -> tuple[Array, Array, Array]:
    r"""Returns where records start (with the end of the last one), their numbers of fields, and the lines where they
    start."""
    chars = np.frombuffer(content, dtype=np.uint8)
    is_newline = chars == NEWLINE
    is_end = is_newline | (chars == separator)
    quote = np.flatnonzero(chars == QUOTE) if quotes else np.empty(0, dtype=np.int64)
    if len(quote):
        inside = np.zeros(len(chars), dtype=np.uint8)
        inside[_find_edges(chars, quote, separator, path)] = 1
        np.bitwise_xor.accumulate(inside, out=inside)
        is_end &= inside == 0
    end = np.flatnonzero(is_end)
    last = np.flatnonzero(is_newline[end])
    starts = np.append(0, end[last] + 1)
    lines = np.arange(1, len(starts))
    if np.count_nonzero(is_newline) != len(lines):  # some are within quotes
        lines = np.searchsorted(np.flatnonzero(is_newline), starts[:-1]) + 1
    return starts, np.diff(last, prepend=-1), lines


def _find_edges(chars: Array, quote: Array, separator: int, path: Path) -> Array:
    r"""Returns those of the quotes that open or close a field or are doubled in it; others within a field count as any
    character."""
    between = np.zeros(256, dtype=bool)
    between[[separator, NEWLINE]] = True
    beside = between.copy()
    beside[QUOTE] = True
    if len(quote) % 2 == 0 and beside[chars[quote[::2] - 1]].all() and beside[chars[quote[1::2] + 1]].all():
        return quote
    may_open, may_close = between[chars[quote - 1]], between[chars[quote + 1]]  # the last character is a newline
    edges: list[int] = []
    i, place = 0, quote.tolist()
    opens, closes, doubled = may_open.tolist(), may_close.tolist(), (chars[quote + 1] == QUOTE).tolist()
    while i < len(place):
        first, i = i, i + 1
        if not opens[first]:
            continue
        while i < len(place) and doubled[i]:
            i += 2
        if i >= len(place) or not closes[i]:
            line = 1 + int((chars[: place[first]] == NEWLINE).sum())
            raise ValueError(f"line {line} of '{path}' needs to be valid CSV (unexpected end of data, or text after a "
                             'closing quote): quote the whole field, and double the quotes in it')  # fmt: skip
        edges += [place[first], place[i]]
        i += 1
    return np.array(edges, dtype=np.int64)


def _find_blank(content: bytes, starts: Array, counts: Array) -> Array:
    r"""Returns which records are empty lines; with several columns, spaces are nothing, too."""
    blank = np.diff(starts) == 1
    if (counts > 1).any():
        for row in np.flatnonzero((counts == 1) & ~blank).tolist():
            blank[row] = content[starts[row] : starts[row + 1]].isspace()
    return blank


def _find_names(header: str, required: Sequence[str], separator: str, plain: bool, path: Path) -> list[str]:
    def split(separator: str) -> list[str]:
        fields = header.rstrip('\n').split(separator) if plain else next(csv.reader([header], delimiter=separator))
        return [(name.partition(':')[0] if plain else name).strip() for name in fields]

    names = split(separator)
    for name in required:
        if name not in names:
            fits = [other for other in '\t;,|' if other != separator and set(required) <= set(split(other))]
            hint = f": {fits[0]!r} would fit as 'separator'" if fits else ''
            raise ValueError(f"'{path}' lacks the column '{name}' (found {names}){hint}")
    again = {name for name in names if name and names.count(name) > 1}
    if again & set(required) or (again and plain):
        raise ValueError(f"the columns of '{path}' need different names (got {sorted(again)} more than once)")
    return [name if name and name not in again else f'\0{i}' for i, name in enumerate(names)]


def _read_parquet(path: Path, required: Sequence[str]) -> Table:
    r"""Reads a Parquet file; integers and truth values beside missing ones stay what they are."""
    import pandas as pd
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    kept: dict[Any, Any] = {pa.bool_(): pd.BooleanDtype()}
    for bits in (8, 16, 32, 64):
        kept[getattr(pa, f'int{bits}')()] = getattr(pd, f'Int{bits}Dtype')()
        kept[getattr(pa, f'uint{bits}')()] = getattr(pd, f'UInt{bits}Dtype')()
    try:
        names = pq.read_schema(path).names
        for name in required:
            if names.count(name) != 1:
                raise KeyError(name)
        table = pq.read_table(path, columns=list(dict.fromkeys(required)) or None)
        frame = table.to_pandas(types_mapper=kept.get, ignore_metadata=True)
    except KeyError as error:
        name = error.args[0]
        count = names.count(name)
        found = f"lacks the column '{name}'" if count == 0 else f"needs to have the column '{name}' once"
        raise ValueError(f"'{path}' {found} (found {names})") from None
    except Exception as error:  # the errors of Arrow are of many kinds
        raise ValueError(f"'{path}' is cut short or damaged ({type(error).__name__}: {error}): get it again") from error
    return Table(frame, str(path))


def shorten(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + '…')
