"""Errors of the Hugging Face Hub's client as one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mobilezoo.errors import first_line
from mobilezoo.hub_config import HubError


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """What the client raises (its own errors, HTTP's and the system's) becomes a HubError that begins with `what`."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except HFValidationError:
        raise HubError(f"{what}: a repository is named OWNER/NAME") from None
    except HfHubHTTPError as error:
        status: Any = getattr(error.response, "status_code", "?")
        hint = {401: "log in with `hf auth login`", 403: "your token may not write there", 404: "no such repository"}
        raise HubError(f"{what}: the hub answered {status}: {hint.get(status, 'try again later')}") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise HubError(f"{what}: the hub cannot be reached: look after the network and try again") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise HubError(f"{what}: {first_line(error, 200)}") from None
