"""What the book needs from Sphinx beyond its settings.

Explorers with frames; formulas without a network; notebooks that run again when the package
changes; one name for each explorer of a page; numbered references
in the documentation of the package.
"""

import importlib.util
import os
import re
import sysconfig
from collections import Counter
from pathlib import Path

from sphinx.util import logging
from sphinx.util.fileutil import copy_asset_file

logger = logging.getLogger(__name__)

# The full variant: it loads no further file when a formula uses \boldsymbol, \cancel or \color.
MATHJAX = "tex-svg-full.js"
ASSETS = Path(__file__).parents[1] / "_assets"
EXPLORER = re.compile(r'<figure class="rac-explorer" id="explore-([^"]+)"')


def copy_mathjax(app, error):
    """Copy one file of sphinx-mathjax-offline; as an extension it would copy 24 MB."""
    if error is None and app.builder.format == "html":
        packages = Path(sysconfig.get_path("purelib"))
        source = packages / "sphinx-mathjax-offline" / "static" / "mathjax" / MATHJAX
        target = Path(app.outdir, "_static", "mathjax")
        target.mkdir(parents=True, exist_ok=True)
        copy_asset_file(str(source), str(target))


def find_outdated(app, env, added, changed, removed):
    """Return the notebooks that were run before the package or a record changed."""
    package = Path(importlib.util.find_spec("rac_helpers").origin).parent
    records = Path(app.srcdir, "book", "results")
    files = [path for root in (package, records) for path in root.rglob("*") if path.is_file()]
    files = [path for path in files if path.suffix != ".pyc"]
    newest_us = max(path.stat().st_mtime for path in files) * 1e6  # Sphinx counts microseconds
    return [
        page
        for page, read_us in env.all_docs.items()
        if read_us < newest_us and env.doc2path(page).endswith(".ipynb")
    ]


def check_explorer_names(app, pagename, templatename, context, doctree):
    """Warn (which fails the build) when two explorers of a page share a name."""
    names = Counter(EXPLORER.findall(context.get("body") or ""))
    for name, count in names.items():
        if count > 1:
            logger.warning("%s has %d explorers of the name %r", pagename, count, name)


def mend_html(app, pagename, templatename, context, doctree):
    """Mend what others write and screen readers stumble over.

    docutils gives the entries of a bibliography a withdrawn ARIA role; pandas makes the empty
    corner of a table a heading.
    """
    if body := context.get("body"):
        body = body.replace('role="doc-biblioentry"', 'role="listitem"')
        context["body"] = re.sub(r"<th([^>]*)></th>", r"<td\1></td>", body)


def number_references(app, what, name, obj, options, lines):
    """Turn ``.. [1]`` of numpydoc into a list: as targets they would clash on one page."""
    lines[:] = [
        re.sub(r"\[(\d+)\]_", r"[\1]", re.sub(r"^(\s*)\.\. \[(\d+)\] ", r"\1\2. ", line))
        for line in lines
    ]


def setup(app):
    """Connect the above."""
    os.environ["RAC_STATIC_BUILD"] = "1"  # inherited by the kernels that run the notebooks
    app.config.mathjax_path = f"mathjax/{MATHJAX}"
    app.config.html_static_path.append(str(ASSETS))
    app.add_css_file("course.css")
    app.connect("autodoc-process-docstring", number_references, priority=400)  # before napoleon
    app.connect("env-get-outdated", find_outdated)
    app.connect("html-page-context", check_explorer_names)
    app.connect("html-page-context", mend_html)
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
