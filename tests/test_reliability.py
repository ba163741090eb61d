r"""A short run of ``benchmarks.reliability``: nothing goes unnoticed."""

import pytest

from benchmarks import reliability

COUNTS = {
    'checkpoints': 40, 'caches': 40, 'retrievers': 60, 'features': 30, 'pieces': 30, 'captions': 20, 'values': 120,
    'tables': 60, 'ids': 30, 'pictures': 26, 'races': 3, 'threads': 3, 'kills': 6, 'full': 6,
}  # fmt: skip


@pytest.mark.parametrize('kind', reliability.KINDS)
def test_nothing_goes_unnoticed(kind):
    found, lines = reliability.run(kind, COUNTS[kind], seed=1)
    assert lines == []
    assert 0.9 * COUNTS[kind] <= found.total() == found['right'] + found['noticed']


def test_what_is_wrong_is_counted():
    def fail(error):
        raise error

    for run, may_refuse, expected in [
        (lambda: 1, True, 'right'),
        (lambda: 2, True, 'unnoticed'),
        (lambda: fail(ValueError('why')), True, 'noticed'),
        (lambda: fail(ValueError('why')), False, 'unnoticed'),
        (lambda: fail(FileNotFoundError('why')), True, 'noticed'),
        (lambda: fail(ValueError()), True, 'bare'),
        (lambda: fail(UnicodeDecodeError('utf-8', b'', 0, 1, 'why')), True, 'bare'),
        (lambda: fail(KeyError('why')), True, 'bare'),
        (lambda: reliability.within(0.05, lambda: reliability.time.sleep(5)), True, 'bare'),
    ]:
        assert reliability.judge(reliability.Case('', run, lambda found: found == 1), may_refuse)[0] == expected
