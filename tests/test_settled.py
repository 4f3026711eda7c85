"""A run gives the same bits whatever state its caller left torch in, and leaves it so."""

import os
import sys
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import pytest
import torch

from twinscore import denoisers, environment
from twinscore.denoisers import NetworkSpec
from twinscore.execution import settled_torch
from twinscore.experiments import train
from twinscore.sampling import SamplingSpec
from twinscore.sampling.samples import draw_batch
from twinscore.training import TrainingSpec, fit, single_device


@contextmanager
def changed(put, new, old):
    put(new)
    try:
        yield
    finally:
        put(old)


def precision(value):
    """Whatever was set before: the old way and the new one."""
    torch.set_float32_matmul_precision(value)


def each_precision(value):
    for part in (torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn):
        part.fp32_precision = value


def anomaly(value):
    torch.autograd.set_detect_anomaly(value)


STATES = {
    "float64": lambda: changed(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: changed(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "a default device": lambda: changed(torch.set_default_device, "meta", None),
    "a device context": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "low precision": lambda: changed(precision, "medium", "highest"),
    "deterministic": lambda: changed(torch.use_deterministic_algorithms, True, False),
    "anomalies": lambda: changed(anomaly, True, False),
    "no denormals": lambda: changed(torch.set_flush_denormal, True, False),
    "no mkldnn": lambda: changed(
        lambda value: setattr(torch.backends.mkldnn, "enabled", value), False, True
    ),
    "strict numpy": lambda: np.errstate(all="raise"),
}
if hasattr(torch.backends, "fp32_precision"):
    STATES["precision of each"] = lambda: changed(each_precision, "bf16", "none")


def state():
    """What a caller can see of the state."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "of each": getattr(torch.backends.mkldnn.conv, "fp32_precision", "none"),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "no denormals": sys.float_info.min / 2 == 0,
        "mkldnn": torch.backends.mkldnn.enabled,
        "numpy": np.geterr(),
    }


@pytest.mark.parametrize("name", STATES)
def test_each_state_is_settled_and_put_back(name):
    fresh = state()
    with STATES[name]():
        before = state()
        assert before != fresh
        with settled_torch():
            assert state() == fresh
        assert state() == before
        with suppress(ZeroDivisionError), settled_torch(fresh["threads"] + 1):
            assert state() == fresh | {"threads": fresh["threads"] + 1}
            raise ZeroDivisionError
        assert state() == before
    assert state() == fresh


def weights(denoiser):
    return torch.cat([value.flatten() for value in denoiser.state_dict().values()])


@pytest.mark.parametrize("name", STATES)
def test_networks_are_made_trained_loaded_and_sampled_alike(name, tmp_path, fabric):
    network, x = NetworkSpec(width=2, levels=1), torch.rand(4, 1, 8, 8)
    training = TrainingSpec(steps=3, batch=2, evaluations=1)
    path = tmp_path / "model.safetensors"

    def work():
        model = fit(denoisers.build(network, 1, 0), x, training, fabric=fabric)
        denoisers.save(path, denoisers.Checkpoint(model, (1, 8, 8), (0.3,)), network)
        loaded = denoisers.load(str(path))
        samples, _ = draw_batch(
            loaded, np.arange(2), SamplingSpec(steps=2), size=2, device=torch.device("cpu")
        )
        return weights(model), weights(loaded.denoiser), torch.from_numpy(samples)

    alike = work()
    with STATES[name]():
        found = work()
    for one, other in zip(alike, found, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_a_run_gives_the_same_bits_under_all_of_them_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "available_cores", lambda: 1)
    spec = train.Spec(
        n=4, test=4, network={"width": 2, "levels": 1}, training={"steps": 4, "batch": 2}
    )
    train.run(spec, tmp_path / "one", device="cpu")
    with ExitStack() as stack:
        for name in STATES.keys() - {"bfloat16", "a default device"}:
            stack.enter_context(STATES[name]())
        before = state()
        train.run(spec, tmp_path / "two", device="cpu")
        assert state() == before
    one, two = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


LAUNCHERS = {
    "a cluster": {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"},
    "torchrun": {
        **{"WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "4"},
        **{"MASTER_ADDR": "localhost", "MASTER_PORT": "29500", "GROUP_RANK": "0"},
        **{"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"},
    },
    "fabric run": {
        **{"LT_CLI_USED": "1", "LT_ACCELERATOR": "cuda", "LT_DEVICES": "4"},
        **{"LT_STRATEGY": "ddp", "LT_PRECISION": "bf16-mixed", "LT_NUM_NODES": "2"},
    },
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_what_launched_the_process_does_not_matter(name, monkeypatch):
    for key, value in LAUNCHERS[name].items():
        monkeypatch.setenv(key, value)
    before = dict(os.environ)
    fabric = single_device("cpu")
    assert (fabric.device.type, fabric.world_size, fabric.global_rank) == ("cpu", 1, 0)
    assert fabric._precision.precision == "32-true"
    assert dict(os.environ) == before
