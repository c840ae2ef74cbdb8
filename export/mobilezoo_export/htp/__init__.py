"""Qualcomm's Hexagon NPU (HTP) on a desk: its installed emulation, and the process that compiles for it and runs on it.

`mobilezoo device setup npu` installs it; the libraries have Qualcomm's own license, and none of them comes with
mobilezoo.
"""
