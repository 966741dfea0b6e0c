"""Kills, tears, stops, fills, changes and doubles small runs, and prints what became of them.

Each case breaks a run of the digits (or of a small folder of images) at one moment and starts the
same command again. It is "identical" if the weights, the curve and the metrics in the end equal
those of an undisturbed run bit for bit, "named" if one line on stderr names what is wrong and the
command exits with 2, and otherwise "lost". Results are kept in --output, so the same command
continues. Two CPU cores need about an hour. A small disk is made with tmpfs, for which the tool
must run as root; otherwise these cases are left out.

  python tools/chaos --output=/tmp/chaos
  python tools/chaos --output=/tmp/chaos --only=signal
  python tools/chaos --output=/tmp/chaos --soak
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from cases import Chaos
from files import full_disk, torn
from images import changed_data, spoiled_images
from runs import sampled
from stops import doubled, kills, signals


def soak(chaos: Chaos) -> None:
    """20,000 steps with evaluations and checkpoints: memory and open files do not grow."""

    def judge(folder: Path) -> tuple[str, str]:
        code, samples = sampled(folder / "run", epochs=400)
        quarter = len(samples) // 4
        if code or not quarter:
            return "lost", f"exit code {code} after {len(samples)} samples"
        early, late = (
            np.median(samples[a:b], axis=0) for a, b in ((quarter, -quarter), (-quarter, None))
        )
        grown = late[1] > 1.03 * early[1] or late[2] > early[2] + 2
        figures = f"{early[1]:.0f} to {late[1]:.0f} MB, {early[2]:.0f} to {late[2]:.0f} open files"
        return ("lost" if grown else "flat"), figures

    chaos.case("soak", "20,000 steps", judge)


def main() -> None:
    """Runs all cases and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="directory of runs and results")
    parser.add_argument("--only", default="", help="part of the names of the cases to run")
    parser.add_argument("--soak", action="store_true", help="only a long run, watched for leaks")
    options = parser.parse_args()
    chaos = Chaos(options.output.resolve(), options.only)
    groups = [signals, doubled, kills, torn, changed_data, spoiled_images]
    if os.geteuid() == 0:
        groups.insert(2, full_disk)
    for group in [soak] if options.soak else groups:
        group(chaos)
    print(chaos.table())
    if any(row["outcome"] in ("lost", "not struck") for row in chaos.results.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
