"""A trained model as an ONNX, LiteRT or OpenVINO file, with its preprocessing inside.

`python -m supcon_tf.export` writes the files. `load_model` does not import TensorFlow.
"""

from supcon_tf.exporting.runtimes import load_model

__all__ = ["load_model"]
