"""Cases of tools/chaos in which the files of a run are torn, or its disk is full or read-only."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cases import Chaos
from results import difference
from runs import DAMAGES, start

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
