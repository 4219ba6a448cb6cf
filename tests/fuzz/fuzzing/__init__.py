"""Stored folders and ONNX files, altered in many ways, and what reading them may do: nothing but say no, or work."""
