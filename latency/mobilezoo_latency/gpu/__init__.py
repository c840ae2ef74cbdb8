"""A phone's GPU on a desk: LiteRT's own GPU accelerator (ML Drift on WebGPU) on a Vulkan driver in software.

It shows what the accelerator computes and which operators it leaves to the CPU. A driver in software has no times of a
GPU: nothing is measured here.
"""
