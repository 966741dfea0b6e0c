"""Writes an ONNX, LiteRT or OpenVINO file of a SavedModel, and what is needed to use it."""

import logging
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from supcon_tf.errors import UserError
from supcon_tf.evaluation.saved_model import LABELS_FILE
from supcon_tf.evaluation.temperature import TEMPERATURE_FILE
from supcon_tf.exporting import prepare
from supcon_tf.exporting.description import describe, describe_pixels
from supcon_tf.exporting.formats import FORMATS, check_options, optional_module
from supcon_tf.exporting.signatures import (
    Function,
    convertible_signatures,
    image_px,
    load_export,
    saved,
)
from supcon_tf.json_files import write_checksums, write_json
from supcon_tf.run_dir import CALIBRATION_FILE

# The newest operation set that all of tf2onnx supports.
ONNX_OPSET = 18
# Smaller constants, such as biases and batch statistics, stay float32.
_MIN_FLOAT16_SIZE = 256


def write_model(
    export: Path,
    output: Path,
    *,
    format: str,
    quantize: str = "none",
    signature: str | None = None,
    images: Iterable[np.ndarray] = (),
) -> None:
    """Writes a model in another format, with labels.txt, model.json and prepare.py beside it.

    Also temperature.json and calibration.json, if the export has them.

    Args:
      export: SavedModel of `save_serving_model`.
      output: new or empty directory.
      format: "onnx", "litert" or "openvino".
      quantize: "none"; "float16" stores the weights in 16 bits and computes in float32; "int8"
        (LiteRT) also computes in 8 bits.
      signature: the one that an ONNX or OpenVINO file has, "serving_default" or "serving_pixels";
        None is the first. A LiteRT file has both.
      images: uint8 [H, W, 3], with which int8 measures the ranges of the activations.

    Raises:
      UserError: options that the format does not have, a missing package, or a model with
        operations that the format does not have.
    """
    check_options(format, quantize=quantize, signature=signature)
    chosen = FORMATS[format]
    loaded = load_export(export)
    functions = convertible_signatures(loaded)
    if not chosen.holds_all_signatures:
        name = signature or "serving_default"
        functions = {name: functions[name]}
    pixels = describe_pixels(loaded.evaluation_view, image_px(loaded))
    output = output.resolve()  # "." has no name.
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        file = partial / chosen.file
        if format == "onnx":
            _write_onnx(file, functions, quantize)
        elif format == "litert":
            _write_litert(file, loaded, functions, quantize, images)
        else:
            _write_openvino(file, loaded, functions, quantize)
        for name in (LABELS_FILE, TEMPERATURE_FILE, CALIBRATION_FILE):
            if (export / name).is_file():
                shutil.copyfile(export / name, partial / name)
        if pixels is not None:
            shutil.copyfile(prepare.__file__, partial / "prepare.py")
        content = describe(functions, pixels, file=chosen.file, format=format, quantize=quantize)
        write_json(partial / "model.json", content)
        write_checksums(partial)
        os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_onnx(file: Path, functions: Mapping[str, Function], quantize: str) -> None:
    onnx, tf2onnx = optional_module("onnx"), optional_module("tf2onnx")
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    [function] = functions.values()
    try:
        model, _ = tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=ONNX_OPSET
        )
        if quantize == "float16":
            _store_weights_in_float16(onnx, model)
        onnx.checker.check_model(model)
    except (ValueError, RuntimeError, KeyError, onnx.checker.ValidationError) as error:
        raise _unsupported("onnx", error) from error
    file.write_bytes(model.SerializeToString())


def _store_weights_in_float16(onnx: Any, model: Any) -> None:
    """Large float32 constants become float16 followed by a cast, which runs once at loading."""
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < _MIN_FLOAT16_SIZE:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = weight.name
        stored = onnx.numpy_helper.from_array(values.astype(np.float16), name + "_float16")
        weight.CopyFrom(stored)
        casts.append(
            onnx.helper.make_node("Cast", [stored.name], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _write_litert(
    file: Path,
    loaded: Any,
    functions: Mapping[str, Function],
    quantize: str,
    images: Iterable[np.ndarray],
) -> None:
    view = loaded.evaluation_view

    def samples() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        for image in images:
            yield "serving_default", {"images": image[None]}
            pixels = view(tf.constant(image[None] / np.float32(255))).numpy()
            yield "serving_pixels", {"pixels": pixels}

    with saved(loaded, functions) as folder, warnings.catch_warnings():
        # The converter's own use of tf.lite.Interpreter.
        warnings.filterwarnings("ignore", category=UserWarning, module="tensorflow")
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, list(functions))
        if quantize != "none":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        elif quantize == "int8":
            converter.representative_dataset = samples
        try:
            content = converter.convert()
        except ConverterError as error:
            raise _unsupported("litert", error) from error
    file.write_bytes(content)


def _write_openvino(
    file: Path, loaded: Any, functions: Mapping[str, Function], quantize: str
) -> None:
    openvino = optional_module("openvino")
    [function] = functions.values()
    # OpenVINO reads this signature.
    with saved(loaded, {"serving_default": function}) as folder:
        try:
            # Not openvino.convert_model, which sends usage statistics.
            model = openvino.Core().read_model(folder)
        except RuntimeError as error:
            raise _unsupported("openvino", error) from error
        openvino.save_model(model, file, compress_to_fp16=quantize == "float16")


def _unsupported(format: str, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"--format={format} cannot hold this model: {reason}")
