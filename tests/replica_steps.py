"""Trains small models for some steps under a strategy: `python -m tests.replica_steps OUTPUT.npz`.

Without --case, it trains every loss with every optimizer. To compare strategies, run
`python -m tests.replica_steps one.npz`, then another strategy with `--compare one.npz`, which
prints the largest differences.
"""

import argparse

import keras
import numpy as np
import tensorflow as tf

from supcon_tf import distribution, losses, models, optimizers
from supcon_tf.data.pipeline import training_batches
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.data.views import Preprocessing, identity
from supcon_tf.models.batch_norm import BatchNormalization

BATCH = 24
IMAGE_SHAPE = (8, 8, 3)
LOSSES = {
    "supcon dense": lambda: losses.SupConLoss(implementation="dense"),
    "supcon streaming": lambda: losses.SupConLoss(implementation="streaming"),
    # Scaled by the temperature like SupCon; otherwise gradient and rounding are ten times as large.
    "simclr": lambda: losses.SimCLRLoss(scale_by_temperature=True),
    "cross-entropy": losses.CrossEntropyLoss,
}
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "lars": lambda: optimizers.LARS(0.5),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
}


def encoder():
    """A convolution with batch normalisation, which depends on the global batch."""
    images = keras.Input(IMAGE_SHAPE)
    x = keras.layers.Conv2D(8, 3, name="conv")(images)
    x = BatchNormalization(synchronized=True, name="bn")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x)))


def trained(strategy, loss, optimizer, *, num_steps):
    """Trains a model; returns its variables and its logs by name."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        if loss == "cross-entropy":
            model = models.classification_model(encoder(), image_shape=IMAGE_SHAPE, num_classes=3)
        else:
            model = models.contrastive_model(
                encoder(), image_shape=IMAGE_SHAPE, projection=(16, 8), batch_norm=True
            )
        model.compile(
            OPTIMIZERS[optimizer](),
            {"logits": LOSSES[loss]()} if loss == "cross-entropy" else LOSSES[loss](),
        )
    random = np.random.default_rng(1)
    images = tf.constant(random.integers(0, 256, (60, *IMAGE_SHAPE)), tf.uint8)
    split = IndexedSplit(
        random.integers(0, 3, 60), lambda number: tf.gather(images, number), reads_batches=True
    )

    def batches(host, num_hosts, start, stop):
        made = training_batches(
            split,
            preprocessing=Preprocessing(IMAGE_SHAPE[0]),
            augmentation=identity,
            num_views=1 if loss == "cross-entropy" else 2,
            batch_size=BATCH,
            num_classes=3,
            seed=0,
            shard=(host, num_hosts),
        )(start, stop)
        if loss == "cross-entropy":
            return made.map(lambda views, labels: (views[:, 0], {"logits": labels}))
        return made

    history = model.fit(
        distribution.distribute_batches(strategy, batches, 0, num_steps),
        steps_per_epoch=num_steps,
        shuffle=False,
        verbose=0,
    )
    return {
        **{variable.path: variable.numpy() for variable in model.variables},
        **{f"logged {name}": values[-1] for name, values in history.history.items()},
    }


def main():
    """Trains, saves the results, and compares them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", help=".npz file for weights and logs")
    parser.add_argument("--strategy", choices=["auto", "mirrored", "multi_worker"], default="auto")
    parser.add_argument(
        "--replicas", type=int, default=1, help="number of replicas in this process"
    )
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--case", action="append", help='such as "supcon streaming, lars"')
    parser.add_argument("--compare", help="output of another run")
    options = parser.parse_args()
    strategy = distribution.strategy(options.strategy, cpu_replicas=options.replicas)
    cases = options.case or [f"{loss}, {optimizer}" for loss in LOSSES for optimizer in OPTIMIZERS]
    results = {}
    for case in cases:
        values = trained(strategy, *case.split(", "), num_steps=options.steps)
        results |= {f"{case}: {key}": value for key, value in values.items()}
        if options.compare:
            others = np.load(options.compare)
            differences = [
                np.abs(value - others[f"{case}: {k}"]).max() for k, value in values.items()
            ]
            print(f"{case}: {max(differences):.1e}", flush=True)
    if distribution.is_chief(strategy):
        np.savez(options.output, **results)


if __name__ == "__main__":
    main()
