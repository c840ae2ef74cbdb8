"""A phone's NPU on a desk: Qualcomm's emulation of the Hexagon HTP, through ONNX Runtime's QNN provider.

It shows what the NPU computes, in how many partitions, and which operators it refuses. It is an emulation of numbers:
its times mean nothing, and nothing is measured here. The libraries have Qualcomm's own license: users install them.
"""
