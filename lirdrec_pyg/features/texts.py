import os
from collections.abc import Sequence

from lirdrec_pyg.features._encode import EncodedFeatures, Encoder, encode


def encode_texts(
    texts: Sequence[str | None],
    encoder: Encoder,
    folder: str | os.PathLike[str],
    modality: str = 'text',
    *,
    ids: Sequence[str] | None = None,
    batch_size: int = 64,
    shard_size: int = 1024,
    half: bool = False,
    resume: bool = True,
    progress: bool = True,
) -> EncodedFeatures:
    r"""Encodes texts and writes ``<modality>_feat.npy``, ``<modality>_mask.npy`` where some are missing, and
    ``<modality>_manifest.json``, which :class:`~lirdrec_pyg.datasets.MMRecDataset` and others read.

    The work is kept in pieces while it goes on: a job that dies goes on where it was, and one that is finished is not
    done again. An empty text is a missing one: its row is zero, and its item is marked.

    Args:
        texts (sequence of str or None): The texts, in the order of the items.
        encoder (callable): Takes a list of texts and returns a matrix with a row for each, *e.g.*,
            :class:`~lirdrec_pyg.features.SentenceTransformerEncoder`. It is told from others by ``name`` and
            ``revision`` or ``settings``, if it has them, else by its class, attributes and code. A plain function has
            none of these: what it returns for a few texts is compared with what is stored. After a change that this
            does not show, pass ``resume=False``.
        folder (path): Where to write.
        modality (str, optional): The name of the modality. (default: ``'text'``)
        ids (sequence of str, optional): The raw ids of the items; the manifest keeps their digest.
        batch_size (int, optional): The number of texts in a call. (default: :obj:`64`)
        shard_size (int, optional): The number of texts in a piece. (default: :obj:`1024`)
        half (bool, optional): Whether to store half precision. (default: :obj:`False`)
        resume (bool, optional): Whether to go on with what is there. (default: :obj:`True`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)

    Raises:
        ValueError: If a text is neither a string nor :obj:`None`, the encoder returns something else than finite rows
            of one width, or no text can be encoded.
    """
    texts = list(texts)  # by position, whatever the index of a column
    for row, text in enumerate(texts):
        if not isinstance(text, str | None):
            raise ValueError(f"'texts' needs to hold strings and None (got {text!r} in row {row})")
    return encode(
        texts, encoder, lambda text: text if text and text.strip() else None, folder, modality, ids, batch_size,
        shard_size, half, resume, progress, lambda table: texts,
    )  # fmt: skip
