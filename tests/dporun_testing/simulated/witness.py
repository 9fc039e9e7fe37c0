"""What must hold at every moment, as far as the API server's events tell."""

from dporun_testing.simulated.api_server import Body
from dporun_testing.simulated.history import Act, History


class Witness:
    """Hears of every change, and notes what must never be."""

    def __init__(self, history: History):
        self.mistakes: list[str] = []
        self._deletes_jobs = history.has(Act.DELETE_JOBS)
        self._completed: set[str] = set()
        self._status: Body = {}

    def hear(self, event: str, body: Body) -> None:
        """Hear of a change."""
        if body["kind"] == "Job":
            self._hear_of_job(event, body)
        if body["kind"] == "DPORun":
            self._hear_of_run(body.get("status", {}))

    def _hear_of_job(self, event: str, job: Body) -> None:
        """No attempt trains again that ended well, unless the user has deleted its Job before it was looked at."""
        name = job["metadata"]["name"]
        if any(condition["type"] == "Complete" for condition in job["status"].get("conditions", ())):
            self._completed.add(name)
        elif event == "ADDED" and name in self._completed and "-train-" in name and not self._deletes_jobs:
            self.mistakes.append(f"Job {name} is made again although it was complete")

    def _hear_of_run(self, status: Body) -> None:
        """What a status knew once, no later one has forgotten."""
        before, self._status = self._status, status
        for field in ("attempt", "retries", "preemptions", "activeSeconds"):
            if before.get(field, 0) > status.get(field, 0):
                self.mistakes.append(f"status.{field} goes back from {before[field]} to {status.get(field)}")
        for field in ("startTime", "trainingCompletionTime", "completionTime", "bestCheckpoint", "dataset"):
            if field in before and field not in status:
                self.mistakes.append(f"status.{field} is forgotten")
