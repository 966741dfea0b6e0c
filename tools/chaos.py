"""Kills, tears, stops, fills, changes and doubles small runs, and prints what became of them.

Each case breaks a run of the digits (or of a small folder of images) at one moment and starts the
same command again. It is "identical" if the weights, the curve and the metrics in the end equal
those of an undisturbed run bit for bit, "named" if one line on stderr names what is wrong and the
command exits with 2, and otherwise "lost". Results are kept in --output, so the same command
continues. Two CPU cores need about an hour. A small disk is made with tmpfs, for which the tool
must run as root; otherwise these cases are left out.

  python tools/chaos.py --output=/tmp/chaos
  python tools/chaos.py --output=/tmp/chaos --only=signal
  python tools/chaos.py --output=/tmp/chaos --soak
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from chaos_runs import DAMAGES, VARIANTS, Ended, difference, draw_images, launch, sampled, start

# When a run is killed: the event, and which event of the kind it is.
KILLS = (
    "step 8",
    "before replacing ckpt-5",
    "before replacing metrics.json",
    "before replacing linear/last/ckpt-5",
    "before replacing export",
)
KILLS_OF_ONE_REPLICA = (
    "step 1",
    "step 14",
    "after replacing ckpt-5",
    "before replacing curves.json",
    "before replacing model.keras",
    "before replacing test_split.npz",
    "after replacing metrics.json",
    "before replacing report.html",
    "before replacing config.gin",
    "after replacing config.gin",
)


class Chaos:
    """Cases, whose results are kept in a file."""

    def __init__(self, output: Path, only: str):
        self.output, self.only = output, only
        self.results_file = output / "results.jsonl"
        output.mkdir(parents=True, exist_ok=True)
        lines = self.results_file.read_text().splitlines() if self.results_file.exists() else []
        self.results = {row["case"]: row for row in map(json.loads, lines)}

    def case(self, kind: str, name: str, judge: Callable[[Path], tuple[str, str]]) -> None:
        """Runs a case unless it has a result."""
        case = f"{kind}: {name}"
        if case in self.results or self.only not in case:
            return
        folder = self.output / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        outcome, detail = judge(folder)
        self.results[case] = {"case": case, "kind": kind, "outcome": outcome, "detail": detail}
        with self.results_file.open("a") as file:
            file.write(json.dumps(self.results[case]) + "\n")
        print(f"{outcome:<10} {case}  {detail}", flush=True)

    def finished(self, variant: str) -> Path:
        """The undisturbed run of a variant."""
        folder = self.output / "whole" / variant.replace(" ", "_")
        if not (folder / "report.html").exists():
            shutil.rmtree(folder, ignore_errors=True)
            ended = start(variant, folder, self.images)
            if ended.code:
                sys.exit(f"{variant} fails undisturbed: {ended.error}")
        return folder

    @property
    def images(self) -> Path:
        """A folder of images of two classes."""
        root = self.output / "images"
        if not root.exists():
            draw_images(root, range(150))
        return root

    def table(self) -> str:
        """Kinds, numbers of cases, and outcomes."""
        lines = []
        for kind in dict.fromkeys(row["kind"] for row in self.results.values()):
            rows = [row for row in self.results.values() if row["kind"] == kind]
            counts = Counter(row["outcome"] for row in rows)
            outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
            lines.append(f"{kind:<14} {len(rows):>3} cases: {outcomes}")
        return "\n".join(lines)


def kills(chaos: Chaos) -> None:
    """SIGKILL at a step, or before or after a file is replaced."""
    for variant in VARIANTS:
        if variant in ("folder", "table"):
            continue
        moments = KILLS + (KILLS_OF_ONE_REPLICA if variant == "one replica" else ())
        for moment in moments:

            def judge(
                folder: Path, variant: str = variant, moment: str = moment
            ) -> tuple[str, str]:
                whole, run = chaos.finished(variant), folder / "run"
                first = start(variant, run, chaos.images, event=f"SIGKILL {moment}")
                if first.code != -signal.SIGKILL:
                    return "not struck", f"exit code {first.code} {first.error[-200:]}"
                second = start(variant, run, chaos.images)
                if second.code:
                    return "lost", second.error[-300:]
                found = difference(whole, run)
                return ("lost", found) if found else ("identical", "")

            chaos.case("kill", f"{variant}, {moment}", judge)


# Of a run stopped in the second epoch of pretraining, before its last results, and at its end.
TORN = {
    "SIGKILL step 8": (
        "checkpoints/pretrain/last/ckpt-7/variables.index",
        "checkpoints/pretrain/last/ckpt-7/variables.data-00000-of-00001",
        "checkpoints/pretrain/last/ckpt-7/state.json",
        "curves.json",
        "config.gin",
        "data/pretrain.json.gz",
        "views.png",
        "run.lock",
    ),
    "SIGKILL before replacing linear/last/ckpt": (
        "metrics.json",
        "test_split.npz",
        "checkpoints/pretrain/model.keras",
        "data/pretrain.json.gz",
        "export/saved_model.pb",
    ),
    "SIGKILL after replacing report.html": (
        "report.html",
        "curves.json",
        "metrics.json",
        "checkpoints/linear/model.keras",
        "export/saved_model.pb",
        "export/variables/variables.data-00000-of-00001",
    ),
}


def torn(chaos: Chaos) -> None:
    """A file of a killed run is truncated, emptied, changed or removed."""
    for damage, apply in DAMAGES.items():
        for event, files in TORN.items():
            for file in files:

                def judge(
                    folder: Path,
                    event: str = event,
                    file: str = file,
                    apply: Callable[[Path], Any] = apply,
                ) -> tuple[str, str]:
                    whole = chaos.finished("folder")
                    # Without the event in its name, which the event would match.
                    killed = chaos.output / "killed" / str([*TORN].index(event))
                    if not killed.exists():
                        start("folder", killed, chaos.images, event=event)
                    if not (killed / file).exists():
                        return "not struck", "there is no such file"
                    run = shutil.copytree(killed, folder / "run")
                    apply(run / file)
                    again = start("folder", run, chaos.images)
                    if again.is_one_line and Path(file).name in again.error:
                        return "named", again.error.strip()
                    if again.code:
                        return "lost", again.error[-300:]
                    found = difference(whole, run)
                    return ("lost", found) if found else ("identical", "")

                chaos.case("torn", f"{file} {damage}, {event.lower()}", judge)


def signals(chaos: Chaos) -> None:
    """A signal in a step: exit code, and steps that are done again."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        for step in (3, 8, 12):

            def judge(folder: Path, name: str = name, step: int = step) -> tuple[str, str]:
                whole, run = chaos.finished("one replica"), folder / "run"
                first = start("one replica", run, chaos.images, event=f"{name} step {step}")
                expected = 0 if name == "SIGUSR1" else 128 + signal.Signals[name]
                if first.code != expected:
                    return "lost", f"exit code {first.code}, {first.error[-200:]}"
                second = start("one replica", run, chaos.images)
                found = difference(whole, run)
                if second.code or found:
                    return "lost", second.error[-200:] + found
                told = first.output if name == "SIGUSR1" else first.error
                saved = step if step <= 10 else step - 10
                lost = 0 if f"step {saved}" in told else 1
                return "identical", f"exit code {first.code}, {lost} steps lost"

            chaos.case("signal", f"{name} at step {step}", judge)


def doubled(chaos: Chaos) -> None:
    """Two runs in one directory at once: the second is rejected, the first is not disturbed."""

    def judge(folder: Path) -> tuple[str, str]:
        whole, run = chaos.finished("one replica"), folder / "run"
        (first,) = launch("one replica", run, chaos.images)
        while first.poll() is None and not (run / "config.gin").exists():
            time.sleep(0.05)
        second = start(
            "one replica", run, chaos.images, extra=["--gin_param=pretrain.run.seed = 1"]
        )
        ended = Ended(first)
        if ended.code or not second.is_one_line or "in use by process" not in second.error:
            return "lost", ended.error[-200:] + second.error[-200:]
        found = difference(whole, run)
        return ("lost", found) if found else ("named", second.error.strip())

    for number in range(3):
        chaos.case("twice", f"attempt {number + 1}", judge)


def changed_data(chaos: Chaos) -> None:
    """Images are added, removed or relabelled after a kill."""

    def add(root: Path) -> None:
        draw_images(root, range(150, 160))

    def remove(root: Path) -> None:
        for file in sorted(root.glob("*/*.png"))[:2]:
            file.unlink()

    def move(root: Path) -> None:
        for file in sorted(root.glob("bright/*.png"))[:20]:  # Some are test images.
            file.rename(root / "dark" / file.name)

    def relabel(root: Path) -> None:
        table = root / "images.csv"
        table.write_text(table.read_text().replace(",bright", ",dark", 20))

    cases: dict[str, tuple[str, Callable[[Path], None]]] = {
        "added": ("folder", add),
        "removed": ("folder", remove),
        "moved to a class": ("folder", move),
        "relabelled in a table": ("table", relabel),
    }
    for name, (variant, change) in cases.items():
        for event in ("SIGKILL step 8", "SIGKILL before replacing linear/last/ckpt"):

            def judge(
                folder: Path,
                variant: str = variant,
                change: Callable[[Path], None] = change,
                event: str = event,
            ) -> tuple[str, str]:
                images = shutil.copytree(chaos.images, folder / "images")
                run = folder / "run"
                if start(variant, run, images, event=event).code != -signal.SIGKILL:
                    return "not struck", ""
                change(images)
                refused = start(variant, run, images)
                if not (refused.is_one_line and "have changed since" in refused.error):
                    return "lost", f"exit code {refused.code} {refused.error[-300:]}"
                accepted = start(variant, run, images, extra=["--keep_test_split"])
                before, after = (
                    set(np.load(path / "test_split.npz")["paths"].tolist())
                    for path in (chaos.finished(variant), run)
                )
                names = [{"/".join(Path(p).parts[-2:]) for p in paths} for paths in (before, after)]
                if accepted.code or not names[1] <= names[0]:
                    return "lost", accepted.error[-300:]
                return "named", refused.error.strip()

            chaos.case("changed data", f"{name}, {event.lower()}", judge)


@contextlib.contextmanager
def small_disk(folder: Path, *, free: int) -> Iterator[Path]:
    """A disk of 64 MB with this many free bytes."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    try:
        usage = shutil.disk_usage(folder)
        with (folder / "filler").open("wb") as filler:
            filler.write(bytes(max(0, usage.free - free)))
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def full_disk(chaos: Chaos) -> None:
    """A disk becomes full at different moments; then there is space and the run continues."""
    for kilobytes in (8, 40, 80, 120, 160, 200, 300, 400, 600, 900):

        def judge(folder: Path, free: int = kilobytes * 1024) -> tuple[str, str]:
            whole = chaos.finished("one replica")
            with small_disk(folder, free=free) as disk:
                run = disk / "run"
                first = start("one replica", run, chaos.images)
                if not first.code:
                    return "not struck", "there was space"
                if not first.is_one_line:
                    return "lost", first.error[-600:]
                (disk / "filler").unlink()
                second = start("one replica", run, chaos.images)
                if second.code:
                    return "lost", second.error[-300:]
                found = difference(whole, run)
                return ("lost", found) if found else ("identical", first.error.strip()[-150:])

        chaos.case("full disk", f"{kilobytes} kB free", judge)

    def read_only(folder: Path) -> tuple[str, str]:
        with small_disk(folder, free=2**25) as disk:
            start("one replica", disk / "run", chaos.images, event="SIGKILL step 8")
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            refused = start("one replica", disk / "run", chaos.images)
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            second = start("one replica", disk / "run", chaos.images)
            found = difference(chaos.finished("one replica"), disk / "run")
            if not refused.is_one_line or second.code or found:
                return "lost", refused.error[-300:] + second.error[-200:] + found
            return "identical", refused.error.strip()

    chaos.case("full disk", "read-only", read_only)


def spoiled_images(chaos: Chaos) -> None:
    """An image, or all of them, vanish or are spoiled while the run trains."""

    def spoil(root: Path) -> None:
        for file in root.glob("*/*.png"):
            file.write_bytes(b"spoiled")

    changes: dict[str, Callable[[Path], Any]] = {"vanished": shutil.rmtree, "spoiled": spoil}
    for name, change in changes.items():

        def judge(folder: Path, change: Callable[[Path], Any] = change) -> tuple[str, str]:
            images, run = folder / "images", folder / "run"
            shutil.copytree(chaos.images, images)
            more = ["--gin_param=pretrain.run.epochs = 300"]
            (process,) = launch("folder", run, images, extra=more)
            while process.poll() is None and not (run / "curves.json").exists():
                time.sleep(0.05)
            change(images)
            ended = Ended(process)
            is_named = ended.is_one_line and str(images) in ended.error
            return ("named", ended.error.strip()) if is_named else ("lost", ended.error[-600:])

        chaos.case("images", name, judge)


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
