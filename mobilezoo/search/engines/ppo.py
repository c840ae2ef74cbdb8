"""MnasNet's controller: a recurrent policy writes a network choice by choice and learns from the reward by PPO.

Tan et al. 2019 (section 3.2 and 4) use the RNN controller of NASNet with proximal policy optimisation. The policy here
is an LSTM with one embedding per choice and one head per gene; sizes and rates are ours, scaled to hundreds of trials
instead of 8,000.

The policy is a function of the seed and the finished trials: it is trained on whole batches of them in order, so a
resumed search replays the batches and holds the same policy as the process that ended.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mobilezoo.search.engines.base import GenomeSampler, Seen
from mobilezoo.search.genes import GeneSpace, Genome

if TYPE_CHECKING:
    from mobilezoo.search.records import SearchConfig

WIDTH = 64
BATCH = 10
"""Trials per update."""
EPOCHS = 8
"""Gradient steps per update."""
RATE = 3e-3
CLIP = 0.2
ENTROPY = 0.02
"""Weight of the entropy bonus: keeps the policy exploring."""
BASELINE = 0.8
"""Decay of the moving average of the reward."""


class Policy(nn.Module):
    """p(genome), one choice after another; inactive genes are skipped."""

    def __init__(self, genes: GeneSpace) -> None:
        super().__init__()
        self.genes = genes
        sizes = [len(gene.choices) for gene in genes.free]
        self.start = nn.Parameter(torch.zeros(WIDTH))
        self.cell = nn.LSTMCell(WIDTH, WIDTH)
        heads = [nn.Linear(WIDTH, size) for size in sizes]
        for head in heads:  # uniform at first
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleList(heads)
        self.choices = nn.ModuleList([nn.Embedding(size, WIDTH) for size in sizes])

    def sample(self, rng: np.random.Generator) -> Genome:
        """Draw a point."""
        genome: Genome = {}
        state, x, index = self._begin(), self.start[None], 0
        with torch.no_grad():
            for gene in self.genes.genes:
                free = len(gene.choices) > 1
                if self.genes.active(gene, genome):
                    choice = 0
                    if free:
                        state = self.cell(x, state)
                        p = self.heads[index](state[0]).softmax(-1)[0].double().numpy()
                        choice = int(rng.choice(len(p), p=p / p.sum()))
                        x = self.choices[index](torch.tensor([choice]))
                    genome[gene.name] = gene.choices[choice]
                index += free
        return genome

    def score(self, genome: Genome) -> tuple[torch.Tensor, torch.Tensor]:
        """(log-probability, mean entropy of the choices) of a point, differentiable."""
        state, x = self._begin(), self.start[None]
        log_p, entropy = [torch.zeros(())], [torch.zeros(())]
        for index, gene in enumerate(self.genes.free):
            if gene.name not in genome:
                continue
            state = self.cell(x, state)
            logits = self.heads[index](state[0])[0].log_softmax(-1)
            choice = gene.choices.index(genome[gene.name])
            log_p.append(logits[choice])
            entropy.append(-(logits.exp() * logits).sum())
            x = self.choices[index](torch.tensor([choice]))
        return torch.stack(log_p).sum(), torch.stack(entropy).sum() / max(1, len(entropy) - 1)

    def _begin(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(1, WIDTH), torch.zeros(1, WIDTH)


class ControllerSampler(GenomeSampler):
    """The controller as a sampler."""

    def __init__(self, config: "SearchConfig", genes: GeneSpace) -> None:
        super().__init__(config, genes)
        self._reset()

    def propose(self, history: list[Seen], rng: np.random.Generator) -> Genome:
        self._learn([trial for trial in history if trial.reward is not None])
        return self._policy.sample(rng)

    def _reset(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self._policy = Policy(self.genes)
        self._optimizer = torch.optim.Adam(self._policy.parameters(), lr=RATE)
        self._learned: list[int] = []
        self._baseline: float | None = None

    def _learn(self, done: list[Seen]) -> None:
        """Bring the policy to the last whole batch of `done`; start over when it learned from other trials."""
        whole = done[: len(done) // BATCH * BATCH]
        numbers = [trial.number for trial in whole]
        if numbers[: len(self._learned)] != self._learned:
            self._reset()
        for at in range(len(self._learned), len(whole), BATCH):
            self._update(whole[at : at + BATCH])
        self._learned = numbers

    def _update(self, batch: list[Seen]) -> None:
        rewards = torch.tensor([trial.reward for trial in batch], dtype=torch.float32)
        self._baseline = float(rewards.mean()) if self._baseline is None else self._baseline
        advantage = rewards - self._baseline
        advantage = advantage / (advantage.std() + 1e-6)
        self._baseline = BASELINE * self._baseline + (1 - BASELINE) * float(rewards.mean())
        old = None
        for _ in range(EPOCHS):
            scores = [self._policy.score(trial.genome) for trial in batch]
            log_p = torch.stack([score for score, _ in scores])
            old = log_p.detach() if old is None else old
            ratio = (log_p - old).exp()
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            gain = torch.minimum(ratio * advantage, clipped * advantage).mean()
            entropy = torch.stack([bits for _, bits in scores]).mean()
            self._optimizer.zero_grad()
            (-gain - ENTROPY * entropy).backward()
            self._optimizer.step()
