"""Pretrained encoders by name or file."""

import difflib
from pathlib import Path

import keras
from keras import layers

from supcon_tf.errors import UserError, check_integer, check_text
from supcon_tf.files import expanded
from supcon_tf.models.encoders import (
    applications,
    efficientnet_lite,
    keras_file,
    keras_hub,
    torch_resnet,
)
from supcon_tf.models.encoders.input_scaling import InputScaling, from_bytes
from supcon_tf.models.origin import Origin, with_origin

_TORCH = "torch:"
_HUB = "keras_hub:"


def pretrained(
    name: str, *, weights: str | None = "imagenet", image_px: int | None = None
) -> keras.Model:
    """A pretrained encoder that takes images as this package has them.

    Each network was trained with images of its own range. The scaling is the encoder's first layer,
    so all encoders take float RGB images in [-1, 1], which `views.Preprocessing` makes when its
    normalization is None (docs/finetune.md).

    Args:
      name: "efficientnet_lite0" (extra `pretrained`); a network of `keras.applications`, such as
        "ResNet50"; "keras_hub:PRESET", a preset or its directory (extra `keras-hub`); a `.keras`
        file of a model of this package or of any Keras model that takes images in [-1, 1]; or
        "torch:PATH", a PyTorch checkpoint of a ResNet of torchvision, timm or the SupCon authors.
      weights: "imagenet"; a file of weights; None for random weights. A file in `name` has its own.
      image_px: side to which the encoder resizes its images, bilinearly. None keeps their size,
        or resizes to the side of a network that takes one size only. Most networks reduce the sides
        by 32, so small images need it.

    Returns:
      A model from float [B, H, W, 3] to float32 features [B, D].

    Raises:
      UserError: an unknown name, weights that are not there, cannot be downloaded or are of another
        network, or an option out of range.

    Example:
      >>> from supcon_tf import models
      >>> encoder = models.pretrained("efficientnet_lite0", weights=None, image_px=96)
      >>> encoder.output_shape
      (None, 1280)
    """
    check_text("name", name, example="efficientnet_lite0")
    if weights is not None:
        check_text("weights", weights, example="imagenet")
        weights = "imagenet" if weights.lower() == "imagenet" else weights
    if image_px is not None:
        image_px = check_integer("image_px", image_px, at_least=1)
    network, scaling = _load(name, weights)

    images = keras.Input((None, None, 3), name="images")
    x, size = images, _fixed_size(network, image_px)
    if size is not None:
        resize = layers.Resizing(
            *size, data_format="channels_last", dtype="float32", name="input_resizing"
        )
        x = resize(x)
    features = network(x if scaling is None else scaling(x))
    if len(features.shape) == 4:
        features = layers.GlobalAveragePooling2D(
            data_format="channels_last", dtype="float32", name="features"
        )(features)
    else:
        features = layers.Activation("linear", dtype="float32", name="features")(features)
    encoder = keras.Model(images, features, name=f"pretrained_{network.name}")
    return with_origin(encoder, _origin(name, weights, network))


def _origin(name: str, weights: str | None, network: keras.Model) -> Origin:
    if name.startswith(_TORCH) or name.endswith(".keras"):
        return Origin(network.name, f"file {Path(name.removeprefix(_TORCH)).name}")
    if weights is None:
        return Origin(name, "random")
    if weights != "imagenet":
        return Origin(name, f"file {Path(weights).name}")
    return Origin(name, "those of the preset" if name.startswith(_HUB) else "ImageNet")


def _load(name: str, weights: str | None) -> tuple[keras.Model, InputScaling | None]:
    """The network and the layer that scales its images; None if it takes [-1, 1]."""
    is_file = name.startswith(_TORCH) or name.endswith(".keras")
    if is_file and weights != "imagenet":
        raise UserError(f"weights must be left out for the file {name!r}, got {weights!r}")
    if name.startswith(_TORCH):
        return torch_resnet.torch_resnet(expanded(name.removeprefix(_TORCH)))
    if name.startswith(_HUB):
        return keras_hub.hub_backbone(name.removeprefix(_HUB), weights)
    if name.endswith(".keras"):
        return keras_file.encoder_of_file(expanded(name)), None
    if name == "efficientnet_lite0":
        return _lite0(weights)
    builders = applications.builders()
    if name.lower() not in builders:
        known = {"efficientnet_lite0": "efficientnet_lite0"}
        known |= {lower: build.__name__ for lower, build in builders.items()}
        near = difflib.get_close_matches(name.lower().replace("_", ""), known, n=1, cutoff=0.5)
        advice = (
            f"did you mean {known[near[0]]!r}?"
            if near
            else f"known are {', '.join(known.values())}"
        )
        if Path(name).suffix in (".pth", ".pt", ".safetensors"):
            advice = f"write {_TORCH + name!r} for a PyTorch checkpoint"
        raise UserError(
            "name must be 'efficientnet_lite0', a network of keras.applications, "
            f"'keras_hub:PRESET', a .keras file or 'torch:PATH', got {name!r}; {advice}"
        )
    return applications.application(builders[name.lower()], weights)


def _lite0(weights: str | None) -> tuple[keras.Model, InputScaling]:
    if weights is None:
        network = efficientnet_lite.efficientnet_lite0()
    else:
        file = None if weights == "imagenet" else expanded(weights)
        network = efficientnet_lite.pretrained_lite0(file)
    return network, from_bytes(1 / 128, 127.0)


def _fixed_size(network: keras.Model, image_px: int | None) -> tuple[int, int] | None:
    """The size to resize images to, if any."""
    height, width = network.input_shape[1:3]
    if None not in (height, width) and image_px is None:
        return height, width
    if image_px is not None and (height or image_px, width or image_px) != (image_px, image_px):
        raise UserError(
            f"image_px must be left out: {network.name} takes images of {height} x {width} only, "
            f"got {image_px}"
        )
    return None if image_px is None else (image_px, image_px)
