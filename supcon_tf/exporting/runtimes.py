"""Runs exported files in the runtimes of their formats."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from supcon_tf.errors import UserError, check_choice, check_integer
from supcon_tf.exporting.formats import SIGNATURES, optional_module

Model = Callable[[np.ndarray], dict[str, np.ndarray]]


def load_model(
    file: str | Path, *, signature: str | None = None, threads: int | None = None
) -> Model:
    """Loads an exported file for the CPU.

    Args:
      file: model.onnx, model.tflite or model.xml.
      signature: "serving_default" or "serving_pixels". None is the one that the file has, and
        "serving_default" of a LiteRT file, which has both.
      threads: of the runtime; None leaves it to the runtime.

    Returns:
      A function from a batch, `images` uint8 [B, H, W, 3] or `pixels` float32 [B, P, P, 3], to the
      outputs: name, such as "embedding" or "label" -> array [B, ...].

    Raises:
      UserError: another file or none, a signature that is unknown or not in the file, threads < 1,
        or the runtime is not installed. The function raises it for a batch of another shape or
        dtype, or without images.
    """
    file = Path(file)
    if signature is not None:
        check_choice("signature", signature, tuple(SIGNATURES))
    if threads is not None:
        check_integer("threads", threads, at_least=1)
    if file.suffix not in (".onnx", ".tflite", ".xml"):
        raise UserError(f"no .onnx, .tflite or .xml file: {str(file)!r}")
    if not file.is_file():
        raise UserError(f"no file {str(file)!r}: python -m supcon_tf.export writes it")
    if file.suffix == ".tflite":
        return _load_litert(file, signature or "serving_default", threads)
    load = _load_onnx if file.suffix == ".onnx" else _load_openvino
    name, run = load(file, threads)
    if signature is not None and SIGNATURES[signature] != name:
        raise UserError(
            f"{str(file)!r} takes {name!r} and has no {signature!r}: leave out signature"
        )
    return run


def check_batch(name: str, batch: np.ndarray) -> None:
    """Raises a UserError for what a runtime would convert, or answer with old results."""
    wanted = np.float32 if name == "pixels" else np.uint8
    if batch.dtype != wanted or batch.ndim != 4 or batch.shape[3] != 3 or not len(batch):
        raise UserError(
            f"{name} must be {np.dtype(wanted)} [B, H, W, 3] with B >= 1, got {batch.dtype} "
            f"{list(batch.shape)}"
        )


def _load_onnx(file: Path, threads: int | None) -> tuple[str, Model]:
    """The name of the input, and the model."""
    onnxruntime = optional_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    [given] = session.get_inputs()

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        check_batch(given.name, batch)
        return dict(zip(names, session.run(names, {given.name: batch}), strict=True))

    return given.name, run


def _load_litert(file: Path, signature: str, threads: int | None) -> Model:
    interpreter = optional_module("ai_edge_litert.interpreter")
    runner = interpreter.Interpreter(str(file), num_threads=threads).get_signature_runner(signature)

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        check_batch(SIGNATURES[signature], batch)
        return runner(**{SIGNATURES[signature]: batch})

    return run


def _load_openvino(file: Path, threads: int | None) -> tuple[str, Model]:
    """The name of the input, and the model."""
    openvino = optional_module("openvino")
    # Some CPUs would compute in bfloat16.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    compiled = openvino.Core().compile_model(file, "CPU", settings)
    name = compiled.input(0).get_any_name()

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        check_batch(name, batch)
        return {output.get_any_name(): values for output, values in compiled([batch]).items()}

    return name, run
