"""Netron's viewer on an exported file, for this machine alone."""

import contextlib
import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mobilezoo.errors import ConfigError, existing_path, require

LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def in_netron(file: Path) -> Iterator[str]:
    """Serves a file in Netron while the context is open.

    Netron's server reads any file beside the one it shows; so it is given the bytes and an empty folder.

    Args:
        file: an exported file.

    Yields:
        The page's address, on the loopback interface.

    Raises:
        MissingToolError: netron is not installed.
        ConfigError: no exported file, or one that is a folder.
    """
    from mobilezoo_export.registry import file_suffixes, is_exported

    require("netron", "netron")
    path = existing_path(file, "file")
    if not is_exported(path) or path.is_dir():
        raise ConfigError(f"--netron opens exported files ({', '.join(file_suffixes())}), {str(file)!r} is none")
    import netron

    logging.getLogger("netron").setLevel(logging.WARNING)
    shown = re.sub(r"[^\w.-]", "_", path.name)  # the name stands in the page's HTML as it is
    with tempfile.TemporaryDirectory(prefix="mobilezoo-netron-") as empty:
        address = netron.serve(f"{empty}/{shown}", bytearray(path.read_bytes()), address=(LOOPBACK, 0), browse=False)
        try:
            yield f"http://{address[0]}:{address[1]}"
        finally:
            netron.stop(address)
