"""Times whole training steps of SupCon: against PyTorch, and with real input.

python tools/benchmark_step.py --width 1.0 --batch 64 --peer_python /path/with/torch/bin/python
python tools/benchmark_step.py --contenders float32 "real input" --width 0.5 --batch 256

A ResNet with the CIFAR stem and a projection head take two views of 32 px; a step is forward,
loss, backward and an update by SGD with momentum. Every contender runs in a process of its own
with all cores, in turns:

  float32, bfloat16      ours; mixed_bfloat16 keeps the weights in float32
  two replicas           ours, the batch split over two logical CPUs
  gradient cache         ours, the encoder in chunks of an eighth of the batch
  keras batch norm       ours with keras.layers.BatchNormalization in the place of the fused one
  torch, torch last      PyTorch with the same layers, NCHW and channels_last
  torch compiled         channels_last through torch.compile
  torch bfloat16         channels_last under autocast
  real input             ours, views made from decoded images by the exact SimCLR recipe; all
                         others have one batch again and again

The peers are in the extra `bench`; --peer_python names another interpreter that has them. Memory
is the process's peak. --profile prints where TensorFlow's time goes, by operation.
"""

import argparse
import collections
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

Step = Callable[[], Any]

OURS = ("float32", "bfloat16", "two replicas", "gradient cache", "keras batch norm")
TORCH = ("torch", "torch last", "torch compiled", "torch bfloat16")
REAL_INPUT = "real input"
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def main() -> None:
    """Runs the benchmark, or as a child one contender."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contenders", nargs="+", choices=(*OURS, *TORCH, REAL_INPUT))
    parser.add_argument("--depth", type=int, default=18, choices=BLOCKS, help="of the ResNet")
    parser.add_argument("--width", type=float, default=1.0, help="of the ResNet")
    parser.add_argument("--batch", type=int, default=64, help="images per step, two views each")
    parser.add_argument("--steps", type=int, default=5, help="timed steps per turn")
    parser.add_argument("--turns", type=int, default=2, help="of each contender")
    parser.add_argument("--peer_python", default=sys.executable, help="interpreter with PyTorch")
    parser.add_argument("--profile", action="store_true", help="of a float32 step, then stop")
    parser.add_argument("--json", help="file for the numbers")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.profile:
        profile(options)
        return
    if options.child:
        print(json.dumps(measure(options.child, options)))
        return
    contenders = options.contenders or [*OURS, *TORCH]
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    memory = dict.fromkeys(contenders, 0.0)
    with tqdm(total=options.turns * len(contenders), unit="process") as progress:
        for _ in range(options.turns):
            for name in contenders:
                progress.set_description(name)
                answer = run_child(name, options) if name in seconds else None
                if answer is None:
                    seconds.pop(name, None)
                else:
                    seconds[name] += answer["seconds"]
                    memory[name] = max(memory[name], answer["peak_mib"])
                progress.update()
    report(seconds, memory, options)


def run_child(name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """A contender's numbers from its own process; None, and a line why, for a peer that fails."""
    python = options.peer_python if name in TORCH else sys.executable
    shared = [f"--{key}={getattr(options, key)}" for key in ("depth", "width", "batch", "steps")]
    done = subprocess.run(
        [python, __file__, f"--child={name}", *shared],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if done.returncode and name not in TORCH:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    if done.returncode:
        # Killed, as for want of memory, it leaves no message.
        lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        tqdm.write(f"{name}: left out: {lines[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def report(
    seconds: dict[str, list[float]], memory: dict[str, float], options: argparse.Namespace
) -> None:
    """The table, and the ratios that matter."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{'':<18} {'s per step':>10} {'views/s':>10} {'peak MiB':>10}")
    for name, value in median.items():
        print(
            f"{name:<18} {value:>10.3f} {2 * options.batch / value:>10.1f} {memory[name]:>10,.0f}"
        )
    peers = [name for name in TORCH if name in median and name != "torch bfloat16"]
    if peers and "float32" in median:
        best = min(peers, key=lambda name: median[name])
        print(f"float32: {median[best] / median['float32']:.2f} times the speed of {best}")
    if {"bfloat16", "torch bfloat16"} <= set(median):
        ratio = median["torch bfloat16"] / median["bfloat16"]
        print(f"bfloat16: {ratio:.2f} times the speed of torch bfloat16")
    if {"float32", REAL_INPUT} <= set(median):
        print(
            f"a step with real input takes {median[REAL_INPUT] / median['float32']:.3f} "
            "times as long as with one batch"
        )
    if options.json:
        numbers = {"seconds": seconds, "peak_mib": memory, "options": vars(options)}
        Path(options.json).write_text(json.dumps(numbers, indent=2))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each timed step, and the peak memory of this process."""
    if name not in TORCH:
        model = keras_model(name, options)
        batches = real_batches(options) if name == REAL_INPUT else one_batch(options.batch)
        seconds = fit_seconds(model, batches, options.steps)
    else:
        step = torch_step(name, options)
        for _ in range(2):
            step()
        seconds = []
        for _ in range(options.steps):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return {"seconds": seconds, "peak_mib": int(peak.split()[1]) / 1024}


def keras_model(name: str, options: argparse.Namespace) -> Any:
    """Our model, compiled as a stage compiles it."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    import keras
    import tensorflow as tf

    from supcon_tf.losses import SupConLoss
    from supcon_tf.models import contrastive_model, resnet
    from supcon_tf.models.batch_norm import BatchNormalization
    from supcon_tf.training.step import TrainingModel

    strategy = tf.distribute.get_strategy()
    if name == "two replicas":
        (cpu,) = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, logical)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    if name == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    if name == "keras batch norm":
        # The package's own name is the function's.
        module: Any = sys.modules["supcon_tf.models.resnet"]
        module.BatchNormalization = keras.layers.BatchNormalization
    with strategy.scope():
        encoder = resnet(options.depth, width=options.width, stem="cifar")
        is_fused = any(isinstance(layer, BatchNormalization) for layer in encoder.layers)
        assert is_fused == (name != "keras batch norm")
        model = contrastive_model(encoder, image_shape=(32, 32, 3), projection=(512, 128))
        if name == "gradient cache":
            chunk = max(1, options.batch // 8)
            model = TrainingModel(model.input, model.output, gradient_cache_chunk=chunk)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), SupConLoss())
    return model


def fit_seconds(model: Any, batches: Any, num_steps: int) -> list[float]:
    """Seconds of each step of `fit` but the first ones, which trace and wait for the input."""
    import keras

    ends = []

    class Timer(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            float(np.mean((logs or {})["loss"]))  # Waits for the step.
            ends.append(time.perf_counter())

    model.fit(batches, steps_per_epoch=num_steps + 3, shuffle=False, verbose=0, callbacks=[Timer()])
    return np.diff(ends)[2:].tolist()


def one_batch(size: int) -> Any:
    """The same batch again and again, as a data set."""
    import tensorflow as tf

    views, labels = random_batch(size)
    return tf.data.Dataset.from_tensors((tf.constant(views), tf.constant(labels))).repeat()


def random_batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Views float32 [B, 2, 32, 32, 3] and labels [B]."""
    random = np.random.default_rng(0)
    return random.normal(size=(size, 2, 32, 32, 3)).astype(np.float32), np.arange(size) % 10


def torch_step(name: str, options: argparse.Namespace) -> Step:
    """The same step in PyTorch, with its SGD and Eq. 2 written down."""
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    is_last = name != "torch"
    model = torch_model(torch, BLOCKS[options.depth], options.width)
    views, labels = random_batch(options.batch)
    # [B, V, H, W, C] -> [B * V, C, H, W]
    images = torch.from_numpy(views.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2).copy())
    if is_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    run = torch.compile(model) if name == "torch compiled" else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    rows = torch.from_numpy(np.repeat(labels, 2))
    others = ~torch.eye(len(rows), dtype=torch.bool)
    positives = (rows[:, None] == rows[None, :]) & others

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "torch bfloat16"):
            projections = run(images)
        rows = functional.normalize(projections.float(), dim=1)
        logits = rows @ rows.T / 0.1
        logits = logits.masked_fill(~others, -torch.inf)
        log_shares = (logits - torch.logsumexp(logits, 1, keepdim=True)).masked_fill(~positives, 0)
        loss = 0.1 * -(log_shares.sum(1) / positives.sum(1)).mean()
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def torch_model(torch: Any, blocks: tuple[int, ...], width: float) -> Any:
    """`models.resnet` with basic blocks and the CIFAR stem, and the projection head."""
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[name-defined]
        def __init__(self, before: int, filters: int, stride: int, project: bool):
            super().__init__()
            self.conv1 = nn.Conv2d(before, filters, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(filters)
            self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(filters)
            self.shortcut = nn.Identity()
            if project:
                conv = nn.Conv2d(before, filters, 1, stride, bias=False)
                self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(filters))

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))

    before = int(64 * width)
    layers = [nn.Conv2d(3, before, 3, 1, 1, bias=False), nn.BatchNorm2d(before), nn.ReLU()]
    for group, count in enumerate(blocks):
        filters = int(64 * 2**group * width)
        for number in range(count):
            stride = 2 if group > 0 and number == 0 else 1
            layers.append(Block(before, filters, stride, number == 0))
            before = filters
    head = [nn.Linear(before, 512), nn.ReLU(), nn.Linear(512, 128, bias=False)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


def real_batches(options: argparse.Namespace) -> Any:
    """Views that are made on the fly from decoded images."""
    import tensorflow as tf

    from supcon_tf.data import views
    from supcon_tf.data.pipeline import training_batches
    from supcon_tf.data.splits import IndexedSplit

    random = np.random.default_rng(0)
    images = tf.constant(random.integers(0, 256, [5_000, 32, 32, 3]), tf.uint8)
    split = IndexedSplit(
        random.integers(0, 10, [5_000]),
        lambda number: tf.gather(images, number),
        reads_batches=True,
    )
    return training_batches(
        split,
        preprocessing=views.Preprocessing(32),
        augmentation=functools.partial(
            views.simclr, strength=0.5, jitter="torchvision", blur_probability=0.0
        ),
        num_views=2,
        batch_size=options.batch,
        num_classes=10,
        seed=0,
    )(0, options.steps + 3)


def profile(options: argparse.Namespace) -> None:
    """Prints the operations that a float32 step spends its time in."""
    model = keras_model("float32", options)
    import tensorflow as tf

    batches = one_batch(options.batch)
    fit_seconds(model, batches, 0)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            model.fit(batches, steps_per_epoch=1, shuffle=False, verbose=0)
        (file,) = Path(folder).rglob("*.xplane.pb")
        spent = time_by_operation(file)
    total = sum(spent.values())
    print(f"{'operation':<44} {'ms':>8} {'share':>6}")
    for name, milliseconds in spent.most_common(15):
        print(f"{name:<44} {milliseconds:>8.1f} {milliseconds / total:>6.1%}")


def time_by_operation(file: Path) -> collections.Counter[str]:
    """Milliseconds of each kind of operation, summed over threads."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(file.read_bytes())
    spent: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                kind = name.split(":")[-1]  # "node:Kind", beside what the executor does
                if hasattr(tf.raw_ops, kind.removeprefix("_MklNative").removeprefix("_")):
                    spent[kind] += event.duration_ps / 1e9
    return spent


if __name__ == "__main__":
    main()
