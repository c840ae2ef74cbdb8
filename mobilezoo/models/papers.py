"""Papers of the zoo's networks, and how they are cited.

A family's papers are those that its module names. BibTeX entries name the first author; arXiv's page has all of them.
"""

import fnmatch
from typing import NamedTuple

from mobilezoo.models.base import ModelConfig


class Paper(NamedTuple):
    """A publication."""

    arxiv: str
    title: str
    author: str
    """The first author, `Last, First`; the only one where `alone`."""
    venue: str = ""
    """Conference and year; empty for a preprint."""
    alone: bool = False

    @property
    def address(self) -> str:
        """Its page."""
        return f"https://arxiv.org/abs/{self.arxiv}"

    @property
    def year(self) -> str:
        """Year of its venue, else of the preprint."""
        return self.venue.rpartition(" ")[2] if self.venue else f"20{self.arxiv[:2]}"

    def bibtex(self) -> str:
        """Its entry; `and others` stands for all authors but the first."""
        last = "".join(c for c in self.author.partition(",")[0].split()[-1] if c.isalpha()).lower()
        word = next(w for w in map(_letters, self.title.split()) if len(w) > 2).lower()
        fields = {
            "title": "{" + self.title + "}",
            "author": self.author if self.alone else f"{self.author} and others",
            **({"booktitle": self.venue.rpartition(" ")[0]} if self.venue else {}),
            "year": self.year,
            "eprint": self.arxiv,
            "archivePrefix": "arXiv",
            "url": self.address,
        }
        kind = "inproceedings" if self.venue else "misc"
        body = "".join(f"  {key} = {{{value}}},\n" for key, value in fields.items())
        return f"@{kind}{{{last}{self.year}{word},\n{body}}}"


def _letters(word: str) -> str:
    return "".join(c for c in word if c.isalnum())


MOBILENETV2 = Paper(
    "1801.04381", "MobileNetV2: Inverted Residuals and Linear Bottlenecks", "Sandler, Mark", "CVPR 2018"
)
MNASNET = Paper(
    "1807.11626", "MnasNet: Platform-Aware Neural Architecture Search for Mobile", "Tan, Mingxing", "CVPR 2019"
)
COORDINATE = Paper("2103.02907", "Coordinate Attention for Efficient Mobile Network Design", "Hou, Qibin", "CVPR 2021")
ECA = Paper(
    "1910.03151",
    "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks",
    "Wang, Qilong",
    "CVPR 2020",
)
GHOST = Paper("1911.11907", "GhostNet: More Features from Cheap Operations", "Han, Kai", "CVPR 2020")
GHOST2 = Paper(
    "2211.12905", "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", "Tang, Yehui", "NeurIPS 2022"
)
GHOST3 = Paper("2404.11202", "GhostNetV3: Exploring the Training Strategies for Compact Models", "Liu, Zhenhua")
FASTVIT = Paper(
    "2303.14189",
    "FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization",
    "Vasu, Pavan Kumar Anasosalu",
    "ICCV 2023",
)
MOBILECLIP = Paper(
    "2311.17049",
    "MobileCLIP: Fast Image-Text Models through Multi-Modal Reinforced Training",
    "Vasu, Pavan Kumar Anasosalu",
    "CVPR 2024",
)
FASTVLM = Paper(
    "2412.13303",
    "FastVLM: Efficient Vision Encoding for Vision Language Models",
    "Vasu, Pavan Kumar Anasosalu",
    "CVPR 2025",
)
HALO = Paper(
    "2103.12731",
    "Scaling Local Self-Attention for Parameter Efficient Visual Backbones",
    "Vaswani, Ashish",
    "CVPR 2021",
)
NEXT = Paper(
    "2007.02269",
    "Rethinking Bottleneck Structure for Efficient Mobile Network Design",
    "Zhou, Daquan",
    "ECCV 2020",
)
NAT = Paper("2204.07143", "Neighborhood Attention Transformer", "Hassani, Ali", "CVPR 2023")
DINAT = Paper("2209.15001", "Dilated Neighborhood Attention Transformer", "Hassani, Ali")

PAPERS: dict[str, tuple[tuple[str, Paper], ...]] = {
    "mbconv": (
        ("mnasnet*", MNASNET),
        ("*mobilenetv2*", MOBILENETV2),
        ("*_ca_*", COORDINATE),
        ("eca_*", ECA),
    ),
    "mobilenext": (("mobilenext*", NEXT), ("*_ca_*", COORDINATE)),
    "ghostnet": (("ghostnet_*", GHOST), ("ghostnetv2_*", GHOST2), ("ghostnetv3_*", GHOST3)),
    "fastvit": (("fastvit*", FASTVIT), ("*_mci[012]", MOBILECLIP), ("*_mci3", FASTVLM)),
    "halonet": (("*halo*", HALO), ("eca_*", ECA)),
    "nat": (("nat_*", NAT), ("dinat_*", DINAT)),
    "shvit": (
        (
            "*",
            Paper(
                "2401.16456",
                "SHViT: Single-Head Vision Transformer with Memory Efficient Macro Design",
                "Yun, Seokju",
                "CVPR 2024",
            ),
        ),
    ),
    "cas_vit": (
        (
            "*",
            Paper(
                "2408.03703",
                "CAS-ViT: Convolutional Additive Self-attention Vision Transformers for Efficient Mobile Applications",
                "Zhang, Tianfang",
            ),
        ),
    ),
    "emov2": (("*", Paper("2412.06674", "EMOv2: Pushing 5M Vision Model Frontier", "Zhang, Jiangning")),),
    "mobilemamba": (
        (
            "*",
            Paper("2411.15941", "MobileMamba: Lightweight Multi-Receptive Visual Mamba Network", "He, Haoyang"),
        ),
    ),
    "efficientmod": (("*", Paper("2403.19963", "Efficient Modulation for Vision Networks", "Ma, Xu", "ICLR 2024")),),
    "ffnet": (("*", Paper("2406.02021", "MetaMixer Is All You Need", "Yun, Seokju")),),
    "care": (
        (
            "*",
            Paper(
                "2411.16170",
                "CARE Transformer: Mobile-Friendly Linear Visual Transformer via Decoupled Dual Interaction",
                "Zhou, Yuan",
                "CVPR 2025",
            ),
        ),
    ),
    "smt": (("*", Paper("2307.08579", "Scale-Aware Modulation Meet Transformer", "Lin, Weifeng", "ICCV 2023")),),
    "focalnet": (("*", Paper("2203.11926", "Focal Modulation Networks", "Yang, Jianwei", "NeurIPS 2022")),),
    "ravlt": (
        ("*", Paper("2411.07635", "Breaking the Low-Rank Dilemma of Linear Attention", "Fan, Qihang", "CVPR 2025")),
    ),
    "moat": (
        (
            "*",
            Paper(
                "2210.01820",
                "MOAT: Alternating Mobile Convolution and Attention Brings Strong Vision Models",
                "Yang, Chenglin",
                "ICLR 2023",
            ),
        ),
    ),
    "affnet": (
        (
            "*",
            Paper(
                "2307.14008",
                "Adaptive Frequency Filters As Efficient Global Token Mixers",
                "Huang, Zhipeng",
                "ICCV 2023",
            ),
        ),
    ),
    "agent": (
        (
            "*",
            Paper(
                "2312.08874",
                "Agent Attention: On the Integration of Softmax and Linear Attention",
                "Han, Dongchen",
                "ECCV 2024",
            ),
        ),
    ),
    "inline": (
        (
            "*",
            Paper(
                "2412.06590",
                "Bridging the Divide: Reconsidering Softmax and Linear Attention",
                "Han, Dongchen",
                "NeurIPS 2024",
            ),
        ),
    ),
    "illama": (("*", Paper("2404.06773", "Adapting LLaMA Decoder to Vision Transformer", "Wang, Jiahao")),),
    "favit": (
        (
            "*",
            Paper(
                "2312.08614",
                "Factorization Vision Transformer: Modeling Long Range Dependency with Local Window Cost",
                "Qin, Haolin",
            ),
        ),
    ),
    "moh": (
        ("*", Paper("2410.11842", "MoH: Multi-Head Attention as Mixture-of-Head Attention", "Jin, Peng")),
        (
            "*",
            Paper(
                "2311.17132",
                "TransNeXt: Robust Foveal Visual Perception for Vision Transformers",
                "Shi, Dai",
                "CVPR 2024",
                alone=True,
            ),
        ),
    ),
    "davit": (("*", Paper("2204.03645", "DaViT: Dual Attention Vision Transformers", "Ding, Mingyu", "ECCV 2022")),),
    "iformer": (
        (
            "*",
            Paper(
                "2501.15369",
                "iFormer: Integrating ConvNet and Transformer for Mobile Application",
                "Zheng, Chuanyang",
                "ICLR 2025",
                alone=True,
            ),
        ),
    ),
    "dsm": (("*", Paper("2309.06721", "Dynamic Spectrum Mixer for Visual Recognition", "Hu, Zhiqiang")),),
    "lightnet": (
        (
            "*",
            Paper(
                "2405.21022",
                "You Only Scan Once: Efficient Multi-dimension Sequential Modeling with LightNet",
                "Qin, Zhen",
            ),
        ),
    ),
    "loope": (
        (
            "*",
            Paper(
                "2504.14386",
                "LOOPE: Learnable Optimal Patch Order in Positional Embeddings for Vision Transformers",
                "Chowdhury, Md Abtahi Majeed",
            ),
        ),
    ),
}
"""Family → papers, each with a pattern of the networks that it is about."""


def papers_of(config: ModelConfig) -> tuple[Paper, ...]:
    """Papers of a network; of one that no pattern names (a YAML of a user's own), all of its family.

    Args:
        config: the network; families of plugins and of timm have no papers here.
    """
    known = PAPERS.get(config.family, ())
    named = tuple(paper for pattern, paper in known if fnmatch.fnmatch(config.name, pattern))
    return named or tuple(paper for _, paper in known)
