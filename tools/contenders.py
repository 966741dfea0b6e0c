"""Shared by the benchmarks: measuring in a new process, peak memory, result files."""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the tool's docstring as its help, and the options of every benchmark."""
    result = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument(
        "--peer_python",
        default=sys.executable,
        metavar="FILE",
        help="Python interpreter that has the peers, default: this one",
    )
    return result


def run_alone(
    name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> dict[str, Any] | None:
    """Runs a command and returns the JSON object in its last line.

    Args:
      name: name of the contender.
      command: the command with its arguments.
      environment: variables to add to this process's.

    Returns:
      The object; None, after one line on stderr with the reason, if the command fails.
    """
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **(environment or {})}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
    except OSError as error:
        reason = str(error)
    else:
        if not done.returncode:
            return json.loads(done.stdout.splitlines()[-1])
        # A process that was killed, for example when memory ran out, leaves no message.
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        # Some messages have several lines after the one with the error's name.
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
        reason = (errors or lines)[-1]
    tqdm.write(f"{name}: left out: {reason}", file=sys.stderr)
    return None


def peak_mib() -> float:
    """Peak resident memory of this process in MiB (Linux).

    `resource.getrusage` would start at the parent's peak.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def write_json(path: str | None, results: Any) -> None:
    """Writes results if a path is given."""
    if path:
        Path(path).write_text(json.dumps(results, indent=1) + "\n")
