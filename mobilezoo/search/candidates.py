"""Maps Optuna trials to candidate indices, so that any number of workers can share one study.

A search evaluates the candidates 0, 1, 2, ... A new Optuna trial takes the next index. When the process of a trial
dies, another trial with the same network is queued for the same index. Of several trials with one index, the earliest
that was not interrupted is the active one; the others are dropped as they start. Two workers that queue the same index
at once, or start one trial too many, therefore do no harm, and no lock is needed. Everything is computed from the
trials: no other state can be lost between two writes.
"""

from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

AGAIN = "again"
"""User attribute, set when a trial is queued: the candidate index of the interrupted trial that it repeats."""
DROPPED = "dropped"
"""User attribute of a trial whose candidate has another active trial, or whose index is past the limit."""
REASON = "reason"
"""User attribute: why a trial failed or was pruned. A failed trial without one was interrupted."""
STOPPED = "stopped"
"""User attribute: the fault of the set-up that interrupted a trial; its network is not to blame."""
MAX_INTERRUPTIONS = 3
"""Crashes after which a candidate is given up: it may be their cause."""


def all_trials(study: Study) -> list[FrozenTrial]:
    """All trials in order, from the storage: a sampler may hold a study that a pruner has filtered."""
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


class Candidates:
    """The trials of a study, grouped by candidate index."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self.next_index = 0
        """The candidate index of the next new trial."""
        self._index: dict[int, int] = {}
        self._trials: dict[int, list[FrozenTrial]] = {}
        self.valid_trials: list[FrozenTrial] = []
        """Trials that were neither dropped nor interrupted, in order."""
        for trial in trials:
            index = trial.user_attrs.get(AGAIN, self.next_index)
            self.next_index += AGAIN not in trial.user_attrs
            self._index[trial.number] = index
            if DROPPED not in trial.user_attrs:
                self._trials.setdefault(index, []).append(trial)
                if not _interrupted(trial):
                    self.valid_trials.append(trial)

    def candidate_index(self, number: int) -> int:
        """Returns the candidate index of the Optuna trial `number`."""
        return self._index[number]

    def active_trial(self, index: int) -> FrozenTrial | None:
        """Returns a candidate's trial that waits, runs or is finished; None if all were interrupted."""
        return next((trial for trial in self._trials.get(index, []) if not _interrupted(trial)), None)

    def finished(self, limit: int | None = None) -> list[tuple[int, FrozenTrial]]:
        """Lists (candidate index, trial) of finished candidates in order; of the first `limit` where it is given."""
        active = [(index, self.active_trial(index)) for index in self._started(limit)]
        return [(index, trial) for index, trial in active if trial is not None and trial.state.is_finished()]

    def missing(self, limit: int | None = None) -> list[int]:
        """Lists the started candidates without an active trial; of the first `limit` where it is given."""
        return [index for index in self._started(limit) if self.active_trial(index) is None]

    def open(self, limit: int) -> bool:
        """Whether a trial waits, or a new one would have an index below `limit`."""
        waiting = any(trial.state == TrialState.WAITING for trial in self.valid_trials)
        return waiting or self.next_index < limit

    def crash_count(self, index: int) -> int:
        """Counts the processes that died while they evaluated a candidate."""
        return sum(_interrupted(trial) and STOPPED not in trial.user_attrs for trial in self._trials.get(index, []))

    def queue_attributes(self, index: int) -> tuple[dict[str, object], dict[str, object]]:
        """Returns (parameters, user attributes) of a trial that repeats a candidate with the choices made so far."""
        begun = [trial for trial in self._trials.get(index, []) if "genome" in trial.user_attrs]
        if not begun:
            return {}, {AGAIN: index}
        origin = {key: value for key, value in begun[-1].user_attrs.items() if key == "origin"}
        return dict(begun[-1].params), {AGAIN: index, **origin}

    def _started(self, limit: int | None) -> range:
        return range(self.next_index if limit is None else min(limit, self.next_index))


def queue_again(study: Study, limit: int) -> None:
    """Queues a trial for every candidate whose trials were all interrupted.

    Args:
        study: the search's study.
        limit: candidates from this index on are left out.
    """
    candidates = Candidates(all_trials(study))
    for index in candidates.missing(limit):
        params, attrs = candidates.queue_attributes(index)
        study.enqueue_trial(params, user_attrs=attrs)


def _interrupted(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and not {REASON, DROPPED} & trial.user_attrs.keys()
