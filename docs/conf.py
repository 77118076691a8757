"""How `make docs` makes the site: the pages as they stand in the repository, and a reference from the docstrings.

Sphinx reads from the top of the repository, so that links between pages are the same on the site and on GitHub.
"""

from __future__ import annotations

import builtins
import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]

project = "recorder"
author = "the recorder authors"
project_copyright = author
version = release = version_of("chat-recorder")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**"]
# The decisions are reached by their index, and the tables of measurements begin at the third level of headings.
suppress_warnings = ["toc.not_included", "myst.header"]

html_theme = "furo"
html_title = f"recorder {version}"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False

# Headings have the names that GitHub gives them.
myst_heading_anchors = 4
# What stands in backquotes in a docstring is code, and a link where the reference has that name.
default_role = "py:obj"

autodoc_member_order = "bysource"
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "show-inheritance": True,
    # Methods of our own base classes are shown, those of Python's are not.
    "inherited-members": "BaseException, ImportError, dict, object, tuple",
}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

_INDENTED = re.compile(r" {4,}\S")


def mark_examples(lines: list[str]) -> None:
    """Mark what a docstring shows indented, an example for instance, as a block of code."""
    for at in range(len(lines) - 1, 0, -1):
        above = next((line for line in reversed(lines[:at]) if line.strip()), "")
        begins = _INDENTED.match(lines[at]) and not lines[at - 1].strip()
        if begins and not above.startswith(" ") and not above.endswith("::"):
            lines[at:at] = ["::", ""]


def process_docstring(
    app: Sphinx, what: str, name: str, thing: object, options: Any, lines: list[str]
) -> None:
    """Change a docstring in place."""
    mark_examples(lines)


def unlink_folders(app: Sphinx, page: nodes.document) -> None:
    """A link to a folder of the repository, `examples` for instance, becomes text: the site has no such page."""
    folder = (ROOT / app.env.docname).parent
    for link in [*page.findall(pending_xref)]:
        if link.get("reftype") == "myst" and (folder / link["reftarget"]).is_dir():
            link.replace_self(link.children)


def unlink_builtins(app: Sphinx, page: nodes.document) -> None:
    """A class of Python in a signature becomes text: `type` would be found as the attribute of many classes."""
    for link in [*page.findall(pending_xref)]:
        if link.get("reftype") == "class" and hasattr(builtins, link["reftarget"]):
            link.replace_self(nodes.Text(link["reftarget"]))


def write_front_page(app: Sphinx, error: Exception | None) -> None:
    """`index.html` leads to the first page."""
    if error is None:
        head = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=README.html">'
        page = f'{head}<title>recorder</title><a href="README.html">recorder</a>\n'
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Connect the functions above. Without a network a diagram stays the text that describes it."""
    app.add_lexer("mermaid", TextLexer)
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("doctree-read", unlink_folders)
    app.connect("doctree-read", unlink_builtins)
    app.connect("build-finished", write_front_page)
