"""Tables of `mobilezoo profile --ops`: times on this machine, counts on an emulated core."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mobilezoo.cli.tables import print_table
from mobilezoo.errors import printable

if TYPE_CHECKING:
    from mobilezoo_export.records import OperatorProfile
    from mobilezoo_latency.emulator.operators import CountedProfile

BAR = 40
COUNTED_BAR = 20
SHOWN = 20
"""Single operators printed; `--json` holds all of them."""


def print_operators(found: "Mapping[str, OperatorProfile | CountedProfile]") -> None:
    """Sums by type and the most expensive single operators, with bars as long as their share."""
    from mobilezoo_latency.emulator.operators import CountedProfile

    for name, profile in found.items():
        print_counted(name, profile) if isinstance(profile, CountedProfile) else print_timed(name, profile)
        if profile.unproven:
            print(f"note: {printable(profile.unproven)}")


def print_timed(name: str, p: "OperatorProfile") -> None:
    """Milliseconds of one file."""
    from mobilezoo_latency.operators import advice, by_type

    both = f"{p.whole_ms:.3f} ms as one, {p.sum_ms:.3f} ms summed over operators"
    print(f"{printable(name)}: {both} ({p.runtime}; {p.how})")
    rows = [(kind, count, f"{ms:.3f}", f"{share:.1%}", _bar(share)) for kind, count, ms, share in by_type(p.operators)]
    print_table("by type", ("type", "operators", "ms", "share", ""), rows)
    top = sorted(p.operators, key=lambda op: -op.ms)[:SHOWN]
    cells = [(op.type, op.shape, op.name, f"{op.ms:.3f}", f"{op.share:.1%}", _bar(op.share)) for op in top]
    print_table("most expensive", ("type", "output", "name", "ms", "share", ""), cells)
    for line in p.left_out:
        print(f"not timed alone: {printable(line)}")
    for line in advice(p.operators):
        print(f"note: {line}")


def print_counted(name: str, p: "CountedProfile") -> None:
    """Cycles of one file on one emulated core."""
    from mobilezoo_latency.emulator.operators import by_type

    both = f"{p.whole_cycles / 1e6:.2f} M cycles as one, {p.sum_cycles / 1e6:.2f} M summed over operators"
    print(f"{printable(name)}: {both} (emulated {p.core}; {p.runtime}; {p.how})")
    rows = [
        (t.type, t.operators, _millions(t.macs), f"{t.cycles / 1e6:.2f}", *_shares(t.share, t.share_of_peak))
        for t in by_type(p)
    ]
    print_table("by type", ("type", "operators", "M MACs", "M cycles", "share", "of peak", ""), rows)
    top = sorted(p.operators, key=lambda op: -op.cycles)[:SHOWN]
    cells = [
        (
            op.type,
            op.shape,
            op.name,
            op.computes_in,
            _millions(op.macs),
            f"{op.cycles / 1e6:.3f}",
            *_shares(op.share, op.share_of_peak),
        )
        for op in top
    ]
    columns = ("type", "output", "name", "computes in", "M MACs", "M cycles", "share", "of peak", "")
    print_table("most expensive", columns, cells)
    best = ", ".join(f"{name} {macs:.1f}" for name, macs in p.peak_macs_per_cycle.items())
    print(f"peak of {p.core}, multiply-adds per cycle: {best}")


def _millions(macs: int) -> str:
    return f"{macs / 1e6:.2f}" if macs else ""


def _shares(share: float, of_peak: float | None) -> tuple[str, str, str]:
    return f"{share:.1%}", "" if of_peak is None else f"{of_peak:.0%}", _bar(share, COUNTED_BAR)


def _bar(share: float, width: int = BAR) -> str:
    return "█" * round(width * share)
