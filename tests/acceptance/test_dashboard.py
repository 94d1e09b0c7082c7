"""The dashboard as a real process, asked over HTTP."""

import json
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command

pytestmark = pytest.mark.slow


def test_the_dashboard_prints_its_url_and_serves_the_study(
    tiny_study: Path, start: Callable[..., Command], command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert command("run", "tiny.toml", "--trials", "2").returncode == 0
    serving = start("dashboard", "--port", "0")
    try:
        serving.wait_for(lambda: "Ctrl-C" in serving.output)
        found = re.search(r"(http://127\.0\.0\.1:\d+)/dashboard", serving.output)
        assert found is not None
        with urllib.request.urlopen(f"{found[1]}/dashboard", timeout=20) as page:
            assert b"<title>Optuna Dashboard</title>" in page.read()
        with urllib.request.urlopen(f"{found[1]}/api/studies", timeout=20) as answer:
            assert [study["study_name"] for study in json.load(answer)["study_summaries"]] == ["tiny"]
    finally:
        serving.process.send_signal(signal.SIGINT)
        assert serving.ended(seconds=20) == 0
    assert "Traceback" not in serving.output


def test_a_port_in_use_is_refused_with_the_way_out(
    tiny_study: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    command("run", "tiny.toml", "--trials", "1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = command("dashboard", "--port", str(port))
    assert refused.returncode == 2
    message = f"Error: port {port} of 127.0.0.1 cannot be used: Address already in use. Choose another with --port.\n"
    assert refused.stderr == message
