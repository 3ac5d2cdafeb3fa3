"""How the site is built: ``scripts/docs``, or ``sphinx-build docs docs/_build/html``.

Tutorials (``learn/*.py``) and notebooks are run as they are rendered, each in a process and a folder of its own, and an
error in one of them fails the build. What they gave is kept in ``_build`` until they change.
"""

import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

import eulerian

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of a BLAS only get in the way of products this small

project = "eulerian"
author = "The eulerian developers"
copyright = "2026, the eulerian developers"
release = version = eulerian.__version__

extensions = [
    "command_line_reference",  # this and the next are in extensions/
    "configuration_reference",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx-mathjax-offline",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", "conf.py", "extensions", "**/.ipynb_checkpoints"]
default_role = "py:obj"
language = "en"

# Markdown, and scripts whose comments are Markdown.
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "executed")
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

# The reference of Python names.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_mock_imports = [] if importlib.util.find_spec("torch") else ["torch"]
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

toc_object_entries_show_parents = "hide"
html_theme = "furo"
html_title = f"eulerian {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"top_of_page_buttons": []}
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # browsers do not let a page read other files
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True


def escape_plain_text(*arguments: Any) -> None:
    """Docstrings write |v|² in plain text, where Sphinx looks for a substitution, and "K.", where it begins a list."""
    lines = arguments[-1]
    for number, line in enumerate(lines):
        line = re.sub(r"(^ *|: )([A-Za-z])\.$", r"\1\2\\.", line)
        parts = re.split(r"(``.*?``)", line)
        lines[number] = "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", escape_plain_text, priority=400)  # before napoleon
