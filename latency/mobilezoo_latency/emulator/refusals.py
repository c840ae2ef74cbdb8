"""Readable messages for files that LiteRT refuses, from our runner's output on an emulated core or a device."""

import re

STATUSES = {
    1: "invalid argument",
    2: "out of memory",
    3: "runtime failure",
    5: "unsupported",
    504: "compilation failed",
}
"""`LiteRtStatus` of LiteRT's C API."""
LOADING = ("LiteRtCreateModelFromFile", "LiteRtCreateCompiledModel")
REFUSED = re.compile(r"LiteRT refused (\w+)\(.*\) \(status (\d{1,6})\)", re.ASCII)


def in_words(text: str) -> str:
    """Rewrites the runner's message without the call's arguments and with the remedy; other text is unchanged."""
    found = REFUSED.search(text)
    if found is None:
        return text
    call, status = found[1], int(found[2])
    why = f"{call.removeprefix('LiteRt')}: {STATUSES.get(status, f'status {status}')}"
    if call in LOADING:
        return f"LiteRT's compiled-model interface does not load this file ({why}): --device host may time it"
    return f"LiteRT's compiled-model interface does not run this file ({why})"
