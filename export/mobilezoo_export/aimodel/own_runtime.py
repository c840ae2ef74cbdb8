"""Run a model in Core AI's own runtime for this machine: the second opinion on the program check.

coreai-core lowers the saved program and computes it on the CPU. It is no Mac and no device: nothing is timed.
"""

import asyncio
from pathlib import Path

import numpy as np

from mobilezoo_export.aimodel.program import SavedProgram
from mobilezoo_export.aimodel.reading import MAIN
from mobilezoo_export.parity import measure_parity
from mobilezoo_export.tolerances import verdict

SEED = 0


def disagreement(path: Path, precision: str) -> str | None:
    """Return why the own runtime and the program check disagree on noise, or None if they agree.

    Args:
        path: the `.aimodel` folder.
        precision: of the file, which sets the limits; integers are weights only, and sums of both are in half.

    Raises:
        ExportError: the model is damaged.
        RuntimeError: the runtime does not run it.
    """
    program = SavedProgram(path)
    (taken,), (given, *_) = program.inputs, program.outputs
    shape = [size or 1 for size in taken.shape]
    image = np.random.default_rng(SEED).standard_normal(shape).astype(taken.dtype)
    expected = program.run(image)[0]
    answer = asyncio.run(_answer(path, taken.name, image, given.name))
    limits = "fp32" if precision == "fp32" else "fp16"
    return verdict(measure_parity(expected, answer, precision=limits, inputs="noise", ran_in="Core AI"), limits)


async def _answer(path: Path, name: str, value: np.ndarray, output: str) -> np.ndarray:
    from coreai.authoring import AIModelAsset
    from coreai.runtime import NDArray

    async with AIModelAsset.load(path).executable() as model:
        function = model.load_function(MAIN)
        if function is None:
            raise RuntimeError(f"it has no function {MAIN}")
        answers = await function({name: NDArray(value)})
        return np.array(answers[output].numpy(), dtype=np.float32)
