"""A file of trained weights that others published: where it is, how it is read, what is known of it."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, model_validator

from mobilezoo.config import Record
from mobilezoo.preprocessing import ChannelValues, CropShare, Interpolation, Preprocessing
from mobilezoo.resolution import Resolution

Access = Literal["https", "hub", "drive", "browser"]
"""https: an ordinary download; hub: the Hugging Face Hub; drive: one file on Google Drive; browser: only by hand."""
DRIVE_FILE = re.compile(r"https://drive\.google\.com/(?:file/d/|open\?id=)([\w-]{20,})")
BROWSER = {"drive.google.com": "Google Drive", "1drv.ms": "OneDrive", "pan.baidu.com": "Baidu"}
"""Hosts whose pages no program is meant to read."""
SHAREPOINT = ".sharepoint.com"
TAG = r"^[a-z][a-z0-9_]{1,40}$"
Tag = Annotated[str, Field(pattern=TAG)]


class WeightFile(Record):
    """One published file of a network's trained weights."""

    url: str | None = Field(default=None, pattern=r"^https://\S+$", description="address, or the page to click on")
    hub: str | None = Field(
        default=None, pattern=r"^[\w.-]+/[\w.-]+$", description="OWNER/NAME on the Hugging Face Hub"
    )
    file: str | None = Field(
        default=None, pattern=r"^\w[\w.-]*$", description="its name, where the address does not end with it"
    )
    role: Literal["authors", "mirror", "timm"] = Field(
        default="authors", description="mirror: the authors' weights kept by others; timm: trained by timm's authors"
    )
    names: Literal["official", "timm", "transformers", "tensorflow"] = Field(
        default="official", description="whose names its tensors have"
    )
    key: tuple[str, ...] = Field(
        default=(),
        description="dotted paths of the weights in the file, the first one that is there; empty: the file itself",
    )
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{4,64}$", description="of the file, or how it begins")
    git_sha1: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{40}$", description="git's hash of a file that lies in a repository"
    )
    size_mb: float | None = Field(default=None, gt=0, description="as its host lists it")
    top1: float | None = Field(default=None, gt=0, le=100, description="published ImageNet-1k top-1 of this very file")
    resolution: Resolution | None = Field(default=None, description="where it is not the network's own")
    crop_pct: CropShare | None = Field(default=None, description="where it is not the network's own")
    interpolation: Interpolation | None = Field(default=None, description="where it is not the network's own")
    mean: ChannelValues | None = Field(default=None, description="where it is not the network's own")
    std: ChannelValues | None = Field(default=None, description="where it is not the network's own")
    license: str = Field(description='of the weights; "none stated" where there is none')
    training: str | None = Field(default=None, description="epochs, data, teacher")
    source: str = Field(description="where address and score were read")
    note: str | None = Field(default=None, description="what to know before it is used")

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if (self.url is None) == (self.hub is None):
            raise ValueError("url or hub, one of the two")
        if self.hub is not None and self.file is None:
            raise ValueError("file beside hub: which of the repository's")
        return self

    @property
    def access(self) -> Access:
        """How the file can be had."""
        if self.hub is not None or self.url is None:
            return "hub"
        host = urlsplit(self.url).hostname or ""
        if self.drive_id is not None:
            return "drive"
        return "browser" if host in BROWSER or host.endswith(SHAREPOINT) else "https"

    @property
    def drive_id(self) -> str | None:
        """Google Drive's name of the file; None where it is elsewhere, or somewhere in a folder."""
        found = DRIVE_FILE.match(self.url or "")
        return found[1] if found else None

    @property
    def page(self) -> str:
        """Whose pages it is on, where no program is meant to read them."""
        return BROWSER.get(urlsplit(self.url or "").hostname or "", "OneDrive")

    @property
    def address(self) -> str:
        """Where it is, for people."""
        return self.url or f"https://huggingface.co/{self.hub}/resolve/main/{self.file}"

    def file_name(self, default: str) -> str:
        """What the file is called; `default` where its address does not hold it."""
        if self.file is not None:
            return self.file
        last = unquote(urlsplit(self.url or "").path).rpartition("/")[2]
        return last if self.access == "https" and re.fullmatch(r"\w[\w.-]*\.\w+", last) else default

    def prepared(self, known: Preprocessing) -> Preprocessing:
        """How images become its input: the network's own preprocessing but for what differs."""
        own = {key: getattr(self, key) for key in ("crop_pct", "interpolation", "mean", "std")}
        return known.model_copy(update={key: value for key, value in own.items() if value is not None})
