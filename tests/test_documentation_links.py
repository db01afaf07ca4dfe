"""Links between files of the repository lead somewhere, anchors included; Sphinx checks those of the built site."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILT = {ROOT / "docs" / name for name in ("_build", "auto_examples", "api/generated")}
PAGES = [
    path
    for folder, pattern in ((ROOT, "*.md"), (ROOT / "docs", "**/*.md"), (ROOT / "benchmarks", "**/*.md"))
    for path in sorted(folder.glob(pattern))
    if not BUILT.intersection(path.parents)
]
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def links(page):
    """Return what a page links to, but for addresses: files and anchors."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    targets = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page):
    """Return what the headings of a page are called in links."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_the_page_lead_somewhere(page):
    for target in links(page):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_links_are_found_at_all():
    assert sum(len(links(page)) for page in PAGES) > 80


def test_each_page_of_the_guide_is_in_its_table():
    index = ROOT / "docs" / "guide" / "index.md"
    linked = {target.partition("#")[0] for target in links(index)}
    assert {path.name for path in index.parent.glob("*.md")} - linked == {"index.md"}
