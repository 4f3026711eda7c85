"""One module a study or tool: a ``Spec`` and ``run(spec, out)``."""
