"""The commands that the README gives are the ones that are run before a change lands."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_readme_gives_the_commands_that_are_run():
    blocks = re.findall(r"^```bash\n(.*?)\n```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = (ROOT / ".ci" / "commands").read_text().splitlines()
    commands = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert blocks[:2] == [shlex.split(commands["TRY"])[0], shlex.split(commands["TEST"])[0]]
    run = (ROOT / ".ci" / "run").read_text()
    assert ". .ci/commands" in run
    assert '"$TEST"' in run
