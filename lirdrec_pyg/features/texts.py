import os
from collections.abc import Sequence

from lirdrec_pyg.features._encode import EncodedFeatures, Encoder, encode
from lirdrec_pyg.features._shards import Ready, listed


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
    done again. A text without anything to see, or without a token, is a missing one: its row is zero, and its item is
    marked. Two of these jobs in one folder take turns.

    .. code-block:: python

        out = encode_texts(['a cup', 'a pot', None], SentenceTransformerEncoder(), 'features')
        data['item'].x_text, data['item'].has_text = out.x, out.has

    Args:
        texts (sequence of str or None): The texts, in the order of the items.
        encoder (callable): Takes a list of texts and returns a matrix with a row for each, *e.g.*,
            :class:`~lirdrec_pyg.features.SentenceTransformerEncoder`. It is told from others by ``name`` and
            ``revision`` or ``settings``, if it has them, else by its class, attributes and code. A plain function has
            none of these: what it returns for a few texts is compared with what is stored. After a change that this
            does not show, pass ``resume=False``. If it has a method ``has_tokens``, this says whether it sees anything
            in a text.
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
        OSError: If a file can't be written; says which. What was there before is whole.
    """
    texts = listed('texts', texts)
    for row, text in enumerate(texts):
        if not isinstance(text, str | None):
            raise ValueError(
                f"'texts' needs to hold strings and None (got {text!r} in row {row}): make None of what is missing, "
                'and one text of a list'
            )
    has_tokens = getattr(encoder, 'has_tokens', None)

    def prepare(text: str | None) -> Ready:
        text = None if text is None else visible(text)
        return Ready(None if text is None or (has_tokens is not None and not has_tokens(text)) else text)

    return encode(
        texts, encoder, prepare, folder, modality, ids, batch_size, shard_size, half, resume, progress,
        lambda table: texts,
    )  # fmt: skip


def visible(text: str) -> str | None:
    r"""Returns a text that has something to see and that any encoding can hold, :obj:`None` if there is nothing."""
    text = text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')  # half a character becomes �
    return text if any(char.isprintable() and not char.isspace() for char in text) else None
