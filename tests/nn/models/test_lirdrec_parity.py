r"""Parity with recorded trajectories of the released implementation."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn import PWC, LIRDRec
from lirdrec_pyg.transforms import DCT, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, REV_INTERACTS, SIMILAR_TO

GOLDEN = Path(__file__).parents[2] / 'golden'


class Golden:
    def __init__(self, name: str) -> None:
        self.file = np.load(GOLDEN / f'{name}.npz', allow_pickle=False)
        self.hparams = ast.literal_eval(str(self.file['hparams']))
        self.num_users, self.num_items = len(self['init/v_preference']), len(self['x_image'])

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.file[key])

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        return {key[len(prefix) :]: self[key] for key in self.file.files if key.startswith(prefix)}

    def data(self, layout: str = 'csr') -> HeteroData:
        data = HeteroData()
        data['user'].num_nodes, data['item'].num_nodes = self.num_users, self.num_items
        data['item'].x_image, data['item'].x_text = self['x_image'], self['x_text']
        data[INTERACTS].edge_index = self['edge_index']
        weights = {'image': self.hparams['image_weight'], 'text': self.hparams['text_weight']}
        for transform in [DCT(), ItemKNNGraph(self.hparams['k'], weights), InteractionGraph(layout)]:
            data = transform(data)
        return data

    def model(self, data: HeteroData) -> LIRDRec:
        model = LIRDRec.from_data(
            data,
            hidden_channels=self.hparams['embedding_dim'],
            num_layers=self.hparams['num_layers'],
            num_item_layers=self.hparams['num_item_layers'],
            reg_weight=self.hparams['reg_weight'],
            fusion=PWC(self.hparams['decay_weight'], self.hparams['decay_base']),
        )
        model.load_official_state_dict(self.group('init/'))
        return model


@pytest.fixture(params=['official_tiny_a', 'official_tiny_b'])
def golden(request) -> Golden:
    return Golden(request.param)


def test_adjacency_and_item_graph(golden):
    data = golden.data()
    num_users = golden.num_users
    adj = torch.zeros_like(golden['norm_adj'])
    adj[num_users:, :num_users] = data[INTERACTS].adj_t.to_dense()
    adj[:num_users, num_users:] = data[REV_INTERACTS].adj_t.to_dense()
    assert torch.allclose(adj, golden['norm_adj'], atol=1e-6)
    assert torch.allclose(data[SIMILAR_TO].adj_t.to_dense(), golden['item_adj'], atol=1e-6)
    assert torch.equal(data[SIMILAR_TO].adj.to_dense(), data[SIMILAR_TO].adj_t.to_dense().t())


@pytest.mark.parametrize('layout', ['csr', 'EdgeIndex', 'edge_index'])
def test_trajectory(golden, layout):
    data = golden.data(layout)
    model = golden.model(data)
    optimizer = torch.optim.Adam(model.parameters(), lr=golden.hparams['lr'])
    triplets, losses = golden['triplets'], golden['loss']
    for epoch in range(1, golden.hparams['epochs'] + 1):
        model.on_epoch_start(epoch)
        assert model.fusion.gate == pytest.approx(float(golden['pwc_weights'][epoch - 1, 0]), rel=1e-6)
        for step in range(golden.hparams['steps']):
            optimizer.zero_grad()
            loss = model.loss(data, *triplets[epoch - 1, step])
            loss.backward()
            if epoch == 1 and step == 0:
                out = model.encode(data)
                assert torch.allclose(out.user, golden['user0'], atol=1e-5)
                assert torch.allclose(out.item, golden['item0'], atol=1e-5)
                grads = LIRDRec.from_data(data, **{k: model.hparams[k] for k in ('hidden_channels', 'num_layers')})
                grads.load_official_state_dict(golden.group('grad0/'))
                for (name, expected), param in zip(grads.named_parameters(), model.parameters(), strict=True):
                    assert torch.allclose(param.grad, expected, rtol=1e-4, atol=1e-6), name
            optimizer.step()
            assert float(loss) == pytest.approx(float(losses[epoch - 1, step]), rel=1e-5)
        assert torch.allclose(model.fusion.last_weight, golden['attention'][epoch - 1], atol=1e-4)
    model.eval()
    out = model.encode(data)
    assert torch.allclose(out.user, golden['user_final'], atol=1e-4)
    assert torch.allclose(out.item, golden['item_final'], atol=1e-4)
