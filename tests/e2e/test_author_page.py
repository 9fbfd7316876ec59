"""The page for plugin authors, followed from top to bottom: its files compiled, its commands run as they stand there."""
import os
import re
import subprocess
import sys

import pytest
from millrace import BUILD, SOURCE

sys.path.insert(0, str(SOURCE / "tests/support"))
from page import blocks, script  # noqa: E402

PAGE = (SOURCE / "docs/writing-plugins.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder where the page was followed, and what its commands printed."""
    home = tmp_path_factory.mktemp("home")
    # The page says `cmake --install build/release` in the source tree; tests may have another build.
    text = PAGE.replace("cmake --install build/release ", f"cmake --install {BUILD} ")
    (home / "follow.sh").write_text(script(text, "tree"), encoding="utf-8")
    env = {key: value for key, value in os.environ.items() if not key.startswith("MILLRACE_")}
    result = subprocess.run(["bash", "follow.sh"], cwd=home, env={**env, "HOME": str(home)}, capture_output=True,
                            text=True, timeout=1500, check=False)
    assert result.returncode == 0, f"{result.stdout[-8000:]}\n{result.stderr[-8000:]}"
    return home, result.stdout


def test_every_command_works(followed):
    _, output = followed
    assert "100% tests passed, 0 tests failed out of 2" in output
    assert "No tests were found" not in output


def test_the_plugins_are_listed_with_their_options(followed):
    _, output = followed
    assert 'use = "only-large": transform, takes Packet, gives Packet' in output


def test_the_commands_print_what_the_page_shows(followed):
    home, _ = followed
    commands = -1
    shown = 0
    for block in blocks(PAGE):
        if block.language == "sh" and block.name in ("", "tree"):
            commands += 1
        elif block.language == "text":
            printed = (home / f"output.{commands}").read_text(encoding="utf-8").splitlines()
            for line in block.text.splitlines():
                assert line in printed, "\n".join(printed)
                shown += 1
    assert shown >= 2


def test_the_transform_labels_the_sessions_of_the_capture(followed):
    home, _ = followed
    table = (home / "output.6").read_text(encoding="utf-8")
    sessions = [line for line in table.splitlines() if re.search(r"127\.0\.0\.1.*\bloopback\b", line)]
    assert len(sessions) > 30, table
    assert re.search(rf"^loopback +{len(sessions)} ", table, re.MULTILINE), table
    assert f"tagged {len(sessions)}" in table, table


def test_the_smallest_plugin_has_at_most_30_lines():
    files = [block for block in blocks(PAGE) if block.name.startswith("only-large/")]
    assert len(files) == 2
    assert sum(len([line for line in block.text.splitlines() if line.strip()]) for block in files) <= 30


def test_all_files_that_the_page_names_are_there():
    prose = re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)#]+)\)", prose)
    assert links
    for link in links:
        assert (SOURCE / "docs" / link).exists(), link
