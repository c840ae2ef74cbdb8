"""Program check of Core AI: compute a saved `.aimodel` in PyTorch, without a Mac.

The program is read through the MLIR bindings of coreai-core and each operation is computed in PyTorch, by the
definitions in the Core AI dialect's operation reference. It proves the program, not Apple's execution of it: figures
from here are called "program check", never "verified on Core AI".
"""
