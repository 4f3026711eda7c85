"""twinscore: did your diffusion model learn the distribution, or the training set?"""


def __getattr__(name: str) -> str:
    if name == "__version__":  # not before it is asked for: reading it takes longer than starting
        from importlib.metadata import version

        return version("twinscore")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
