"""A small fixed Core ML network whose time shows whether the Mac or phone changed while another was measured."""

from pathlib import Path

SIDE = 192
SENTINEL_SHAPE = (SIDE, SIDE)
PRODUCTS = 4


def write_sentinel(path: Path) -> Path:
    """Writes an .mlpackage of four matrix products with seeded weights, equal every time; returns its path."""
    import coremltools as ct
    import numpy as np
    from coremltools.converters.mil import Builder

    from mobilezoo_export.quiet import quiet

    weights = np.random.default_rng(0).standard_normal((SIDE, SIDE)).astype(np.float32) / SIDE**0.5

    @Builder.program(input_specs=[Builder.TensorSpec(shape=SENTINEL_SHAPE)], opset_version=ct.target.iOS16)
    def products(x):  # type: ignore[no-untyped-def]
        for _ in range(PRODUCTS):
            x = Builder.matmul(x=x, y=weights)
        return x

    with quiet():
        package = ct.convert(
            products, convert_to="mlprogram", compute_precision=ct.precision.FLOAT32, skip_model_load=True
        )
        package.save(str(path))
    return path
