import bz2
import decimal
import gzip
import os
import re

import numpy as np
import pandas as pd
import pytest

from lirdrec_pyg.datasets import InteractionTable, _tables
from lirdrec_pyg.datasets._tables import Table, read_table, read_text

ROWS = [['u1', 'é', '5'], ['u2', 'b, "c"', '6']]


def read(tmp_path, content, name='t.csv', required=('user', 'item'), **kwargs):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, required, **kwargs)


def rows(table):
    return table.frame.to_numpy().tolist()


CSV = 'user,item,time\nu1,é,5\nu2,"b, ""c""",6\n'


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('t.csv', CSV),
        ('t.csv', '\ufeff' + CSV),
        ('t.csv', CSV.replace('\n', '\r\n')),
        ('t.csv', CSV.replace('\n', '\r')),
        ('t.csv', CSV.rstrip()),
        ('t.csv', '\n' + CSV.replace('u2', '\n  \nu2') + '\n\n'),
        ('T.CSV', CSV.replace('5\n', '5,\n').replace('6\n', '6,\n')),  # a separator at the end of each line
        ('t.csv', CSV.encode('utf-16')),
        ('t.csv.gz', gzip.compress(CSV.encode())),
        ('t.csv', gzip.compress(CSV.encode())),  # packed, whatever the name says
        ('t.csv.gz', CSV),
        ('t.csv', bz2.compress(CSV.encode())),
        ('t.tsv', CSV.replace(',"b, ""c"""', '\t"b, ""c"""').replace(',', '\t').replace('b\t ', 'b, ')),
        ('t.TSV.GZ', gzip.compress(b'user\titem\ttime\nu1\t\xc3\xa9\t5\nu2\t"b, ""c"""\t6\n')),
    ],
)
def test_one_table_in_many_forms(tmp_path, name, content):
    assert rows(read(tmp_path, content, name, ['user', 'item', 'time'])) == ROWS


@pytest.mark.parametrize(
    ('kwargs', 'content'),
    [
        ({'separator': ';'}, CSV.replace('user,item,time', 'user;item;time').replace('u1,é,', 'u1;é;')
         .replace('u2,', 'u2;').replace(',6', ';6')),
        ({'encoding': 'cp1252'}, CSV.encode('cp1252')),
        ({'encoding': 'latin-1'}, CSV.encode('latin-1')),
        ({'encoding': 'utf-16-le'}, CSV.encode('utf-16-le')),
        ({'encoding': 'utf8'}, '\ufeff' + CSV),
    ],
)  # fmt: skip
def test_encoding_and_separator_are_arguments(tmp_path, kwargs, content):
    assert rows(read(tmp_path, content, required=['user', 'item', 'time'], **kwargs)) == ROWS


HEAD = 'user,item,time\n'


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('t.csv', 'user;item;time\n1;2;3\n', r"'.*t.csv' lacks the column 'user' \(found .*\): ';' would fit as"),
        ('t.csv', 'user\titem\n1\t2\n', r"lacks the column 'user' .*: '\\t' would fit as 'separator'"),
        ('t.csv', CSV.encode('latin-1'), r"line 2 of '.*t.csv' needs to be in utf-8 \(got b'\\xe9'\): 'cp1252'"),
        ('t.csv', b'user,item\n\x81\xe9,1\n', r"line 2 of .*: 'latin-1' would fit: pass it as 'encoding'"),
        ('t.csv', CSV.encode('utf-16-le'), r"line 2 of '.*t.csv' needs to be .*: 'utf-16-le' would fit"),
        ('t.csv', 'user,item\n1,2\na\0b,2\n', r"line 3 of '.*t.csv' needs to be text \(got a NUL character\)"),
        ('t.csv.gz', gzip.compress(CSV.encode() * 50)[:-20], r"t.csv.gz' is cut short or damaged after line \d+ \("),
        ('t.csv', HEAD + 'a,"b,1\nc,"d,2\n', r"line 2 of '.*t.csv' needs to be valid CSV .*double the quotes in it"),
        ('t.csv', HEAD + '1,2,3\na,"b,1\n', r"line 3 of '.*t.csv' needs to be valid CSV"),
        ('t.csv', HEAD + 'a,5" disk,1\nc,"d" e,2\n', r"line 3 of '.*t.csv' needs to be valid CSV"),
        ('t.csv', HEAD + '1,"x\ny",3\n1,2\n', r"line 4 of '.*t.csv' needs 3 fields \(got 2: '1,2'\)"),
        ('t.csv', HEAD + '1,2,3,\n1,2,3\n', r"line 2 of '.*t.csv' needs 3 fields \(got 4: '1,2,3,'\)"),
        ('t.csv', HEAD + '1,2,3,4\n1,2,3,4\n', r"line 2 of '.*t.csv' needs 3 fields \(got 4: '1,2,3,4'\)"),
        ('t.csv', 'user,item,item\n1,2,3\n', r"columns of '.*t.csv' need different names \(got \['item'\] more"),
        ('t.csv', '', r"'.*t.csv' needs a header and a line for each row \(got an empty file\)"),
        ('t.csv', ' \n\n', 'got an empty file'),
        ('t.csv', b'PK\x03\x04', 'got a zip file, such as a workbook'),
        ('t.parquet', CSV, r"t.parquet' needs to be a Parquet file \(got one that starts with b'user'\): .* '.csv'"),
        ('t.parquet', '', 'needs to be a Parquet file'),
        ('t.parquet', b'PAR1 and no more', r"t.parquet' is cut short or damaged \(ArrowInvalid"),
        ('t.csv', gzip.compress(bytes(1 << 20)), r"line 1 of '.*t.csv' needs to be at most 65536 bytes long"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_without_guessing(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setattr(_tables, 'MAX_LINE', 1 << 16)
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content, name)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'separator': ';;'}, r"'separator' needs to be one ASCII character such as ';' \(got ';;'\)"),
        ({'separator': '"'}, "'separator' needs to be"),
        ({'encoding': 'klingon'}, r"'encoding' needs to be one of Python's, such as 'cp1252' \(got 'klingon'\)"),
        ({'encoding': 'ascii'}, r"line 2 of .* needs to be in ascii \(got b'\\xc3'\): 'utf-8' would fit"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, CSV, **kwargs)


def test_only_regular_files(tmp_path):
    os.mkfifo(tmp_path / 'pipe.csv')
    for name in ('pipe.csv', 'none.csv', '.'):
        with pytest.raises(FileNotFoundError, match=r"no '.*' \(argument 'items'\)"):
            read_table(tmp_path / name, argument='items')


def test_quotes_within_a_field_are_characters(tmp_path):
    content = 'user,item\na,5" disk\nb,"6"" disk, ""new"""\n"",""""\nc,""\n'
    assert rows(read(tmp_path, content)) == [['a', '5" disk'], ['b', '6" disk, "new"'], ['', '"'], ['c', '']]


def test_quoted_fields_agree_with_the_csv_module(tmp_path):
    import csv

    rng = np.random.default_rng(0)
    for trial in range(300):
        content = 'a,b\n' + ''.join(rng.choice(list('x",\n"'), size=rng.integers(1, 25))) + '\n'
        path = tmp_path / f'{trial}.csv'
        path.write_text(content)
        try:
            expected = [row for row in csv.reader(content.splitlines(keepends=True), strict=True) if row][1:]
        except csv.Error:
            expected = None
        try:
            found = rows(read_table(path))
        except ValueError:
            found = None
        if expected is None or any(len(row) not in (2, 3) for row in expected):
            assert found is None, content
        elif any(len(row) == 3 for row in expected):  # perhaps a comma at the end of each line
            assert found in (None, [row[:2] for row in expected if row[2:] == ['']]), content
        else:
            assert found == expected, content


def test_a_file_without_a_header(tmp_path):
    table = read(tmp_path, '1,2\n\n"3"\n', required=(), names=['a', 'b'], least=1)
    assert rows(table) == [['1', '2'], ['3', '']] and table.lines.tolist() == [1, 3]
    assert rows(read(tmp_path, '', required=(), names=['a', 'b'])) == []


@pytest.mark.parametrize(
    ('dtype', 'values', 'expected'),
    [
        ('float64', [1.0, None, 2.5], ['1', '', '2.5']),
        ('float64', [2.0**53 - 1, 3], ['9007199254740991', '3']),
        ('float32', [2.0**24 - 1, 3], ['16777215', '3']),
        ('Int64', [2**53 + 1, 2**53, None], ['9007199254740993', '9007199254740992', '']),
        ('uint64', [2**64 - 1], ['18446744073709551615']),
        (object, [10, 10.0, '10', ' a ', decimal.Decimal('10.0'), None], ['10', '10', '10', 'a', '10', '']),
        ('category', [10, 10.0, None, 'x'], ['10', '10', '', 'x']),
        (object, ['a', None, ''], ['a', '', '']),
    ],
)
def test_ids(dtype, values, expected):
    table = Table(pd.DataFrame({'user': pd.Series(values, dtype=dtype)}), 'interactions')
    assert table.ids('user').tolist() == expected


@pytest.mark.parametrize(
    ('dtype', 'values', 'message'),
    [
        ('float64', [1, 2.0**53], r"'user' needs to be integers or strings: float64 does not tell ids from 9007"),
        ('float32', [1, 2.0**24], 'float32 does not tell ids from 16777216 on apart'),
        ('Float64', [1, 2.0**53, None], 'Float64 does not tell'),
        ('float64', [1, float('inf')], 'float64 does not tell'),
        (object, ['a', 2.0**53], r'below 9007199254740992\) \(got 9007199254740992.0 in row 1'),
        (object, ['a', ['b']], r"'user' needs to be a string, or an integer .* \(got \['b'\] in row 1\)"),
        (object, ['a', b'b'], r"\(got b'b' in row 1\)"),
        (object, ['a', {}], r'in row 1\)'),
    ],
)  # fmt: skip
def test_ids_that_may_be_several(dtype, values, message):
    table = Table(pd.DataFrame({'user': pd.Series(values, dtype=dtype)}), 'interactions')
    with pytest.raises(ValueError, match=message):
        table.ids('user')


def test_large_parquet_ids_beside_a_null_stay_apart(tmp_path):
    pytest.importorskip('pyarrow')
    ids = pd.array([2**53, 2**53 + 1, None], dtype='Int64')
    pd.DataFrame({'user': ids, 'item': [1, 1, 1]}).to_parquet(tmp_path / 'orders.parquet')
    pd.DataFrame({'item': [1]}).to_parquet(tmp_path / 'items.csv')  # told by its content
    with pytest.warns(UserWarning, match='1 interactions without a user'):
        table = InteractionTable(tmp_path / 'orders.parquet', tmp_path / 'items.csv')
    assert table.data['user'].raw_id == ['9007199254740992', '9007199254740993']


@pytest.mark.parametrize(
    ('values', 'kwargs', 'expected'),
    [
        (['1', ' 2 '], {}, [1, 2]),
        ([str(2**53 + 1), '3'], {}, [2**53 + 1, 3]),
        (['1.5', '1e3'], {}, [1.5, 1000]),
        (['5.0', '2'], {'integer': True}, [5, 2]),
        ([True, False], {}, [1, 0]),
        (['9e99'], {}, [9e99]),
    ],
)
def test_numbers(values, kwargs, expected):
    assert Table(pd.DataFrame({'x': values}), 'items').numbers('x', **kwargs).tolist() == expected


@pytest.mark.parametrize(
    ('values', 'kwargs', 'message'),
    [
        (['1', '1_0'], {}, r"'x' needs to be a number \(got '1_0' in row 1\)"),
        (['1', '1e400'], {}, r"a number \(got '1e400' in row 1\)"),
        (['1', 'nan'], {}, 'a number'),
        (['1', '1e39'], {'largest': 3.4e38}, r"'x' needs to be at most 3.4e\+38 \(got '1e39' in row 1\)"),
        (['1.0', str(2**53 + 1)], {'integer': True}, r'below 2\*\*53, or in a column without decimal points'),
        (['1', '1.5'], {'integer': True}, 'an integer'),
        (pd.to_datetime(['2024-01-01']), {}, 'a number'),
        ([pd.Timestamp(0), 1], {}, 'a number'),
    ],
)
def test_refuses_numbers(values, kwargs, message):
    with pytest.raises(ValueError, match=message):
        Table(pd.DataFrame({'x': values}), 'items').numbers('x', **kwargs)


@pytest.mark.parametrize(
    'values',
    [
        ['1970-01-02', '1970-01-01T00:00:01'],
        pd.Series([pd.Timestamp('1970-01-02'), pd.Timestamp('1970-01-01T00:00:01')], dtype=object),
        pd.to_datetime(['1970-01-02 00:00:00', '1970-01-01 00:00:01']),
        pd.to_datetime(['1970-01-02 00:00:00', '1970-01-01 00:00:01'], utc=True),
        ['86400', '1'],
        pd.Series([86400, 1], dtype='UInt32'),
        pd.Series(['86400', '1'], dtype='category'),
    ],
)
def test_times(values):
    assert Table(pd.DataFrame({'x': values}), 'items').times('x').tolist() == [86400, 1]


def test_lists_are_texts():
    values = [['red', 'kettle'], np.array(['a', None, 'b'], dtype=object), [], None, 'x', float('nan'), 1.5]
    table = Table(pd.DataFrame({'x': pd.Series(values, dtype=object)}), 'items')
    assert table.texts('x').tolist() == ['red kettle', 'a b', '', '', 'x', '', '1.5']
    with pytest.raises(ValueError, match=r"'x' needs to be a text, a number or a list of these \(got \{'a': 1\} in"):
        Table(pd.DataFrame({'x': [{'a': 1}]}), 'items').texts('x')


def test_list_cells_of_parquet_are_texts(tmp_path):
    pytest.importorskip('pyarrow')
    path = tmp_path / 'items.parquet'
    pd.DataFrame({'item': ['a', 'b'], 'tags': [['red', 'kettle'], []]}).to_parquet(path)
    table = InteractionTable(pd.DataFrame({'user': [1], 'item': ['a']}), path, text='tags')
    assert table.texts == ['red kettle', '']


def test_errors_name_the_line_of_the_file(tmp_path):
    table = read(tmp_path, 'user,item\n"a\nb",1\n\nc,x\n')
    message = r"line 5 of '.*t.csv': 'item' needs to be a number \(got 'x' in 'c\\tx'\)"
    with pytest.raises(ValueError, match=message):
        table.numbers('item')
    with pytest.raises(ValueError, match=message):
        table.take(np.array([False, True])).numbers('item')


def test_read_text_keeps_lone_carriage_returns(tmp_path):
    (tmp_path / 'x').write_bytes(b'a\rb\r\nc')
    assert read_text(tmp_path / 'x') == b'a\rb\nc\n'


def test_random_bytes_are_refused_as_values(tmp_path):
    rng = np.random.default_rng(0)
    good = CSV.encode()
    for _ in range(300):
        content = bytearray(good)
        for place in rng.integers(len(good), size=3).tolist():
            content[place] = int(rng.integers(256))
        try:
            table = read(tmp_path, bytes(content), required=())
        except ValueError as error:
            assert re.search(r"'.*t\.csv'", str(error)) and type(error) is ValueError
        else:
            assert len(table.lines) == len(table)
