"""ResNets from PyTorch checkpoints: torchvision's and timm's layout, and the SupCon authors'."""

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.models.encoders.input_scaling import InputScaling, from_mean_and_deviation
from supcon_tf.models.encoders.torch_file import read_torch_file
from supcon_tf.models.encoders.torch_weights import load_torch_weights
from supcon_tf.models.resnet import resnet

_DEPTHS = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
    (True, (3, 24, 36, 3)): 200,
}
# Means and standard deviations in [0, 1]. Those of CIFAR are in the SupCon authors' code.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
_STATE_DICTS = ("model", "state_dict", "model_state_dict")


def torch_resnet(file: Path) -> tuple[keras.Model, InputScaling]:
    """A ResNet of depth 18 to 200 with the weights of a PyTorch checkpoint, without its classifier.

    The encoder may be a part of the saved model, such as `encoder.` or `module.encoder.`; its other
    parts are ignored. The stem is that of the file.

    Args:
      file: a state dict, or a dict with one as "model" or "state_dict".

    Returns:
      The network, and the scaling of its images: with ImageNet's mean and deviation, or, if the
      stem is CIFAR's, with those of the data set in the saved options (the SupCon authors' files
      have them), CIFAR-10's if there are none.

    Raises:
      UserError: no checkpoint, or of another network.
    """
    content = read_torch_file(file)
    tensors, source = _encoder_tensors(content, file), repr(str(file))
    depth = _depth(tensors, source)
    is_cifar = tensors["conv1.weight"].shape[-1] == 3
    network = resnet(
        depth,
        stem="cifar" if is_cifar else "pytorch",
        shortcut="identity_where_possible",
        zero_init_last_gamma=False,
    )
    has_shortcut = any(".shortcut." in name for name in tensors)

    def torch_name(layer: str) -> str:
        part = re.match(r"group(\d)_block(\d+)_(.*)", layer)
        if part is None:
            return {"stem_conv": "conv1", "stem_bn": "bn1"}[layer]
        module = part[3]
        if module.startswith("shortcut"):
            module = "shortcut." if has_shortcut else "downsample."
            module += "0" if part[3].endswith("conv") else "1"
        return f"layer{part[1]}.{int(part[2]) - 1}.{module}"

    load_torch_weights(network, tensors, torch_name, source=source, ignored=("fc", "head"))
    constants = _cifar_constants(content, source) if is_cifar else _IMAGENET
    return network, from_mean_and_deviation(*constants)


def _encoder_tensors(content: dict[str, Any], file: Path) -> dict[str, np.ndarray]:
    """The tensors of the ResNet in a checkpoint, under torchvision's names."""
    found = (content.get(key) for key in _STATE_DICTS)
    state = next((each for each in found if isinstance(each, dict)), content)
    tensors = {str(name): each for name, each in state.items() if isinstance(each, np.ndarray)}
    stem = "conv1.weight"
    prefixes = [
        name.removesuffix(stem)
        for name in tensors
        if re.fullmatch(rf"(.*\.)?{re.escape(stem)}", name) and not re.search(r"layer\d\.", name)
    ]
    if len(prefixes) != 1:
        what = f"{len(prefixes)} ResNets: {', '.join(prefixes)}" if prefixes else "no ResNet"
        raise UserError(
            f"{str(file)!r} has {what} (a tensor 'conv1.weight', perhaps after a prefix): give a "
            "ResNet of torchvision, timm or the SupCon authors"
        )
    prefix = prefixes[0]
    return {
        name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)
    }


def _depth(tensors: dict[str, np.ndarray], source: str) -> int:
    blocks = {
        tuple(found.groups())
        for found in map(re.compile(r"layer(\d)\.(\d+)\.").match, tensors)
        if found
    }
    counts = tuple(sum(group == number for group, _ in blocks) for number in "1234")
    has_bottlenecks = "layer1.0.conv3.weight" in tensors
    depth = _DEPTHS.get((has_bottlenecks, counts))
    if depth is None or tensors["conv1.weight"].ndim != 4:
        raise UserError(
            f"{source} has {counts} {'bottleneck' if has_bottlenecks else 'basic'} blocks per "
            f"group: give a ResNet of depth {', '.join(map(str, _DEPTHS.values()))}"
        )
    return depth


def _cifar_constants(
    content: dict[str, Any], source: str
) -> tuple[Sequence[float], Sequence[float]]:
    """Those of the data set in the options that the SupCon authors' code saves.

    CIFAR-10's if the checkpoint has no options or they name no data set.

    Raises:
      UserError: constants that are not three numbers, or those of another data set are not known.
    """
    options = content.get("opt")
    named = options if isinstance(options, Mapping) else vars(options) if options else {}
    given = [named.get(name) for name in ("mean", "std")]
    if given != [None, None]:
        mean, deviation = map(_numbers, given)
        if mean is None or deviation is None or min(deviation) <= 0:
            raise UserError(
                f"{source} was trained with mean {given[0]!r} and std {given[1]!r}, which must "
                "both be three numbers: correct its options 'opt'"
            )
        return mean, deviation
    dataset = named.get("dataset") or "cifar10"
    if dataset not in _CIFAR:
        raise UserError(
            f"{source} was trained on {dataset!r} with an unknown mean and std: write both, for "
            "pixels in [0, 1], into its options 'opt'"
        )
    return _CIFAR[dataset]


def _numbers(value: Any) -> list[float] | None:
    """Three numbers, also as the text of a command line such as "(0.5, 0.5, 0.5)"; else None."""
    try:
        numbers = ast.literal_eval(value) if isinstance(value, str) else value
        found = [float(number) for number in numbers]
    except (ValueError, SyntaxError, TypeError):
        return None
    return found if len(found) == 3 else None
