# %% [markdown]
# # SupCon in your own fit
#
# The loss, the views and the model are parts of Keras and `tf.data` that you can use one by one.
# Here they train a small encoder on the 1,797 digits of scikit-learn, of 8 px each.

# %%
from functools import partial

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.model_selection import train_test_split

from supcon_tf.data import views
from supcon_tf.evaluation import knn_probabilities, top_k_accuracy
from supcon_tf.losses import SupConLoss
from supcon_tf.models import contrastive_model, embedding_model, resnet

EPOCHS = 25  # quick: 1
NUM_ON_MAP = 400  # quick: 64

keras.utils.set_random_seed(0)
digits = load_digits()
images = np.repeat(digits.images[..., None] * 15, 3, axis=-1).astype("uint8")  # [N, 8, 8, 3]
train_images, test_images, train_labels, test_labels = train_test_split(
    images, digits.target, test_size=450, stratify=digits.target, random_state=0
)

# %% [markdown]
# ## Two views of each image
#
# `two_views` replaces each image of a batch by two random views. For photos its defaults are
# SimCLR's crops, flips and colours. Digits must not be mirrored and have no colours, so only the
# crop is left. In the picture, each digit on the left has two views on its right.

# %%
data = tf.data.Dataset.from_tensor_slices((train_images, train_labels))
data = data.shuffle(1797, seed=0).batch(128)
crop = partial(views.random_resized_crop, area_range=(0.5, 1.0), flip_probability=0.0)
data = views.two_views(data, image_px=8, crop=crop, augmentation=views.identity)

some = tf.data.Dataset.from_tensor_slices(train_images[:12]).batch(12)
(pairs,) = views.two_views(some, image_px=8, crop=crop, augmentation=views.identity)
rows = np.concatenate([train_images[:12, None], (pairs + 1) * 127.5], axis=1)  # [12, 3, 8, 8, 3]
rows = np.pad(rows, [(0, 0), (0, 0), (0, 1), (0, 1), (0, 0)], constant_values=255)
rows = np.pad(
    rows.transpose(0, 2, 1, 3, 4).reshape(12, 9, 27, 3),
    [(0, 0), (0, 0), (0, 9), (0, 0)],
    constant_values=255,
)
sheet = rows.reshape(3, 4, 9, 36, 3).transpose(0, 2, 1, 3, 4).reshape(27, 144, 3)
picture = Image.fromarray(sheet.astype("uint8"))
picture.resize((864, 162), Image.Resampling.NEAREST).save("views.png")

# %% [markdown]
# ## Train
#
# `contrastive_model` puts a projection head on an encoder: any Keras model that maps images to
# vectors. It takes the views `[B, 2, 8, 8, 3]` and returns projections `[B, 2, 64]`, and
# `SupConLoss` takes these and the labels. Everything else is Keras: optimizers, callbacks, mixed
# precision.

# %%
encoder = resnet(18, width=0.125, stem="cifar")
model = contrastive_model(encoder, image_shape=(8, 8, 3), projection=(64,))
model.compile(keras.optimizers.Adam(2e-3), SupConLoss(temperature=0.1))
history = model.fit(data, epochs=EPOCHS, shuffle=False, verbose=0)
for epoch in range(0, EPOCHS, 7):
    print(f"epoch {epoch + 1:2d}: loss {history.history['loss'][epoch]:.3f}")

# %% [markdown]
# ## Use the embeddings
#
# `embedding_model` is the encoder without the head, from images in [-1, 1] to vectors of unit
# length. Nearest neighbours and a linear classifier show what is in them, and in the pixels for
# comparison.

# %%
embedding = embedding_model(model)
train_embeddings, test_embeddings = (
    embedding.predict(batch / 127.5 - 1, verbose=0) for batch in (train_images, test_images)
)
pixels = [batch[..., 0].reshape(len(batch), -1) / 255 for batch in (train_images, test_images)]

for name, (train, test) in {
    "embeddings": (train_embeddings, test_embeddings),
    "pixels": pixels,
}.items():
    votes = knn_probabilities(test, train, train_labels, num_classes=10)
    linear = LogisticRegression(max_iter=1000).fit(train, train_labels)
    print(
        f"{name:10}  kNN top-1 {top_k_accuracy(votes, test_labels):.3f}"
        f"  linear top-1 {linear.score(test, test_labels):.3f}"
    )

# %% [markdown]
# The digits are too easy to show a gain: of 450 images, the differences are one and four.
#
# A map of test embeddings: t-SNE gives each image a place in the plane, and the picture has each
# image in the cell of a grid that is near its place.

# %%
side = int(NUM_ON_MAP**0.5)
places = TSNE(random_state=0, perplexity=15).fit_transform(test_embeddings[:NUM_ON_MAP])
places = (places - places.min(axis=0)) / np.ptp(places, axis=0) * (side - 1)
cells = np.stack(np.divmod(np.arange(side**2), side), axis=1)
costs = np.square(places[:, None] - cells).sum(axis=2)  # [image, cell]
_, chosen = linear_sum_assignment(costs)
grid = np.empty((side**2, 8, 8), "uint8")
grid[chosen] = test_images[:NUM_ON_MAP, ..., 0]
grid = np.pad(grid, [(0, 0), (1, 1), (1, 1)]).reshape(side, side, 10, 10)
picture = Image.fromarray(255 - grid.transpose(0, 2, 1, 3).reshape(side * 10, side * 10))
picture.resize((side * 35, side * 35), Image.Resampling.BICUBIC).save("map.png")

# %% [markdown]
# Other losses have the same call: `SINCERELoss`, `SoftSupConLoss`, `SimCLRLoss` without labels
# ([all losses](../losses.md)). To start from ImageNet weights instead of random ones, replace the
# encoder by `models.pretrained` ([how](../finetune.md)).
