"""model.json: the inputs and outputs of an exported file, and how to prepare its pixels."""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np
import tensorflow as tf

from supcon_tf.data.preprocessing import EvalCrop
from supcon_tf.exporting.prepare import prepare
from supcon_tf.exporting.signatures import Function

_CONTENT = {
    "images": "RGB images of any size, as decoded; the preprocessing is in the file",
    "pixels": "images as prepare.py makes them of the options in `pixels`",
}


def describe_signature(function: Function) -> dict[str, Any]:
    """The inputs and outputs of a signature as JSON: dtype, shape, content."""
    concrete = function.get_concrete_function()
    [spec] = concrete.function_type.parameters.values()
    inputs = {spec.name: _tensor(spec.type_constraint) | {"content": _CONTENT[spec.name]}}
    outputs = {name: _tensor(spec) for name, spec in concrete.structured_outputs.items()}
    return {"inputs": inputs, "outputs": dict(sorted(outputs.items()))}


def describe_pixels(view: Callable[[tf.Tensor], tf.Tensor], image_px: int) -> dict[str, Any] | None:
    """The options of `prepare` with which it makes the same pixels.

    They are measured and then checked on images, so that they are right whatever the settings of
    the run were.

    Args:
      view: the evaluation view of float32 images [B, H, W, 3] in [0, 1].
      image_px: its size.

    Returns:
      Arguments of `prepare`, or None if the crop is not one of `views.eval_crop` with a padding of
      3 * image_px at most.
    """
    # Views of a black and of a white image, whose pixels are all the same: [3].
    black, white = (
        view(tf.fill([1, image_px, image_px, 3], value))[0, 0, 0].numpy() for value in (0.0, 1.0)
    )
    scaled = {"scale": (white - black).tolist(), "offset": black.tolist()}
    paddings = _possible_paddings(view, image_px, black, white)
    full = image_px + paddings.stop
    # Sides of full * (full + 1) / image_px give another crop for each padding.
    side = full * (full + 1) // image_px + 1
    sizes = ((image_px + 1, 2 * image_px), (3 * image_px + 1, 2 * image_px + 3), (side, side + 9))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes if paddings]
    expected = [view(tf.constant(image[None] / np.float32(255)))[0].numpy() for image in images]
    crops = [("none", 0)] * (0 in paddings)
    crops += itertools.product(get_args(EvalCrop)[:3], paddings)
    for method, padding in crops:
        options = {"image_px": image_px, "eval_crop": method, "padding_px": padding, **scaled}
        made = (prepare(image, **options) for image in images)
        if all(np.allclose(*pair, atol=1e-3) for pair in zip(made, expected, strict=True)):
            return options
    return None


def _possible_paddings(
    view: Callable[[tf.Tensor], tf.Tensor], image_px: int, black: np.ndarray, white: np.ndarray
) -> range:
    """The paddings, up to 3 * image_px, that magnify a ramp as much as the view does."""
    last = 3 * image_px
    if image_px < 4:
        return range(last + 1)
    # Resizing keeps a ramp but at the edges: its slope in the middle is that of the crop.
    side = 4 * image_px
    ramp = np.broadcast_to(np.arange(side, dtype=np.float32)[:, None] / side, (1, side, side, 3))
    row = view(tf.constant(ramp))[0, image_px // 2].numpy()  # [image_px, 3]
    left, right = image_px // 4, image_px - 1 - image_px // 4
    rise = (row[right] - row[left]).sum() / (white - black).sum()
    crop_px = side * image_px * rise / (right - left)
    if not 0.5 < crop_px < side + 0.5:
        return range(0)
    # crop_px is image_px / (image_px + padding) of the side, maybe rounded down.
    full = image_px * side
    lowest = math.floor(full / (crop_px + 1)) - image_px
    highest = math.ceil(full / crop_px + 1e-2) - image_px
    return range(max(lowest, 0), min(highest, last) + 1)


def _tensor(spec: Any) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}


def describe(
    signatures: Mapping[str, Function],
    pixels: dict[str, Any] | None,
    **options: str,
) -> dict[str, Any]:
    """The content of model.json."""
    described = {name: describe_signature(function) for name, function in signatures.items()}
    return {**options, "signatures": described, "pixels": pixels}
