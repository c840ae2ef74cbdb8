"""Files: how far each agrees with PyTorch, and on which units of a phone it was computed."""

from collections.abc import Sequence

from mobilezoo.artifacts import Artifact, UnitCheck
from mobilezoo.report.model_card.markdown import Raw, plain, table

UNITS = {
    "cpu": "an emulated ARM core",
    "gpu": "a GPU in software",
    "npu": "an emulated NPU",
}
"""Unit of a phone → what stood for it."""
MARKS = {"passed": "✓ passed", "failed": "✗ failed", "refused": "✗ refused", "unavailable": "– not run"}


def parity_section(artifacts: Sequence[Artifact]) -> str:
    """Writes the tables of files; empty without files.

    Args:
        artifacts: records of exported files.
    """
    if not artifacts:
        return ""
    units = [unit for unit in UNITS if any(one.unit == unit for a in artifacts for one in a.checks)]
    head = ("file", "size (MB)", "relative error", "SNR (dB)", "same top-1 (%)", "images", "ran in", "result", *units)
    rows = [(*_row(one), *(_mark(one, unit) for unit in units)) for one in artifacts]
    text = (
        "Logits of each file against PyTorch's on the same images. The relative error is the largest difference over "
        "the standard deviation of PyTorch's logits."
    )
    parts = ["## Files and parity", text, table(head, rows)]
    if units:
        stood = "; ".join(f"{unit}: {UNITS[unit]}" for unit in units)
        parts.append(
            f"Units of a phone ({stood}) show whether the file is computed rightly there. They are no phones, and no "
            "times are taken on them."
        )
        parts += [line for line in (_reasons(artifacts),) if line]
    return "\n\n".join(parts)


def _row(record: Artifact) -> tuple[object, ...]:
    p, size = record.parity, f"{record.size_bytes / 1e6:.2f}"
    if p is None:
        why = record.why_not_runnable or "no reason recorded"
        return record.path, size, None, None, None, None, None, f"not proven: {why}"
    result = "passed" if p.passed else "failed"
    return (
        record.path,
        size,
        f"{p.relative:.1e}",
        f"{p.snr_db:.0f}",
        f"{100 * p.top1_agreement:.1f}",
        f"{p.images} ({p.inputs})",
        p.ran_in,
        f"{result} (tolerance {p.tolerance:g})",
    )


def _mark(record: Artifact, unit: str) -> Raw:
    found = next((one for one in record.checks if one.unit == unit), None)
    return Raw(_words(found) if found else "")


def _words(check: UnitCheck) -> str:
    outside = sum((check.outside or {}).values())
    return MARKS[check.status] + (f", {outside} operators on the CPU" if outside else "")


def _reasons(artifacts: Sequence[Artifact]) -> str:
    """Why a unit did not pass, a line for each."""
    lines = [
        f"- {plain(record.path)}, {plain(check.unit)}: {plain(check.reason)}"
        for record in artifacts
        for check in record.checks
        if check.reason
    ]
    return "\n".join(lines)
