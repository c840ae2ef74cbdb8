"""One of everything that a package can add to mobilezoo, named as text so that nothing is imported before its use."""

from pathlib import Path

from mobilezoo.plugins import Plugin

PLUGIN = Plugin(
    families={"plain": f"{__name__}.family"},
    attention={"brightness": f"{__name__}.family:Brightness"},
    targets={"pt2": f"{__name__}.target:Pt2Exporter"},
    devices={"in_process": f"{__name__}.device:InProcess"},
    engines={"halton": f"{__name__}.search:HALTON"},
    rewards={"within": f"{__name__}.search:within"},
    data_sources={"gradients": f"{__name__}.data:open_gradients"},
    passes={"relus": f"{__name__}.passes:run"},
    configs=str(Path(__file__).parent / "configs"),
)
