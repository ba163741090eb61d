r"""Texts, images and captions become feature matrices that are aligned with the items."""

from lirdrec_pyg.features._encode import EncodedFeatures
from lirdrec_pyg.features.captions import Captions, caption_images
from lirdrec_pyg.features.encoders import (
    SentenceTransformerEncoder,
    TimmEncoder,
    TransformersCaptioner,
    TransformersImageEncoder,
    TransformersTextEncoder,
)
from lirdrec_pyg.features.images import encode_images
from lirdrec_pyg.features.texts import encode_texts

__all__ = [
    'Captions',
    'EncodedFeatures',
    'SentenceTransformerEncoder',
    'TimmEncoder',
    'TransformersCaptioner',
    'TransformersImageEncoder',
    'TransformersTextEncoder',
    'caption_images',
    'encode_images',
    'encode_texts',
]
