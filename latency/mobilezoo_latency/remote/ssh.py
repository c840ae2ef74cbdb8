"""Any arm64 Linux over ssh: a Raspberry Pi, or Termux on a phone. The system's own OpenSSH client is used, with the
user's configuration, keys and known hosts."""

import secrets
import shlex
import shutil
from pathlib import Path
from typing import Annotated, BinaryIO, ClassVar, Literal

from pydantic import Field

from mobilezoo.errors import DeviceError, printable
from mobilezoo_latency.contract import DeviceConfig, name_of
from mobilezoo_latency.remote.bounded import run
from mobilezoo_latency.remote.device import FOLDER, RemoteConfig, RemoteDevice
from mobilezoo_latency.remote.link import Answer, Link, LinkLostError
from mobilezoo_latency.remote.options import harmful_options

CONNECTION_FAILED = 255
FATAL = (
    "Permission denied",
    "Host key verification failed",
    "Could not resolve",
    "Bad configuration",
    "not accessible",
)
PUSH_LIMIT_S = 600.0
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,500}$")]


class SshConfig(RemoteConfig):
    """Selects the machine, and how it is reached."""

    type: Literal["ssh"] = "ssh"
    host: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9_]([A-Za-z0-9_.@:-]*[A-Za-z0-9])?)?$",
        description="USER@HOST or a Host of ssh_config",
    )
    port: int | None = Field(default=None, gt=0, lt=65536, description="of the ssh server; null: ssh's own choice")
    options: tuple[Line, ...] = Field(default=(), description="more -o options of ssh, for example IdentityFile=...")
    folder: str = Field(default=".cache/mobilezoo", pattern=FOLDER, description="where files are put, from the home")

    def commands(self) -> dict[str, str]:
        harmful = harmful_options(self.options)
        more = {"options": f"ssh option {harmful[0]!r} is not known to be harmless and perhaps"} if harmful else {}
        return super().commands() | more


class SshLink(Link):
    """One ssh call per command. Output of the far shell before the command (a greeting in .bashrc) is cut off."""

    def __init__(self, config: SshConfig) -> None:
        self.name, self._mark = config.host, f"mobilezoo-{secrets.token_hex(8)}"
        self._command = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"]
        self._command += ["-o", "ServerAliveCountMax=3"]
        if config.port:
            self._command += ["-p", str(config.port)]
        for option in config.options:
            self._command += ["-o", option]
        self._command += ["--", config.host]

    def shell(self, command: str, limit_s: float = 30.0) -> Answer:
        return self._call(command, None, limit_s)

    def push(self, local: Path, remote: str) -> None:
        with local.open("rb") as handle:
            answer = self._call(f"cat > {shlex.quote(remote)}", handle, PUSH_LIMIT_S)
        if answer.status != 0:
            self.shell(f"rm -f {shlex.quote(remote)}")
            raise DeviceError(f"{self.name}: cannot write {remote!r}: {_last(answer.text)}")

    def _call(self, command: str, stdin: BinaryIO | None, limit_s: float) -> Answer:
        done = run([*self._command, f"printf '\\n%s\\n' {self._mark}; {{ {command}\n}} 2>&1"], stdin, limit_s)
        complaint = done.errors.decode(errors="replace")
        if done.status == CONNECTION_FAILED:
            if any(reason in complaint for reason in FATAL):
                raise DeviceError(f"ssh to {self.name!r} failed: {_last(complaint)}")
            raise LinkLostError(_last(complaint))
        _, begun, text = done.output.decode(errors="replace").partition(f"{self._mark}\n")
        if not begun:
            raise DeviceError(f"ssh to {self.name!r} gives no POSIX shell: {_last(complaint)}")
        return Answer(done.status, text)


class SshDevice(RemoteDevice):
    """An arm64 Linux machine."""

    Config: ClassVar[type[DeviceConfig]] = SshConfig
    kind = "board"
    config: SshConfig

    def open(self) -> Link:
        if not self.config.host:
            raise DeviceError(
                "device 'ssh' has no host: copy configs/devices/ssh.yaml, set `host: USER@HOST`, name the copy"
            )
        if shutil.which("ssh") is None:
            raise DeviceError("ssh not found: install the OpenSSH client, for example `apt-get install openssh-client`")
        link = SshLink(self.config)
        try:
            link.shell("true")
        except LinkLostError as error:
            raise DeviceError(f"ssh to {self.config.host!r} failed: {error}") from None
        return link

    def identity(self, link: Link) -> tuple[str, str, str]:
        printed = link.shell("tr -d '\\0' < /proc/device-tree/model 2>/dev/null; echo; uname -sr; uname -m; nproc").text
        model, system, machine, cores = [*map(name_of, printed.split("\n")), "", "", "", ""][:4]
        return model or self.config.host.rpartition("@")[2], f"{machine}, {cores} cores", system


def _last(text: str) -> str:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return printable(lines[-1][:400]) if lines else "no reason given"
