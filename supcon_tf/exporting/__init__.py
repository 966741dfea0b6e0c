"""A trained model as an ONNX, LiteRT or OpenVINO file, with its preprocessing inside."""
