"""The losses of the first 20 steps on the digits are those of loss_traces.json.

Numbers depend on the version of TensorFlow, the processor, the number of threads and oneDNN: with the
same four they are equal to the last bit, with others nearly equal. To record a trace with all threads
or one, run `TF_ENABLE_ONEDNN_OPTS=1 python -m tests.training.test_loss_trace 0` or `1`.
"""

import functools
import hashlib
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import losses, models
from supcon_tf.data import sources, views
from supcon_tf.data.pipeline import training_batches

TRACES = Path(__file__).with_name("loss_traces.json")


def key():
    """What the last bits depend on, such as "TensorFlow 2.21.0, processor 1f3a90c2, 1 threads, oneDNN 1"."""
    cpuinfo = Path("/proc/cpuinfo")
    # The sizes of caches change the order of sums.
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else [platform.processor()]
    parts = {line for line in lines if line.startswith(("model name", "cache size", "flags"))}
    processor = hashlib.sha256("".join(sorted(parts)).encode()).hexdigest()[:8]
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default")
    return f"TensorFlow {tf.__version__}, processor {processor}, {threads} threads, oneDNN {onednn}"


def trace():
    """The SupCon loss of each of 20 steps, in float32."""
    tf.keras.utils.set_random_seed(0)
    model = models.contrastive_model(
        models.resnet(18, width=1 / 8, stem="cifar"), image_shape=(8, 8, 3), projection=(16,)
    )
    optimizer = tf.keras.optimizers.Adam(1e-3)
    loss = losses.SupConLoss(temperature=0.2)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step(images, labels):
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return value

    crop = functools.partial(views.random_resized_crop, area_range=(0.8, 1.0), flip_probability=0.0)
    batches = training_batches(
        sources.digits().train, preprocessing=views.Preprocessing(8, crop=crop), augmentation=views.identity,
        num_views=2, batch_size=64, num_classes=10, seed=0,
    )(0, 20)  # fmt: skip
    return [float(step(images, labels)) for images, labels in batches]


def test_the_first_losses_are_those_recorded():
    recorded = json.loads(TRACES.read_text())
    losses_now = trace()
    if key() in recorded:
        assert losses_now == recorded[key()], "numbers changed: see the docstring of this test"
    version = key().partition(",")[0]
    if not any(name.startswith(version) for name in recorded):
        pytest.fail(f"no trace for {version}: record one, and read what changed in its numbers")
    # The same steps; rounding grows over them.
    for values in recorded.values():
        np.testing.assert_allclose(losses_now, values, rtol=2e-3)


if __name__ == "__main__":
    traces = json.loads(TRACES.read_text()) if TRACES.is_file() else {}
    tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
    traces[key()] = trace()
    TRACES.write_text(json.dumps(traces, indent=1) + "\n")
