"""Damaged and hostile files of models: a checkpoint, or one line; memory as the file's size."""

import io
import json
import pickle
import random
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import published_layout as layout
from twinscore.denoisers import Checkpoint, NetworkSpec, build, load, save, tensor_files
from twinscore.errors import InputError

MB = 10**6


def trained(path):
    spec = NetworkSpec(width=2, levels=1)
    save(path, Checkpoint(build(spec, 1, seed=0).eval(), (1, 8, 8), (0.5,)), spec)


def refusal(model):
    with pytest.raises(InputError) as caught:
        load(model)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def held(what):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{what}:\s*(\d+)", status)[1])


def growth(call):
    """Bytes by which the memory of this process grows meanwhile, at most."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before = held("VmRSS")
    call()
    return held("VmHWM") - before


HEADERS = {
    "a large network": {"network": {"width": 2000, "levels": 6}},
    "the largest network": {"network": {"width": 4096, "levels": 10, "convolutions": 32}},
    "too many levels": {"network": {"levels": 1_000_000}},
    "too wide": {"network": {"width": 10**9}},
    "a number of 6,000 digits": {"network": {"width": int("9" * 4000)}},
    "text for a number": {"network": {"width": "wide"}},
    "a large image": {"shape": [1, 10**9, 10**9]},
    "many channels": {"shape": [10**9, 8, 8]},
    "a negative side": {"shape": [1, -8, 8]},
    "text for a side": {"shape": ["1", "x", 8]},
    "no channels": {"shape": [None, 8, 8]},
    "no mean": {"mean": []},
    "a mean that is none": {"mean": [float("nan")]},
    "a text for a mean": {"mean": ["grey"]},
    "a list": {"network": []},
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_is_held_against_the_file_before_a_network_is_made(tmp_path, case):
    path = tmp_path / "weights.safetensors"
    header = {"network": {"width": 2, "levels": 1}, "shape": [1, 8, 8], "mean": [0.5]}
    metadata = {"twinscore": json.dumps(header | HEADERS[case])}
    save_file({"first.weight": torch.zeros(2, 1, 3, 3)}, path, metadata)
    assert growth(lambda: refusal(str(path))) < 50 * MB


def test_a_header_nested_deeply_is_one_line(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"twinscore": "[" * 100_000})
    refusal(str(path))


def test_weights_that_are_not_real_numbers_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    spec = NetworkSpec(width=2, levels=1)
    state = build(spec, 1, seed=0).state_dict()
    metadata = {"network": spec.model_dump(), "shape": [1, 8, 8], "mean": [0.5]}
    state = {name: value.to(torch.int64) for name, value in state.items()}
    save_file(state, path, {"twinscore": json.dumps(metadata)})
    assert "weights must be real numbers, got I64" in refusal(str(path))


def archive(path, **entries):
    """A zip archive like those of torch.save."""
    with zipfile.ZipFile(path, "w") as written:
        for name, content in entries.items():
            written.writestr(f"model/{name.replace('__', '/').replace('_pkl', '.pkl')}", content)
    return path


class Storage:
    """Stands for a storage in a pickle."""

    def __init__(self, count):
        self.given = ("storage", torch.FloatStorage, "0", "cpu", count)


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.given if isinstance(value, Storage) else None


class Call:
    def __init__(self, function, *given):
        self.made = function, given

    def __reduce__(self):
        return self.made


def pickled(value):
    content = io.BytesIO()
    Pickler(content, 2).dump(value)
    return content.getvalue()


def tensor(count, size, stride, offset=0):
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, Storage(count), offset, size, stride, False, {})


HOSTILE = {
    "stretched": tensor(4, (10**6, 10**6), (0, 0)),
    "too long": tensor(4, (10**10,), (1,)),
    "beyond the end": tensor(4, (2,), (1,), 3),
    "negative": tensor(4, (2,), (-1,), 3),
    "before the start": tensor(4, (2,), (1,), -1),
    "more than there are": tensor(10**10, (4,), (1,)),
    "no stride": tensor(4, (4,), ()),
    "a storage of its own": Call(torch.FloatStorage, 10**10),
    "a large array": Call(bytearray, 10**11),
    "an import": Call(__import__, "os"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_no_tensor_is_made_that_is_not_in_the_file(tmp_path, case):
    description = pickled({"conv_layers.0.weight": HOSTILE[case]})
    path = archive(tmp_path / "model.pt", data_pkl=description, data__0=bytes(16))
    assert growth(lambda: refusal(f"lcv:{path}")) < 50 * MB


def test_a_tensor_in_the_file_is_read(tmp_path):
    description = pickled({"a": tensor(4, (2, 1), (2, 1), 1)})
    numbers = struct.pack("<4f", 0, 1, 2, 3)
    path = archive(tmp_path / "model.pt", data_pkl=description, data__0=numbers)
    assert torch.equal(tensor_files.read(path)["a"], torch.tensor([[1.0], [3.0]]))


def test_a_compressed_archive_and_shared_numbers_are_refused(tmp_path):
    description = pickled({"a": tensor(10**8, (10**8,), (1,))})
    path = archive(tmp_path / "model.pt", data_pkl=description)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as written,
        written.open("model/data/0", "w") as numbers,
    ):
        for _ in range(400):
            numbers.write(bytes(10**6))
    assert growth(lambda: refusal(f"lcv:{path}")) < 50 * MB
    shared = pickled(
        {f"conv_layers.{i}.weight": tensor(9, (1, 1, 3, 3), (9, 9, 3, 1)) for i in range(100)}
    )
    path = archive(tmp_path / "model.pt", data_pkl=shared, data__0=bytes(36))
    refusal(f"lcv:{path}")


@pytest.mark.parametrize(
    "state",
    [
        {"encoder.0.0.weight": torch.zeros(10**6, 1, 1, 1)},
        layout.unet() | {f"encoder.{i}.0.weight": torch.zeros(1) for i in range(2, 99)},
        {f"conv_layers.{i}.weight": torch.zeros(1, 1, 1, 1) for i in range(999)},
        {"conv_layers.0.weight": torch.zeros(4096, 1, 3, 3)}
        | {f"conv_layers.{i}.weight": torch.zeros(1, 1, 1, 1) for i in range(1, 200)}
        | {f"BN_layers.{i}.gammas": torch.zeros(1) for i in range(1, 199)},
    ],
    ids=["wide", "deep", "long", "wide and long"],
)
def test_no_network_is_made_that_its_tensors_do_not_fill(tmp_path, state):
    torch.save(state, tmp_path / "model.pt")
    assert growth(lambda: refusal(f"lcv:{tmp_path}")) < 50 * MB


# Random damage


def damaged(content, draw):
    """A copy with some bytes changed, left out, repeated or cut, and numbers made large."""
    content = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = draw.randrange(max(1, min(len(content), draw.choice((40, 2000, len(content))))))
        match draw.randrange(6):
            case 0:
                content[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                content[at : at + 1] = bytes(
                    [content[at] ^ 1 << draw.randrange(8)] if content else []
                )
            case 2:
                del content[at : at + draw.randrange(1, 9)]
            case 3:
                content[at:at] = content[at : at + draw.randrange(1, 30)]
            case 4:
                digits = [i for i, byte in enumerate(content[:4000]) if chr(byte).isdigit()]
                at = draw.choice(digits) if digits else 0
                content[at : at + 1] = b"9" * draw.randrange(1, 12)
            case 5:
                del content[draw.choice((at, len(content) - at)) :]
    return bytes(content)


def versions(folder, count, seed):
    """Damaged copies of a checkpoint of ours and of a published one: files and model strings."""
    draw, ours, theirs = random.Random(seed), folder / "w.safetensors", folder / "model.pt"
    trained(ours)
    torch.save(layout.bf_cnn(width=2, layers=4) | {}, theirs)
    whole = {path: path.read_bytes() for path in (ours, theirs)}
    with zipfile.ZipFile(theirs) as opened:
        entries = {name: opened.read(name) for name in opened.namelist()}
    [described] = [name for name in entries if name.endswith("data.pkl")]
    for _ in range(count):
        ours.write_bytes(damaged(whole[ours], draw))
        yield str(ours)
        theirs.write_bytes(damaged(whole[theirs], draw))
        yield f"lcv:{theirs}"
        with zipfile.ZipFile(theirs, "w") as opened:  # whole, but for what is said of it
            for name, content in entries.items():
                changed = damaged(content, draw) if name == described else content
                opened.writestr(name, changed)
        yield f"lcv:{theirs}"


def attack(folder, count, seed):
    """Open damaged files: how many opened, and what was said of the others."""
    opened, said = 0, []
    for model in versions(Path(folder), count, seed):
        try:
            assert isinstance(load(model), Checkpoint)
            opened += 1
        except InputError as error:
            said.append(str(error))
    return opened, said


def attacked(folder, count, seed):
    """The same in a process of its own, and the bytes by which its memory grew."""
    code = (
        "import json, resource, sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_model_files import attack, growth\n"
        "pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        "most = pages * resource.getpagesize() + 2 * 10**9\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "found = []\n"
        f"grown = growth(lambda: found.extend(attack({str(folder)!r}, {count}, {seed})))\n"
        "print(json.dumps([*found, grown]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "count", [pytest.param(60, id="short"), pytest.param(5000, id="long", marks=pytest.mark.slow)]
)
def test_damaged_files_are_opened_or_refused_in_one_line(tmp_path, count):
    opened, said, grown = attacked(tmp_path, count, seed=1)
    assert opened + len(said) == 3 * count
    assert len(said) > opened > 0
    assert not [line for line in said if "\n" in line or len(line) > 800]
    assert grown < 200 * MB
