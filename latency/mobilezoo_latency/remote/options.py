"""The `-o` options of ssh that a device config may set by itself: those that only state where and how to connect.

Others run commands here (ProxyCommand, LocalCommand, KnownHostsCommand, `Match exec`), load libraries or further files
(PKCS11Provider, Include), or open ways into this machine (forwardings; a UserKnownHostsFile that names authorized_keys
gets the far host's key as a line). ssh gains options with every release, so what is not listed here is taken for one of
them. Values are plain words: the user's own ProxyCommand may put them into a shell (%h, %r). Names are those of
ssh_config(5).
"""

import re

PLACE = "AddressFamily BindAddress BindInterface CanonicalDomains CanonicalizeHostname HostName IPQoS Port"
IDENTITY = (
    "CertificateFile IdentitiesOnly IdentityFile NumberOfPasswordPrompts PasswordAuthentication "
    "PreferredAuthentications PubkeyAcceptedAlgorithms PubkeyAuthentication User"
)
HOST_KEYS = (
    "CheckHostIP FingerprintHash GlobalKnownHostsFile HashKnownHosts HostKeyAlgorithms HostKeyAlias "
    "NoHostAuthenticationForLocalhost StrictHostKeyChecking UpdateHostKeys VerifyHostKeyDNS"
)
CONNECTION = (
    "BatchMode Ciphers Compression ConnectionAttempts ConnectTimeout KexAlgorithms LogLevel MACs "
    "RekeyLimit RequiredRSASize ServerAliveCountMax ServerAliveInterval TCPKeepAlive"
)
HARMLESS = frozenset(" ".join((PLACE, IDENTITY, HOST_KEYS, CONNECTION)).lower().split())
JUMP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:,-]*", re.ASCII)
"""Hosts of ProxyJump: ssh writes them into a command line of its own."""
PLAIN = re.compile(r"[A-Za-z0-9_.:/~^*+@%][A-Za-z0-9_.:/~^*+@%,= -]*", re.ASCII)
UNWRITTEN = ("/dev/null", "none")
"""Permitted values of UserKnownHostsFile: ssh writes into any other file."""
OPTION = re.compile(r"([A-Za-z0-9]+)(?: *= *| +)(\S.*)", re.ASCII)
"""`Keyword value` or `Keyword=value`; ssh would take quotes around a keyword too: not known to be harmless."""


def harmful_options(options: tuple[str, ...]) -> list[str]:
    """Those not known to be harmless."""
    return [option for option in options if not _harmless(option)]


def _harmless(option: str) -> bool:
    found = OPTION.fullmatch(option.strip(" "))
    if found is None:
        return False
    keyword, value = found[1].lower(), found[2]
    if keyword == "proxyjump":
        return JUMP.fullmatch(value) is not None
    if keyword == "userknownhostsfile":
        return value in UNWRITTEN
    return keyword in HARMLESS and PLAIN.fullmatch(value) is not None
