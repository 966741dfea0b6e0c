"""Cases of tools/chaos in which the images of a run change, vanish or are spoiled."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cases import Chaos
from runs import Ended, draw_images, launch, start


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
