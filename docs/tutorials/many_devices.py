# %% [markdown]
# # Many devices
#
# A contrastive loss compares every image of a batch with every other one, also with those that
# are on other devices. Here a CPU is split into two replicas, which train as one device does. With
# GPUs only the strategy changes.

# %%
from functools import partial

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits

from supcon_tf import distribution
from supcon_tf.data import views
from supcon_tf.losses import SupConLoss, supcon_loss
from supcon_tf.models import contrastive_model

EPOCHS = 5  # quick: 1

two_replicas = distribution.strategy("mirrored", cpu_replicas=2)  # before the first operation
one_device = distribution.strategy("one_device")
print(two_replicas.num_replicas_in_sync, "replicas")

# %% [markdown]
# ## The global batch
#
# The batch size of a data set is that of the global batch: all replicas together. A replica gets
# its rows, in order. Learning rates that belong to a batch size belong to the global one.

# %%
images, labels = load_digits(return_X_y=True)
images = np.repeat(images.reshape(-1, 8, 8, 1) * 15, 3, axis=-1).astype("uint8")


def make_data():
    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(1797, seed=0)
    data = data.batch(128, drop_remainder=True)
    crop = partial(views.random_resized_crop, area_range=(0.5, 1.0), flip_probability=0.0)
    return views.two_views(data, image_px=8, crop=crop, augmentation=views.identity)


data = make_data()
views_of_batch, labels_of_batch = next(iter(two_replicas.experimental_distribute_dataset(data)))
print("global batch:", data.element_spec[0].shape)
for part in two_replicas.experimental_local_results(views_of_batch):
    print("a replica:   ", part.shape)

# %% [markdown]
# ## The same training
#
# The model, the optimizer and `compile` belong under `strategy.scope()`; `fit` does the rest. The
# loss of a replica compares its projections with those of all replicas. An encoder with batch
# normalisation needs `synchronized=True` there, which `models.resnet` has.


# %%
def train(strategy):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        encoder = keras.Sequential(
            [
                keras.layers.Conv2D(32, 3, activation="relu"),
                keras.layers.Conv2D(64, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(64, activation="relu"),
            ]
        )
        model = contrastive_model(encoder, image_shape=(8, 8, 3), projection=(64,))
        model.compile(keras.optimizers.SGD(0.5, momentum=0.9), SupConLoss(temperature=0.1))
    return model, model.fit(make_data(), epochs=EPOCHS, shuffle=False, verbose=0).history["loss"]


model, losses = train(one_device)
_, losses_of_two = train(two_replicas)
for epoch, (one, two) in enumerate(zip(losses, losses_of_two, strict=True), 1):
    print(f"epoch {epoch}: one device {one:.5f}, two replicas {two:.5f}")

# %% [markdown]
# The first epochs agree in all digits that are shown. Sums in another order round differently, and
# training magnifies that from step to step.
#
# ## What the gather is for
#
# Without it, each replica would compare its part of the batch with itself: without an error, but
# with another loss, fewer negatives and fewer positives. In the picture, a row is a view, and a
# column one that it is compared with: positives are blue, brighter ones are more similar. On the
# left is what this package does, on the right each of two replicas by itself.

# %%
batch, batch_labels = next(iter(data))
projections = model(batch[:32])  # [32, 2, 64]
some_labels = batch_labels[:32]
whole = supcon_loss(some_labels, projections)
parts = [supcon_loss(some_labels[rows], projections[rows]) for rows in (slice(16), slice(16, 32))]
print(f"loss of 32 images: {np.mean(whole):.4f}")
print(f"mean loss of two parts of 16 images: {np.mean(parts):.4f}")

flat = np.reshape(projections, [64, 64])
similarities = np.clip((flat @ flat.T + 1) / 2, 0, 1)[..., None]
is_positive = np.equal.outer(*[np.repeat(some_labels, 2)] * 2)[..., None]
gathered = np.where(is_positive, [40, 110, 230], [235, 235, 235]) * (0.3 + 0.7 * similarities)
is_own_part = np.equal.outer(*[np.arange(64) // 32] * 2)[..., None]
alone = np.where(is_own_part, gathered, 255)
sheet = np.hstack([gathered, np.full([64, 6, 3], 255), alone]).astype("uint8")
Image.fromarray(sheet).resize((804, 384), Image.Resampling.NEAREST).save("comparisons.png")

# %% [markdown]
# ## Several machines
#
# Every machine runs the same script or command. The environment variable `TF_CONFIG` lists all of
# them and says which one this is; `index` is 0 on the first and 1 on the second:
#
# ```bash
# export TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]},
#                    "task": {"type": "worker", "index": 0}}'
# python -m supcon_tf.train --gin_file=imagenet/supcon_resnet50.gin --workdir=/shared/run \
#     --gin_param="distribution.strategy.name = 'multi_worker'"
# ```
#
# In a script, the strategy is `distribution.strategy("multi_worker")`. With two machines of four
# GPUs each, the global batch is split into eight parts. The first machine writes the files.
# [Distribution](../distribution.md) has the differences measured, the rules for your own Keras
# model, and what to do if one device is too small.
