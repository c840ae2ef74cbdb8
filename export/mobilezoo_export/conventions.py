"""What a file declares in the conventions of its own format, beside our JSON, for other people's tools.

ONNX: https://onnx.ai/onnx/repo-docs/MetadataProps.html, TypeDenotation.html and DimensionDenotation.html. Core ML:
https://apple.github.io/coremltools/docs-guides/source/xcode-model-preview-types.html. ExecuTorch has constant methods,
whose names are free. The TFLite schema is in `tflite_metadata`.
"""

import json
from typing import Any

from mobilezoo.artifacts import Task
from mobilezoo.preprocessing import Preprocessing
from mobilezoo_export.metadata import INPUT, OUTPUT
from mobilezoo_export.records import ExportSpec

PIXEL_FORMATS = {1: "Gray8", 3: "Rgb8"}
"""Channels → ONNX's `Image.BitmapPixelFormat`."""
RANGES = {(0.0, 1 / 255): "NominalRange_0_255", (0.0, 1.0): "Normalized_0_1", (0.5, 0.5): "Normalized_1_1"}
"""Mean and deviation of pixels 0..1 → ONNX's `Image.NominalPixelRange`; it has no word for any others."""
TASKS: dict[Task, str] = {
    "classify": "image-classification",
    "detect": "object-detection",
    "segment": "image-segmentation",
}
"""The field's words for what a network answers."""
PREVIEW = "com.apple.coreml.model.preview.type"
DENOTATIONS = ("DATA_BATCH", "DATA_CHANNEL", "DATA_FEATURE", "DATA_FEATURE")
"""ONNX's meaning of the axes NCHW."""


def describe_onnx(proto: Any, spec: ExportSpec) -> None:
    """Adds ONNX's own properties to a model, and marks its input as an image.

    Args:
        proto: ModelProto, changed in place.
        spec: what was exported.
    """
    for key, value in onnx_properties(spec).items():
        proto.metadata_props.add(key=key, value=value)
    proto.doc_string = summary(spec)
    kind = proto.graph.input[0].type
    kind.denotation = "IMAGE"
    for axis, meaning in zip(kind.tensor_type.shape.dim, DENOTATIONS, strict=True):
        axis.denotation = meaning


def onnx_properties(spec: ExportSpec) -> dict[str, str]:
    """Properties of an ONNX file; what the format has no word for is left to our own entry.

    Args:
        spec: what was exported.
    """
    found = {"task": TASKS[spec.task]}
    if spec.in_chans in PIXEL_FORMATS:
        found["Image.BitmapPixelFormat"] = PIXEL_FORMATS[spec.in_chans]
        found["Image.ColorSpaceGamma"] = "SRGB"
        if (known := _range(spec)) is not None:
            found["Image.NominalPixelRange"] = known
    if spec.labels:
        found["labels"] = json.dumps(list(spec.labels), ensure_ascii=False)
    if spec.origin is not None:
        found["model_license"] = spec.origin.license
    return found


def _range(spec: ExportSpec) -> str | None:
    """ONNX's word for the range of the input's values; None for a normalization that it has no word for."""
    if spec.options.image:
        return RANGES[0.0, 1 / 255]
    prep: Preprocessing = spec.preprocessing.for_channels(spec.in_chans)
    pairs = set(zip(prep.mean, prep.std, strict=True))
    return RANGES.get(pairs.pop()) if len(pairs) == 1 else None


def describe_coreml(converted: Any, spec: ExportSpec) -> None:
    """Sets the descriptions that Xcode shows, and the preview of an image classifier.

    Args:
        converted: coremltools' MLModel, changed in place.
        spec: what was exported.
    """
    converted.short_description = summary(spec)
    if spec.origin is not None:
        converted.license = spec.origin.license
    how = "an image, normalized inside" if spec.options.image else "(pixel / 255 - mean) / std per channel"
    rule = spec.preprocessing.for_channels(spec.in_chans).rule(spec.resolution)
    converted.input_description[INPUT] = f"{how}; {rule}"
    if not spec.options.classifier:
        converted.output_description[OUTPUT] = spec.answers
    if spec.labels:
        converted.user_defined_metadata["labels"] = json.dumps(list(spec.labels), ensure_ascii=False)
    if spec.options.classifier and spec.options.image:  # the preview feeds images and shows names
        converted.user_defined_metadata[PREVIEW] = "imageClassifier"


def executorch_methods(spec: ExportSpec) -> dict[str, Any]:
    """Constant methods of a program: name → what it returns.

    Args:
        spec: what was exported.

    Returns:
        Mean and deviation of pixels 0..1 (a number per channel, those that whoever feeds the file applies), height and
        width, the kind of output, and the labels as JSON where there are any.
    """
    prep = spec.preprocessing.for_channels(spec.in_chans)
    mean, std = ([0.0] * spec.in_chans, [1 / 255] * spec.in_chans) if spec.options.image else (prep.mean, prep.std)
    methods: dict[str, Any] = {
        "get_mean": [float(value) for value in mean],
        "get_std": [float(value) for value in std],
        "get_image_size": list(spec.resolution),
        "get_output_kind": spec.output,
    }
    if spec.labels:
        methods["get_labels"] = json.dumps(list(spec.labels), ensure_ascii=False)
    return methods


def summary(spec: ExportSpec) -> str:
    """One line for whoever opens the file."""
    classes = f", {len(spec.labels)} classes" if spec.labels else ""
    return f"{spec.model}: {TASKS[spec.task].replace('-', ' ')}{classes}; {spec.answers}"
