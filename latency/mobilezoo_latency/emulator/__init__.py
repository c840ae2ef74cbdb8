"""An emulated phone core: the arm64 runtime under QEMU, its executed blocks priced by llvm-mca.

Results are of kind `emulated`: deterministic counts, and an estimate with its error where a core is calibrated. They
are never mixed with measured times.
"""
