r"""The contract that every recommender passes."""

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.transforms import Compose

from lirdrec_pyg import evaluate, fit
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.nn import (
    BM3,
    BPRMF,
    EASE,
    FREEDOM,
    MGCN,
    VBPR,
    AlphaRec,
    AttentionFusion,
    ContentKNN,
    LightGCN,
    LIRDRec,
    PaperPWC,
    Popularity,
    SampledSoftmax,
    SoftmaxLIRDRec,
    StaticFusion,
    UniformFusion,
)
from lirdrec_pyg.nn.part import build as build_part
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph, RecentItems
from lirdrec_pyg.typing import INTERACTS, SIMILAR_TO

CASES = {
    'LIRDRec': (LIRDRec, {'hidden_channels': 8}),
    'LIRDRec-ema': (LIRDRec, {'hidden_channels': 8, 'fusion': PaperPWC(), 'num_layers': 1}),
    'LIRDRec-attention': (LIRDRec, {'hidden_channels': 8, 'fusion': AttentionFusion(), 'num_item_layers': 0}),
    'LIRDRec-static': (LIRDRec, {'hidden_channels': 8, 'fusion': StaticFusion()}),
    'LIRDRec-uniform': (LIRDRec, {'hidden_channels': 8, 'fusion': UniformFusion()}),
    'LIRDRec-softmax': (LIRDRec, {'hidden_channels': 8, 'objective': SampledSoftmax(), 'dropout': 0.3}),
    'SoftmaxLIRDRec': (SoftmaxLIRDRec, {'hidden_channels': 8}),
    'LIRDRec-history': (LIRDRec, {'hidden_channels': 8, 'recent_items': 4}),
    'SoftmaxLIRDRec-history': (SoftmaxLIRDRec, {'hidden_channels': 8, 'recent_items': 4}),
    'LIRDRec-batch': (LIRDRec, {'hidden_channels': 8, 'objective': SampledSoftmax(num_negatives='batch')}),
    'LIRDRec-sampled': (LIRDRec, {'hidden_channels': 8, 'objective': SampledSoftmax(num_negatives=20)}),
    'LightGCN': (LightGCN, {'hidden_channels': 8}),
    'LightGCN-softmax': (LightGCN, {'hidden_channels': 8, 'objective': SampledSoftmax()}),
    'BPRMF-softmax': (BPRMF, {'hidden_channels': 8, 'objective': SampledSoftmax(temperature=0.5)}),
    'VBPR-softmax': (VBPR, {'hidden_channels': 8, 'objective': SampledSoftmax()}),
    'FREEDOM-softmax': (FREEDOM, {'hidden_channels': 8, 'objective': SampledSoftmax()}),
    'BM3-softmax': (BM3, {'hidden_channels': 8, 'objective': SampledSoftmax()}),
    'MGCN-softmax': (MGCN, {'hidden_channels': 8, 'objective': SampledSoftmax(num_negatives=20)}),
    'BPRMF': (BPRMF, {'hidden_channels': 8}),
    'VBPR': (VBPR, {'hidden_channels': 8, 'bias': True}),
    'FREEDOM': (FREEDOM, {'hidden_channels': 8}),
    'BM3': (BM3, {'hidden_channels': 8, 'num_layers': 1}),
    'MGCN': (MGCN, {'hidden_channels': 8}),
    'AlphaRec': (AlphaRec, {'hidden_channels': 8, 'mlp_channels': 16}),
    'AlphaRec-softmax': (AlphaRec, {'hidden_channels': 8, 'mlp_channels': 16, 'objective': SampledSoftmax()}),
    'EASE': (EASE, {}),
    'Popularity': (Popularity, {}),
    'ContentKNN': (ContentKNN, {}),
}
TRAINED = [name for name in CASES if name not in ('Popularity', 'ContentKNN', 'EASE')]
LAYOUTS = ['csr', 'EdgeIndex', 'edge_index', pytest.param('SparseTensor', marks=pytest.mark.torch_sparse)]


def build(name, train, seed=0):
    cls, kwargs = CASES[name]
    return cls.from_data(train, seed=seed, **kwargs)


def batch(train):
    user, pos = train[INTERACTS].edge_index[:, :32]
    return user, pos, (pos + 1) % train['item'].num_nodes


@pytest.mark.parametrize('name', CASES)
def test_embeddings_and_gradients(name, splits):
    train = splits[0]
    model = build(name, train)
    out = model.encode(train)
    assert out.user.shape[0] == 64
    assert out.item.shape[0] == 48
    assert out.user.shape[1] == out.item.shape[1]
    loss = model.loss(train, *batch(train))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    if name in TRAINED:
        loss.backward()
        for key, param in model.named_parameters():
            assert torch.isfinite(param.grad).all(), key


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('name', CASES)
def test_layout_and_edge_order_do_not_matter(name, layout, data):
    train = RecentItems(4)(FixedSplit()(data)[0])
    expected = build(name, train).eval().encode(InteractionGraph()(train))
    perm = torch.randperm(train[INTERACTS].edge_index.size(1))
    train[INTERACTS].edge_index = train[INTERACTS].edge_index[:, perm]
    perm = torch.randperm(train[SIMILAR_TO].edge_index.size(1))
    train[SIMILAR_TO].edge_index = train[SIMILAR_TO].edge_index[:, perm]
    train[SIMILAR_TO].edge_weight = train[SIMILAR_TO].edge_weight[perm]
    train = InteractionGraph(layout)(train)
    out = build(name, train).eval().encode(train)
    assert torch.allclose(out.user, expected.user, atol=1e-5)
    assert torch.allclose(out.item, expected.item, atol=1e-5)


@pytest.mark.parametrize('cls', [FREEDOM, VBPR, LightGCN, BPRMF, MGCN, AlphaRec])
@pytest.mark.parametrize('width', [4, 12])
def test_baselines_take_the_softmax_and_any_width(cls, width, splits):
    train = splits[0]
    objective = SampledSoftmax(temperature=0.3, learn_temperature=True)
    model = cls.from_data(train, seed=0, hidden_channels=width, objective=objective)
    for power in (1.0, 0.0):  # calibration chooses it
        model.set_power(power)
        assert model(train).item.shape == (48, 2 * width if cls is VBPR else width)  # VBPR's IDs and content, each
    for name in ('reg_weight', 'contrast_weight'):
        if hasattr(model, name):
            setattr(model, name, 0.0)  # what is left is the objective alone
    if cls is FREEDOM:
        model.dropout = 0.0
    user, pos, neg = batch(train)
    loss = model.loss(train, user, pos, neg)
    z = model.embed(train)
    cosine = F.normalize(z.user, dim=1)[user] @ F.normalize(z.item, dim=1).t()
    seen = torch.bincount(train[INTERACTS].edge_index[1], minlength=48) > 0
    expected = F.cross_entropy((cosine / 0.3).masked_fill(~seen, float('-inf')), pos)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert model.objective.log_scale.grad.abs() > 0


@pytest.mark.parametrize('name', CASES)
def test_state_dict_round_trip(name, splits):
    train, val, _ = splits
    model = build(name, train)
    fit(model, train, val, epochs=2, lr=1e-2, monitor='recall@5', progress=False)
    other = build_part(model.settings())
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval().encode(train).user, model.encode(train).user)
    assert torch.equal(other.encode(train).item, model.encode(train).item)


@pytest.mark.parametrize('name', TRAINED)
def test_same_seed_same_losses(name, splits):
    train = splits[0]
    runs = []
    for seed in (3, 3, 4):
        torch.rand(seed)  # the global state does not matter
        result = fit(build(name, train, seed), train, epochs=3, batch_size=64, seed=seed, progress=False)
        runs.append([row['loss'] for row in result.log])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize('name', TRAINED)
def test_finds_held_out_items_on_the_checkerboard(name, splits):
    train, val, test = splits
    model = build(name, train)
    fit(model, train, val, epochs=60, lr=1e-2, monitor='ndcg@20', patience=60, progress=False)
    # 24 items a block, 6 of them seen: chance is 20/42, a model that knows the blocks finds all
    assert evaluate(model.encode(train), test, k=20)['recall@20'] > 0.95


@pytest.mark.parametrize('name', TRAINED)
def test_nan_is_refused(name, splits):
    train = splits[0]
    model = build(name, train)
    key, first = next(iter(model.named_parameters()))
    first.data[3] = float('nan')
    with pytest.raises(FloatingPointError, match=f'epoch 1, step 1: first at fault is parameter {key}'):
        fit(model, train, epochs=1, progress=False)
    train['item'].x_text = train['item'].x_text.clone()
    train['item'].x_text[3, 0] = float('nan')
    with pytest.raises(ValueError, match="'x_text' of 'train' needs to be finite .*first: row 3"):
        fit(build(name, splits[2]), train, epochs=1, progress=False)


def test_repr(splits):
    train = splits[0]
    assert str(build('LIRDRec', train)) == (
        "LIRDRec(64, {'image': 16, 'text': 8}, hidden_channels=8, num_layers=2, num_item_layers=1, reg_weight=0.0001, "
        'dropout=0.0, objective=BPR(), fusion=PWC(init=0.9, decay=0.9), recent_items=0, sparse=False, '
        'spectral_filter=False)'
    )
    assert str(build('SoftmaxLIRDRec', train)) == (
        "SoftmaxLIRDRec(64, {'image': 16, 'text': 8}, dropout=0.3, "
        'objective=SampledSoftmax(temperature=0.2, num_negatives=None, learn_temperature=False), hidden_channels=8, '
        'num_layers=2, num_item_layers=1, reg_weight=0.0001, fusion=PWC(init=0.9, decay=0.9), recent_items=0, '
        'sparse=False, spectral_filter=False)'
    )
    assert str(build('LightGCN', train)) == (
        'LightGCN(64, 48, hidden_channels=8, num_layers=3, reg_weight=0.0001, objective=BPR())'
    )
    assert str(build('Popularity', train)) == 'Popularity()'


@pytest.mark.parametrize('channels', [{'text': 4}, {'audio': 3, 'image': 5, 'text': 4, 'video': 6}])
def test_any_number_of_modalities(channels):
    data = Compose([DCT(), ItemKNNGraph(3)])(FakeMultimodal(widths=channels, missing={'text': 0.3})[0])
    train, val, test = FixedSplit()(data)
    train = InteractionGraph()(train)
    model = LIRDRec.from_data(train, seed=0, hidden_channels=8)
    fit(model, train, val, epochs=30, lr=1e-2, monitor='recall@5', progress=False)
    out = model.encode(train)
    assert out.item.shape == (48, 8 * (len(channels) + 1))
    assert torch.isfinite(out.item).all()
    assert evaluate(out, test, k=20)['recall@20'] > 0.8  # chance is 20/42; some items have no content at all


def test_what_is_encoded_carries_no_graph(splits):
    model = build('LIRDRec', splits[0])
    encoded, called = model.encode(splits[0]), model(splits[0])
    for one, other in zip(encoded, called, strict=True):
        assert torch.equal(one, other) and other.requires_grad and not one.requires_grad
