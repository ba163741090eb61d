from benchmarks.quality import tables


def test_the_tables_are_made_of_the_rows():
    pages = tables.pages()
    assert len(pages) > 1
    for path in pages:
        text = path.read_text()
        assert tables.render(text) == text, f'{path.name}: run `python -m benchmarks.quality.tables`'
    assert '<!-- table: ' in (tables.ROOT / 'README.md').read_text()
