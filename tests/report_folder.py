"""Build a small folder in the layout of a transition run, for the tests of the report.

The numbers are drawn, not trained: at small N a sample is a noisy copy of a training image, at
large N both twins' samples are the same held-out image. Intervals are plain percentiles.
"""

import csv
import json

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

SIGMAS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
VERDICTS = {True: "memorises", None: "transition", False: "generalises"}


def build(folder, sizes=(10, 100, 800), *, count=40, shape=(1, 8, 8), steps=4000, seed=0):
    """Write a finished run of these sizes and return the folder."""
    rng = np.random.default_rng(seed)
    pictures = digits(shape)
    arrays, levels = {}, []
    folder.mkdir(parents=True, exist_ok=True)
    for n in sizes:
        own = level_arrays(rng, pictures, n, count)
        arrays |= {f"n{n:05d}/{name}": np.ascontiguousarray(a) for name, a in own.items()}
        levels.append(level_result(rng, own, n))
        for twin in "ab":
            write_trial(folder / "trials" / f"n{n:05d}-{twin}-3f2c9d1e", rng, n, twin, steps)
    save_file(arrays, folder / "arrays.safetensors")
    low, high = sizes[0], sizes[-1]
    result = {
        "schema_version": 1,
        "study": "transition",
        "complete": True,
        "missing": [],
        "verdict": f"The denoiser memorises its training images at N = {low} and generalises "
        f"at N = {high}.",
        "critical_n": {"value": 310.0, "low": 150.0, "high": 620.0},
        "closest_pairs": levels[-1]["closest_pairs"],
        "held_out_nearest": levels[-1]["held_out_nearest"],
        "data": {
            "source": "digits",
            "images": 1797,
            "dropped": 23,
            "shape": list(shape),
            "threshold": 0.98,
        },
        "levels": levels,
    }
    write_json(folder / "result.json", result)
    write_json(folder / "spec.json", spec(sizes, steps, seed))
    write_json(folder / "environment.json", environment(sizes))
    write_tables(folder, levels)
    return folder


def spec(sizes, steps, seed):
    return {
        "schema_version": 1,
        "data": "digits",
        "sizes": list(sizes),
        "seed": seed,
        "test_images": 128,
        "samples": 256,
        "replicates": 1,
        "duplicate_threshold": 0.98,
        "network": {"kind": "unet", "width": 32, "levels": 2, "convolutions": 2},
        "training": {"steps": steps, "batch": 128, "learning_rate": 1e-3, "ema": None},
        "sampling": {"kind": "probability_flow", "steps": 60},
    }


def environment(sizes):
    return {
        "versions": {"twinscore": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
        "device": "cpu",
        "processor": "two-core test machine",
        "threads": 1,
        "workers": 2,
        "seeds": {f"n{n:05d}-{twin}": 7 * n + k for n in sizes for k, twin in enumerate("ab")},
        "started": "2025-01-01T10:00:00+00:00",
        "finished": "2025-01-01T10:08:12+00:00",
        "wall_seconds": 492.4,
    }


def digits(shape):
    images = (load_digits().images / 16).astype(np.float32)[:, None]
    scale = shape[-1] // 8
    images = images.repeat(scale, axis=2).repeat(scale, axis=3)
    return images.repeat(shape[0], axis=1)


def level_arrays(rng, pictures, n, count):
    order = rng.permutation(len(pictures))
    sets = {"a": pictures[order[:n]], "b": pictures[order[n : 2 * n]]}
    test = pictures[order[-128:]]
    copied = 1 / (1 + (n / 150) ** 1.5)
    shared = test[rng.integers(len(test), size=count)]
    own = {"noise_seeds": 1000 + np.arange(count, dtype=np.int64)}
    for twin, images in sets.items():
        choice = images[rng.integers(n, size=count)]
        weight = (rng.random(count) < copied)[:, None, None, None]
        samples = np.where(weight, choice, shared) + 0.04 * rng.standard_normal(shared.shape)
        own[f"samples_{twin}"] = samples.clip(0, 1).astype(np.float32)
        closeness = cosine(own[f"samples_{twin}"], images)
        own[f"nearest_{twin}"] = images[closeness.argmax(1)]
        own[f"nearest_similarity_{twin}"] = closeness.max(1)[None]
    own["twin_similarity"] = cosine(own["samples_a"], own["samples_b"]).diagonal()[None]
    own["closest_pairs"] = cosine(sets["a"], sets["b"]).max(1)
    own["held_out_nearest"] = cosine(test, sets["a"]).max(1)
    return own


def cosine(left, right):
    left, right = (x.reshape(len(x), -1) for x in (left, right))
    left, right = (x - x.mean(1, keepdims=True) for x in (left, right))
    left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (left, right))
    return (left @ right.T).astype(np.float32)


def median(values):
    low, middle, high = np.quantile(values, (0.4, 0.5, 0.6))
    return {"median": float(middle), "low": float(low), "high": float(high)}


def level_result(rng, own, n):
    copied = 1 / (1 + (n / 150) ** 1.5)
    kind = True if copied > 0.9 else False if copied < 0.2 else None
    fraction = {"value": copied, "low": max(copied - 0.05, 0), "high": min(copied + 0.05, 1)}
    memorised = None if n == 1 else fraction
    sigma = np.array(SIGMAS)
    best = 18 - 0.45 * 20 * np.log10(sigma) * 0.9
    gap = 7 * copied + 0.4 * sigma[::-1]
    curves = {"train": best + gap / 2, "test": best - gap}
    psnr = {"sigma": list(SIGMAS)}
    for part, curve in curves.items():
        psnr[part] = curve.tolist()
        psnr[f"{part}_low"] = (curve - 0.5).tolist()
        psnr[f"{part}_high"] = (curve + 0.5).tolist()
    diverse = {"value": 0.2 + 0.1 * rng.random(), "low": 0.2, "high": 0.3}
    return {
        "n": n,
        "verdict": VERDICTS[kind],
        "twin_similarity": median(own["twin_similarity"]),
        "nearest_similarity": {t: median(own[f"nearest_similarity_{t}"]) for t in "ab"},
        "memorised_fraction": {"a": memorised, "b": memorised},
        "diversity": {"a": diverse, "b": diverse},
        "closest_pairs": median(own["closest_pairs"]),
        "held_out_nearest": median(own["held_out_nearest"]),
        "unfinished_samples": {"a": 0, "b": 0},
        "psnr": psnr,
    }


def write_trial(folder, rng, n, twin, steps, stop=None):
    """Write a trial; one with `stop` was interrupted at that step."""
    folder.mkdir(parents=True)
    write_json(folder / "spec.json", {"n": n, "twin": twin, "replicate": 0})
    (folder / ("weights.safetensors" if stop is None else "resume.pt")).write_bytes(b"")
    columns = [f"{part}_psnr_{sigma:g}" for sigma in SIGMAS for part in ("train", "test")]
    with (folder / "history.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "train_loss", "learning_rate", "seconds", *columns])
        for step in range(100, (stop or steps) + 1, 100):
            done = 1 - np.exp(-step / 800)
            loss = 0.03 * (1 - 0.8 * done) * (1 + 0.1 * rng.standard_normal())
            gain = [10 + 8 * done - 6 * s + (p == "train") * 20 / n for s in SIGMAS for p in "tT"]
            rows.writerow([step, loss, 1e-3, step / 50, *gain])


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2))


def write_tables(folder, levels):
    with (folder / "levels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["n", "verdict", "twin_similarity"])
        rows.writerows((x["n"], x["verdict"], x["twin_similarity"]["median"]) for x in levels)
    with (folder / "images.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["index", "name", "digest", "role"])
        rows.writerow([0, "digit-0000", "0" * 64, "a"])
