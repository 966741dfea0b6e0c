"""The small runs of tools/chaos: starting them and striking them with a signal; damages of files.

As a script, it trains in its own process, which sends itself a signal at an event:

  python tools/chaos/runs.py "SIGKILL step 8" --gin_file=digits/supcon.gin --workdir=/tmp/run
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
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
    "table": ("digits/supcon.gin", ("SOURCE = @sources.table()", *CONTRASTIVE)),
}


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
    if variant == "table":
        bindings = (*bindings, f"sources.table.file = '{images}/images.csv'")
    arguments = [f"--gin_file={file}", f"--workdir={workdir}"]
    arguments += [f"--gin_param={binding}" for binding in (*COMMON, *bindings)]
    module = [__file__, event] if event else ["-m", "supcon_tf.train"]
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


def sampled(run: Path, *, epochs: int) -> tuple[int, list[tuple[int, float, int]]]:
    """Runs epochs of 50 steps and watches the process; prints and returns what it saw.

    Returns:
      The exit code, and every 10 s the number of finished epochs, the memory in MB and the number
      of open files.
    """
    settings = ("sources.subset.per_class = 100", f"pretrain.run.epochs = {epochs}")
    extra = [f"--gin_param={text}" for text in (*settings, "pretrain.run.checkpoint_steps = 100")]
    samples: list[tuple[int, float, int]] = []
    with run.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(
            command("one replica", run, run, extra=extra), stdout=log, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            time.sleep(10)
            with contextlib.suppress(OSError, ValueError):
                memory = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
                files = os.listdir(f"/proc/{process.pid}/fd")
                curves = json.loads((run / "curves.json").read_text())
                sample = len(curves["pretrain"]), int(memory) * 4096 / 2**20, len(files)
                samples.append(sample)
                print("epoch {} {:.1f} MB {} open files".format(*sample), flush=True)
    return process.returncode, samples


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


def draw_images(root: Path, numbers: Sequence[int]) -> None:
    """PNG files of two classes that are easy to distinguish, and a table of all of them."""
    from PIL import Image

    for number in numbers:
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 80, (20, 20, 3), np.uint8) + np.uint8(150 * (number % 2))
        file = root / ("bright" if number % 2 else "dark") / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    files = sorted(root.glob("*/*.png"))
    lines = [f"{file.relative_to(root)},{file.parent.name}\n" for file in files]
    (root / "images.csv").write_text("path,labels\n" + "".join(lines))


if __name__ == "__main__":
    run_worker(sys.argv[1], sys.argv[2:])
