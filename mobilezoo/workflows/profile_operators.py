"""`mobilezoo profile --ops`: where the milliseconds of a network go."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.cli.tables import print_table
from mobilezoo.errors import MobilezooError, printable
from mobilezoo.files import write_text
from mobilezoo.workflows.profile import Choices, exported_files

if TYPE_CHECKING:
    from mobilezoo_latency.operators import Profile

BAR = 40
SHOWN = 20
"""Single operators printed; `--json` holds all of them."""


def profile_subject_operators(subjects: list[str], choices: Choices, plot: Path | None = None) -> "dict[str, Profile]":
    """Per-operator times by file, and a picture of them. Raises MobilezooError for devices other than this machine."""
    from mobilezoo.report.flamegraph import flame
    from mobilezoo_latency.operators import profile_operators

    if not choices.device.startswith("host"):
        raise MobilezooError(f"--ops measures on this machine only, not on {choices.device!r}: leave --device out")
    files = [file for what in subjects for file in exported_files(what, choices)]
    if plot is not None and len(files) != 1:
        raise MobilezooError(f"--plot draws one file, got {len(files)}")
    alike = len({file.name for file in files}) < len(files)
    found = {str(file) if alike else file.name: profile_operators(file, choices.threads or 1) for file in files}
    if plot is not None:
        write_text(plot, flame(*next(iter(found.items()))))
    return found


def operators_dict(found: "dict[str, Profile]") -> list[dict[str, Any]]:
    """Plain data, as `--json` prints it."""
    return [
        {"file": name, **p._asdict(), "sum_ms": p.sum_ms, "operators": [op._asdict() for op in p.operators]}
        for name, p in found.items()
    ]


def print_operators(found: "dict[str, Profile]") -> None:
    """Times by type and the most expensive single operators, with bars as long as their share."""
    from mobilezoo_latency.operators import advice, by_type

    for name, p in found.items():
        both = f"{p.whole_ms:.3f} ms as one, {p.sum_ms:.3f} ms summed over operators"
        print(f"{printable(name)}: {both} ({p.runtime}; {p.how})")
        rows = [
            (kind, count, f"{ms:.3f}", f"{share:.1%}", _bar(share)) for kind, count, ms, share in by_type(p.operators)
        ]
        print_table("by type", ("type", "operators", "ms", "share", ""), rows)
        top = sorted(p.operators, key=lambda op: -op.ms)[:SHOWN]
        cells = [(op.type, op.shape, op.name, f"{op.ms:.3f}", f"{op.share:.1%}", _bar(op.share)) for op in top]
        print_table("most expensive", ("type", "output", "name", "ms", "share", ""), cells)
        for line in p.left_out:
            print(f"not timed alone: {printable(line)}")
        if p.unproven:
            print(f"note: {printable(p.unproven)}")
        for line in advice(p.operators):
            print(f"note: {line}")


def _bar(share: float) -> str:
    return "█" * round(BAR * share)
