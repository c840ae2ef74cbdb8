"""Program check: compute a saved Core ML ML Program without a Mac.

The package is read through coremltools' own loader and each operation is computed in PyTorch, by the definitions in
coremltools' MIL operation reference. It proves the program, not Apple's execution of it: figures from here are called
"program check", never "verified on Core ML". On macOS `predict` is used instead.
"""
