"""Boxes and masks: detectors and segmenters on any backbone, and how their files' outputs are read.

    from mobilezoo.dense.networks import Detector, Segmenter

Importing this package loads neither torch nor NumPy.
"""
