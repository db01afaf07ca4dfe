"""Check spelling and style of all that people read: pages, docstrings, comments and messages.

codespell looks for misspelt words, proselint for clichés and the like on the pages, and the habits in prose.toml are
looked for everywhere. A line that needs such words ends in `prose: as it is`, in a comment of its language.
"""

import bisect
import itertools
import json
import re
import subprocess
import sys
import tempfile
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/**/*.md", "docs/**/*.rst", "benchmarks/README.md", "examples/**/*.md", "examples/**/*.txt")
CODE = ("sktransfer/**/*.py", "examples/**/*.py")
NOT_OURS = re.compile(r"(?:^|/)(?:_build|auto_examples|generated|\.[^/]+)/")
ALLOWED = "prose: as it is"
READ = (tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1))
# What is not prose on a page: blocks of code, code in a line, addresses and comments.
FENCED = re.compile(r"^(`{3,}|~{3,}|:{3,}).*?^\1`*$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"``[^`]+``|`[^`\n]+`|\]\([^)]*\)|https?://\S+|<!--.*?-->", re.DOTALL)


def files(patterns: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files of the repository that match, without those that are made by tools."""
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            if not NOT_OURS.search(path.relative_to(ROOT).as_posix()):
                yield path


def blank(found: re.Match[str]) -> str:
    """Put a sign in place of what is left out, and keep its lines, so that all others keep their numbers."""
    return "\N{CURRENCY SIGN}" + "\n" * found[0].count("\n")


def prose_of_page(path: Path) -> str:
    """Return a page without its code, addresses and comments."""
    return INLINE.sub(blank, FENCED.sub(blank, path.read_text(encoding="utf-8")))


def prose_of_code(path: Path) -> str:
    """Return strings and comments at their lines, with all else left out."""
    lines: dict[int, str] = {}
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in READ:
                for number, text in enumerate(token.string.splitlines(), token.start[0]):
                    lines[number] = lines.get(number, "") + " " + text
    text = "\n".join(lines.get(number, "") for number in range(1, max(lines, default=0) + 1))
    return INLINE.sub(blank, text)


def habits(text: str, original: list[str]) -> Iterator[tuple[int, str]]:
    """Yield each habit that is found, with its line."""
    # A phrase may be broken over two lines, so the words are looked at in one line.
    words = list(re.finditer(r"[^\s#]+", text))
    starts = [0, *itertools.accumulate(len(word[0]) + 1 for word in words)]
    line = " ".join(word[0] for word in words)
    for habit in tomllib.loads((ROOT / ".ci" / "prose.toml").read_text(encoding="utf-8"))["habit"]:
        for found in re.finditer(habit["not"], line):
            first = words[bisect.bisect_right(starts, found.start()) - 1]
            number = text.count("\n", 0, first.start()) + 1
            if ALLOWED not in original[number - 1]:
                yield number, f'"{found[0]}": write {habit["but"]}'


def by_proselint(pages: list[Path]) -> Iterator[tuple[Path, int, str]]:
    """Yield what proselint says of the pages."""
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(pages):
            (Path(folder) / f"{number}.md").write_text(prose_of_page(path), encoding="utf-8")
        config = str(ROOT / ".ci" / "proselint.json")
        command = ["proselint", "check", "--config", config, "--output-format", "json", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for name, result in json.loads(done.stdout)["result"].items():
            for found in result.get("diagnostics", []):
                if re.search(r"'x \d+ x \d+'", found["message"]):  # sizes of images are not repeated phrases
                    continue
                yield pages[int(Path(name.removeprefix("file:")).stem)], found["pos"][0], found["message"]


def main() -> int:
    """Print all complaints, and return 0 if there are none."""
    pages, sources = list(files(PAGES)), list(files(CODE))
    complaints = list(by_proselint(pages))
    for path in (*pages, *sources):
        text = prose_of_code(path) if path.suffix == ".py" else prose_of_page(path)
        original = path.read_text(encoding="utf-8").splitlines()
        complaints += [(path, number, what) for number, what in habits(text, original)]
    for path, number, what in sorted(complaints):
        print(f"{path.relative_to(ROOT)}:{number}: {what}")
    spelled = subprocess.run(["codespell", *map(str, (*pages, *sources))], cwd=ROOT, check=False)
    print(f"{len(pages)} pages and {len(sources)} modules, {len(complaints)} complaints")
    return int(bool(complaints) or spelled.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
