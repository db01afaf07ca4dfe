"""How Sphinx builds the site: `sphinx-build -W docs docs/_build/html`, without a network.

`-D plot_gallery=0` leaves the examples unrun, which takes most of the time. Other libraries are linked by address: an
inventory of theirs would have to be fetched.
"""

import inspect
import os
import re
import sys
from pathlib import Path

from sklearn.base import BaseEstimator
from sphinx.application import Sphinx
from sphinx_gallery.sorting import ExplicitOrder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
os.environ.setdefault("MPLBACKEND", "Agg")  # examples are drawn without a screen
sys.path.insert(0, str(ROOT))

import sktransfer  # noqa: E402

REPOSITORY = "https://github.com/sktransfer/sktransfer"

project = "sktransfer"
copyright = "The sktransfer developers"
author = "The sktransfer developers"
version = release = sktransfer.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "README.md", "**/.ipynb_checkpoints", "auto_examples/**/*.ipynb", "auto_examples/**/*.py"]
root_doc = "index"
nitpicky = True
# Other libraries are not linked: their inventories would have to be fetched.
nitpick_ignore_regex = [(r"py:.*", r"(sklearn|torch|numpy|skorch|matplotlib|pandas)\..*")]
smartquotes = False  # quotes in types are code
default_role = "code"  # single backticks in docstrings

# Pages are Markdown, so that they read well in the repository too.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

# The reference: a page for each public name.
autosummary_generate = True
autosummary_imported_members = True
autodoc_typehints = "none"  # docstrings say it in words
autodoc_member_order = "groupwise"
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_validation_checks: set[str] = set()  # .ci/check_docstrings.py checks them
templates_path = ["_templates"]

# Code blocks are copied without prompts.
copybutton_exclude = ".linenos, .gp, .go"


def _folders_of(example: Path) -> list[Path]:
    """Return the folder of examples and those between it and an example."""
    return [folder for folder in example.parents if folder.is_relative_to(ROOT / "examples")]


def _in_gallery_style(example: Path) -> bool:
    """Tell whether an example is made for the gallery: a title at its top, and no `main()` around its code."""
    text = example.read_text(encoding="utf-8")
    return re.match(r'r?"""\n?[^\n]+\n=+\n', text) is not None and "\ndef main(" not in text


EXAMPLES = ROOT / "examples"
# Scripts not made for the gallery, and programs in folders without a README.txt, are seen in the repository only.
SHOWN = {
    path
    for path in EXAMPLES.rglob("*.py")
    if _in_gallery_style(path) and all((folder / "README.txt").exists() for folder in _folders_of(path))
}
_others = {path.name for path in EXAMPLES.rglob("*.py")} - {path.name for path in SHOWN}
sphinx_gallery_conf = {
    "examples_dirs": [str(EXAMPLES)],
    "gallery_dirs": ["auto_examples"],
    "filename_pattern": r"[/\\](plot_|quickstart)",
    "ignore_pattern": "|".join([r"__init__\.py", *(f"^{re.escape(name)}$" for name in sorted(_others))]),
    "subsection_order": ExplicitOrder(
        [*(f"../examples/{name}" for name in ("texts_sounds_tables", "recipes", "honest_scores", "deploy")), "*"]
    ),
    "within_subsection_order": ExplicitOrder(["quickstart.py", "plot_choose_and_see.py", "*"]),
    "backreferences_dir": "api/backreferences",
    "doc_module": ("sktransfer",),
    "inspect_global_variables": False,
    "remove_config_comments": True,
    "download_all_examples": True,
    "show_memory": False,
    "min_reported_time": 1,
    "plot_gallery": "True",
    "abort_on_example_error": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "sktransfer"
html_static_path = ["_static"]
html_css_files = ["sktransfer.css"]
html_show_sourcelink = False
html_theme_options = {
    "icon_links": [{"name": "GitHub", "url": REPOSITORY, "icon": "fa-brands fa-github"}],
    "logo": {"text": "sktransfer"},
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "use_edit_page_button": False,
}
html_sidebars = {"index": []}

# Only the nightly workflow has a network: `sphinx-build -b linkcheck`. Files of the repository are checked by a test.
linkcheck_ignore = [rf"{re.escape(REPOSITORY)}.*", r"https?://(localhost|127\.0\.0\.1).*"]
linkcheck_anchors = False
linkcheck_timeout = 20
linkcheck_retries = 2


INCLUDED = re.compile(r"^```\{include\} (\S+)\n```$", re.MULTILINE)
LINK = re.compile(r"((?<!!)\[[^\]\[]*\]\()((?!https?:|#|mailto:)[^)\s]+)\)")


def _read_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Put in what a page includes, and let links to files outside the site lead to the gallery or the repository."""
    folder = (HERE / page).parent

    def included(match: re.Match[str]) -> str:
        file = (folder / match.group(1)).resolve()
        app.env.note_dependency(str(file), docname=page)
        return _linked(file.read_text(encoding="utf-8"), file.parent, page)

    if Path(app.env.doc2path(page)).suffix == ".md":
        source[0] = INCLUDED.sub(included, _linked(source[0], folder, page))


def _linked(text: str, folder: Path, page: str) -> str:
    """Return a text whose links, relative to a folder, lead from a page of the site to the same places."""

    def target(match: re.Match[str]) -> str:
        file, _, anchor = match.group(2).partition("#")
        path, anchor = (folder / file).resolve(), f"#{anchor}" if anchor else ""
        if not path.exists():
            return match.group(0)  # a fault, which Sphinx tells
        if path.is_relative_to(HERE):
            there = os.path.relpath(path, (HERE / page).parent).replace(os.sep, "/")
        elif path in SHOWN:
            there = (
                "../" * page.count("/") + f"auto_examples/{path.relative_to(EXAMPLES).with_suffix('.rst').as_posix()}"
            )
        else:
            kind = "tree" if path.is_dir() else "blob"
            there = f"{REPOSITORY}/{kind}/main/{path.relative_to(ROOT).as_posix()}"
        return f"{match.group(1)}{there}{anchor})"

    return LINK.sub(target, text)


def _signature_of_init(
    app: Sphinx, kind: str, name: str, thing: object, options: object, arguments: str | None, returns: str | None
) -> tuple[str, None] | None:
    """Show the parameters of an estimator: it is made by a `__new__` that takes any."""
    if kind != "class" or not issubclass(thing, BaseEstimator):
        return None
    parameters = list(inspect.signature(thing.__init__).parameters.values())[1:]
    return str(inspect.Signature([one.replace(annotation=one.empty) for one in parameters])), None


def setup(app: Sphinx) -> None:
    """Register what this file adds."""
    app.connect("autodoc-process-signature", _signature_of_init)
    app.connect("source-read", _read_page)
