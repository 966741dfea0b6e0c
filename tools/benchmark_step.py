"""Times whole training steps of SupCon: against PyTorch, and with real input.

examples:
  python tools/benchmark_step.py --width 1.0 --batch 64 --peer_python /path/with/torch/bin/python
  python tools/benchmark_step.py --contenders float32 "real input" --width 0.5 --batch 256

A ResNet with the CIFAR stem and a projection head process two views of 32 px. A step is forward,
loss, backward and an update by SGD with momentum. Contenders take turns, each in its own process
with all cores:

  float32, bfloat16      supcon_tf; mixed_bfloat16 keeps the weights in float32
  two replicas           supcon_tf, the batch split over two logical CPUs
  gradient cache         supcon_tf, the encoder in chunks of an eighth of the batch
  keras batch norm       supcon_tf with keras.layers.BatchNormalization instead of the fused layer
  torch, torch last      PyTorch with the same layers, in NCHW and in channels_last
  torch compiled         channels_last with torch.compile
  torch bfloat16         channels_last with autocast
  real input             supcon_tf with views made from decoded images by the exact SimCLR recipe;
                         all other contenders repeat one batch

The extra `bench` installs the peers. The memory is the process's peak. --profile prints the
operations that TensorFlow spends its time on.
"""

import argparse
import collections
import functools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import contenders
import numpy as np
import torch_supcon
from tqdm import tqdm

OURS = ("float32", "bfloat16", "two replicas", "gradient cache", "keras batch norm")
TORCH = ("torch", "torch last", "torch compiled", "torch bfloat16")
REAL_INPUT = "real input"


def parse_args() -> argparse.Namespace:
    parser = contenders.parser(__doc__)
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=(*OURS, *TORCH, REAL_INPUT),
        help="default: all but real input",
    )
    parser.add_argument(
        "--depth",
        type=int,
        default=18,
        choices=torch_supcon.BLOCKS,
        help="of the ResNet, default 18",
    )
    parser.add_argument("--width", type=float, default=1.0, help="of the ResNet, default 1.0")
    parser.add_argument("--batch", type=int, default=64, help="images of two views, default 64")
    parser.add_argument("--steps", type=int, default=5, help="timed steps per turn, default 5")
    parser.add_argument("--turns", type=int, default=2, help="turns per contender, default 2")
    parser.add_argument("--profile", action="store_true", help="profile a float32 step and stop")
    parser.add_argument("--json", metavar="FILE", help="results to write")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse_args()
    if options.profile:
        profile(options)
        return
    if options.child:
        print(json.dumps(measure(options.child, options)))
        return
    names = options.contenders or [*OURS, *TORCH]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    memory = dict.fromkeys(names, 0.0)
    with tqdm(total=options.turns * len(names), unit="process") as progress:
        for name in list(names) * options.turns:
            progress.set_description(name)
            measured = run_alone(name, options) if name in seconds else None
            if measured is None:
                seconds.pop(name, None)
            else:
                seconds[name] += measured["seconds"]
                memory[name] = max(memory[name], measured["peak_mib"])
            progress.update()
    report(seconds, memory, options)


def run_alone(name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """Runs `measure` in a new process; None if that fails."""
    python = options.peer_python if name in TORCH else sys.executable
    shared = [f"--{key}={getattr(options, key)}" for key in ("depth", "width", "batch", "steps")]
    return contenders.run_alone(name, [python, __file__, f"--child={name}", *shared])


def report(
    seconds: dict[str, list[float]], memory: dict[str, float], options: argparse.Namespace
) -> None:
    """Prints the table and the speed ratios."""
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
            f"real input: {median[REAL_INPUT] / median['float32']:.3f} times the seconds per step "
            "of one repeated batch"
        )
    numbers = {"seconds": seconds, "peak_mib": memory, "options": vars(options)}
    contenders.write_json(options.json, numbers)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measures the seconds of each timed step and the peak memory of this process."""
    if name not in TORCH:
        model = keras_model(name, options)
        batches = real_batches(options) if name == REAL_INPUT else one_batch(options.batch)
        seconds = fit_seconds(model, batches, options.steps)
    else:
        views, labels = random_batch(options.batch)
        step = torch_supcon.training_step(name, views, labels, options.depth, options.width)
        for _ in range(2):
            step()
        seconds = []
        for _ in range(options.steps):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "peak_mib": contenders.peak_mib()}


def keras_model(name: str, options: argparse.Namespace) -> Any:
    """The model of this package, compiled."""
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
        # `supcon_tf.models.resnet` is the function of that name, not its module.
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
    """Seconds of each step of `fit`, without the first three, which trace and fill buffers."""
    import keras

    ends = []

    class Timer(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            float(np.mean((logs or {})["loss"]))  # Waits for the step.
            ends.append(time.perf_counter())

    model.fit(batches, steps_per_epoch=num_steps + 3, shuffle=False, verbose=0, callbacks=[Timer()])
    return np.diff(ends)[2:].tolist()


def one_batch(size: int) -> Any:
    """A data set that repeats one batch."""
    import tensorflow as tf

    views, labels = random_batch(size)
    return tf.data.Dataset.from_tensors((tf.constant(views), tf.constant(labels))).repeat()


def random_batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random views, float32 [B, 2, 32, 32, 3], and labels, int [B]."""
    random = np.random.default_rng(0)
    return random.normal(size=(size, 2, 32, 32, 3)).astype(np.float32), np.arange(size) % 10


def real_batches(options: argparse.Namespace) -> Any:
    """Views made during training from decoded images."""
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
    """Prints the kinds of operation that a float32 step spends its time on."""
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
    """Milliseconds per kind of operation, summed over threads."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(file.read_bytes())
    spent: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                kind = name.split(":")[-1]  # "node:Kind"; other events are the executor's.
                if hasattr(tf.raw_ops, kind.removeprefix("_MklNative").removeprefix("_")):
                    spent[kind] += event.duration_ps / 1e9
    return spent


if __name__ == "__main__":
    main()
