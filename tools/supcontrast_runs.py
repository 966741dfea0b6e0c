"""The runs of compare_supcontrast.py: views, training on both sides, evaluation."""

import argparse
import copy
import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from supcontrast_recipe import LOGGED, cosine_rates, statistics
from tqdm import tqdm

from supcon_tf.errors import UserError

FACTORS = ("conv", "kernel", "bias", "shortcut")
# Contender of this package -> what it has as PyTorch does, and other changes.
LAYOUTS: dict[str, set[str]] = {
    "pytorch": {*FACTORS},
    "released": set(),
    **{f"only {factor}": {factor} for factor in FACTORS},
    **{f"without {factor}": {*FACTORS} - {factor} for factor in FACTORS},
    "zero gammas": {*FACTORS, "zero gammas"},
    "decayed bn": {*FACTORS, "decayed bn"},
    "same weights": {*FACTORS, "decayed bn", "same weights"},
}


def run(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains one contender and evaluates its features."""
    data = load(seed, args)
    if name == "torch":
        log, features = train_torch(data, seed, args)
    else:
        log, features = train_ours(LAYOUTS[name], data, seed, args)
    per_epoch = np.array([row["loss"] for row in log]).reshape(args.epochs, -1).mean(1)
    first = [row for row in log if "mean cosine" in row]
    return {
        "losses": per_epoch.tolist(),
        **accuracies(features, data, args),
        "steps": {key: [row[key] for row in first] for key in LOGGED},
    }


def load(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Batches of views and evaluation images of the authors' recipe."""
    from supcon_tf import config
    from supcon_tf.data.pipeline import evaluation_batches, training_batches

    source = {
        "data_dir": args.data_dir,
        "train_split": f"train[:{args.images}]",
        "test_split": f"test[:{args.test_images}]",
    }
    bindings = [f"sources.tfds.{key} = {value!r}" for key, value in source.items()]
    config.parse(["cifar10/pytorch_supcon_resnet50.gin"], bindings)
    # Copying resolves a gin reference: it calls @name() and looks up %NAME.
    images, preprocessing, augmentation = (
        copy.deepcopy(config.bound_value(f"pretrain.run.{key}"))
        for key in ("source", "preprocessing", "augmentation")
    )
    batches = training_batches(
        images.train,
        preprocessing=preprocessing,
        augmentation=augmentation,
        num_views=2,
        batch_size=args.batch,
        num_classes=10,
        seed=seed,
    )
    crops = {
        split: evaluation_batches(part.in_order(), preprocessing=preprocessing, batch_size=250)
        for split, part in (("train", images.train), ("test", images.test))
    }
    labels = {"train": images.train.labels, "test": images.test.labels}
    return {"batches": batches, "crops": crops, "labels": labels}


def steps_per_epoch(args: argparse.Namespace) -> int:
    return args.images // args.batch


def epochs_of(data: dict[str, Any], args: argparse.Namespace) -> Iterator[Any]:
    """The epoch, views [B, 2, 32, 32, 3] and labels [B] of each step."""
    steps = steps_per_epoch(args)
    total = args.epochs * steps
    dataset = data["batches"](0, total)
    shown = tqdm(dataset, total=total, unit="step", leave=False, mininterval=5)
    for step, (views, labels) in enumerate(shown):
        yield step // steps, views, labels


def peer_command(seed: int, args: argparse.Namespace, **more: Any) -> list[str]:
    """The command of the PyTorch loop."""
    options = {
        "seed": seed,
        "batch": args.batch,
        "epochs": args.epochs,
        "steps": steps_per_epoch(args),
        "record": args.record,
        "threads": args.threads,
        "width": args.width,
        "stem": args.stem,
        "rates": json.dumps(cosine_rates(args.rate, args.cosine_epochs)),
        "weight_decay": args.decay,
        **more,
    }
    script = Path(__file__).parent / "supcontrast_peer.py"
    return [args.peer_python, str(script), *(f"--{key}={value}" for key, value in options.items())]


def train_torch(data: dict[str, Any], seed: int, args: argparse.Namespace) -> tuple[list, dict]:
    """Feeds the views to supcontrast_peer.py; returns its log and features."""
    sizes = {split: len(labels) for split, labels in data["labels"].items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.npy"
        command = peer_command(seed, args, images=sum(sizes.values()), features=file)
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(args.threads)}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        ) as peer:
            assert peer.stdin is not None
            assert peer.stdout is not None
            try:
                for _, views, labels in epochs_of(data, args):
                    peer.stdin.write(labels.numpy().tobytes() + views.numpy().tobytes())
                for split in sizes:
                    for crops, _ in data["crops"][split]:
                        peer.stdin.write(crops.numpy().tobytes())
                peer.stdin.close()
            except BrokenPipeError:
                raise UserError(f"the peer {args.peer_python} ended: see its error above") from None
            log = json.loads(peer.stdout.read().splitlines()[-1])
        features = np.load(file)
    return log, {"train": features[: sizes["train"]], "test": features[sizes["train"] :]}


def copy_initial_weights(model: Any, seed: int, args: argparse.Namespace) -> None:
    """Sets a model with PyTorch's layout to the weights that the PyTorch loop starts from."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "initial.npz"
        command = peer_command(seed, args, images=0, features="", initial=file)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        theirs = dict(np.load(file))
    kernels = {2: (1, 0), 4: (2, 3, 1, 0)}
    renamed = {
        our_path(name): value.transpose(kernels.get(value.ndim, (0,)))
        for name, value in theirs.items()
        if name.endswith((".weight", ".bias"))
    }
    for variable in model.trainable_variables:
        layer, kind = variable.path.split("/")[-2:]
        kind = {"kernel": "weight", "gamma": "weight", "beta": "bias"}.get(kind, kind)
        variable.assign(renamed.pop(f"{layer}/{kind}"))
    assert not renamed


def our_path(name: str) -> str:
    """Name of a weight of torch_supcon's ResNet-18 -> layer here / weight or bias."""
    *places, kind = name.split(".")
    known = {"0.0": "stem_conv", "0.1": "stem_bn"}
    known |= {"1.0": "projection_head_dense1", "1.2": "projection_head_dense2"}
    if ".".join(places) in known:
        return f"{known['.'.join(places)]}/{kind}"
    _, number, *inner = places  # Blocks follow the four layers of the stem.
    group, block = divmod(int(number) - 4, 2)
    part = {"shortcut.0": "shortcut_conv", "shortcut.1": "shortcut_bn"}.get(
        ".".join(inner), inner[0]
    )
    return f"group{group + 1}_block{block + 1}_{part}/{kind}"


def train_ours(
    layout: set[str], data: dict[str, Any], seed: int, args: argparse.Namespace
) -> tuple[list, dict]:
    """Trains this package's model in this process; returns the log and the features."""
    import keras
    import tensorflow as tf

    from supcon_tf import models
    from supcon_tf.losses import supcon_loss

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = build(layout, args.width, args.stem)
    if "same weights" in layout:
        copy_initial_weights(model, seed, args)
    parts = models.model_parts(model)
    groups = [parts[name].trainable_variables for name in ("projection_head", "encoder")]
    variables = [variable for group in groups for variable in group]
    decays = [
        args.decay * ("decayed bn" in layout or not variable.path.endswith(("gamma", "beta")))
        for variable in variables
    ]
    optimizer = keras.optimizers.SGD(0.0, momentum=0.9)
    optimizer.build(variables)

    @tf.function
    def step(views: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            projections = model(views, training=True)
            loss = tf.reduce_mean(supcon_loss(labels, projections, temperature=0.1))
            objective = loss / 0.07  # The authors' temperature over their base temperature.
        gradients = tape.gradient(objective, [variable.value for variable in variables])
        count = len(groups[0])
        norms = tf.linalg.global_norm(gradients[:count]), tf.linalg.global_norm(gradients[count:])
        decayed = [g + d * v for g, d, v in zip(gradients, decays, variables, strict=True)]
        optimizer.apply(decayed, variables)
        return loss, tf.reshape(projections, [-1, projections.shape[-1]]), norms

    rates = cosine_rates(args.rate, args.cosine_epochs)
    log: list[dict[str, float]] = []
    for epoch, views, labels in epochs_of(data, args):
        optimizer.learning_rate = rates[epoch]
        loss, projections, norms = step(views, labels)
        row = {"loss": float(loss)}
        if len(log) < args.record:
            row |= statistics(projections.numpy())
            row["gradient of the head"], row["gradient of the encoder"] = map(float, norms)
        log.append(row)
    embed = tf.function(functools.partial(models.embedding_model(model), training=False))
    features = {
        split: np.concatenate([embed(crops).numpy() for crops, _ in batches])
        for split, batches in data["crops"].items()
    }
    return log, features


def build(layout: set[str], width: float, stem: Any = "cifar") -> Any:
    """The model with PyTorch's settings of the factors in `layout`, and the released others."""
    import keras

    from supcon_tf import models

    he_normal = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    encoder = models.resnet(
        18,
        width=width,
        stem=stem,
        zero_init_last_gamma="zero gammas" in layout,
        kernel_initializer=he_normal if "conv" in layout else "variance_scaling",
        shortcut="identity_where_possible" if "shortcut" in layout else "projection",
    )
    head = functools.partial(
        models.projection_head,
        kernel_initializer=models.FanInUniform() if "kernel" in layout else None,
        last_bias="bias" in layout,
        bias_initializer=models.FanInUniform() if "bias" in layout else "zeros",
    )
    return models.contrastive_model(
        encoder,
        image_shape=(32, 32, 3),
        projection=(int(512 * width), 128),
        normalize_embedding=False,
        projection_head=head,
    )


def accuracies(features: dict, data: dict[str, Any], args: argparse.Namespace) -> dict[str, float]:
    """kNN and logistic regression on the features, as fractions of the test images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from supcon_tf.evaluation import knn_probabilities

    train, test = (data["labels"][split] for split in ("train", "test"))
    votes = knn_probabilities(
        features["test"], features["train"], train, num_classes=10, num_neighbors=20
    )
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, tol=1e-3))
    regression.fit(features["train"], train)
    return {
        "knn": float(np.mean(votes.argmax(1) == test)),
        "logistic": float(regression.score(features["test"], test)),
    }
