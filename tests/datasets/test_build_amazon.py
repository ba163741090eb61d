import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'examples' / 'build_amazon.py'


@pytest.fixture
def build(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location('build_amazon', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, 'build_amazon', module)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['build_amazon.py', '--root', 'root', '--out', 'out', '--fake', *args])
        module.main()

    return run


@pytest.mark.filterwarnings('ignore:left out')
def test_it_refuses_before_it_writes(build, tmp_path, capsys):
    for args, error in [
        (['--name', 'baby', '--version', '2018'], SystemExit),
        (['--name', '../evil'], SystemExit),
        (['--name', 'baby', '--features', 'text=none.npy'], FileNotFoundError),
        (['--name', 'baby', '--features', 'text'], SystemExit),
        (['--name', 'baby', '--k-core', '-1'], ValueError),
    ]:
        with pytest.raises(error):
            build(*args)
        assert list(tmp_path.iterdir()) == []
    (tmp_path / 'out' / 'baby').mkdir(parents=True)
    with pytest.raises(SystemExit):
        build('--name', 'baby')
    assert "'out/baby' is there already: remove it, or pass another '--out'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['out']
    (tmp_path / 'out' / 'baby').rmdir()
    build('--name', 'baby')
    assert (tmp_path / 'out' / 'baby' / 'baby.inter').is_file()


def test_it_does_not_mix_generated_files_with_others(build, tmp_path):
    raw = tmp_path / 'root' / '2014' / 'raw'
    raw.mkdir(parents=True)
    (raw / 'reviews_Baby_5.json.gz').write_bytes(b'real')
    with pytest.raises(FileExistsError, match='generated files are not mixed with others'):
        build('--name', 'baby')
    assert [path.name for path in raw.iterdir()] == ['reviews_Baby_5.json.gz']
