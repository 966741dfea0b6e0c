"""The networks of `keras.applications`, with the images that each was trained with."""

import inspect
import sys
import warnings
from collections.abc import Callable

import keras
import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.files import expanded
from supcon_tf.models.encoders.input_scaling import InputScaling
from supcon_tf.models.encoders.keras_file import KERAS_ERRORS


def builders() -> dict[str, Callable[..., keras.Model]]:
    """The functions of `keras.applications` that build networks, by their names in lower case."""
    named = inspect.getmembers(keras.applications, inspect.isfunction)
    return {name.lower(): build for name, build in named}


def application(
    build: Callable[..., keras.Model], weights: str | None
) -> tuple[keras.Model, InputScaling]:
    """A network of `keras.applications` without its classifier, and the scaling of its images.

    Args:
      build: from `builders`.
      weights: "imagenet", which Keras downloads once; a file of weights without the classifier, as
        Keras downloads it or saves it (`.weights.h5`); None for random weights.

    Raises:
      UserError: the weights cannot be downloaded, are not there or are of another network.
    """
    name = build.__name__
    with warnings.catch_warnings():
        # MobileNets warn that weights of 224 px are loaded for images of any size.
        warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square")
        try:
            network = build(
                include_top=False,
                pooling="avg",
                weights="imagenet" if weights == "imagenet" else None,
            )
        except Exception as error:  # Keras raises no other class.
            if "URL fetch failure" not in str(error):
                raise
            raise UserError(
                f"the weights of {name} cannot be downloaded: {error}; download that file "
                "elsewhere and set weights to its path, or take efficientnet_lite0, whose weights "
                "are in a package"
            ) from None
    if weights not in ("imagenet", None):
        _load_weights(network, weights)
    return network, _scaling(build)


def _load_weights(network: keras.Model, path: str) -> None:
    file = expanded(path)
    if not file.is_file():
        raise UserError(f"no file of weights {path!r}: give a path, 'imagenet' or None")
    if file.suffix not in (".h5", ".hdf5"):
        raise UserError(
            f"weights of {network.name} must be a .h5 file, got {path!r}: give the path of a "
            ".keras file, or 'torch:PATH', as the name"
        )
    try:
        with warnings.catch_warnings():
            # Keras only warns of weights that are not in the file, and leaves them random.
            warnings.filterwarnings("error", category=UserWarning)
            network.load_weights(file)
    except (*KERAS_ERRORS, AttributeError, IndexError, UserWarning) as error:
        # Keras lists all that is missing in one line.
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            f"{path!r} is damaged, or not of {network.name} without its classifier: {reason}"
        ) from None


def _scaling(build: Callable[..., keras.Model]) -> InputScaling:
    """What the network's `preprocess_input` does: black, and white in one channel, show it."""
    probes = np.zeros((4, 1, 1, 3), "float32")
    for channel in range(3):
        probes[channel + 1, ..., channel] = 255
    outputs = sys.modules[build.__module__].preprocess_input(probes)[:, 0, 0].astype("float64")
    black, slopes = outputs[0], (outputs[1:] - outputs[0]) / 255  # slopes: [input, output]
    order = np.abs(slopes).argmax(axis=1)  # Output channel of red, green and blue.
    scale = 127.5 * slopes[range(3), order]
    return InputScaling(
        scale.tolist(), (black[order] + scale).tolist(), bgr=order[0] == 2, name="input_scaling"
    )
