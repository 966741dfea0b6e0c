"""Runs exported files in the runtimes of their formats."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.exporting.formats import SIGNATURES, optional_module

Model = Callable[[np.ndarray], dict[str, np.ndarray]]


def load_model(
    file: Path, *, signature: str = "serving_default", threads: int | None = None
) -> Model:
    """Loads an exported file for the CPU.

    Args:
      file: model.onnx, model.tflite or model.xml.
      signature: of a LiteRT file, "serving_default" or "serving_pixels"; other files have one.
      threads: of the runtime; None leaves it to the runtime.

    Returns:
      A function from a batch, `images` uint8 [B, H, W, 3] or `pixels` float32 [B, P, P, 3], to the
      outputs: name, such as "embedding" or "label" -> array [B, ...].

    Raises:
      UserError: another file, or the runtime is not installed.
    """
    loaders = {".onnx": _load_onnx, ".xml": _load_openvino}
    if file.suffix == ".tflite":
        return _load_litert(file, signature, threads)
    if file.suffix not in loaders:
        raise UserError(f"no .onnx, .tflite or .xml file: {str(file)!r}")
    return loaders[file.suffix](file, threads)


def _load_onnx(file: Path, threads: int | None) -> Model:
    onnxruntime = optional_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    [given] = session.get_inputs()

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {given.name: batch}), strict=True))

    return run


def _load_litert(file: Path, signature: str, threads: int | None) -> Model:
    interpreter = optional_module("ai_edge_litert.interpreter")
    runner = interpreter.Interpreter(str(file), num_threads=threads).get_signature_runner(signature)

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        return runner(**{SIGNATURES[signature]: batch})

    return run


def _load_openvino(file: Path, threads: int | None) -> Model:
    openvino = optional_module("openvino")
    # Some CPUs would compute in bfloat16.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    compiled = openvino.Core().compile_model(file, "CPU", settings)

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        return {output.get_any_name(): values for output, values in compiled([batch]).items()}

    return run
