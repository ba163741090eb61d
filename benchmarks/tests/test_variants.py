import pytest
import torch

from benchmarks.quality import jobs


@pytest.mark.parametrize(
    ('lacks', 'views', 'tables'),
    [
        ({'shared': False}, 2, 2),
        ({'own': False}, 1, 1),
        ({'fusion': False}, 3, 3),
        ({'one_user_table': True}, 3, 1),
        ({'item_ids': True}, 4, 4),
        ({'item_ids': True, 'own': False, 'shared': False}, 1, 1),
    ],
)
def test_ablated_models_lack_a_part(lacks, views, tables, tmp_path):
    job = jobs.job('fake', 'Ablated', 0, {'model': {'hidden_channels': 8, **lacks}})
    train, _ = jobs.splits(job, tmp_path, test=False)
    model = jobs.build(job, train)
    assert model.user.shape == (train['user'].num_nodes, tables, 8)
    assert model(train).user.size(1) == model(train).item.size(1) == 8 * views
    user, item = train['interacts'].edge_index[:, :64]
    model.loss(train, user, item, item.flip(0)).backward()
    assert model.user.grad.norm() > 0
    assert (model.item is not None) == ('item_ids' in lacks)
    if model.item is not None:
        assert model.item.shape == (train['item'].num_nodes, 8)
        assert model.item.grad.norm() > 0


def test_a_view_of_item_ids_leaves_the_others_as_they_are(tmp_path):
    job = jobs.job('fake', 'Ablated', 0, {'model': {'hidden_channels': 8, 'item_ids': True, 'fusion': False}})
    train, _ = jobs.splits(job, tmp_path, test=False)
    model = jobs.build(job, train)
    without = jobs.build(jobs.job('fake', 'Ablated', 0, {'model': {'hidden_channels': 8, 'fusion': False}}), train)
    state = model.state_dict()
    without.load_state_dict(
        {name: state[name][:, :3] if name == 'user' else state[name] for name in without.state_dict()}, strict=True
    )
    expected, item = without(train), model(train).item
    assert torch.allclose(model(train).user[:, :24], expected.user, atol=1e-6)
    assert torch.allclose(item[:, :24], expected.item, atol=1e-6)
    with torch.no_grad():
        model.item.neg_()
    assert not torch.allclose(model(train).item[:, 24:], item[:, 24:], atol=1e-2)


def test_without_fusion_views_are_concatenated(tmp_path):
    job = jobs.job('fake', 'Ablated', 0, {'model': {'hidden_channels': 8, 'fusion': False}})
    train, _ = jobs.splits(job, tmp_path, test=False)
    model = jobs.build(job, train)
    whole = jobs.build(jobs.job('fake', 'LIRDRec', 0, {'model': {'hidden_channels': 8, 'pwc': 'uniform'}}), train)
    whole.load_state_dict(model.state_dict())
    assert torch.allclose(model(train).user, 3 * whole(train).user, atol=1e-6)
