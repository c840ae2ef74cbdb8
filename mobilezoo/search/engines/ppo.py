"""MnasNet's controller: a recurrent policy samples a network choice by choice and learns from the reward by PPO.

Tan et al. 2019 (section 3.2 and 4) use the RNN controller of NASNet with proximal policy optimization. The policy here
is an LSTM with one embedding per choice and one head per gene; sizes and rates are ours, scaled to hundreds of trials
instead of 8,000.

The policy is a function of the seed and the finished trials: it is trained on whole batches of them in order, so a
resumed search replays the batches and holds the same policy as the process that ended.
"""

import numpy as np
import torch
from torch import nn

from mobilezoo.search.engines.base import GenomeSampler, Seen
from mobilezoo.search.engines.settings import EngineSettings
from mobilezoo.search.genes import GeneSpace, Genome

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
        self._steps: dict[tuple[int, ...], tuple[tuple[torch.Tensor, torch.Tensor], np.ndarray]] = {}
        """Cache of `sample`: choices so far → state and cumulated probabilities of the next choice."""

    def sample(self, rng: np.random.Generator) -> Genome:
        """Draws a point."""
        genome: Genome = {}
        state, x, index = self._begin(1), self.start[None], 0
        written: tuple[int, ...] = ()
        with torch.no_grad():
            for gene in self.genes.genes:
                free = len(gene.choices) > 1
                if self.genes.active(gene, genome):
                    choice = 0
                    if free:
                        if written not in self._steps:
                            state = self.cell(x, state)
                            p = self.heads[index](state[0]).softmax(-1)[0].double().numpy()
                            self._steps[written] = state, np.cumsum(p / p.sum())
                        state, cumulated = self._steps[written]
                        choice = min(int(np.searchsorted(cumulated, rng.random(), "right")), len(gene.choices) - 1)
                        x, written = self.choices[index](torch.tensor([choice])), (*written, choice)
                    genome[gene.name] = gene.choices[choice]
                index += free
        return genome

    def score(self, genomes: list[Genome]) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes (log-probability, mean entropy of the choices) of n points, each [n], differentiable."""
        n = len(genomes)
        (h, c), x = self._begin(n), self.start.expand(n, -1)
        log_p, entropy, written = torch.zeros(n), torch.zeros(n), torch.zeros(n)
        for index, gene in enumerate(self.genes.free):
            on = torch.tensor([gene.name in genome for genome in genomes])
            choice = torch.tensor([gene.choices.index(g[gene.name]) if gene.name in g else 0 for g in genomes])
            new_h, new_c = self.cell(x, (h, c))
            h, c = torch.where(on[:, None], new_h, h), torch.where(on[:, None], new_c, c)
            logits = self.heads[index](h).log_softmax(-1)
            log_p = log_p + on * logits.gather(1, choice[:, None])[:, 0]
            entropy = entropy - on * (logits.exp() * logits).sum(-1)
            x = torch.where(on[:, None], self.choices[index](choice), x)
            written += on
        return log_p, entropy / written.clamp(min=1)

    def forget(self) -> None:
        """Clears the cache of `sample`; to be called after a change of the weights."""
        self._steps.clear()

    def _begin(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(n, WIDTH), torch.zeros(n, WIDTH)


class ControllerSampler(GenomeSampler):
    """The controller as a sampler."""

    def __init__(self, settings: EngineSettings, genes: GeneSpace) -> None:
        super().__init__(settings, genes)
        self._reset()

    def propose(self, history: list[Seen], rng: np.random.Generator) -> Genome:
        self._learn([trial for trial in history if trial.reward is not None])
        return self._policy.sample(rng)

    def _reset(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            self._policy = Policy(self.genes)
        self._optimizer = torch.optim.Adam(self._policy.parameters(), lr=RATE)
        self._learned: list[int] = []
        self._baseline: float | None = None

    def _learn(self, done: list[Seen]) -> None:
        """Trains the policy up to the last whole batch of `done`; resets it if it was trained on other trials."""
        whole = done[: len(done) // BATCH * BATCH]
        numbers = [trial.number for trial in whole]
        if numbers[: len(self._learned)] != self._learned:
            self._reset()
        for at in range(len(self._learned), len(whole), BATCH):
            self._update(whole[at : at + BATCH])
        self._learned = numbers

    def _update(self, batch: list[Seen]) -> None:
        """Takes `EPOCHS` gradient steps of PPO on one batch of trials."""
        rewards = torch.tensor([trial.reward for trial in batch], dtype=torch.float32)
        self._baseline = float(rewards.mean()) if self._baseline is None else self._baseline
        # Advantage over the moving average, scaled to the batch, so that the learning rate suits any reward.
        advantage = rewards - self._baseline
        advantage = advantage / (advantage.std() + 1e-6)
        self._baseline = BASELINE * self._baseline + (1 - BASELINE) * float(rewards.mean())
        old = None
        for _ in range(EPOCHS):
            log_p, entropy = self._policy.score([trial.genome for trial in batch])
            old = log_p.detach() if old is None else old  # before the first step
            ratio = (log_p - old).exp()
            # PPO's clipped objective: no gradient once a probability has moved far enough.
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            gain = torch.minimum(ratio * advantage, clipped * advantage).mean()
            self._optimizer.zero_grad()
            (-gain - ENTROPY * entropy.mean()).backward()
            self._optimizer.step()
        self._policy.forget()
