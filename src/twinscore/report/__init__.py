"""Reports: figures and one self-contained page, drawn from a run folder alone.

`page` writes it. The module named like a study has its words, `content`, and its figures, declared
with :func:`~twinscore.report.content.figure`; what several of them draw alike is in `plots`.
"""
