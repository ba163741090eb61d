r"""Public mirrors of the published sets in the format of the MMRec framework."""

import urllib.error
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lirdrec_pyg._io import file_digest, locked, replacing
from lirdrec_pyg.datasets._common import read_matrix
from lirdrec_pyg.datasets._download import download
from lirdrec_pyg.datasets._tables import read_table

# The published sets: users, items, interactions, and of each file, where known, the bytes and the start of its sha256.
PUBLISHED = {
    'baby': (19_445, 7_050, 160_792),
    'sports': (35_598, 18_357, 296_337),
    'clothing': (39_387, 23_033, 278_677),
    'elec': (192_403, 63_001, 1_689_188),
    'microlens': (98_129, 17_228, 705_174),
}
PUBLISHED_FILES = {
    'baby/baby.inter': (4_362_239, 'e0abb033'),
    'baby/image_feat.npy': (231_014_528, '36c3be59'),
    'baby/text_feat.npy': (10_828_928, '6667f2ad'),
}
SPLITS = {  # the interactions for training, validation and test
    'baby': [118_551, 20_559, 21_682],
    'sports': [218_409, 37_899, 40_029],
    'clothing': [197_338, 40_150, 41_189],
}
WIDTHS = {'image': 4096, 'text': 384}
MIRRORS = {
    'baby': 'https://huggingface.co/datasets/MrShouxingMa/Baby/resolve/main',
    'sports': 'https://huggingface.co/datasets/MrShouxingMa/Sports/resolve/main',
    'clothing': 'https://huggingface.co/datasets/MrShouxingMa/Clothing/resolve/main',
}
PARTS = ('train.npy', 'valid.npy', 'test.npy')  # what a mirror may have in place of `<name>.inter`
Interactions = npt.NDArray[np.int64]  # user, item and part, sorted


def fetch(name: str, folder: Path, wanted: Collection[str] | None) -> None:
    r"""Gets what a folder lacks of a published set from its mirror.

    A file takes its place after it was checked: by the sha256 where it is known, else by what is published of its
    sizes. What is there already stays. One that was broken off goes on.

    Args:
        name (str): The name of the set.
        folder (Path): The folder of the set.
        wanted (collection of str, optional): The modalities. (default: all)

    Raises:
        ConnectionError: If a file can't be had; says where to put it.
        ValueError: If there is no mirror or no such modality there, a file is not that of the published set, or the
            interactions in the folder are not those that the features of the mirror belong to.
    """
    if name not in MIRRORS:
        raise ValueError(f"'download' needs 'name' to be one of {sorted(MIRRORS)}, which have a mirror (got {name!r})")
    modalities = sorted(WIDTHS if wanted is None else set(wanted))
    if strange := set(modalities) - set(WIDTHS):
        raise ValueError(f"'modalities' needs to be of {sorted(WIDTHS)} to be downloaded (got {sorted(strange)})")
    inter, new = folder / f'{name}.inter', folder / 'download'
    files = [f'{modality}_feat.npy' for modality in modalities]
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):  # whoever waited finds the files
        lacking = [file for file in files if not (folder / file).is_file()]
        try:
            if lacking or not inter.is_file():
                _fetch_interactions(name, inter, new)
            for file in lacking:
                _fetch(name, file, new)
                _check_features(name, new / file)
                (new / file).replace(folder / file)
        except ConnectionError as error:
            raise ConnectionError(f"{error}. By hand: '{folder}' needs to hold {[inter.name, *files]}") from error
        for file in (inter.name, *PARTS):
            (new / file).unlink(missing_ok=True)
        if new.is_dir() and not any(new.iterdir()):
            new.rmdir()


def _fetch(name: str, file: str, new: Path) -> None:
    r"""Downloads a file and removes it if it is known to be another one."""
    if not (new / file).is_file():
        download(f'{MIRRORS[name]}/{file}', new / file)
    size, prefix = PUBLISHED_FILES.get(f'{name}/{file}', (0, ''))
    if prefix and ((new / file).stat().st_size != size or not file_digest(new / file).startswith(prefix)):
        got = f'{(new / file).stat().st_size} bytes, {file_digest(new / file)[:8]}…'
        (new / file).unlink()
        raise ValueError(f"'{MIRRORS[name]}/{file}' needs to have {size} bytes and the sha256 {prefix}… (got {got})")


def _fetch_interactions(name: str, inter: Path, new: Path) -> None:
    r"""Gets the interactions, whatever form the mirror has them in, or compares them with what is there."""
    try:
        _fetch(name, inter.name, new)
        found = _read(new / inter.name)
    except ConnectionError as error:
        if not (isinstance(error.__cause__, urllib.error.HTTPError) and error.__cause__.code == 404):
            raise
        for file in PARTS:
            _fetch(name, file, new)
        found = _read_parts([new / file for file in PARTS])
    counts = np.bincount(found[2], minlength=3).tolist()
    sizes = (int(found[0].max()) + 1, int(found[1].max()) + 1, found.shape[1])
    if counts != SPLITS[name] or sizes != PUBLISHED[name]:
        for file in (inter.name, *PARTS):
            (new / file).unlink(missing_ok=True)
        raise ValueError(
            f"the interactions of '{MIRRORS[name]}' need to be those published, {PUBLISHED[name]} (users, items, "
            f'interactions) split into {SPLITS[name]} (got {sizes} and {counts})'
        )
    if not inter.is_file() and (new / inter.name).is_file():
        (new / inter.name).replace(inter)
    elif not inter.is_file():
        with replacing(inter) as temporary:
            lines = ['userID\titemID\tx_label', *('\t'.join(map(str, row)) for row in found.T.tolist())]
            temporary.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    elif not np.array_equal(_read(inter), found):
        raise ValueError(
            f"'{inter}' needs to be the interactions of '{MIRRORS[name]}', whose features go by its numbers of items "
            '(got others): move it away'
        )


def _read(path: Path) -> Interactions:
    table = read_table(path, ['userID', 'itemID', 'x_label'], plain=True, rest=True)
    return _sorted([table.numbers(column, integer=True) for column in ('userID', 'itemID', 'x_label')])


def _read_parts(paths: list[Path]) -> Interactions:
    pairs = [np.asarray(read_matrix(path)) for path in paths]
    for path, part in zip(paths, pairs, strict=True):
        if part.dtype.kind not in 'iu' or len(part) != 2 or part.min() < 0:
            path.unlink()
            raise ValueError(f"'{path.name}' of the mirror needs to hold users and items in two rows (got {part.dtype} "
                             f'of shape {part.shape})')  # fmt: skip
    label = np.repeat(np.arange(len(pairs)), [part.shape[1] for part in pairs])
    return _sorted([*np.concatenate(pairs, axis=1), label])


def _sorted(columns: list[Any]) -> Interactions:
    rows = np.stack([np.asarray(column, dtype=np.int64) for column in columns])
    return rows[:, np.lexsort(rows[::-1])]


def _check_features(name: str, path: Path) -> None:
    expected = (PUBLISHED[name][1], WIDTHS[path.name.removesuffix('_feat.npy')])
    try:
        shape = read_matrix(path).shape
    except ValueError:
        path.unlink()
        raise
    if shape != expected:
        path.unlink()
        raise ValueError(f"'{MIRRORS[name]}/{path.name}' needs to be of shape {expected} (got {shape})")
