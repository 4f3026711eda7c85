"""Fixtures that several test files share."""

import signal

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell started the tests with &
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def fabric():
    """The CPU, without looking for anything better."""
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture
def global_random_state_untouched():
    """The test fails if anything drew from the global random states."""
    before = torch.random.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    yield
    assert torch.equal(torch.random.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
