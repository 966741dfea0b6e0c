"""Times training steps of SupCon, and how much of a step waits for its input.

python tools/benchmark_step.py --width 1.0 --batch 256

A ResNet with the CIFAR stem takes two views of 32 px, made from decoded images on the fly by the
exact SimCLR recipe ("real input"), or the same batch again and again ("constant input"). The two
take turns, and a line says how much longer a step with real input is.
"""

import argparse
import functools
import os
import statistics
import time

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data import views
from supcon_tf.data.batches import training_batches
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.losses import SupConLoss
from supcon_tf.models import contrastive_model, resnet


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=18, help="of the ResNet")
    parser.add_argument("--width", type=float, default=1.0, help="of the ResNet")
    parser.add_argument("--batch", type=int, default=256, help="images per step, two views each")
    parser.add_argument("--steps", type=int, default=5, help="steps per turn")
    parser.add_argument("--turns", type=int, default=3, help="of each kind of input")
    options = parser.parse_args()
    seconds = measure(options.depth, options.width, options.batch, options.steps, options.turns)
    print(f"{'input':<10} {'s per step':>10} {'views/s':>10}")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:<10} {median:>10.3f} {2 * options.batch / median:>10.1f}")
    real, constant = (statistics.median(seconds[name]) for name in ("real", "constant"))
    print(
        f"a step with real input takes {real / constant:.3f} times as long as with constant input"
    )


def measure(depth: int, width: float, batch: int, steps: int, turns: int) -> dict[str, list[float]]:
    """Seconds of each step, by kind of input."""
    random = np.random.default_rng(0)
    images = tf.constant(random.integers(0, 256, [5_000, 32, 32, 3]), tf.uint8)
    split = IndexedSplit(
        random.integers(0, 10, [5_000]),
        lambda number: tf.gather(images, number),
        reads_batches=True,
    )
    batches = training_batches(
        split,
        preprocessing=views.Preprocessing(32),
        augmentation=functools.partial(
            views.simclr, strength=0.5, jitter="torchvision", blur_probability=0.0
        ),
        num_views=2,
        batch_size=batch,
        num_classes=10,
        seed=0,
    )
    model = contrastive_model(
        resnet(depth, width=width, stem="cifar"), image_shape=(32, 32, 3), projection=(512, 128)
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), SupConLoss())
    constant = tf.data.Dataset.from_tensors(next(iter(batches(0, 1)))).repeat().prefetch(2)
    inputs = {"real": batches(0, 1_000_000 // batch), "constant": constant}
    model.fit(inputs["constant"], steps_per_epoch=2, shuffle=False, verbose=0)
    seconds: dict[str, list[float]] = {name: [] for name in inputs}
    for _ in tqdm(range(turns), "turns"):
        for name, dataset in inputs.items():
            timer = _Timer()
            # The first step of a turn waits for the input to start.
            model.fit(
                dataset, steps_per_epoch=steps + 1, shuffle=False, verbose=0, callbacks=[timer]
            )
            seconds[name] += timer.seconds[1:]
    return seconds


class _Timer(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.last = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        float((logs or {})["loss"])  # Waits for the step.
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now


if __name__ == "__main__":
    main()
