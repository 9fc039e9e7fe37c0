"""Pages of docs/runbooks, followed to the letter."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import PIPE, STDOUT
from types import MappingProxyType
from typing import Any

from dporun_testing.paths import ROOT
from dporun_testing.processes import running

_BLOCK = re.compile(r"(.*?)^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_END = "--- the block has ended"


def follow(
    page: str,
    folder: Path,
    variables: Mapping[str, str],
    *,
    acts: Mapping[str, Callable[[], None]] = MappingProxyType({}),
) -> str:
    """Run every ``sh`` block of a page, in order, as one person would in one shell.

    Args:
        page: name of the file, without its ending.
        folder: where the person stands; charts/ is there.
        variables: what the person has set.
        acts: what the person does where the page says a sentence without giving a command.

    Returns:
        Everything that was printed.

    Raises:
        AssertionError: a command failed, or an act is not in the page.

    """
    text = (ROOT / "docs" / "runbooks" / f"{page}.md").read_text(encoding="utf-8")
    blocks = _BLOCK.findall(text)
    assert blocks, f"{page} has no blocks"
    (folder / "charts").symlink_to(ROOT / "charts")
    command, printed, left = ["bash", "-euo", "pipefail"], "", dict(acts)
    with running(
        command, cwd=folder, env={**os.environ, **variables}, stdin=PIPE, stdout=PIPE, stderr=STDOUT, text=True
    ) as shell:
        for prose, block in blocks:
            for sentence in [sentence for sentence in left if sentence in prose]:
                left.pop(sentence)()
            printed += _run(block, shell)
        shell.stdin.close()
    assert not left, f"{page} does not say: {', '.join(left)}"
    return printed


def _run(block: str, shell: Any) -> str:
    shell.stdin.write(f"{block}\necho {_END}\n")
    shell.stdin.flush()
    printed = ""
    for line in shell.stdout:
        if line == f"{_END}\n":
            return printed
        printed += line
    raise AssertionError(f"{block}\nended the shell; it printed\n{printed}")
