"""Trains ordinary Keras models by `fit` on several replicas: `python -m tests.losses.replica_fits 4`.

Prints the largest difference from the weights and logs of one device, for each case.
"""

import functools
import sys

import keras
import numpy as np
import tensorflow as tf

from supcon_tf import distribution, losses
from supcon_tf.models import LargeMarginHead

CLASSES = 3
INTEGERS = np.random.default_rng(0).integers(0, CLASSES, 256)
ONE_HOT = np.eye(CLASSES, dtype=np.float32)[INTEGERS]
LABELS = {
    "int [N]": INTEGERS,
    "int [N, 1]": INTEGERS[:, None].astype(np.int32),
    "one-hot": ONE_HOT,
    "multi-hot int": (np.random.default_rng(1).random((256, CLASSES)) < 0.5).astype(np.int64),
    "unlabelled": np.where(np.arange(256) % 3, INTEGERS, -1),
    "none": None,
}
IMAGES = np.random.default_rng(2).normal(size=(256, 2, 6)).astype(np.float32)


class Subclassed(keras.Model):
    def __init__(self, layers):
        super().__init__()
        self.block = keras.Sequential(layers)

    def call(self, inputs):
        return self.block(inputs)


def functional(layers):
    inputs = outputs = keras.Input(IMAGES.shape[1:])
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


MODELS = {"sequential": keras.Sequential, "functional": functional, "subclassed": Subclassed}


def layers_of(loss):
    if losses.loss_input(loss) == "projection":
        return [keras.layers.Dense(4, use_bias=False)]
    flat = keras.layers.Flatten()
    if isinstance(loss, losses.LargeMarginSoftmaxLoss):
        return [flat, LargeMarginHead(CLASSES)]
    return [flat, keras.layers.Dense(CLASSES)]


def fitted(strategy, loss, labels, *, model="sequential", batch_size=64, num_rows=64, weights=None):
    """Weights and logged losses of one epoch."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network = MODELS[model](layers_of(loss))
        network.compile(keras.optimizers.SGD(0.5), loss)
    history = network.fit(
        IMAGES[:num_rows],
        None if labels is None else labels[:num_rows],
        batch_size=batch_size,
        sample_weight=None if weights is None else weights[:num_rows],
        shuffle=False,
        verbose=0,
    )
    return [*network.get_weights(), np.array(history.history["loss"])]


def difference(strategy, *args, **options):
    """The largest difference between the strategy and one device."""
    one = fitted(tf.distribute.get_strategy(), *args, **options)
    several = fitted(strategy, *args, **options)
    return max(np.abs(a - b).max() for a, b in zip(one, several, strict=True))


def dense(loss):
    """The loss as a matrix: for batches of unknown size, "auto" traces the larger streaming graph."""
    return functools.partial(loss, implementation="dense")


def dense_semi_supervised():
    return losses.SemiSupervisedLoss(
        unlabelled=dense(losses.SimCLRLoss)(), labelled=dense(losses.SuNCEtLoss)()
    )


# Loss, labels, options of `fitted`. Two batches: 64 rows, then a smaller last batch of several sizes.
CASES = {
    "supcon": (losses.SupConLoss, "one-hot", {"num_rows": 127, "model": "subclassed"}),
    "suncet": (losses.SuNCEtLoss, "int [N]", {"num_rows": 69, "model": "functional"}),
    "simclr": (dense(losses.SimCLRLoss), "none", {"num_rows": 67}),
    "cross-entropy": (losses.CrossEntropyLoss, "int [N]", {"num_rows": 67, "model": "subclassed"}),
    "large margin": (losses.LargeMarginSoftmaxLoss, "int [N, 1]", {"num_rows": 69}),
    "semi-supervised": (dense_semi_supervised, "unlabelled", {"num_rows": 67}),
    "binary, weights": (
        losses.BinaryCrossEntropyLoss,
        "multi-hot int",
        {"num_rows": 69, "weights": np.linspace(0, 2, 256).astype(np.float32)},
    ),
}


def difference_of(strategy, case):
    """`difference` for the name of a case."""
    loss, labels, options = CASES[case]
    return difference(strategy, loss(), LABELS[labels], **options)


def main(num_replicas):
    """Prints the difference of each case."""
    strategy = distribution.strategy("mirrored", cpu_replicas=num_replicas)
    for case in sys.argv[2:] or CASES:
        print(f"{case}: {difference_of(strategy, case):.1e}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
