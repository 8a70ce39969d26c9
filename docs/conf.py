"""The documentation as a site: `make docs` builds it with Sphinx from the Markdown pages of this
folder and from the docstrings, without the network."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "extensions")]

import xpnet  # noqa: E402

project = "xpnet"
author = copyright = "xpnet developers"
version = release = xpnet.__version__

extensions = [
    "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon",
    # in docs/extensions
    "docstrings", "formulas", "notebooks", "reference", "sources", "theory",
]
exclude_patterns = ["pictures", "extensions", "static"]
html_theme = "furo"
html_title = "xpnet"
html_static_path, html_css_files = ["static"], ["site.css"]
html_copy_source = False
smartquotes_action = "D"                # -- becomes a dash; "half" keeps the quotes of code
pygments_style, pygments_dark_style = "friendly", "github-dark"

# The pages are written for GitHub, too: anchors as there, ```math, $...$
myst_enable_extensions = ["dollarmath", "html_image"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

autodoc_inherit_docstrings = False      # a method that says nothing of its own is not listed
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_param = False
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"
