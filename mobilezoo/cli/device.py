"""`mobilezoo device`: what latency can be measured on, whether it is ready, and how to make it so."""

from typing import Annotated, Any

import typer

from mobilezoo.cli.options import AllowCommands, Json, command, config_completion, group, print_json
from mobilezoo.errors import MobilezooError, UnknownNameError

app = group("device", "What latency can be measured on: list the devices, check them, set them up.")
SETUPS = ("emulator", "browser", "gpu", "npu")


@command(app, "list")
def list_(as_json: Json = False) -> None:
    """Every shipped device: name, kind of measurement, one line about it.

    Examples:

        mobilezoo device list
        mobilezoo device list --json
    """
    from mobilezoo.cli.tables import print_table

    rows = device_rows()
    if as_json:
        print_json(rows)
    else:
        cells = [(row["name"], row["type"], row["description"]) for row in rows]
        print_table("devices in configs/devices/", ("device", "type", "what it is"), cells)


@command(app)
def check(
    devices: Annotated[
        list[str] | None,
        typer.Argument(
            autocompletion=config_completion("devices"), help="Names or YAML paths; default: every shipped one."
        ),
    ] = None,
    allow_commands: AllowCommands = False,
    as_json: Json = False,
) -> None:
    """Whether measuring could start now, and what to do where it could not.

    Examples:

        mobilezoo device check
        mobilezoo device check cortex_a76 my_board.yaml
    """
    from mobilezoo.cli.tables import print_table

    rows = [check_device(name) for name in devices or [row["name"] for row in device_rows()]]
    if as_json:
        print_json(rows)
    else:
        cells = [(row["name"], "ready" if row["ready"] else "no", row["says"]) for row in rows]
        print_table("can measuring start?", ("device", "ready", "what it says"), cells)
    if devices and not all(row["ready"] for row in rows):
        raise typer.Exit(2)


@command(app)
def setup(
    what: Annotated[
        str,
        typer.Argument(
            help="emulator (QEMU, LLVM, arm64 runtimes), browser (two JavaScript runtimes), gpu (software Vulkan), "
            "or npu (Qualcomm's emulation)."
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Prepare again from nothing.")] = False,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="npu: agree to Qualcomm's license, which is named without this.")
    ] = False,
) -> None:
    """Prepare a device as an ordinary user; verifies itself, and does nothing twice.

    Examples:

        mobilezoo device setup emulator
        mobilezoo device setup browser
        mobilezoo device setup gpu
        mobilezoo device setup npu --accept-license
    """
    if what not in SETUPS:
        raise UnknownNameError("set-up", what, SETUPS)
    if what == "emulator":
        from mobilezoo_latency.emulator.setup import set_up as emulator

        emulator(force=force)
    elif what == "browser":
        from mobilezoo_latency.browser.assets import set_up as browser

        browser(force=force)
    elif what == "gpu":
        from mobilezoo_latency.gpu.setup import set_up as gpu

        gpu(force=force)
    else:
        from mobilezoo_latency.npu.setup import set_up as npu

        npu(force=force, accept_license=accept_license)


def device_rows() -> list[dict[str, Any]]:
    """Name, type and description of every shipped device."""
    from mobilezoo.config import config_names, find_config, read_yaml

    rows = []
    for name in config_names("devices"):
        data = read_yaml(find_config("devices", name))
        rows.append({"name": name, "type": data.get("type"), "description": data.get("description", "")})
    return rows


def check_device(name: str) -> dict[str, Any]:
    """Whether one device is ready; its own words where it is not. Raises UnknownNameError, ConfigError."""
    from mobilezoo_latency import load_device

    device = load_device(name)
    try:
        device.check()
        says = device.hint()
    except MobilezooError as error:
        return {"name": name, "ready": False, "says": str(error)}
    return {"name": name, "ready": True, "says": says}
