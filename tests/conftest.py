import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.transforms import Compose

from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph, ModalityGraphs, RecentItems

torch.set_num_threads(1)  # the tensors are tiny


@pytest.fixture
def data() -> HeteroData:
    r"""A checkerboard with content, before any split."""
    return Compose([DCT(), ItemKNNGraph(k=4), ModalityGraphs(k=4)])(FakeMultimodal(seed=1)[0])


@pytest.fixture
def splits(data) -> tuple[HeteroData, HeteroData, HeteroData]:
    train, val, test = FixedSplit()(data)
    return InteractionGraph()(RecentItems(4)(train)), val, test


@pytest.fixture
def run_script(monkeypatch, capsys) -> Callable[..., str]:
    r"""Runs a script of the repository as ``python script args`` does, in this process; returns what it prints."""

    def run(script: str, *args: str) -> str:
        monkeypatch.chdir(Path(__file__).parents[1])
        monkeypatch.setattr(sys, 'argv', [script, *args])
        capsys.readouterr()
        try:
            runpy.run_path(script, run_name='__main__')
        except SystemExit as end:  # as after --help
            assert not end.code, capsys.readouterr().err
        return capsys.readouterr().out

    return run


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(12345)
