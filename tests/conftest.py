"""What several test files share: the small log of the reference, trained models, its cases."""

from __future__ import annotations

import os
import sys

import pandas as pd
import pytest
from helpers.golden import CASES, GOLDEN
from helpers.on_gpu import CUDA, DEVICES, OPENCL, gpu_of

# hints say `pip install` alone, whether or not who starts the tests has activated the environment
os.environ["VIRTUAL_ENV"] = sys.prefix


@pytest.fixture(scope="module", params=DEVICES)
def gpu(request):
    """Each of the devices that stand for a GPU: OpenCL on the CPU, and CUDA, emulated."""
    return gpu_of(request.param)


@pytest.fixture(scope="module")
def opencl():
    """The device of OpenCL alone, for what does not depend on which one it is."""
    return gpu_of(OPENCL)


@pytest.fixture(scope="module")
def cuda():
    """The emulated device of CUDA alone."""
    return gpu_of(CUDA)


@pytest.fixture
def symbolic(monkeypatch):
    """Graphs of plain Theano expressions, without any Op of this project."""
    from gru4rec_toolkit.ops import base
    from gru4rec_toolkit.theano_setup import theano

    mode = theano.compile.mode.get_default_mode().excluding("gru4rec")
    monkeypatch.setattr(theano.compile.mode, "instantiated_default_mode", mode)
    monkeypatch.setattr(base, "usable", lambda: False)


@pytest.fixture(scope="session")
def train_data() -> pd.DataFrame:
    """320 sessions on 60 items, not in time order, item ids as strings."""
    return pd.read_csv(GOLDEN / "train.tsv", sep="\t", dtype={"ItemId": str})


@pytest.fixture(scope="session")
def test_data() -> pd.DataFrame:
    """80 sessions; two events are on items that the training does not have."""
    return pd.read_csv(GOLDEN / "test.tsv", sep="\t", dtype={"ItemId": str})


@pytest.fixture(scope="session")
def model(train_data):
    """A trained model with the shared embedding; tests must not change it."""
    from gru4rec import GRU4Rec

    gru = GRU4Rec(**CASES["xe_shared"]["params"])
    gru.fit(train_data)
    return gru


@pytest.fixture(scope="session")
def model_with_ties(train_data):
    """A trained model whose relu makes equal scores of many items; tests must not change it."""
    from gru4rec import GRU4Rec

    gru = GRU4Rec(**CASES["bprmax_relu"]["params"])
    gru.fit(train_data)
    return gru
