"""Fixtures that several test files share."""

import signal

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from twinscore import environment
from twinscore.report import style

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell started the tests with &
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def fabric():
    """The CPU, without looking for anything better."""
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture(autouse=True)
def _user_cache_of_its_own(tmp_path_factory, monkeypatch):
    """Nothing is remembered from one test to the next, nor in the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def cheap():
    """One worker with one thread, and figures that are drawn but not encoded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "available_cores", lambda: 1)
        patch.setattr(style, "settle", lambda figure: figure)
        for kind in ("svg", "png", "pdf"):
            patch.setattr(style, kind, lambda *_: b"drawn")
        yield


@pytest.fixture
def global_random_state_untouched():
    """The test fails if anything drew from the global random states."""
    before = torch.random.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    yield
    assert torch.equal(torch.random.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
