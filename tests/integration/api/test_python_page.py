"""The page on Python: all its examples, run one after the other in an empty folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.command import CHECKOUT, environment

pytestmark = pytest.mark.slow

PAGE = CHECKOUT / "docs" / "python.md"
#: Examples that need what is not installed for the tests are marked so.
EXAMPLE = re.compile(r"(<!-- not run -->\n)?```python\n(.*?)```", re.DOTALL)


def test_the_examples_run(tmp_path: Path) -> None:
    examples = [code for is_left_out, code in EXAMPLE.findall(PAGE.read_text()) if not is_left_out]
    assert len(examples) >= 6
    (tmp_path / "examples.py").write_text("\n".join(examples))
    image = Image.new("L", (28, 28))
    image.paste(255, (12, 4, 16, 24))  # a stroke
    image.save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "examples.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "history.html").is_file()
    assert (tmp_path / "quickstart-best" / "report.html").is_file()
