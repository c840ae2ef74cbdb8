"""Which trial stands for which network of the sequence: the rules that let any number of processes share a study.

A search tries networks at places 0, 1, 2, ... A fresh Optuna trial takes the next place; when the process that runs
it dies, a further trial is queued for the same place, which keeps the network. Of several trials for one place the
earliest that was not interrupted counts, all others are dropped as they start. So two workers that queue the same
place at once, or ask for one network too many, cost nothing, and nothing needs a lock. Everything here is computed
from the trials: there is no state to lose between two writes.
"""

from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

AGAIN = "again"
"""User attribute, set when a trial is queued: the place of the interrupted trial it repeats."""
DROPPED = "dropped"
"""User attribute of a trial that another one stands for, or that came after the last place."""
REASON = "reason"
"""User attribute: why a trial failed or was pruned. A failed trial without one was interrupted."""
STOPPED = "stopped"
"""User attribute: the fault of the set-up that interrupted a trial; its network is not to blame."""
MAX_INTERRUPTIONS = 3
"""A network whose processes died so often is given up: it may be what ended them."""


def all_trials(study: Study) -> list[FrozenTrial]:
    """All trials in order. Samplers may hold a study that a pruner has filtered, so the storage is asked."""
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


class Ledger:
    """The trials of a study by place."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self.fresh_place = 0
        """The place that the next fresh trial takes."""
        self._place: dict[int, int] = {}
        self._at: dict[int, list[FrozenTrial]] = {}
        self.heeded: list[FrozenTrial] = []
        """Trials that were neither dropped nor interrupted, in order."""
        for trial in trials:
            place = trial.user_attrs.get(AGAIN, self.fresh_place)
            self.fresh_place += AGAIN not in trial.user_attrs
            self._place[trial.number] = place
            if DROPPED not in trial.user_attrs:
                self._at.setdefault(place, []).append(trial)
                if not _interrupted(trial):
                    self.heeded.append(trial)

    def place(self, number: int) -> int:
        """The place of an Optuna trial."""
        return self._place[number]

    def standing(self, place: int) -> FrozenTrial | None:
        """The trial that counts at a place: waiting, running or finished. None where it was interrupted."""
        return next((trial for trial in self._at.get(place, []) if not _interrupted(trial)), None)

    def finished(self, limit: int) -> list[tuple[int, FrozenTrial]]:
        """(place, trial) of what is done before place `limit`, in order."""
        standing = [(place, self.standing(place)) for place in range(min(limit, self.fresh_place))]
        return [(place, trial) for place, trial in standing if trial is not None and trial.state.is_finished()]

    def gaps(self, limit: int) -> list[int]:
        """Places before `limit` that were asked for and that no trial stands for."""
        return [place for place in range(min(limit, self.fresh_place)) if self.standing(place) is None]

    def open(self, limit: int) -> bool:
        """Whether a trial waits, or a fresh one would have a place before `limit`."""
        waiting = any(trial.state == TrialState.WAITING for trial in self.heeded)
        return waiting or self.fresh_place < limit

    def deaths(self, place: int) -> int:
        """How often a process died at a place."""
        return sum(_interrupted(trial) and STOPPED not in trial.user_attrs for trial in self._at.get(place, []))


def queue_again(study: Study, limit: int) -> None:
    """Queue every network that was interrupted, with its choices where they were made already."""
    ledger = Ledger(all_trials(study))
    for place in ledger.gaps(limit):
        left = [trial for trial in ledger._at.get(place, []) if "genome" in trial.user_attrs]
        attrs = {AGAIN: place} | ({"origin": left[-1].user_attrs["origin"]} if _has_origin(left) else {})
        study.enqueue_trial(dict(left[-1].params) if left else {}, user_attrs=attrs)


def _has_origin(trials: list[FrozenTrial]) -> bool:
    return bool(trials) and "origin" in trials[-1].user_attrs


def _interrupted(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and not {REASON, DROPPED} & trial.user_attrs.keys()
