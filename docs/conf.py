"""The documentation site: these pages, the gallery's scripts, and the API (``make docs``)."""

import os
import re
import sys
import tomllib
from importlib.metadata import version as installed
from pathlib import Path

import matplotlib
from docutils import nodes

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
PYPROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))

project = "twinscore"
author = copyright = PYPROJECT["project"]["authors"][0]["name"]
release = version = installed("twinscore")
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "gallery", "**/*.ipynb", "**/*.codeobj.json"]

# Links that read well on GitHub are the links of the site: anchors as GitHub makes them.
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = {"math"}
myst_heading_anchors = 3

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say what a parameter is, with its shape
numpydoc_show_class_members = False

nitpicky = True
smartquotes = False  # they would make one dash of --spec's two
nitpick_ignore_regex = [("py:.*", r"(numpy|torch|collections)\..*")]  # no inventory is fetched
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

linkcheck_ignore = [r"(\.\./)?\w+\.html"]  # of the site itself, for check_links.py

html_theme = "furo"
html_title = f"twinscore {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"plot_",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("matplotlib",),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
}
matplotlib.use("agg")
os.environ.setdefault("OMP_NUM_THREADS", "2")

CONTENTS = {
    "User guide": "images splits synthetic models closed_forms shrinkage sampling verdict "
    "optimality figures reliability",
    "Studies": "transition audit explain capacity clusters duplicates harmonics manifold "
    "regularity theory",
    "Examples": "auto_gallery/index",
    "Reference": "api formulas benchmarks design",
    "Project": "changelog contributing security",
}
"""Pages in their order; index.md itself is plain Markdown, for whoever reads it on GitHub."""


def _read(app, docname, source):
    """Lead links, which are right on GitHub, to where the site has what they name."""
    text = re.sub(r"\]\(\.\./([A-Z_]+)\.md", lambda found: f"]({found[1].lower()}.md", source[0])
    text = text.replace("](gallery/)", "](auto_gallery/index.rst)")
    text = re.sub(r"\]\(gallery/(\w+)\.py\)", r"](auto_gallery/\1.rst)", text)
    if docname == "index":
        for caption, pages in CONTENTS.items():
            listed = "\n".join(pages.split())
            text += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"
    source[0] = text


def _linked(app, what, name, obj, options, lines):
    """Make links of the pages that docstrings name: ``docs/formulas.md#kl-bound``."""
    for i, line in enumerate(lines):
        lines[i] = re.sub(r"(?<![`\w])docs/(\w+\.md(?:#[\w-]+)?)", r":page:`\1`", line)


def _page(name, rawtext, text, lineno, inliner, **_):
    """The role ``page``: a page of this site, from wherever a docstring is shown."""
    page, _, place = text.partition("#")
    up = "../" * inliner.document.settings.env.docname.count("/")
    uri = f"{up}{page.removesuffix('.md')}.html" + (f"#{place}" if place else "")
    return [nodes.reference(rawtext, text, refuri=uri)], []


def setup(app):
    app.add_role("page", _page)
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _linked)
