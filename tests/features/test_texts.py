import json
import os

import numpy as np
import pandas as pd
import pytest
import torch

from lirdrec_pyg.features import encode_texts

TEXTS = ['red kettle', 'blue kettle', '', 'fork', None, 'spoon', 'knife', 'a big red plate']


class Letters:
    r"""Counts letters."""

    name, revision = 'letters', '1'

    def __init__(self, fail_after=None):
        self.texts = []
        self.fail_after = fail_after

    def __call__(self, texts):
        if self.fail_after is not None and len(self.texts) >= self.fail_after:
            raise KeyboardInterrupt
        self.texts += texts
        return torch.tensor([[float(text.count(letter)) for letter in 'abcde'] for text in texts])


def encode(folder, encoder, texts=TEXTS, **kwargs):
    return encode_texts(texts, encoder, folder, batch_size=2, shard_size=3, progress=False, **kwargs)


def test_features_mask_and_manifest(tmp_path):
    out = encode(tmp_path, Letters(), ids=list('abcdefgh'))
    assert out.x.dtype == torch.float32
    assert out.x[0].tolist() == [0, 0, 0, 1, 3]
    assert out.has.tolist() == [True, True, False, True, False, True, True, True]
    assert not out.x[~out.has].any()
    assert sorted(os.listdir(tmp_path)) == ['text_feat.npy', 'text_manifest.json', 'text_mask.npy']
    assert np.array_equal(np.load(tmp_path / 'text_feat.npy'), out.x.numpy())
    assert np.array_equal(np.load(tmp_path / 'text_mask.npy'), out.has.numpy())
    known = json.loads((tmp_path / 'text_manifest.json').read_text())
    assert known == out.manifest
    assert (known['count'], known['dim'], known['dtype'], known['missing']) == (8, 5, 'float32', 2)
    assert (known['encoder'], known['revision'], known['unreadable']) == ('letters', '1', 0)
    assert len(known['sha256']) == len(known['ids_sha256']) == 64


def test_a_job_that_dies_loses_at_most_one_piece(tmp_path):
    expected = encode(tmp_path / 'whole', Letters())
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path / 'part', Letters(fail_after=4))
    assert not (tmp_path / 'part' / 'text_feat.npy').exists()
    encoder = Letters()
    out = encode(tmp_path / 'part', encoder)
    assert encoder.texts in (TEXTS[3:4] + TEXTS[5:], TEXTS[6:])
    assert 'red kettle' not in encoder.texts
    assert torch.equal(out.x, expected.x)
    assert out.manifest['sha256'] == expected.manifest['sha256']
    assert '.text_shards' not in os.listdir(tmp_path / 'part')


def test_what_is_done_is_not_done_again(tmp_path):
    first = encode(tmp_path, Letters())
    encoder = Letters()
    again = encode(tmp_path, encoder)
    assert encoder.texts == []
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.has, again.has)
    encode(tmp_path, encoder, resume=False)
    assert len(encoder.texts) == 6
    encoder = Letters()
    encode(tmp_path, encoder, texts=[*TEXTS[:-1], 'cup'])  # other texts
    assert 'cup' in encoder.texts
    encoder.revision = '2'
    encoder.texts = []
    encode(tmp_path, encoder)
    assert len(encoder.texts) == 6


@pytest.mark.parametrize('damage', ['deleted', 'cut', 'older manifest'])
def test_a_mask_that_is_not_the_features_own_is_not_trusted(tmp_path, damage):
    first = encode(tmp_path, Letters())
    if damage == 'older manifest':
        entries = {key: value for key, value in first.manifest.items() if key != 'mask_sha256'}
        (tmp_path / 'text_manifest.json').write_text(json.dumps(entries))
    mask = tmp_path / 'text_mask.npy'
    mask.unlink() if damage != 'cut' else mask.write_bytes(mask.read_bytes()[:100])
    out = encode(tmp_path, Letters())
    assert out.has.tolist() == first.has.tolist() == np.load(mask).tolist()
    assert out.manifest == first.manifest


@pytest.mark.filterwarnings('ignore:.*holds pieces of another job')
@pytest.mark.parametrize('other', [['a', 'b', None], ['a', 'b', 'c']])
@pytest.mark.parametrize('texts', [['a', None, 'ccc'], ['a', 'bb', 'ccc']])
def test_a_mask_whose_features_were_never_replaced_is_not_trusted(tmp_path, monkeypatch, texts, other):
    replace = os.replace

    def stop(source, target):
        if os.path.basename(target) == 'text_feat.npy':
            raise KeyboardInterrupt
        replace(source, target)

    first = encode(tmp_path, Letters(), texts=texts)
    with monkeypatch.context() as patch:
        patch.setattr('lirdrec_pyg.features._encode.os.replace', stop)
        with pytest.raises(KeyboardInterrupt):
            encode(tmp_path, Letters(), texts=other)
    out = encode(tmp_path, Letters(), texts=texts)
    assert out.has.tolist() == [text is not None for text in texts]
    assert torch.equal(out.x, first.x)


def test_pieces_of_another_job_are_thrown_away(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path, Letters(fail_after=4))
    encoder = Letters()
    with pytest.warns(UserWarning, match='holds pieces of another job'):
        encode(tmp_path, encoder, texts=['x', *TEXTS[1:]])
    assert len(encoder.texts) == 6


def test_pieces_of_another_size_are_thrown_away(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path, Letters(fail_after=4))
    encoder = Letters()
    with pytest.warns(UserWarning, match='holds pieces of another job'):
        out = encode_texts(TEXTS, encoder, tmp_path, batch_size=2, shard_size=2, progress=False)
    assert len(encoder.texts) == 6
    assert torch.equal(out.x[out.has], Letters()([text for text in TEXTS if text]))


def test_a_column_is_taken_by_position_whatever_its_index(tmp_path):
    column = pd.Series(['a', 'bb', 'ccc'], index=[2, 1, 0])
    out = encode(tmp_path, Letters(), texts=column, ids=column)
    assert out.x[:, :3].tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 3]]
    with pytest.raises(ValueError, match=r"'texts' needs to hold strings and None \(got nan in row 1\)"):
        encode(tmp_path, Letters(), texts=['a', float('nan')])


def test_leaves_no_temporary_file(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError('no space left')

    monkeypatch.setattr('lirdrec_pyg.features._encode.os.replace', fail)
    with pytest.raises(OSError, match='no space left'):
        encode(tmp_path, Letters(), texts=['a'])
    assert not [path for path in tmp_path.rglob('*') if path.name.endswith('.tmp')]
    assert not (tmp_path / 'text_feat.npy').exists()


def test_half_precision_and_no_mask_where_all_are_there(tmp_path):
    encode(tmp_path, Letters())
    out = encode(tmp_path, Letters(), texts=['a', 'bb'], half=True)
    assert np.load(out.path).dtype == np.float16
    assert out.x.dtype == torch.float32
    assert not (tmp_path / 'text_mask.npy').exists()
    with pytest.raises(ValueError, match='NaN or Inf for row 1 in float16'):
        encode(tmp_path, lambda texts: torch.tensor([[1.0], [1e6]]), texts=['a', 'bb'], half=True)


@pytest.mark.parametrize(
    ('encoder', 'message'),
    [
        (lambda texts: torch.ones(1, 2), 'a row for each of 2 inputs'),
        (lambda texts: torch.ones(len(texts)), r'got shape \(2,\)'),
        (lambda texts: torch.ones(len(texts), len(texts[0])), 'rows of one width'),
        (lambda texts: torch.full((len(texts), 2), float('nan')), 'NaN or Inf for row 0'),
    ],
)
def test_refuses_what_encoders_return(tmp_path, encoder, message):
    with pytest.raises(ValueError, match=message):
        encode(tmp_path, encoder)


def test_a_text_without_anything_to_see_is_missing(tmp_path):
    texts = ['a', '', ' \n', '\u200b', '\ufeff \u00ad', '\x00\x1f', '\u3000', None, 'e\u0301', '\u732b', 'half \ud83d']
    encoder = Letters()
    out = encode(tmp_path, encoder, texts=texts)
    assert out.has.tolist() == [True] + [False] * 7 + [True] * 3
    assert out.manifest['missing'] == 7
    assert encoder.texts[-1] == 'half \ufffd'


def test_a_text_without_tokens_is_missing(tmp_path):
    class Reads(Letters):
        def has_tokens(self, text):
            return 'a' in text

    out = encode(tmp_path, Reads(), texts=['a', 'xyz', 'bad', ''])
    assert out.has.tolist() == [True, False, True, False]
    assert out.manifest['missing'] == 2


@pytest.mark.parametrize(
    'value', ['red kettle', b'ab', {'a', 'b'}, {'a': 1}, pd.DataFrame({'a': ['b']}), np.array('a')]
)
def test_refuses_what_is_no_sequence_of_texts(tmp_path, value):
    with pytest.raises(ValueError, match=f"'texts' needs to be a sequence .*got {type(value).__name__} .*give a list"):
        encode(tmp_path, Letters(), texts=value)
    with pytest.raises(ValueError, match="'ids' needs to be a sequence"):
        encode(tmp_path, Letters(), texts=['a', 'b'], ids=value)


@pytest.mark.parametrize('value', [np.array(['red', 'kettle']), ['red'], [], True, float('nan'), pd.NA, 3])
def test_refuses_what_is_no_text(tmp_path, value):
    encoder = Letters()
    with pytest.raises(ValueError, match=r"'texts' needs to hold strings and None \(got .* in row 1\): make None of"):
        encode(tmp_path, encoder, texts=['a', value])
    assert encoder.texts == []


@pytest.mark.parametrize('modality', ['../../evil', 'no name', '', 'items', 'type', 'half', 'shared', 'a/b', None])
def test_refuses_what_can_be_no_modality(tmp_path, modality):
    with pytest.raises(ValueError, match="'modality' needs to be a name: the name of a modality needs to be an ident"):
        encode(tmp_path / 'out', Letters(), modality=modality)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('name', ['count', 'dim', 'sha256', 'revision', 'versions', 3])
def test_settings_named_as_the_manifests_own_are_refused_before_the_work(tmp_path, name):
    encoder = Letters()
    encoder.settings = {'letters': 'abcde', name: 1}
    with pytest.raises(ValueError, match=rf"'settings' of 'encoder' need names .* \(got \[{name!r}\]\): rename them"):
        encode(tmp_path, encoder)
    assert encoder.texts == []


def test_refuses_arguments(tmp_path):
    for kwargs, message in [
        ({'texts': []}, 'need to be positive \\(got 0'),
        ({'ids': ['a']}, "'ids' needs to name each of the 8 inputs \\(got 1\\)"),
        ({'modality': 'no name'}, "'modality' needs to be a name"),
        ({'texts': ['', None]}, "none of the 2 inputs of modality 'text' can be encoded"),
    ]:
        with pytest.raises(ValueError, match=message):
            encode(tmp_path, Letters(), **kwargs)
