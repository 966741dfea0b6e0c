# %% [markdown]
# # Search and cleaning
#
# An encoder that was trained on some labelled images finds neighbours of new ones, says which are
# of no known class, and finds wrong labels and copies. The commands `index`, `predict --index` and
# `audit` do this for a folder ([search](../search.md), [cleaning](../cleaning.md)); here are the
# functions behind them, on the digits of scikit-learn. The encoder never sees the digits 8 and 9.

# %%
from functools import partial

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits

from supcon_tf.cleaning import duplicate_pairs, label_errors, neighbor_probabilities, signatures
from supcon_tf.data import views
from supcon_tf.index import Index
from supcon_tf.losses import SupConLoss
from supcon_tf.models import contrastive_model, embedding_model, resnet

EPOCHS = 25  # quick: 1

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
images, labels = load_digits(return_X_y=True)
images = np.repeat(images.reshape(-1, 8, 8, 1) * 15, 3, axis=-1).astype("uint8")
known, unknown = np.flatnonzero(labels < 8), np.flatnonzero(labels >= 8)
trained, new = np.array_split(rng.permutation(known), 2)

data = tf.data.Dataset.from_tensor_slices((images[trained], labels[trained]))
crop = partial(views.random_resized_crop, area_range=(0.5, 1.0), flip_probability=0.0)
data = views.two_views(
    data.shuffle(1000, seed=0).batch(128), image_px=8, crop=crop, augmentation=views.identity
)
model = contrastive_model(
    resnet(18, width=0.125, stem="cifar"), image_shape=(8, 8, 3), projection=(64,)
)
model.compile(keras.optimizers.Adam(2e-3), SupConLoss(temperature=0.1))
model.fit(data, epochs=EPOCHS, shuffle=False, verbose=0)
embeddings = embedding_model(model).predict(images / 127.5 - 1, verbose=0)

# %% [markdown]
# ## An index
#
# The index holds the images that the encoder was trained on. `calibrate` compares half of the new
# images with it: at which similarity do 95 % of the nearest neighbours have the right label, and
# which distance do 95 % of the known images not exceed? The digits 8 and 9 measure how well
# unknown images are detected.

# %%
names = [f"{label}/{number}.png" for number, label in enumerate(labels)]
texts = labels.astype(str)
calibration, queries = np.array_split(new, 2)

index = Index(embeddings[trained], [names[i] for i in trained], texts[trained])
thresholds = index.calibrate(
    precision=0.95,
    images=(embeddings[calibration], texts[calibration]),
    unknown=embeddings[unknown],
)
match = thresholds.match
print(f"match from similarity {match.similarity:.3f}: precision {match.precision:.3f}", end="")
print(f", recall {match.recall:.3f}")
for score, measured in thresholds.detection.items():
    print(f"unknown score {score:11}: AUROC {measured.auroc:.3f}, FPR95 {measured.fpr95:.3f}")

# %% [markdown]
# AUROC is the probability that an unknown image has the higher score. FPR95 is the share of
# unknown images that pass as known at the threshold that keeps 95 % of the known ones: nearly
# half, as digits of an unknown class look like known ones.
#
# The first column shows images that are not in the index: six new ones, and two of the unknown
# digits. Beside each are its five nearest neighbours.

# %%
asked = np.concatenate([queries[:6], unknown[:2]])
neighbors = index.search(embeddings[asked], k=5)
scores = index.unknown_scores(embeddings[asked])
limit = thresholds.thresholds[thresholds.unknown_score]
for i, found, similarities, score in zip(asked, neighbors.labels, neighbors.similarities, scores):
    verdict = "unknown" if score > limit else "known"
    print(f"{names[i]:10} neighbours {' '.join(found)}, nearest {similarities[0]:.3f}: {verdict}")

numbers = {name: i for i, name in enumerate(names)}
table = [[i, *(numbers[path] for path in row)] for i, row in zip(asked, neighbors.paths)]
sheet = np.pad(images[table], [(0, 0), (0, 0), (0, 1), (0, 1), (0, 0)], constant_values=255)
sheet = sheet.transpose(0, 2, 1, 3, 4).reshape(8 * 9, 6 * 9, 3)
Image.fromarray(sheet).resize((324, 432), Image.Resampling.NEAREST).save("neighbors.png")

# %% [markdown]
# ## Wrong labels
#
# 5 % of the new images get a wrong label. Each image's label is compared with those of its nearest
# other images, by the rule of confident learning.

# %%
given = labels[new].copy()
wrong = rng.choice(len(new), len(new) // 20, replace=False)
given[wrong] = (given[wrong] + rng.integers(1, 8, len(wrong))) % 8

others = Index(embeddings[new], [names[i] for i in new]).search(embeddings[new], k=21)
position = {names[i]: n for n, i in enumerate(new)}
places = np.vectorize(position.get)(others.paths)[:, 1:]  # Without the image itself.
votes = neighbor_probabilities(others.similarities[:, 1:], given[places], num_classes=8)
errors = label_errors(votes, given)
right = {error.image for error in errors} & set(wrong)
print(f"{len(errors)} found, {len(right)} of the {len(wrong)} wrong labels among them")
for error in errors[:5]:
    print(f"{names[new[error.image]]:10} labelled {error.label}, suggested {error.suggestion}")

# %% [markdown]
# ## Copies
#
# Near-duplicates are compared by pixels. Ten brighter copies are added to the new images. Many
# digits of 8 px are nearly alike: at a similarity of 0.97, as for photos, 370 pairs are found. The
# threshold here is just above the most similar pair that is no copy.

# %%
copies = np.clip(images[new[:10]] * 0.8 + 40, 0, 255).astype("uint8")
small = tf.image.resize(np.concatenate([images[new], copies]), [64, 64])
pairs = duplicate_pairs(signatures(small), threshold=0.995)
planted = {(i, len(new) + i) for i in range(10)}
found = {(pair.first, pair.second) for pair in pairs}
print(f"{len(pairs)} pairs found, {len(found & planted)} of the 10 copies among them")
