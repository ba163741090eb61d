r"""Mini-batches: with all neighbours they are the whole graph; features stay in their files."""

import copy

import numpy as np
import pytest
import torch

from lirdrec_pyg import BPRSampler, LIRDRec, evaluate, fit
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import LightGCN, SampledSoftmax, SoftmaxLIRDRec
from lirdrec_pyg.nn.kernels import sampled_softmax_loss
from lirdrec_pyg.nn.propagation import WeightedLGConv, edges
from lirdrec_pyg.training import LazyAdam, MappedFeatures, MiniBatches
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph, RecentItems
from lirdrec_pyg.typing import INTERACTS, ITEM, REV_INTERACTS, SIMILAR_TO, USER

LAYOUTS = ['csr', 'EdgeIndex', 'edge_index']
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
DEVICES = [('csr', 'meta'), ('edge_index', 'meta'), *(pytest.param(layout, 'cuda', marks=cuda) for layout in LAYOUTS)]


@pytest.fixture(scope='module')
def splits():
    data = ItemKNNGraph(k=4)(DCT()(FakeMultimodal(num_users=150, num_items=120, seed=0)[0]))
    train, val, _ = FixedSplit()(data)
    return InteractionGraph()(train), val


def mapped(train, folder, names=('image', 'text'), **kwargs):
    paths = {}
    for name in names:
        paths[name] = folder / f'{name}_feat.npy'
        np.save(paths[name], train[ITEM][f'x_{name}'].numpy())
    return MappedFeatures(paths, train[ITEM].num_nodes, **kwargs)


def without_features(train):
    train = copy.copy(train)
    for key in [key for key in train[ITEM].keys() if key.startswith('x_') or key == 'spectrum']:  # noqa: SIM118
        del train[ITEM][key]
    return train


@pytest.mark.parametrize('num_layers', [1, 2, 3])
@pytest.mark.parametrize('features', ['held', 'mapped'])
@pytest.mark.parametrize('fan_out', [-1, 1000])
def test_with_all_neighbours_the_gradient_is_that_of_the_whole_graph(splits, num_layers, features, fan_out, tmp_path):
    train, _ = splits
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, num_layers=num_layers, reg_weight=0.0)
    kwargs = {} if features == 'held' else {'features': mapped(train, tmp_path)}
    data = train if features == 'held' else without_features(train)
    batches = MiniBatches(data, [fan_out] * (num_layers + 1), batch_size=40, seed=3, **kwargs)
    whole = BPRSampler(train[INTERACTS].edge_index, train[USER].num_nodes, train[ITEM].num_nodes, 40, seed=3)
    assert len(batches) == len(whole)
    for (batch, user, pos, neg), triplets in zip(batches, whole, strict=True):
        users, items = batch[USER].n_id, batch[ITEM].n_id
        assert torch.equal(torch.stack([users[user], items[pos], items[neg]]), torch.stack(triplets))
        grads = []
        for graph, index in [(batch, (user, pos, neg)), (train, triplets)]:
            model.zero_grad()
            loss = model.loss(graph, *index)
            loss.backward()
            grads.append([loss.detach(), *(param.grad for param in model.parameters())])
        for ours, expected in zip(*grads, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)


def test_sub_graphs_are_bounded_and_of_the_contract(splits):
    train, _ = splits
    torch.manual_seed(0)
    batch, _, pos, _ = next(iter(MiniBatches(train, [2, 1, 1], batch_size=8, rescale=False)))
    assert batch[USER].num_nodes < train[USER].num_nodes
    pairs = set(zip(*train[INTERACTS].edge_index.tolist(), strict=True))
    own = torch.stack(
        [batch[USER].n_id[batch[INTERACTS].edge_index[0]], batch[ITEM].n_id[batch[INTERACTS].edge_index[1]]]
    )
    found = list(zip(*own.tolist(), strict=True))
    assert set(found) <= pairs
    assert len(set(found)) == len(found)
    weight = dict(
        zip(zip(*train[INTERACTS].edge_index.tolist(), strict=True), train[INTERACTS].edge_weight, strict=True)
    )
    assert all(weight[pair] == value for pair, value in zip(found, batch[INTERACTS].edge_weight, strict=True))
    seeds = set(batch[ITEM].n_id[pos].tolist())
    kept = batch[ITEM].n_id[batch[SIMILAR_TO].edge_index]
    for item in seeds:  # all edges of the item graph into what is asked for
        assert (kept[1] == item).sum() == (train[SIMILAR_TO].edge_index[1] == item).sum()
    assert torch.equal(batch[ITEM].x_text, train[ITEM].x_text[batch[ITEM].n_id])


def layer(batch, x):
    r"""Returns a layer of users and items on the interactions, both made of the features of the whole graph."""
    conv, (to_item, to_user, _, _) = WeightedLGConv(), edges(batch)
    size = (batch[USER].num_nodes, batch[ITEM].num_nodes)
    user, item = (x[kind][batch[kind].get('n_id', slice(None))] for kind in (USER, ITEM))
    return {USER: conv(item, *to_user, size=size[::-1]), ITEM: conv(user, *to_item, size=size)}


@pytest.mark.parametrize('rescale', [True, False])
def test_sampled_layers_are_in_expectation_those_of_the_whole_graph(splits, rescale):
    train, _ = splits
    generator = torch.Generator().manual_seed(0)
    x = {kind: torch.randn(train[kind].num_nodes, 3, generator=generator) for kind in (USER, ITEM)}
    whole = layer(train, x)
    total = {kind: torch.zeros_like(z) for kind, z in whole.items()}
    square = {kind: torch.zeros_like(z) for kind, z in whole.items()}
    count = {kind: torch.zeros(len(z), 1) for kind, z in whole.items()}
    torch.manual_seed(0)
    batches = MiniBatches(train, [2, 1], batch_size=500, seed=0, rescale=rescale)
    for _ in range(60):
        for batch, user, pos, neg in batches:
            out = layer(batch, x)
            for kind, index in [(USER, user.unique()), (ITEM, torch.cat([pos, neg]).unique())]:
                nodes = batch[kind].n_id[index]
                total[kind][nodes] += out[kind][index]
                square[kind][nodes] += out[kind][index] ** 2
                count[kind][nodes] += 1
    for kind, z in whole.items():
        enough = (count[kind] > 50).squeeze(1)
        assert enough.float().mean() > 0.5
        mean = total[kind][enough] / count[kind][enough]
        variance = (square[kind][enough] / count[kind][enough] - mean**2).clamp(min=0)
        error = (variance / count[kind][enough]).sqrt() + 1e-3
        off = (mean - z[enough]) / error
        if rescale:
            assert off.square().mean() < 1.5  # as much as chance makes of it
            assert abs((mean * z[enough]).sum() / z[enough].square().sum() - 1) < 0.03
        else:
            assert off.square().mean() > 10


def test_rescaling_counts_the_sampled_neighbours_as_all(splits):
    train, _ = splits
    torch.manual_seed(0)
    batch, *_ = next(iter(MiniBatches(train, [2, 1, 1], batch_size=8)))
    for relation, kind in [(INTERACTS, ITEM), (REV_INTERACTS, USER)]:
        nodes, store = batch[kind].n_id, batch[relation]
        target = store.edge_index[1]
        degree = train[relation].edge_index[1].bincount(minlength=train[kind].num_nodes)
        number = target.bincount(minlength=len(nodes))
        assert number.max() == 2
        pairs = zip(*train[relation].edge_index.tolist(), strict=True)
        weight = dict(zip(pairs, train[relation].edge_weight.tolist(), strict=True))
        source = batch[USER if kind == ITEM else ITEM].n_id[store.edge_index[0]]
        for u, v, t, found in zip(source.tolist(), nodes[target].tolist(), target, store.edge_weight, strict=True):
            assert float(found) == pytest.approx(weight[u, v] * int(degree[v]) / int(number[t]), rel=1e-5)


@pytest.mark.parametrize('optimizer', [None, lambda params: LazyAdam(params, lr=5e-3)])
def test_fit_learns_and_resumes_exactly(splits, tmp_path, optimizer):
    train, val = splits
    kwargs = {'sparse': optimizer is not None, 'hidden_channels': 8}

    def run(path, epochs, resume=False):
        model = LIRDRec.from_data(train, seed=0, **kwargs)
        loader = MiniBatches(train, [5, 3, 2], batch_size=64, seed=0)
        lr = 5e-3 if optimizer is None else None
        result = fit(model, train, val, epochs=epochs, lr=lr, loader=loader, optimizer=optimizer, checkpoint=path,
                     resume=resume, progress=False)  # fmt: skip
        return model, result

    whole, result = run(tmp_path / 'whole', 6)
    run(tmp_path / 'parts', 3)
    parts, again = run(tmp_path / 'parts', 6, resume=True)
    assert [row['loss'] for row in again.log] == [row['loss'] for row in result.log]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    before = evaluate(LIRDRec.from_data(train, seed=0, **kwargs).encode(train), val, k=20)['recall@20']
    assert result.best_value > before
    assert result.log[-1]['loss'] < 0.9 * result.log[0]['loss']
    assert result.best_value == pytest.approx(evaluate(whole.encode(train), val, k=20)['recall@20'], abs=1e-6)


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=cuda)])
def test_fit_in_bfloat16(splits, device):
    train, val = splits
    losses = {}
    for precision in ('fp32', 'bf16'):
        model = LIRDRec.from_data(train, seed=0, hidden_channels=8).to(device)
        loader = MiniBatches(train, [5, 3, 2], batch_size=64, seed=0)
        result = fit(model, train, val, epochs=2, lr=5e-3, loader=loader, precision=precision, progress=False)
        losses[precision] = [row['loss'] for row in result.log]
    assert losses['bf16'] == pytest.approx(losses['fp32'], rel=1e-2)
    assert losses['bf16'] != losses['fp32']


def test_a_run_with_other_mini_batches_is_refused(splits, tmp_path):
    train, _ = splits
    path, known = tmp_path / 'run.pt', {'num_neighbors': [5, 3, 2], 'batch_size': 64}
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8)
    fit(model, train, epochs=1, loader=MiniBatches(train, **known), checkpoint=path, progress=False)
    for name, value in [('batch_size', 32), ('num_neighbors', [5, 3, 1]), ('rescale', False), ('seed', 1)]:
        loader = MiniBatches(train, **known | {name: value})
        with pytest.raises(ValueError, match=rf"another 'settings' \({name}: "):
            fit(model, train, loader=loader, checkpoint=path, resume=True, progress=False)


def test_softmax_needs_negatives_of_the_batch(splits):
    train, _ = splits
    batch, *triplets = next(iter(MiniBatches(train, [2, 2, 2], batch_size=32)))
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, objective=SampledSoftmax())
    with pytest.raises(ValueError, match=r"'num_negatives' needs to be 'batch'"):
        model.loss(batch, *triplets)
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, objective=SampledSoftmax(num_negatives='batch'))
    assert model.loss(batch, *triplets).isfinite()


@pytest.mark.parametrize('num_negatives', [None, 15])
def test_softmax_estimated_from_uniform_items(splits, num_negatives):
    train, val = splits
    objective = SampledSoftmax(temperature=0.5, num_negatives=num_negatives)
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8, reg_weight=0.0, objective=objective)
    batches = MiniBatches(train, [-1, -1, -1], batch_size=40, num_candidates=30, seed=1)
    seen = train[INTERACTS].edge_index[1].unique()
    whole = model(train)
    times = torch.zeros(train[ITEM].num_nodes)
    for batch, user, pos, _ in batches:
        candidate = batch[ITEM].n_id[batch[ITEM].candidate]
        assert torch.isin(candidate, seen).all() and candidate.numel() == 30
        assert batch[ITEM].num_seen == seen.numel()
        times[candidate] += 1
        if num_negatives is None:  # the estimate from these, with the embeddings of the whole graph
            z = torch.nn.functional.normalize(whole.item)
            u = torch.nn.functional.normalize(whole.user[batch[USER].n_id[user]])
            own = batch[ITEM].n_id[pos]
            hit = torch.isin(own, candidate)
            expected = sampled_softmax_loss(u, z[own], z[candidate], hit, seen.numel(), 0.5)
            assert model.loss(batch, user, pos, pos).item() == pytest.approx(expected.item(), rel=1e-5)
    assert (times[seen] > 0).all()
    result = fit(model, train, val, epochs=5, lr=1e-2, loader=batches, progress=False)
    assert result.log[-1]['loss'] < result.log[0]['loss']


def test_hops_and_features_are_checked(splits):
    train, _ = splits
    with pytest.raises(ValueError, match=r"'num_neighbors' needs more than 1 hops"):
        MiniBatches(train, [5])
    with pytest.raises(ValueError, match="or give 'features'"):
        MiniBatches(without_features(train), [5, 5])
    bare = copy.copy(train)
    del bare[REV_INTERACTS]
    with pytest.raises(ValueError, match=r"'data' needs the relation .*: apply `InteractionGraph\(\)`"):
        MiniBatches(bare, [5, 5])
    turned = copy.copy(train)
    turned[REV_INTERACTS].edge_index = train[REV_INTERACTS].edge_index.flip(1)
    with pytest.raises(ValueError, match=r"'rev_interacts', .* need to be the interactions in the same order"):
        MiniBatches(turned, [5, 5])


def test_a_model_that_does_not_fit_is_refused(splits, tmp_path):
    train, _ = splits
    batches = MiniBatches(train, [4, 2, 0])

    def refused(message, model, batches=batches):
        with pytest.raises(ValueError, match=message):
            batches.check(model)

    for cls in (LIRDRec, SoftmaxLIRDRec):
        batches.check(cls.from_data(train, hidden_channels=8))
    batches.check(LIRDRec.from_data(train, num_layers=3, num_item_layers=0))
    model = LIRDRec.from_data(train, num_layers=2)
    refused(r"'model' needs to be a LIRDRec for mini-batches \(got LightGCN\)", LightGCN.from_data(train))
    refused(r"'model' needs to have 150 users \(got 151\)", LIRDRec(151, model.in_channels))
    refused(
        r"'num_neighbors' needs 3 hops, as the model has 2 layers on interactions and 1 on the item graph, "
        r'and 0 leaves one out \(got \[-1, -1\]\)',
        model,
        MiniBatches(train, [-1, -1]),
    )
    refused(r"'num_item_layers' needs to be at least 2, as in the model \(got 1\)",
            LIRDRec.from_data(train, num_layers=1, num_item_layers=2))  # fmt: skip
    MiniBatches(train, [-1] * 3, num_item_layers=2).check(LIRDRec.from_data(train, num_layers=1, num_item_layers=2))
    features = mapped(train, tmp_path, ('text', 'image'))
    with pytest.raises(ValueError, match="'model' needs to be a LIRDRec"):
        fit(LightGCN.from_data(train), train, loader=batches, progress=False)
    refused('in its order', model, MiniBatches(without_features(train), [4, 2, 0], features=features))


@pytest.mark.parametrize('fan_out', [-1, 2])
def test_history_before_or_after_the_graph_gives_the_same_batches(fan_out):
    train = FixedSplit()(ItemKNNGraph(k=4)(DCT()(FakeMultimodal(num_users=150, num_items=120, seed=0)[0])))[0]
    store, perm = train[INTERACTS], torch.randperm(train[INTERACTS].edge_index.size(1))
    store.edge_index, store.time = store.edge_index[:, perm], store.time[perm]
    whole = InteractionGraph()(train)
    model = LIRDRec.from_data(whole, seed=0, hidden_channels=8, reg_weight=0.0)
    losses = []
    for data in (RecentItems(3)(whole), InteractionGraph()(RecentItems(3)(train))):
        torch.manual_seed(0)
        losses.append([model.loss(*batch).item() for batch in MiniBatches(data, [fan_out] * 3, batch_size=200)])
    assert losses[0] == losses[1]
    if fan_out == -1:
        sampler = BPRSampler(store.edge_index, train[USER].num_nodes, train[ITEM].num_nodes, batch_size=200)
        assert losses[0] == pytest.approx([model.loss(whole, *batch).item() for batch in sampler], rel=1e-5)


def test_denormals_of_features_are_left_out(splits, tmp_path):
    train = copy.copy(splits[0])
    train[ITEM].x_text = train[ITEM].x_text.clone()
    train[ITEM].x_text[:, 3] = 1e-34
    xs, _, _ = mapped(train, tmp_path).rows(torch.arange(5))
    assert xs['text'][:, 3].eq(0).all() and xs['text'][:, 4].equal(train[ITEM].x_text[:5, 4])
