r"""Data, models and all that training and serving make live among others: copied, pickled, shared, cut by PyG, wrapped
by PyTorch, and in any precision."""

import contextlib
import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch_geometric.data import HeteroData, InMemoryDataset
from torch_geometric.transforms import RemoveIsolatedNodes

from lirdrec_pyg import BPRSampler, Callback, MappedFeatures, MiniBatches, Retriever, Trainer, evaluate, fit, load_model
from lirdrec_pyg.nn import (
    BPR,
    PWC,
    AttentionFusion,
    LIRDRec,
    PaperPWC,
    SampledSoftmax,
    SoftmaxLIRDRec,
    StaticFusion,
    UniformFusion,
)
from lirdrec_pyg.nn.models import BM3, BPRMF, FREEDOM, MGCN, VBPR, ContentKNN, LightGCN, Popularity
from lirdrec_pyg.transforms import FixedSplit, HalfPrecision, InteractionGraph, RecentItems
from lirdrec_pyg.typing import INTERACTS, ITEM, REV_INTERACTS, USER, Embeddings, NodeList, check

SMALL = {'hidden_channels': 8}
MODELS = {
    'PWC': lambda data: LIRDRec.from_data(data, seed=0, fusion=PWC(), **SMALL),
    'PaperPWC': lambda data: LIRDRec.from_data(data, seed=0, fusion=PaperPWC(), **SMALL),
    'AttentionFusion': lambda data: LIRDRec.from_data(data, seed=0, fusion=AttentionFusion(), **SMALL),
    'StaticFusion': lambda data: LIRDRec.from_data(data, seed=0, fusion=StaticFusion(), **SMALL),
    'UniformFusion': lambda data: LIRDRec.from_data(data, seed=0, fusion=UniformFusion(), **SMALL),
    'sequential': lambda data: LIRDRec.from_data(data, seed=0, objective=SampledSoftmax(), recent_items=4, **SMALL),
    'sampled': lambda data: LIRDRec.from_data(data, seed=0, objective=SampledSoftmax(num_negatives=8), **SMALL),
    'SoftmaxLIRDRec': lambda data: SoftmaxLIRDRec.from_data(data, seed=0, **SMALL),
    'LightGCN': lambda data: LightGCN.from_data(data, seed=0, **SMALL),
    'BPRMF': lambda data: BPRMF.from_data(data, seed=0, **SMALL),
    'VBPR': lambda data: VBPR.from_data(data, seed=0, bias=True, **SMALL),
    'FREEDOM': lambda data: FREEDOM.from_data(data, seed=0, **SMALL),
    'BM3': lambda data: BM3.from_data(data, seed=0, **SMALL),
    'BM3-BPR': lambda data: BM3.from_data(data, seed=0, objective=BPR(), **SMALL),
    'MGCN': lambda data: MGCN.from_data(data, seed=0, **SMALL),
    'Popularity': lambda data: Popularity(),
    'ContentKNN': lambda data: ContentKNN(),
}
TRAINED = [name for name in MODELS if name not in ('Popularity', 'ContentKNN')]
LAYOUTS = ['csr', 'EdgeIndex', 'edge_index', pytest.param('SparseTensor', marks=pytest.mark.torch_sparse)]


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def shared(value):
    value = copy.deepcopy(value)
    return value.share_memory_() if isinstance(value, HeteroData) else value.share_memory()


COPIES = {
    'copy': copy.copy,
    'deepcopy': copy.deepcopy,
    'pickle': lambda value: pickle.loads(pickle.dumps(value)),
    'save': saved,
}
COPIES_IN_MEMORY = {**COPIES, 'share_memory': shared}


def equal(one, two):
    return all(torch.equal(x, y) for x, y in zip(one, two, strict=True))


def encode(model, data):
    with torch.no_grad():
        return model.eval()(data)


def same(one, two):
    r"""Whether two values of data are the same, in kind and content."""
    if isinstance(one, torch.Tensor) and one.layout == torch.sparse_csr:
        parts = [[x.crow_indices(), x.col_indices(), x.values()] for x in (one, two)]
        return type(one) is type(two) and one.shape == two.shape and equal(*parts)
    if isinstance(one, torch.Tensor):
        return type(one) is type(two) and one.dtype == two.dtype and torch.equal(one, two)
    return type(one) is type(two) and (one == two if not hasattr(one, 'csr') else equal(one.csr(), two.csr()))


# Data ----------------------------------------------------------------------------------------------------------------


def stage(name, data):
    if name == 'before the split':
        return data
    train, val, _ = FixedSplit()(data)
    if name == 'validation':
        return val
    train = RecentItems(4)(train)
    if name == 'training':
        return train
    return HalfPrecision()(InteractionGraph()(train)) if name == 'half' else InteractionGraph(name)(train)


@pytest.mark.parametrize('how', COPIES_IN_MEMORY)
@pytest.mark.parametrize('name', ['before the split', 'validation', 'training', 'half', *LAYOUTS])
def test_data_is_copied(data, name, how):
    data = stage(name, data)
    out = COPIES_IN_MEMORY[how](data)
    assert repr(out) == repr(data)
    for store, other in zip(data.stores, out.stores, strict=True):
        assert list(store.keys()) == list(other.keys())
        assert all(same(store[key], other[key]) for key in store.keys())  # noqa: SIM118
    if REV_INTERACTS in data.edge_types:
        model = MODELS['sequential'](data)
        assert equal(encode(model, data), encode(model, out))


def test_shared_data_is_in_shared_memory(splits):
    data = shared(splits[0])
    assert data[INTERACTS].adj_t.is_shared() and data[INTERACTS].adj_t.col_indices().is_shared()
    assert data[ITEM].x_image.is_shared()
    again = copy.deepcopy(data[INTERACTS].adj_t.to(torch.double))
    assert again.dtype == torch.double and not again.is_shared()


def test_copies_of_data_share_nothing(splits):
    out = copy.deepcopy(splits[0])
    out[INTERACTS].adj_t.values().zero_()
    out[ITEM].raw_id.pop()
    assert splits[0][INTERACTS].adj_t.values().min() > 0
    assert len(splits[0][ITEM].raw_id) == 48


# Ids and titles, cut by PyG ------------------------------------------------------------------------------------------


@pytest.mark.parametrize('mask', [True, False])
def test_subgraph_cuts_ids_and_titles(data, mask):
    keep = {USER: torch.arange(0, 64, 2), ITEM: torch.arange(3, 48, 4)}
    subset = {kind: torch.zeros(data[kind].num_nodes, dtype=torch.bool).index_fill(0, rows, True) if mask else rows
              for kind, rows in keep.items()}  # fmt: skip
    out = data.subgraph(subset)
    assert out[USER].raw_id == [f'user-{i}' for i in range(0, 64, 2)]
    assert out[ITEM].raw_id == [f'item-{i}' for i in range(3, 48, 4)]
    assert out[ITEM].title == [data[ITEM].title[i] for i in range(3, 48, 4)]
    assert torch.equal(out[ITEM].x_image, data[ITEM].x_image[3::4])
    assert check(out) is out


def test_what_was_cut_is_trained_on(data):
    data = data.subgraph({ITEM: torch.arange(40)})
    train, val, test = FixedSplit()(data)
    train = InteractionGraph()(train)
    model = LIRDRec.from_data(train, seed=0, **SMALL)
    fit(model, train, val, epochs=1, progress=False)
    emb = encode(model, train)
    assert len(emb.item) == 40 and evaluate(emb, test)


def test_isolated_nodes_are_removed_with_their_ids(data):
    edge_index = data[INTERACTS].edge_index
    keep = (edge_index[0] != 5) & (edge_index[1] != 7)
    data = copy.copy(data)
    for relation in [relation for relation in data.edge_types if relation[0] == relation[2]]:  # of items alone
        del data[relation]
    for key, value in data[INTERACTS].items():
        data[INTERACTS][key] = value[..., keep]
    expected = {
        kind: sorted(data[INTERACTS].edge_index[row].unique().tolist()) for row, kind in enumerate((USER, ITEM))
    }
    ids = {kind: data[kind].raw_id for kind in expected}
    out = RemoveIsolatedNodes()(data)
    for kind, rows in expected.items():
        assert out[kind].raw_id == [ids[kind][i] for i in rows] and out[kind].num_nodes == len(rows)
    assert 'user-5' not in out[USER].raw_id and 'item-7' not in out[ITEM].raw_id
    check(out)


def test_a_users_own_lists_are_cut_after_any_transform(data):
    for kind in (USER, ITEM):
        data[kind].raw_id = list(data[kind].raw_id)
    data[ITEM].tags = [['a', 'b']] * 48
    data[ITEM].source = ['a file']  # of no node
    plain = data.clone()
    train = FixedSplit()(plain)[0]
    assert type(plain[ITEM].raw_id) is list  # the data itself stays what it was
    del train[INTERACTS].edge_label_index
    out = train.subgraph({ITEM: torch.tensor([4, 2])})
    assert out[ITEM].raw_id == ['item-4', 'item-2'] and out[ITEM].tags == [['a', 'b']] * 2
    assert out[ITEM].source == ['a file']


def test_node_list():
    names = NodeList('abcd')
    assert names == ['a', 'b', 'c', 'd'] and isinstance(names, list) and repr(names) == "['a', 'b', 'c', 'd']"
    assert names[1] == 'b' and names[torch.tensor(2)] == 'c' and names[-1] == 'd'
    for index in (slice(1, 3), torch.tensor([1, 2]), torch.tensor([1, 2]).numpy(), torch.arange(4) % 3 > 0):
        assert names[index] == ['b', 'c'] and type(names[index]) is NodeList
    assert names[torch.tensor([], dtype=torch.long)] == []
    with pytest.raises(IndexError, match=r'a mask of nodes needs to be of shape \(4,\) \(got \(3,\)\)'):
        names[torch.ones(3, dtype=torch.bool)]
    for how in COPIES.values():
        assert how(names) == names and type(how(names)) is NodeList
    file = io.BytesIO()
    torch.save(names, file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == names


def test_collate_and_separate_keep_ids(data):
    dataset = InMemoryDataset()
    dataset.data, dataset.slices = dataset.collate([data, data])
    assert dataset[1][ITEM].raw_id == data[ITEM].raw_id
    dataset.data, dataset.slices = dataset.collate([data])
    assert dataset[0][ITEM].title == data[ITEM].title


@pytest.mark.parametrize('layout', ['csr', 'EdgeIndex', pytest.param('SparseTensor', marks=pytest.mark.torch_sparse)])
def test_an_adjacency_of_other_nodes_is_refused(data, layout):
    train = FixedSplit()(data)[0]
    whole, part = (
        InteractionGraph(layout)(x) for x in (train, FixedSplit()(data.subgraph({USER: torch.arange(60)}))[0])
    )
    part[INTERACTS].adj_t = whole[INTERACTS].adj_t
    with pytest.raises(ValueError, match=r"'adj_t' of .* needs to be of shape \(48, 60\) \(got \(48, 64\)\): apply"):
        LightGCN.from_data(part, **SMALL)(part)


# Models --------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=MODELS)
def trained(request, splits):
    model = MODELS[request.param](splits[0])
    result = fit(model, *splits[:2], epochs=2, progress=False)
    if request.param in ('PWC', 'BM3'):
        model.set_power(0.3)
    return model, result


def test_models_are_copied(trained, splits):
    model, result = trained
    assert COPIES['pickle'](result) == result
    for how in (copy.deepcopy, COPIES['pickle'], saved, shared):
        out = how(model)
        assert equal(encode(model, splits[0]), encode(out, splits[0]))
        assert repr(out) == repr(model) and out.ids == model.ids
        assert out.settings() == model.settings()
    if any(True for _ in model.parameters()):
        logs = [fit(one, *splits[:2], epochs=1, progress=False).log for one in (model, out)]  # training goes on
        assert logs[0][0]['loss'] == logs[1][0]['loss']
        assert equal(encode(model, splits[0]), encode(out, splits[0]))


def test_a_copy_has_its_own_parts(splits):
    model = MODELS['PWC'](splits[0])
    out = copy.deepcopy(model)
    out.set_power(0)
    out.fusion.on_epoch_start(3)
    assert model.number('power') == 1 and out.number('power') == 0
    assert model.fusion.gate > out.fusion.gate


def test_freedom_leaves_the_graph_that_it_drew_out_of_copies(splits):
    model = MODELS['FREEDOM'](splits[0])
    user, pos = splits[0][INTERACTS].edge_index
    model.on_epoch_start(1)
    loss = model.loss(splits[0], user, pos, pos.flip(0))
    assert model._pruned is not None
    out = copy.deepcopy(model)
    assert out._pruned is None
    assert torch.equal(out.loss(splits[0], user, pos, pos.flip(0)), loss)


@pytest.mark.parametrize('how', COPIES)
def test_what_training_makes_is_copied(splits, tmp_path, how):
    train, val, _ = splits
    trainer = Trainer(MODELS['PWC'](train), train, val)
    trainer.fit(1)
    out = COPIES[how](trainer)
    assert out.log == trainer.log
    if how != 'copy':
        assert [trainer.train_epoch() for _ in range(2)] == [out.train_epoch() for _ in range(2)]

    sampler = BPRSampler(train[INTERACTS].edge_index, 64, 48, batch_size=50)
    out = COPIES[how](sampler)
    assert repr(out) == repr(sampler)
    if how != 'copy':
        assert all(equal(*batches) for batches in zip(sampler, out, strict=True))

    paths = {name: tmp_path / f'{name}.npy' for name in ('image', 'text')}
    for name, path in paths.items():
        np.save(path, train[ITEM][f'x_{name}'].numpy())
    features = MappedFeatures(paths, 48)
    out = COPIES[how](features)
    assert repr(out) == repr(features) and out.identity() == features.identity()
    assert torch.equal(out.rows(torch.tensor([3, 1]))[1], features.rows(torch.tensor([3, 1]))[1])


@pytest.mark.parametrize('how', COPIES)
def test_mini_batches_are_copied(splits, how):
    try:
        batches = MiniBatches(splits[0], [-1, -1, -1], batch_size=100)
    except ImportError as error:
        pytest.skip(str(error))
    out = COPIES[how](batches)
    assert repr(out) == repr(batches) and out.identity() == batches.identity()
    if how != 'copy':
        for one, two in zip(batches, out, strict=True):
            assert equal(one[1:], two[1:]) and torch.equal(one[0][ITEM].n_id, two[0][ITEM].n_id)


@pytest.mark.parametrize('index', ['Flat', 'HNSW8'])
@pytest.mark.parametrize('how', COPIES)
def test_retrievers_are_copied(splits, index, how):
    emb = Embeddings(torch.randn(64, 8), torch.randn(48, 8))
    retriever = Retriever(emb, splits[0], index=index)
    users = ['user-3', 'user-1']
    before = retriever.recommend(users, 3)
    out = COPIES[how](retriever)
    assert repr(out) == repr(retriever) and out.recommend(users, 3).equals(before)
    if how != 'copy':
        out.add_items(100 * emb.user[3:4], ['new'])
        assert out.recommend(users, 3)['item'].tolist()[0] == 'new'
        assert retriever.recommend(users, 3).equals(before)


# Wrapped by PyTorch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('wrap', ['eager', 'aot_eager', 'AveragedModel'])
def test_wrapped_models_train_and_load_unwrapped(splits, tmp_path, wrap):
    train, val, test = splits
    plain = MODELS['PWC'](train)
    wrapped = AveragedModel(plain) if wrap == 'AveragedModel' else torch.compile(plain, backend=wrap)
    expected = MODELS['PWC'](train)
    result = fit(wrapped, train, val, epochs=2, progress=False, checkpoint=tmp_path / 'run.pt')
    assert [row['loss'] for row in result.log] == [
        row['loss'] for row in fit(expected, train, val, epochs=2, progress=False).log
    ]
    with torch.no_grad():
        emb = wrapped(train)
    assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(emb, encode(expected, train), strict=True))
    assert evaluate(emb, test)
    loaded = load_model(tmp_path / 'run.pt')
    assert type(loaded) is LIRDRec
    assert equal(loaded(train), encode(expected, train))
    if wrap != 'AveragedModel':  # what is changed after it was compiled is seen
        wrapped.set_power(0)
        with torch.no_grad():
            assert torch.allclose(wrapped(train).item.norm(dim=1), torch.ones(48))
    else:  # its module is trained, the model that it was made of is not
        assert not torch.equal(plain.user, wrapped.module.user)


def test_weights_are_averaged_by_a_callback(splits):
    train, _, test = splits
    model = MODELS['PWC'](train)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))

    class Average(Callback):
        def on_step(self, trainer):
            averaged.update_parameters(trainer.model)

    fit(model, train, epochs=3, progress=False, batch_size=100, callbacks=[Average()])
    assert not torch.equal(averaged.module.user, model.user)
    assert averaged.module.fusion.gate == model.fusion.gate  # the epoch came along
    model.set_power(0.5)
    averaged.update_parameters(model)
    again = MODELS['PWC'](train)
    again.load_state_dict(averaged.module.state_dict())
    emb = encode(averaged, train)
    assert equal(emb, encode(again, train))
    assert evaluate(emb, test)


# Precision -----------------------------------------------------------------------------------------------------------


def double(data):
    data = copy.copy(data)
    for store in data.stores:
        for key, value in store.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                store[key] = value.to(torch.double)
    return data


def close(one, two, tol):
    one, two = ([x.detach() for x in xs] for xs in (one, two))
    scale = max(float(y.abs().max()) for y in two)
    return all(float((x.double() - y.double()).abs().max()) <= tol * scale for x, y in zip(one, two, strict=True))


def step(model, data, context=contextlib.nullcontext, backward=contextlib.nullcontext):
    r"""Returns embeddings, loss and gradients."""
    model.eval().on_epoch_start(1)
    user, pos = data[INTERACTS].edge_index
    with context():
        emb = model(data)
        loss = model.loss(data, user, pos, pos.flip(0))
    with backward():
        grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return emb, [loss], [torch.zeros(1) if grad is None else grad for grad in grads]


@pytest.fixture
def sampled_alike():
    r"""Gives each step the same random state."""

    def run(*args):
        torch.manual_seed(0)
        return step(*args)

    return run


def autocast():
    return torch.autocast('cpu', torch.bfloat16)


@pytest.mark.parametrize('name', TRAINED)
def test_autocast(splits, sampled_alike, name):
    train = splits[0]
    exact = sampled_alike(MODELS[name](train), train)
    for data in (train, HalfPrecision()(train)):
        outside, inside = (
            sampled_alike(MODELS[name](train), data, autocast, b) for b in (contextlib.nullcontext, autocast)
        )
        for one, two, three, tol in zip(outside, inside, exact, (0.02, 0.02, 0.1), strict=True):
            assert close(one, three, tol) and close(two, three, tol)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('name', TRAINED)
def test_double(splits, sampled_alike, name, layout):
    if layout != 'csr' and name not in ('PWC', 'sequential', 'FREEDOM', 'MGCN'):
        return  # they use the graph as one of these does
    train = InteractionGraph(layout)(splits[0])
    single = sampled_alike(MODELS[name](train), train)
    for model, data in [
        (MODELS[name](train).double(), train),
        (MODELS[name](train).double(), double(train)),
        (MODELS[name](train), double(train)),
    ]:
        out = sampled_alike(model, data)
        assert {x.dtype for x in (*out[0], *out[1])} == {next(model.parameters()).dtype}
        for one, two in zip(out, single, strict=True):
            assert close(one, two, 1e-5)


def test_double_is_exact(splits):
    r"""The formulas of the docstring, by plain autograd in double precision."""
    train = double(splits[0])
    model = MODELS['UniformFusion'](train).double()
    model.propagation.num_layers = 2
    emb, (loss,), grads = step(model, train)

    content = [
        lin2(torch.nn.functional.leaky_relu(lin1(x), 0.01))
        for x, lin1, lin2 in [
            (train[ITEM].x_image, model.encoders['image'].lin1, model.encoders['image'].lin2),
            (train[ITEM].x_text, model.encoders['text'].lin1, model.encoders['text'].lin2),
            (train[ITEM].spectrum, model.shared_encoder.lin1, model.shared_encoder.lin2),
        ]
    ]
    z0 = torch.cat([model.user, torch.stack(content, dim=1)])
    z0 = (z0 / z0.norm(dim=-1, keepdim=True)).flatten(1)
    adj = torch.zeros(112, 112, dtype=torch.double)
    adj[64:, :64] = train[INTERACTS].adj_t.to_dense()
    adj[:64, 64:] = train[REV_INTERACTS].adj_t.to_dense()
    z = z0 + adj @ z0 + adj @ (adj @ z0)
    user, item = z[:64] / 3, z[64:] + train[ITEM, 'similar_to', ITEM].adj_t.to_dense() @ z[64:]
    assert close(emb, [user, item], 1e-10)
    u, pos = train[INTERACTS].edge_index
    expected = torch.nn.functional.softplus((user[u] * (item[pos.flip(0)] - item[pos])).sum(dim=1)).mean()
    expected = expected + 1e-4 * (user.square().mean() + item.square().mean())
    assert close([loss], [expected], 1e-12)
    assert close(grads, torch.autograd.grad(expected, list(model.parameters())), 1e-10)


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
@pytest.mark.parametrize('name', TRAINED)
def test_half(splits, sampled_alike, name, dtype):
    train = splits[0]
    exact = sampled_alike(MODELS[name](train), train)
    for data in (train, HalfPrecision()(train)):
        model = MODELS[name](train).to(dtype)
        emb, loss, grads = sampled_alike(model, data)
        assert emb.user.dtype == emb.item.dtype == dtype
        assert close(emb, exact[0], 0.03) and close(loss, exact[1], 0.03) and close(grads, exact[2], 0.2)
    assert evaluate(emb, splits[1])
    with pytest.raises(ValueError, match=rf"'model' needs parameters in float32 .* \(got {dtype}\): call `model.float"):
        fit(model, train, epochs=1, progress=False)


@pytest.mark.parametrize('name', ['Popularity', 'ContentKNN'])
def test_models_without_parameters_in_any_precision(splits, name):
    model, train = MODELS[name](splits[0]), splits[0]
    exact = encode(model, train)
    for one, data in [(model, double(train)), (model.half(), train), (model.bfloat16(), HalfPrecision()(train))]:
        assert close(encode(one, data), exact, 0.02)
    with autocast():
        emb = encode(model, train)
    assert emb.user.dtype == emb.item.dtype and close(emb, exact, 0.02)


@pytest.mark.parametrize('name', ['PWC', 'sequential', 'MGCN'])
def test_training_within_autocast(splits, name):
    train, val, _ = splits
    losses = []
    for context in (contextlib.nullcontext, autocast):
        with context():
            result = fit(MODELS[name](train), train, val, epochs=2, progress=False, batch_size=200)
        losses.append(torch.tensor([row['loss'] for row in result.log]))
        assert 0 <= result.best_value <= 1
    assert torch.allclose(*losses, rtol=0.02)


def test_training_in_double_precision(splits, tmp_path):
    train, val, _ = splits
    losses = []
    for data, model in [(train, MODELS['PWC'](train)), (double(train), MODELS['PWC'](train).double())]:
        path = tmp_path / f'{len(losses)}.pt'
        losses.append([row['loss'] for row in fit(model, data, val, epochs=2, progress=False, checkpoint=path).log])
        loaded = load_model(path)
        assert loaded.user.dtype == model.user.dtype and equal(encode(loaded, data), encode(model, data))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0] != losses[1]
