#!/usr/bin/python3
"""Makes a bash script of a documentation page: its files are written and its commands run, in the page's order.

A block "```LANGUAGE FILE" is a file. "```sh" are commands; "```sh WAY" only in the way that is asked for. A "```text"
block is what the commands before it print. Used by tests/e2e/test_author_page.py and by scripts/packages.
"""
import dataclasses
import re
import shlex
import sys


@dataclasses.dataclass
class Block:
    language: str
    name: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)]


def script(page: str, way: str) -> str:
    """What the n-th command block prints goes to output.N in the folder where the script is started."""
    lines = ["set -eu", "FOLLOW=$PWD", "exec 3>&1", "trap '[ $? = 0 ] || cat \"$OUTPUT\" >&3' EXIT"]
    commands = 0
    for block in blocks(page):
        if block.language == "sh" and block.name in ("", way):
            # A group, not a subshell: `cd` and `export` hold for what follows.
            lines.append(f'OUTPUT=$FOLLOW/output.{commands}\n{{\n{block.text}}} > "$OUTPUT" 2>&1\ncat "$OUTPUT"')
            commands += 1
        elif block.language not in ("sh", "text") and block.name:
            name = shlex.quote(block.name)
            lines.append(f"mkdir -p \"$(dirname {name})\"\ncat > {name} <<'END-OF-BLOCK'\n{block.text}END-OF-BLOCK")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        sys.stdout.write(script(file.read(), sys.argv[2]))
