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
