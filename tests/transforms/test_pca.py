import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from lirdrec_pyg.transforms import PCA, compress_features
from lirdrec_pyg.transforms.pca import NARROW, VARIANCE


def make(n=50, width=12, has=None):
    data = HeteroData()
    data['item'].x_image = torch.randn(n, 4) @ torch.randn(4, width) + 3
    data['item'].x_text = torch.randn(n, 3)
    if has is not None:
        data['item'].has_image = has
        data['item'].x_image[~has] = 0
    data['item'].num_nodes = n
    return data


def test_equals_the_svd_and_leaves_narrow_modalities():
    data = make()
    out = PCA(5)(data)
    x = data['item'].x_image
    u, s, _ = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)
    expected = (u * s)[:, :4]
    got = out['item'].x_image
    assert got.shape == (50, 5)
    assert torch.allclose(got[:, :4].abs(), expected.abs(), atol=1e-4)
    assert torch.allclose(got[:, 4], torch.zeros(50), atol=1e-3)  # of rank four
    centred = x - x.mean(dim=0)
    assert torch.allclose(got @ got.t(), centred @ centred.t(), atol=1e-3)
    assert out['item'].x_text is data['item'].x_text
    assert data['item'].x_image is x
    assert torch.equal(PCA(5)(data)['item'].x_image, got)


def test_takes_integers():
    data = make()
    data['item'].x_image = torch.randint(9, (50, 12))
    expected = make()
    expected['item'].x_image = data['item'].x_image.float()
    assert torch.equal(PCA(5)(data)['item'].x_image, PCA(5)(expected)['item'].x_image)


def test_items_without_the_modality_take_no_part():
    has = torch.rand(50) > 0.3
    data = make(has=has)
    out = PCA(4)(data)['item'].x_image
    assert (out[~has] == 0).all()
    only = HeteroData()
    only['item'].x_image = data['item'].x_image[has]
    assert torch.allclose(out[has], PCA(4)(only)['item'].x_image, atol=1e-5)


def test_refuses():
    with pytest.raises(ValueError, match=r"'num_components' needs to be positive \(got 0\)"):
        PCA(0)
    with pytest.raises(ValueError, match="at most the 3 items with modality 'image'"):
        PCA(4)(make(n=3))
    with pytest.raises(ValueError, match="unknown modality 'audio'"):
        PCA({'audio': 4})(make())
    data = make()
    data['item'].x_image[7, 0] = float('nan')
    with pytest.raises(ValueError, match='first: row 7'):
        PCA(4)(data)
    with pytest.raises(ValueError, match=r"'num_components' needs to be positive \(got -1\)"):
        PCA({'image': 4, 'text': -1})
    assert repr(PCA({'image': 64})) == "PCA(num_components={'image': 64})"


def test_number_for_each_modality():
    data = make()
    both = PCA({'image': 5, 'text': 2})(data)
    assert torch.equal(both['item'].x_image, PCA(5)(data)['item'].x_image)
    assert torch.equal(both['item'].x_text, PCA(2)(data)['item'].x_text)
    assert PCA({'text': 2})(data)['item'].x_image is data['item'].x_image


def wide(n=300, width=256, rank=20, has=None):
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    signal = torch.randn(n, rank, generator=generator) @ torch.randn(rank, width, generator=generator)
    data['item'].x_image = signal + 0.3 * torch.randn(n, width, generator=generator) + 2
    data['item'].x_text = torch.randn(n, NARROW, generator=generator)
    data['item'].x_noise = torch.randn(n, 2 * NARROW, generator=generator)
    if has is not None:
        data['item'].has_image = has
    return data


def shares(x):
    value = torch.linalg.svdvals((x - x.mean(dim=0)).double()).square()
    return value.cumsum(0) / value.sum()


def test_explained_variance_decides():
    data = wide()
    share = shares(data['item'].x_image)
    for count, least in [(0.5, 0.5), (0.9, 0.9), ('auto', VARIANCE)]:
        r = PCA(count)(data)['item'].x_image.size(1)
        assert share[r - 1] >= least > share[r - 2]
        assert torch.equal(PCA(count)(data)['item'].x_image, PCA(r)(data)['item'].x_image)
    out = PCA()(data)
    assert out['item'].x_text is data['item'].x_text  # too narrow
    assert out['item'].x_noise is data['item'].x_noise  # of as many components as columns
    assert PCA(0.5)(data)['item'].x_noise.size(1) < 2 * NARROW
    assert repr(PCA()) == "PCA(num_components='auto')"


def test_says_what_it_decided(caplog):
    data = wide()
    with caplog.at_level('INFO', logger='lirdrec_pyg'):
        found = PCA().components(data)
    assert list(found) == ['image']
    r = found['image'].basis.size(1)
    assert repr(found['image']).startswith(f'Components(256, {r}, share=0.95')
    assert f"modality 'image' has {r} components in place of 256 columns" in caplog.text
    assert "modality 'noise' keeps its 256 columns" in caplog.text


def test_components_compress_later_items():
    data, later = wide(), wide(n=3)
    pca = PCA(7)
    both = wide()
    both['item'].x_image = torch.cat([data['item'].x_image, later['item'].x_image])
    both['item'].x_text = both['item'].x_noise = torch.zeros(303, 2)
    known = PCA({'image': pca.components(data)['image']})
    assert torch.allclose(known(both)['item'].x_image[:300], pca(data)['item'].x_image, atol=1e-5)
    assert known(later)['item'].x_image.shape == (3, 7)
    with pytest.raises(ValueError, match="modality 'noise' needs the 128 columns of its components"):
        PCA(pca.components(data) | {'noise': pca.components(data)['text']})(data)
    with pytest.raises(ValueError, match=r"'x' needs to have the 256 columns of these components \(got \[3, 8\]\)"):
        pca.components(data)['image'].project(torch.zeros(3, 8))


def test_nothing_varies():
    data = HeteroData()
    data['item'].x_image = torch.ones(9, 200)
    assert PCA()(data)['item'].x_image is data['item'].x_image
    assert PCA(0.5)(data)['item'].x_image is data['item'].x_image
    data['item'].has_image = torch.zeros(9, dtype=torch.bool)
    assert PCA()(data)['item'].x_image.shape == (9, 200)


@pytest.mark.parametrize('count', [1.0, 0.0, -0.5, 64.0, float('nan'), 'all'])
def test_refuses_shares(count):
    with pytest.raises(ValueError, match="'num_components' needs to be 'auto', a share of the variance"):
        PCA(count)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_a_file_is_compressed_as_the_tensor(tmp_path, dtype):
    has = torch.rand(300, generator=torch.Generator().manual_seed(1)) > 0.2
    data = wide(has=has)
    path, out = tmp_path / 'x.npy', tmp_path / 'new' / 'y.npy'
    x = data['item'].x_image.numpy().astype(dtype)
    np.save(path, np.concatenate([x, np.full((5, 256), 9, dtype=dtype)]))
    data['item'].x_image = torch.from_numpy(x.astype(np.float32))
    expected = PCA()(data)['item'].x_image
    for batch_size in (17, 128, 4096):
        found = compress_features(path, out, num_items=300, mask=has, batch_size=batch_size)
        got = torch.from_numpy(np.load(out))
        assert got.dtype == torch.float32
        assert found.basis.size(1) == got.size(1)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    later = compress_features(path, tmp_path / 'z.npy', found)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / 'z.npy'))[:300][has], got[has])
    assert later is found


def test_a_file_in_columns_is_read_right(tmp_path):
    x = wide()['item'].x_image.numpy()
    np.save(tmp_path / 'x.npy', np.asfortranarray(x))
    np.save(tmp_path / 'c.npy', x)
    for name in 'xc':
        compress_features(tmp_path / f'{name}.npy', tmp_path / f'{name}_out.npy', 9, batch_size=64)
    assert np.array_equal(np.load(tmp_path / 'x_out.npy'), np.load(tmp_path / 'c_out.npy'))


def test_a_file_that_gains_nothing_is_not_written(tmp_path):
    np.save(tmp_path / 'x.npy', wide()['item'].x_noise.numpy())
    assert compress_features(tmp_path / 'x.npy', tmp_path / 'y.npy') is None
    assert [path.name for path in tmp_path.iterdir()] == ['x.npy']


def test_refuses_files(tmp_path):
    path, out = tmp_path / 'x.npy', tmp_path / 'y.npy'
    with pytest.raises(FileNotFoundError, match='no features at'):
        compress_features(path, out)
    x = wide()['item'].x_image.numpy().copy()
    np.save(path, x)
    for arguments, error in [
        ({'batch_size': 0}, r"'batch_size' needs to be positive \(got 0\)"),
        ({'num_items': 301}, r'a row for each of the 301 items \(got 300\)'),
        ({'num_components': 'all'}, "'num_components' needs to be 'auto'"),
        ({'mask': torch.ones(3, dtype=torch.bool)}, "'mask'"),
    ]:
        with pytest.raises(ValueError, match=error):
            compress_features(path, out, **arguments)
    with pytest.raises(ValueError, match="'out' needs to be another file than 'path'"):
        compress_features(path, path)
    x[170, 3] = np.inf
    np.save(path, x)
    with pytest.raises(ValueError, match=r'needs to be finite \(got 1 bad rows, first: row 170\)'):
        compress_features(path, out, batch_size=64)
    np.save(path, np.zeros(4))
    with pytest.raises(ValueError, match='matrix of floats'):
        compress_features(path, out)
    assert not out.exists()
