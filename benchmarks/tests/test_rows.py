r"""Rows are appended all or none, beside other processes."""

import argparse
import multiprocessing
from pathlib import Path

import pytest

from benchmarks import rows


def test_rows_widen_the_file_that_lacks_their_columns(tmp_path):
    path = tmp_path / 'rows.csv'
    rows.append(path, {'a': 1, 'b': 'x, "y"'})
    rows.append(path, {'a': 2, 'c': 3, 'b': '', 'd': 4})
    assert path.read_text().splitlines() == ['a,b,c,d', '1,"x, ""y""",,', '2,,3,4']
    with pytest.raises(ValueError, match=r"columns that the row lacks \(\['c', 'd'\]\)"):
        rows.append(path, {'a': 1, 'b': 2})
    assert len(rows.read(path)) == 2
    for end in (b'\n', b'\r\n'):
        path.write_bytes(b'a' + end + b'1' + end)
        rows.append(path, {'a': 2, 'b': 3})
        rows.append(path, {'a': 4, 'b': 5})
        assert path.read_bytes() == end.join([b'a,b', b'1,', b'2,3', b'4,5', b''])


def test_rows_are_appended_all_or_none(tmp_path, monkeypatch):
    path = tmp_path / 'rows.csv'
    rows.append(path, {'a': 1, 'b': 2}, {'a': 3, 'b': 4})
    before = path.read_bytes()
    with pytest.raises(ValueError, match='columns that the row lacks'):
        rows.append(path, {'a': 5, 'b': 6}, {'a': 7})
    monkeypatch.setattr(rows.os, 'write', lambda file, data: rows.os.pwrite(file, data[:3], 0))  # a full disk
    with pytest.raises(OSError, match='no room for 4 bytes'):
        rows.append(path, {'a': 5, 'b': 6})
    monkeypatch.undo()
    assert path.read_bytes() == before
    monkeypatch.setattr(rows.os, 'replace', lambda *names: pytest.fail('killed'))
    with pytest.raises(pytest.fail.Exception):
        rows.append(path, {'a': 5, 'b': 6, 'c': 7})
    monkeypatch.undo()
    assert path.read_bytes() == before
    rows.append(path, {'a': 5, 'b': 6, 'c': 7})
    assert rows.read(path)[-1] == {'a': '5', 'b': '6', 'c': '7'}
    assert rows.has(path, a=3, b=4) and not rows.has(path, a=3, b=2)


def append_some(path, process):
    for i in range(20):
        rows.append(path, *({'process': process, 'i': n, 'new': 1} for n in (i, -i)))


def test_rows_of_many_processes_are_all_there(tmp_path):
    path = tmp_path / 'rows.csv'
    rows.append(path, {'process': 'none', 'i': 0})
    fork = multiprocessing.get_context('fork')
    processes = [fork.Process(target=append_some, args=(path, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(rows.read(path)) == 81
    assert len({(row['process'], row['i']) for row in rows.read(path)}) == 79  # 0 and -0 are one


def test_rows_say_how_a_script_was_called():
    args = argparse.Namespace(items=[1, 2], root=Path('somewhere'), rows=Path('x.csv'), plot=None, only=None, k=3)
    assert rows.call(args, 7) == {'seed': 7, 'arguments': '{"items": [1, 2], "k": 3}'}
