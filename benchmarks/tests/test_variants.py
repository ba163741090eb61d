import pytest
import torch

from benchmarks.quality import jobs, variants
from lirdrec_pyg import nn


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


def test_mgcn_of_the_rows_takes_the_mixed_item_graph(tmp_path):
    job = jobs.job('fake', 'MGCN', 0, {'model': {'hidden_channels': 8}})
    train, _ = jobs.splits(job, tmp_path, test=False)
    model = jobs.build(job, train)
    assert isinstance(model, variants.MixedMGCN)
    a, b, index = torch.randn(5, 8), torch.randn(5, 8), torch.tensor([3, 0, 3, 2])
    score = torch.nn.functional.cosine_similarity(a[index].unsqueeze(1), b[index], dim=-1) / model.temperature
    expected = torch.nn.functional.cross_entropy(score, torch.arange(4))  # a row may be a negative of itself
    assert torch.allclose(model.contrast(a, b, index), expected, atol=1e-5)
    similar = train['item', 'similar_to', 'item'].adj_t.to_dense()
    h = [torch.randn(train['item'].num_nodes, 8) for _ in range(2)]
    assert torch.allclose(model.neighbors(list(h), train), similar @ torch.cat(h, dim=1), atol=1e-5)

    published = jobs.job('fake', 'PublishedMGCN', 0, {'model': {'hidden_channels': 8}, 'content': {'k': 3}})
    train, _ = jobs.splits(published, tmp_path, test=False)
    assert type(jobs.build(published, train)) is nn.MGCN
    target = train['item', 'similar_by_text', 'item'].edge_index[1]
    assert int(target.bincount().max()) == 3


@pytest.mark.parametrize('kind', ['released', 'ema'])
def test_recent_items_are_weighed_by_progressive_weight_copying(kind, tmp_path):
    settings = {'hidden_channels': 8, 'history': 4, 'time_fusion': kind, 'dropout': 0.0}
    job = jobs.job('fake', 'SequentialPWC', 0, {'model': settings})
    train, _ = jobs.splits(job, tmp_path, test=False)
    model = jobs.build(job, train)
    layer = model.recent
    prior = torch.tensor([1, 0.6, 0.36, 0.216]) / 2.176
    assert torch.allclose(layer.fusion.last_weight, prior.expand(train['user'].num_nodes, -1), atol=1e-6)

    # By hand, one user at a time, with fewer items than positions.
    user, item, recent = torch.randn(3, 24), torch.randn(6, 24), torch.tensor([[2, 5, 1, 0], [4, 3, -1, -1], [-1] * 4])
    layer.batch_users = torch.tensor([7, 0, 7])
    layer.eval()
    found = layer(user, item, recent)
    unit, query = (torch.nn.functional.normalize(x, dim=1) for x in (item, user))
    weight = layer.fusion.weight(unit[recent.clamp(min=0)], layer.batch_users)
    for row, ids in enumerate(([2, 5, 1, 0], [4, 3], [])):
        own = weight[row, : len(ids)]
        pooled = sum((w * unit[i] for w, i in zip(own / own.sum(), ids, strict=True)), torch.zeros(24))
        assert torch.allclose(found[row], query[row] + layer.lin(pooled), atol=1e-5)
    layer.batch_users = None

    model.train()
    model.on_epoch_start(1)
    user, item = train['interacts'].edge_index[:, :64]
    model.loss(train, user, item, item.flip(0)).backward()
    assert layer.batch_users is None
    assert layer.lin.weight.grad.norm() > 0 and layer.fusion.nets[0][0].weight.grad.norm() > 0
    moved = (layer.fusion.last_weight - prior).abs().sum(dim=1) > 1e-6
    assert moved[user].any() and not moved[~torch.isin(torch.arange(len(moved)), user)].any()
    model.on_epoch_start(2)
    assert torch.equal(layer.fusion.theta, layer.fusion.last_weight)
    row = jobs.run(jobs.job('fake', 'SequentialPWC', 0, {'model': settings, 'fit': {'epochs': 2}}), tmp_path)
    assert row['test_ndcg@20'] > 0


def test_a_spectrum_made_in_each_step_is_the_same(tmp_path):
    rows_of = [
        jobs.run(jobs.job('fake', model, 0, {'model': {'hidden_channels': 8}, 'fit': {'epochs': 2}, **more}), tmp_path)
        for model, more in (('LIRDRec', {}), ('DCTInLoop', {'content': {'transform': 'none'}}))
    ]
    once, anew = ({name: value for name, value in row.items() if '@' in name} for row in rows_of)
    assert once == anew


def test_the_scale_of_bpr_is_trained():
    user, pos, neg = torch.randn(3, 5, 4).unbind()
    item, index = torch.cat([pos, neg]), torch.arange(5)

    def batch(scale):
        return nn.Batch(index, index, index + 5, lambda i: scale * user[i], lambda i: item[i])

    objective = variants.ScaledBPR()
    assert torch.allclose(objective(batch(1)), nn.BPR()(batch(1)))
    objective.log_scale.data.fill_(torch.tensor(3.0).log())
    loss = objective(batch(1))
    assert torch.allclose(loss, nn.BPR()(batch(3)))
    loss.backward()
    assert objective.log_scale.grad.abs() > 0


@pytest.mark.parametrize('model', ['EASE', 'AlphaRec', 'PublishedMGCN'])
def test_models_of_others_are_run_by_their_names(model, tmp_path):
    settings = {} if model == 'EASE' else {'fit': {'epochs': 1}}
    row = jobs.run(jobs.job('fake', model, 0, settings), tmp_path)
    assert row['test_popularity@20'] > 0


def test_settings_of_alpharec():
    found, _ = jobs.arguments('AlphaRec', {'temperature': 0.3, 'num_negatives': 5})
    assert str(found['objective']) == 'InfoNCE(temperature=0.3, num_negatives=5)'
    found, _ = jobs.arguments('AlphaRec', {'loss': 'softmax', 'temperature': 0.3})
    assert type(found['objective']) is nn.SampledSoftmax
    assert jobs.arguments('AlphaRec', {}) == ({}, None)
