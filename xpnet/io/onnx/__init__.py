"""ONNX files: networks written as graphs of ONNX's operators, and networks made of such files."""
