"""Device types by name. Classes are named as text, so that listing devices imports none of them."""

from pathlib import Path

from mobilezoo.config import apply_overrides, config_names, config_root, find_config, read_yaml
from mobilezoo.errors import ConfigError
from mobilezoo.registry import Registry, is_subclass
from mobilezoo.trust import require_commands_allowed
from mobilezoo_latency.contract import Device, DeviceConfig

DEVICES: Registry[type[Device]] = Registry(
    "device type",
    "devices",
    {
        "host": "mobilezoo_latency.host:HostDevice",
        "emulated": "mobilezoo_latency.emulator.device:EmulatedDevice",
        "adb": "mobilezoo_latency.remote.adb:AdbDevice",
        "apple": "mobilezoo_latency.apple.device:AppleDevice",
        "browser": "mobilezoo_latency.browser.device:BrowserDevice",
        "gpu_check": "mobilezoo_latency.gpu.device:GpuCheckDevice",
        "npu_check": "mobilezoo_latency.npu.device:NpuCheckDevice",
        "ssh": "mobilezoo_latency.remote.ssh:SshDevice",
    },
    is_subclass(lambda: Device),
    "a subclass of mobilezoo_latency.contract.Device",
)


def list_devices() -> dict[str, str]:
    """Name → one-line description of every shipped device."""
    names = config_names("devices")
    return {name: str(read_yaml(find_config("devices", name)).get("description", "")) for name in names}


def load_device(device: str | Path | Device, overrides: tuple[str, ...] = ()) -> Device:
    """Creates a device from its configuration.

    Args:
        device: name of a shipped device, or path of a YAML; a Device is returned as it is.
        overrides: `key=value` changes of the YAML.

    Raises:
        ConfigError: the YAML does not describe a device, or starts a program that the user did not allow.
        UnknownNameError: no device or device type of this name.
    """
    if isinstance(device, Device):
        return device
    path = find_config("devices", device)
    data = apply_overrides(read_yaml(path), overrides)
    kind = data.get("type")
    if kind is None:
        raise ConfigError(f"{path}: missing key 'type'")
    cls = DEVICES.load(str(kind))
    built: Device = cls(cls.Config.parse({**data, "name": path.stem}, str(path)))
    _trust(path, built.config, {item.partition("=")[0].split(".")[0] for item in overrides})
    return built


def _trust(path: Path, config: DeviceConfig, written: set[str]) -> None:
    """Refuse commands in a config, unless it is a shipped one or the user wrote the key on the command line."""
    if path.resolve().parent == (config_root() / "devices").resolve():
        return
    for key, what in config.commands().items():
        if key not in written:
            require_commands_allowed(f"{path}: {what}")
