r"""The table of what places new items get, and what it costs the others."""

from pathlib import Path

from benchmarks.report.markdown import once, paired, read, spread, table

NONE = 'no new items'


def new_items(path: Path, names: dict[str, str]) -> str:
    r"""Returns a row for each dataset, model, power and method.

    Args:
        path (Path): The rows of ``benchmarks.quality.studies.new_items``.
        names (dict): What datasets are called.
    """
    rows = once(read(path), 'dataset', 'model', 'power', 'method', 'seed')
    lines = []
    for (dataset, model, power), group in rows.groupby(['dataset', 'model', 'power'], sort=False):
        known = {method: part.set_index('seed')['known_recall@20'] for method, part in group.groupby('method')}
        for method, part in group.groupby('method', sort=False):
            none = method == NONE
            name = f'{names.get(str(dataset), dataset)}, {model}, power {power:g}: {method} ({len(part)})'
            share = f'{part["new_share"].mean():.1%} of {part["share_of_catalogue"].mean():.1%}'
            cells = ['', '', ''] if none else [share, f'{part["scale"].mean():.2f}', spread(part['new_recall@20'])]
            cells += ['' if none else spread(part['new_among_new_recall@20']), spread(part['known_recall@20'])]
            lines.append([name, *cells, '' if none else paired(known[str(method)], known[NONE])])
    header = ['(seeds)', 'places of new items, of the catalogue', 'scale', 'recall@20 of new items', 'among new items']
    return table([*header, 'recall@20 of known items', 'against no new items'], lines)
