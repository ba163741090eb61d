import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_readme_tables_are_made_of_the_rows():
    spec = importlib.util.spec_from_file_location('tables', ROOT / 'benchmarks' / 'quality' / 'tables.py')
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    text = (ROOT / 'README.md').read_text()
    assert '<!-- table: ' in text
    assert tables.render(text) == text
