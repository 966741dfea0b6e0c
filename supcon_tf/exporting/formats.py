"""The file formats, what each can hold, and the packages that it needs.

Importing this module does not import TensorFlow.
"""

import dataclasses
import importlib
from types import ModuleType

from supcon_tf.errors import UserError, check_choice

SAVED_MODEL = "tf_saved_model"
# Signature -> its input.
SIGNATURES = {"serving_default": "images", "serving_pixels": "pixels"}


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format.

    Args:
      file: name of the model's file.
      quantizations: of its weights; int8 also of its operations.
      holds_all_signatures: whether one file holds all signatures.
    """

    file: str
    quantizations: tuple[str, ...]
    holds_all_signatures: bool = False


FORMATS = {
    SAVED_MODEL: Format("saved_model.pb", ("none",), holds_all_signatures=True),
    "onnx": Format("model.onnx", ("none", "float16")),
    "litert": Format("model.tflite", ("none", "float16", "int8"), holds_all_signatures=True),
    "openvino": Format("model.xml", ("none", "float16")),
}
QUANTIZATIONS = ("none", "float16", "int8")


def check_options(name: str, *, quantize: str, signature: str | None) -> None:
    """Checks that a format can be written like this.

    Raises:
      UserError: an unknown format, quantization or signature, or one that the format does not have.
    """
    check_choice("--format", name, tuple(FORMATS))
    check_choice("--quantize", quantize, QUANTIZATIONS)
    chosen = FORMATS[name]
    if quantize not in chosen.quantizations:
        have = [each for each in FORMATS if quantize in FORMATS[each].quantizations]
        raise UserError(
            f"--format={name} has no --quantize={quantize}: available with --format="
            f"{' and '.join(have)}"
        )
    if signature is None:
        return
    check_choice("--signature", signature, tuple(SIGNATURES))
    if chosen.holds_all_signatures:
        raise UserError(f"--format={name} holds all signatures: leave out --signature")


def optional_module(name: str) -> ModuleType:
    """Imports a module of the `export` extra.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"this format needs {name.partition('.')[0]} ({error}): pip install '.[export]'"
        ) from error
