"""Kills, tears, stops, fills, changes and doubles small runs, and prints what became of them.

Each case breaks a run of the digits (or of a small folder of images) at one moment and starts the
same command again. It is "identical" if the weights, the curve and the metrics in the end equal
those of an undisturbed run bit for bit, "named" if one line on stderr names what is wrong and the
command exits with 2, and otherwise "lost". Results are kept in --output, so the same command
continues. Two CPU cores need about an hour. A small disk is made with tmpfs, for which the tool
must run as root; otherwise these cases are left out.

  python tools/chaos.py --output=/tmp/chaos
  python tools/chaos.py --output=/tmp/chaos --only=signal
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ENCODER = (
    "@keras.Sequential()",
    "keras.Sequential.layers = [@keras.layers.Conv2D(), @keras.layers.BatchNormalization(), "
    "@keras.layers.GlobalMaxPooling2D()]",
    "keras.layers.Conv2D.filters = 8",
    "keras.layers.Conv2D.kernel_size = 3",
    "views.Preprocessing.image_px = 16",
)
STAGES = ("pretrain", "linear")
COMMON = (
    *ENCODER[1:],
    "models.classification_model.encoder = @keras.Sequential()",
    "pretrain.run.epochs = 2",
    "pretrain.run.batch_size = 20",
    "linear.run.epochs = 1",
    "linear.run.batch_size = 20",
)
DIGITS = (
    "SOURCE = @sources.subset()",
    "sources.subset.source = @sources.digits()",
    "sources.subset.per_class = 10",
)
CONTRASTIVE = (
    f"models.contrastive_model.encoder = {ENCODER[0]}",
    "models.contrastive_model.projection = (16,)",
)
# Name -> gin file and bindings. Every run has 10 steps of pretraining and 5 of the linear stage.
VARIANTS = {
    "one replica": ("digits/supcon.gin", (*DIGITS, *CONTRASTIVE)),
    "two replicas": (
        "digits/supcon.gin",
        (
            *DIGITS,
            *CONTRASTIVE,
            'distribution.strategy.name = "mirrored"',
            "distribution.strategy.cpu_replicas = 2",
        ),
    ),
    "momentum memory": (
        "digits/supcon_memory.gin",
        (
            *DIGITS,
            f"momentum_memory.momentum_memory_model.encoder = {ENCODER[0]}",
            "momentum_memory.momentum_memory_model.projection = (16,)",
            "momentum_memory.momentum_memory_model.memory_size = 64",
        ),
    ),
    "SwAV with a queue": (
        "digits/supcon.gin",
        (
            *DIGITS,
            "pretrain.run.model = @swav.swav_model",
            f"swav.swav_model.encoder = {ENCODER[0]}",
            "swav.swav_model.projection = (16, 8)",
            "swav.swav_model.num_prototypes = 12",
            "swav.swav_model.queue_length = 40",
            "swav.swav_model.crops = %CROPS",
            'pretrain.run.loss = {"prototypes": @losses.SwAVLoss()}',
            "pretrain.run.batches = @multi_crop.batches",
            "multi_crop.batches.crops = %CROPS",
            "CROPS = ((16, 2, (0.3, 1.0)), (8, 2, (0.1, 0.3)))",
        ),
    ),
    "bfloat16": (
        "digits/supcon.gin",
        (*DIGITS, *CONTRASTIVE, 'pretrain.run.precision = "mixed_bfloat16"'),
    ),
    "two workers": (
        "digits/supcon.gin",
        (*DIGITS, *CONTRASTIVE, 'distribution.strategy.name = "multi_worker"'),
    ),
    "folder": (
        "digits/supcon.gin",
        ("SOURCE = @sources.folder()", *CONTRASTIVE, "pretrain.run.checkpoint_steps = 1"),
    ),
}
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


def run_worker(event: str, arguments: Sequence[str]) -> None:
    """Trains in this process, which sends itself a signal at an event: "SIGKILL step 8"."""
    name, when, *where = event.split(" ", 2)
    number = signal.Signals[name]
    # A shell's background jobs ignore SIGINT, and so would the run.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def strike() -> None:
        with contextlib.suppress(BrokenPipeError):
            print("struck", flush=True)
        os.kill(os.getpid(), number)

    if when in ("before", "after"):
        pattern = where[0].removeprefix("replacing ")
        replace = os.replace

        def replacing(source: Any, target: Any) -> None:
            is_it = pattern in str(target)
            if is_it and when == "before":
                strike()
            replace(source, target)
            if is_it and when == "after":
                strike()

        vars(os)["replace"] = replacing
        setattr(Path, "rename", replacing)  # noqa: B010  # mypy rejects an assignment.

    from supcon_tf import cli, train

    if when == "step":
        cli.start_tensorflow()
        from supcon_tf.training import callbacks

        count = callbacks.CountSteps.on_train_batch_end
        steps = iter(range(1, 10**6))

        def counting(self: Any, batch: int, logs: Any = None) -> None:
            count(self, batch, logs)
            if next(steps) == int(where[0]):
                strike()

        setattr(callbacks.CountSteps, "on_train_batch_end", counting)  # noqa: B010
    cli.run(lambda _: train.main(arguments))


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


class Ended:
    """What a command printed, and its exit code."""

    def __init__(self, process: subprocess.Popen):
        self.output, self.error = process.communicate(timeout=600)
        self.code = process.returncode

    @property
    def is_one_line(self) -> bool:
        """Whether the command ended with one line for the user."""
        return self.code == 2 and len(self.error.splitlines()) == 1


def command(variant: str, workdir: Path, images: Path, *, event: str = "", extra: Sequence = ()):
    """The command of a variant."""
    file, bindings = VARIANTS[variant]
    if variant == "folder":
        bindings = (*bindings, f"sources.folder.root = '{images}'")
    arguments = [f"--gin_file={file}", f"--workdir={workdir}"]
    arguments += [f"--gin_param={binding}" for binding in (*COMMON, *bindings)]
    module = [__file__, "--event", event] if event else ["-m", "supcon_tf.train"]
    return [sys.executable, *module, *arguments, *extra]


def launch(variant: str, workdir: Path, images: Path, **options: Any) -> list[subprocess.Popen]:
    """The processes of a run: two for two workers, the chief first."""
    workers = 2 if variant == "two workers" else 1
    servers = [socket.create_server(("localhost", 0)) for _ in range(workers)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    processes = []
    for index in range(workers):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if workers > 1:
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment["TF_CONFIG"] = json.dumps(task)
        # Only the chief is struck.
        arguments = command(variant, workdir, images, **(options if not index else {}))
        processes.append(
            subprocess.Popen(
                arguments,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                start_new_session=True,
            )
        )
    return processes


def start(variant: str, workdir: Path, images: Path, **options: Any) -> Ended:
    """Runs a variant to its end."""
    chief, *others = launch(variant, workdir, images, **options)
    ended = Ended(chief)
    for other in others:
        try:
            other.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            other.kill()
            other.communicate()
    return ended


def difference(one: Path, other: Path) -> str:
    """The first difference of two finished runs; "" if they are bit-identical."""
    try:
        return _difference(one, other)
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


def _difference(one: Path, other: Path) -> str:
    for stage in STAGES:
        left, right = (
            weights_of(run / "checkpoints" / stage / "model.keras") for run in (one, other)
        )
        if left.keys() != right.keys():
            return f"{stage} has other weights"
        for name, values in left.items():
            if not np.array_equal(values, right[name]):
                return f"{stage} {name}"
    for name in ("curves.json", "metrics.json"):
        left, right = (untimed(json.loads((run / name).read_text())) for run in (one, other))
        if left != right:
            return name
    if not all((other / name).exists() for name in ("report.html", "export/saved_model.pb")):
        return "report or export missing"
    return ""


def weights_of(file: Path) -> dict[str, np.ndarray]:
    """All arrays of a .keras file."""
    import io
    import zipfile

    import h5py

    found: dict[str, np.ndarray] = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with zipfile.ZipFile(file) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as weights:
        weights.visititems(add)
    return found


def untimed(content: Any) -> Any:
    """Without the measured times."""
    if isinstance(content, dict):
        timed = ("seconds", "images_per_second")
        return {key: untimed(value) for key, value in content.items() if key not in timed}
    return [untimed(value) for value in content] if isinstance(content, list) else content


def kills(chaos: Chaos) -> None:
    """SIGKILL at a step, or before or after a file is replaced."""
    for variant in VARIANTS:
        if variant == "folder":
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


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "truncated": lambda file: os.truncate(file, file.stat().st_size // 2),
    "emptied": lambda file: os.truncate(file, 0),
    "a byte flipped": lambda file: file.write_bytes(
        (content := file.read_bytes())[: len(content) // 2]
        + bytes([content[len(content) // 2] ^ 1])
        + content[len(content) // 2 + 1 :]
    ),
    "removed": lambda file: file.unlink(),
}
# Of a run stopped in the second epoch of pretraining, and of one stopped before its last results.
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
        "export/saved_model.pb",
    ),
}


def torn(chaos: Chaos) -> None:
    """A file of a killed run is truncated, emptied, changed or removed."""
    for event, files in TORN.items():
        for file in files:
            for damage, apply in DAMAGES.items():

                def judge(
                    folder: Path,
                    event: str = event,
                    file: str = file,
                    apply: Callable[[Path], Any] = apply,
                ) -> tuple[str, str]:
                    whole = chaos.finished("folder")
                    killed = chaos.output / "killed" / event.replace(" ", "_").replace("/", "_")
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

                chaos.case("torn", f"{file} {damage}", judge)


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

    def relabel(root: Path) -> None:
        file = sorted(root.glob("bright/*.png"))[0]
        file.rename(root / "dark" / file.name)

    for name, change in {"added": add, "removed": remove, "moved to a class": relabel}.items():
        for event in ("SIGKILL step 8", "SIGKILL before replacing linear/last/ckpt"):

            def judge(
                folder: Path, change: Callable[[Path], None] = change, event: str = event
            ) -> tuple[str, str]:
                images = shutil.copytree(chaos.images, folder / "images")
                run = folder / "run"
                if start("folder", run, images, event=event).code != -signal.SIGKILL:
                    return "not struck", ""
                change(images)
                refused = start("folder", run, images)
                if not (refused.is_one_line and "have changed since" in refused.error):
                    return "lost", f"exit code {refused.code} {refused.error[-300:]}"
                accepted = start("folder", run, images, extra=["--keep_test_split"])
                before, after = (
                    set(np.load(path / "test_split.npz")["paths"].tolist())
                    for path in (run_without_changes(chaos), run)
                )
                names = [{"/".join(Path(p).parts[-2:]) for p in paths} for paths in (before, after)]
                if accepted.code or not names[1] <= names[0]:
                    return "lost", accepted.error[-300:]
                return "named", refused.error.strip()

            chaos.case("changed data", f"{name}, {event.lower()}", judge)


def run_without_changes(chaos: Chaos) -> Path:
    """The undisturbed run on the folder of images."""
    return chaos.finished("folder")


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


def draw_images(root: Path, numbers: Sequence[int]) -> None:
    """PNG files of two classes that are easy to distinguish."""
    from PIL import Image

    for number in numbers:
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 80, (20, 20, 3), np.uint8) + np.uint8(150 * (number % 2))
        file = root / ("bright" if number % 2 else "dark") / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)


def main() -> None:
    """Runs all cases and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="directory of runs and results")
    parser.add_argument("--only", default="", help="part of the names of the cases to run")
    options = parser.parse_args()
    chaos = Chaos(options.output.resolve(), options.only)
    groups = [signals, doubled, kills, torn, changed_data, spoiled_images]
    if os.geteuid() == 0:
        groups.insert(2, full_disk)
    for group in groups:
        group(chaos)
    print(chaos.table())
    if any(row["outcome"] in ("lost", "not struck") for row in chaos.results.values()):
        sys.exit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--event"]:
        run_worker(sys.argv[2], sys.argv[3:])
    else:
        main()
