r"""What runs on a GPU agrees with the CPU, and a training step does not wait for the device."""

from copy import copy

import pytest
import torch

from lirdrec_pyg import evaluate, fit, load_model
from lirdrec_pyg.nn import (
    BM3,
    BPRMF,
    FREEDOM,
    MGCN,
    VBPR,
    AlphaRec,
    LightGCN,
    LIRDRec,
    PaperPWC,
    SampledSoftmax,
    SoftmaxLIRDRec,
)
from lirdrec_pyg.transforms import InteractionGraph
from lirdrec_pyg.typing import INTERACTS, ITEM

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')

MODELS = {
    'LIRDRec': (LIRDRec, {}),
    'LIRDRec-ema': (LIRDRec, {'fusion': PaperPWC()}),
    'LIRDRec-softmax': (LIRDRec, {'objective': SampledSoftmax()}),
    'LIRDRec-batch': (LIRDRec, {'objective': SampledSoftmax(num_negatives='batch')}),
    'LIRDRec-history': (LIRDRec, {'objective': SampledSoftmax(), 'recent_items': 4}),
    'SoftmaxLIRDRec': (SoftmaxLIRDRec, {'dropout': 0.0}),
    'LightGCN': (LightGCN, {}),
    'BPRMF': (BPRMF, {}),
    'VBPR': (VBPR, {'bias': True}),
    'FREEDOM': (FREEDOM, {'dropout': 0.0}),
    'BM3': (BM3, {'dropout': 0.0}),
    'MGCN': (MGCN, {}),
    'AlphaRec': (AlphaRec, {}),
}
LAYOUTS = ['csr', 'EdgeIndex', 'edge_index']


def prepared(name, splits, layout='csr'):
    cls, kwargs = MODELS[name]
    train = InteractionGraph(layout)(splits[0])
    return cls.from_data(train, seed=0, hidden_channels=16, **kwargs), train


def triplets(train):
    user, pos = train[INTERACTS].edge_index[:, :64]
    return user, pos, (pos + 1) % train[ITEM].num_nodes


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('name', MODELS)
def test_loss_and_gradients_agree(name, layout, splits):
    model, train = prepared(name, splits, layout)
    found = {}
    for device in ('cpu', 'cuda'):
        model, graph = model.to(device), copy(train).to(device)
        model.zero_grad()
        model.train()
        torch.manual_seed(0)
        loss = model.loss(graph, *(index.to(device) for index in triplets(train)))
        loss.backward()
        grads = {key: param.grad for key, param in model.named_parameters() if param.grad is not None}
        found[device] = {f'gradient of {key}': grad.cpu().clone() for key, grad in grads.items()}
        found[device]['loss'] = loss.detach().cpu()
        model.eval()
        with torch.no_grad():
            found[device] |= {f'embedding of {key}': z.cpu().clone() for key, z in model(graph)._asdict().items()}
    assert found['cuda'].keys() == found['cpu'].keys()
    for key, value in found['cuda'].items():
        torch.testing.assert_close(
            value, found['cpu'][key], rtol=1e-3, atol=1e-6, msg=lambda text, key=key: f'{key}: {text}'
        )


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
@pytest.mark.parametrize('name', ['LIRDRec', 'SoftmaxLIRDRec'])
def test_training_agrees(name, precision, splits):
    history = {}
    for device in ('cpu', 'cuda'):
        model, train = prepared(name, splits)
        result = fit(
            model.to(device), train.to(device), splits[1], epochs=5, batch_size=64, precision=precision, progress=False
        )
        history[device] = [row['loss'] for row in result.log]
    assert history['cuda'] == pytest.approx(history['cpu'], rel=1e-3 if precision == 'fp32' else 3e-2)


def test_metrics_agree(splits):
    model, train = prepared('LIRDRec', splits)
    embeddings = model(train)
    expected = evaluate(embeddings, splits[2], k=[5, 10], metrics=['recall', 'ndcg', 'mrr'])
    found = evaluate(
        type(embeddings)(*(z.cuda() for z in embeddings)), splits[2], k=[5, 10], metrics=['recall', 'ndcg', 'mrr']
    )
    assert found == pytest.approx(expected, abs=1e-6)


DRAWN = {  # the two devices draw differently
    'LIRDRec-some': (LIRDRec, {'objective': SampledSoftmax(num_negatives=8)}),
    'LIRDRec-learned': (LIRDRec, {'objective': SampledSoftmax(num_negatives=8, learn_temperature=True)}),
    'LIRDRec-dropout': (LIRDRec, {'dropout': 0.3}),
}
WITHOUT_WAITING = ['LIRDRec', 'LIRDRec-ema', 'LIRDRec-softmax', 'LIRDRec-batch', 'LIRDRec-history', 'SoftmaxLIRDRec']


@pytest.mark.parametrize('name', [*WITHOUT_WAITING, *DRAWN, 'LightGCN', 'VBPR', 'MGCN'])
def test_a_step_does_not_wait_for_the_device(name, splits, monkeypatch):
    monkeypatch.setattr(f'{__name__}.MODELS', MODELS | DRAWN)
    model, train = prepared(name, splits)
    model, train = model.cuda().train(), train.cuda()
    batch = [index.cuda() for index in triplets(train)]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(train, *batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    first = step()
    torch.cuda.set_sync_debug_mode('error')
    try:
        for epoch in range(2, 8):
            model.on_epoch_start(epoch)
            last = step()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert last.isfinite() and (name in DRAWN or last < first)


def test_checkpoints_cross_devices(splits, tmp_path):
    model, train = prepared('LIRDRec', splits)
    kwargs = {'batch_size': 64, 'progress': False, 'checkpoint': tmp_path / 'c.pt'}
    fit(model.cuda(), copy(train).cuda(), splits[1], epochs=2, **kwargs)
    resumed, _ = prepared('LIRDRec', splits)
    result = fit(resumed.cuda(), copy(train).cuda(), splits[1], epochs=4, resume=True, **kwargs)
    assert [row['epoch'] for row in result.log] == [1, 2, 3, 4]
    loaded = load_model(tmp_path / 'c.pt')
    with torch.no_grad():
        found, expected = loaded(train), resumed(copy(train).cuda())
    assert torch.allclose(found.item, expected.item.cpu(), atol=1e-5)
