r"""What a script says before it works."""

from benchmarks.quality import jobs, run
from benchmarks.speed.scale import needs


def test_rows_that_are_there_are_counted_and_printed(tmp_path, capsys):
    path = tmp_path / 'rows.csv'
    settings = {'fit': {'epochs': 1}, 'model': {'hidden_channels': 8}}
    jobs.run_all([jobs.job('fake', 'LIRDRec', 0, settings)], tmp_path, path)
    capsys.readouterr()
    run.print_known([jobs.job('fake', 'LIRDRec', seed, settings) for seed in (0, 1)], path)
    first, last = capsys.readouterr().out.splitlines()
    assert 'LIRDRec seed 0: val ndcg@20 0.' in first and 'test ndcg@20 0.' in first
    assert last == f'1 rows found in {path}, 1 to run'
    run.print_known([jobs.job('fake', 'LIRDRec', 0, settings)], path)
    assert capsys.readouterr().out.endswith(f'1 rows found in {path}, nothing to run\n')


def test_what_a_large_run_takes():
    assert needs(1_000_000, 1_000_000, 10_000_000, 128, 64).endswith('0.24 GiB of disk and about 9.4 GiB of memory')
