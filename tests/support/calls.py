"""Calling git, git-annex and DataLad as a person would."""

from __future__ import annotations

import subprocess
from pathlib import Path

from verse_data.releases.environment import tool_environment


def call(folder: Path, *command: str) -> str:
    """Run a command of git, git-annex or DataLad in `folder` and return what it prints."""
    environment = tool_environment() | {"DATALAD_LOG_LEVEL": "warning"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
