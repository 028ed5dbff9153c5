"""Sending a study's requests to MLflow, in as few calls as there can be; what was sent already is not sent again.

At least once: what an error interrupts is sent again. MLflow ignores a metric, a parameter or a tag that it has, and a
run is found by its tags before it is made.
"""

import fcntl
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from dgm_ray.tasks.lines import Lines
from dgm_ray.tune.parallel import one_line as whole
from dgm_ray.tune.tracking.outbox import SENT, Request, Sent, requests_of, without_password

CHUNK = 2000  # requests that are sent, and written down as sent, at a time
METRICS, ENTITIES = 1000, 100  # that one call can have; the second of parameters, and of tags
MAX_PARAM, MAX_TAG = 6000, 5000  # characters
UNFINISHED = "interrupted"  # the status of a trial that may go on

Row = tuple[str, float, int, int]  # name, value, milliseconds since 1970, step


class Busy(Exception):  # noqa: N818 (it is no error)
    """Another process sends these requests."""


class Gone(Exception):  # noqa: N818
    """What a request names is not there."""


@dataclass
class Batch:
    """What waits for one call about one run."""

    metrics: list[Row] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Delivery:
    """Send the requests in a study's folder.

    uri: of the MLflow. connect: returns its client. copied: returns where a file can be read that a request names.
    """

    def __init__(
        self, folder: Path, uri: str, connect: Callable[[], Any], copied: Callable[[Path], Path] = lambda path: path
    ) -> None:
        self.folder, self._uri, self._connect, self._copied = folder, without_password(uri), connect, copied
        self.sent = Sent(folder, uri)
        self.closed = False  # the study has ended
        self._lines: Lines | None = None
        self._client: Any = None
        self._runs: dict[str, str] = {}
        self._experiment, self._log = "", "all"
        self._known, self._again = False, False  # what the study is; that its run was looked for in vain
        self._full: set[str] = set()
        self._ended: set[str] = set()
        self._bare: set[str] = set()  # runs that may have no parameters yet
        self._unsure = True  # whether MLflow has runs that we do not know
        self._waiting: defaultdict[str, Batch] = defaultdict(Batch)

    @property
    def left(self) -> int:
        """How many requests are not sent."""
        return sum(1 for _ in requests_of(self.folder, self.sent.offset))

    def deliver(self) -> int:
        """Send the next requests; return how many. Raises Busy, or why MLflow cannot be reached now."""
        self._claim()
        part = list(islice(requests_of(self.folder, self.sent.offset), CHUNK))
        if not part:
            return 0
        self._deliver(part)
        return len(part)

    def check(self) -> None:
        """Begin anew if MLflow has lost the study's run. Raises as ``deliver``."""
        self._claim()
        self._client = self._client or self._connect()
        try:
            if "" in self._runs:
                self._client.get_run(self._runs[""])
            else:
                self._client.search_experiments(max_results=1)
        except Exception as error:
            if passing(error):
                raise
            self._begin_anew()

    def kill(self) -> None:
        """End the runs of a study whose process died before it could. Raises as ``deliver``."""
        self._claim()
        if not self.closed and "" in self._runs:
            self._client = self._client or self._connect()
            self._restore(self.sent.offset + 1)
            for run in self._children():
                if run.info.status == "RUNNING":
                    self._client.set_terminated(run.info.run_id, "KILLED")
            self._client.set_terminated(self._runs[""], "KILLED")

    def say(self, why: str) -> None:
        """Write down why sending does not go on."""
        if self._lines and why != self.sent.waiting:
            self._lines.add(json.dumps({"uri": self._uri, "waiting": why}))
            self.sent.update()

    def release(self) -> None:
        """Let other processes send what is left."""
        if self._lines:
            self._lines.close()
            self._lines = None

    def _claim(self) -> None:
        """Keep other processes from sending the same. Raises Busy."""
        if self._lines:
            return
        lines = Lines(self.folder / SENT)
        try:
            fcntl.flock(lines.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lines.close()
            raise Busy(f"another process sends what {self.folder} has") from None
        self._lines = lines
        self.sent.update()  # what the other process has sent
        self._runs = dict(self.sent.runs)
        self._unsure = True
        for end, request in requests_of(self.folder):
            if end > self.sent.offset:
                break
            if request["do"] in ("study", "close"):
                self.closed = request["do"] == "close"

    def _note(self, offset: int, refusal: str = "") -> None:
        """Write down what was sent."""
        assert self._lines
        new = {name: run for name, run in self._runs.items() if self.sent.runs.get(name) != run}
        line = {"uri": self._uri, "offset": offset, "runs": new}
        self._lines.add(json.dumps(line | ({"refused": refusal} if refusal else {})))
        self.sent.update()

    def _begin_anew(self) -> None:
        assert self._lines
        self._lines.add(json.dumps({"uri": self._uri, "anew": True}))
        self.sent.update()
        self._runs, self._known, self._unsure = {}, False, True
        self._ended.clear()

    def _deliver(self, part: list[tuple[int, Request]]) -> None:
        """Send requests, but for those that MLflow refuses: they are looked for by halves."""
        try:
            self._send(part)
        except Exception as error:
            self._unsure = True
            if passing(error):
                raise
            if part[0][1]["do"] == "study" and "" not in self._runs and len(part) == 1:
                raise  # without its run all that follows would be refused as well
            if len(part) > 1:
                self._deliver(part[: len(part) // 2])
                self._deliver(part[len(part) // 2 :])
            else:
                self._note(part[0][0], one_line(error))
        else:
            self._note(part[-1][0])

    def _send(self, part: Iterable[tuple[int, Request]]) -> None:
        self._client = self._client or self._connect()
        self._waiting.clear()
        for end, request in part:
            self._do(end, request)
        for run in list(self._waiting):
            self._flush(run)

    def _do(self, end: int, request: Request) -> None:
        if request["do"] == "study":
            self._study(request)
            return
        self._restore(end)
        if "" not in self._runs:
            raise Gone("the study has no run")
        if request["do"] == "full":
            self._replay(end, request)
        elif request["do"] == "close":
            self._flush(self._runs[""])
            self._client.set_terminated(self._runs[""], request["status"], request["time"])
            self.closed = True
        elif request["do"] == "figures":
            self._figures(request)
        elif request["do"] in ("file", "text", "model"):
            self._attach(request)
        elif self._shown(request["trial"]):
            {"trial": self._trial, "metrics": self._metrics, "end": self._end}[request["do"]](request)

    def _study(self, request: Request) -> None:
        """Start the study's run, or go on with it."""
        self._learn(request)
        tag, value = ("study", request["tags"]["study"]) if request["resume"] else ("outbox", request["key"])
        quote = '"' if "'" in value else "'"
        where = f"tags.{tag} = {quote}{value}{quote}"
        found = self._client.search_runs([self._experiment], where, order_by=["start_time DESC"], max_results=1)
        if not found and request["resume"] and self.sent.offset and not self._again:
            self._again = True
            self._begin_anew()
            raise ConnectionError("MLflow has lost the study's run: all is sent again")
        tags = {name: str(value)[:MAX_TAG] for name, value in {**request["tags"], "outbox": request["key"]}.items()}
        self.closed = False
        if found:
            self._runs[""] = found[0].info.run_id
            self._client.update_run(self._runs[""], "RUNNING")
            list(self._children())
        else:
            run = self._client.create_run(self._experiment, request["time"], tags, request["name"])
            self._runs = {"": run.info.run_id}
            self._unsure = False
        if not found or not found[0].data.params:
            shown = {name: json.dumps(value)[:MAX_PARAM] for name, value in request["params"].items()}
            self._waiting[self._runs[""]].params |= shown

    def _learn(self, request: Request) -> None:
        """Take from a study's request what those after it need."""
        name = request["experiment"]
        found = self._client.get_experiment_by_name(name)
        if not found:
            try:
                self._client.create_experiment(name, self._kept(request))
            except Exception as error:
                if passing(error):
                    raise  # else another study has made it meanwhile
            found = self._client.get_experiment_by_name(name)
        self._experiment = found.experiment_id
        self._log, self._known = request["log"], True

    def _kept(self, request: Request) -> str | None:
        """Return where an experiment's artifacts are, None if the server decides it."""
        if not self._uri.startswith("sqlite:"):
            return None
        if self._uri == request["uri"]:
            return Path(request["artifacts"]).as_uri() if request["artifacts"] else None
        return Path(self._uri.removeprefix("sqlite:///")).absolute().with_name("mlflow-artifacts").as_uri()

    def _restore(self, end: int) -> None:
        """Learn what the study is, if another process has sent that."""
        if self._known:
            return
        for before, request in requests_of(self.folder):
            if before >= end:
                return
            if request["do"] == "study":
                self._learn(request)

    def _shown(self, trial: str) -> bool:
        return self._log == "all" or trial in self._full or trial in self._runs

    def _trial(self, request: Request) -> None:
        """Start a trial's run, or go on with it."""
        trial = request["trial"]
        if trial not in self._runs and self._unsure:
            list(self._children())
        if trial in self._runs:
            if request["late"] and trial in self._ended:
                return
            self._client.update_run(self._runs[trial], "RUNNING")
        else:
            tags = request["tags"] | {"mlflow.parentRunId": self._runs[""], "trial_id": trial}
            shown = {name: str(value)[:MAX_TAG] for name, value in tags.items()}
            run = self._client.create_run(self._experiment, request["time"], shown, request["name"])
            self._runs[trial] = run.info.run_id
            self._bare.add(trial)
        if trial in self._bare:
            shown = {name: str(value)[:MAX_PARAM] for name, value in request["params"].items()}
            self._waiting[self._runs[trial]].params |= shown

    def _metrics(self, request: Request) -> None:
        run = self._run_of(request["trial"])
        for epoch in request["epochs"]:
            step = int(epoch["epoch"])
            rows = [(name, value, request["time"], step) for name, value in epoch.items() if name != "epoch"]
            self._waiting[run].metrics += rows
        if len(self._waiting[run].metrics) >= METRICS:
            self._flush(run)

    def _end(self, request: Request) -> None:
        trial = request["trial"]
        if request["late"] and trial in self._ended:
            return
        run = self._run_of(trial)
        self._note_figures(run, request, 0)
        self._flush(run)
        if request["trace"]:
            self._client.log_text(run, request["trace"], "traceback.txt")
        self._client.set_terminated(run, request["status"], request["time"])
        self._bare.discard(trial)
        if request["tags"]["status"] != UNFINISHED:
            self._ended.add(trial)

    def _figures(self, request: Request) -> None:
        self._note_figures(self._runs[""], request, request["step"])

    def _note_figures(self, run: str, request: Request, step: int) -> None:
        batch = self._waiting[run]
        batch.metrics += [(name, value, request["time"], step) for name, value in request["metrics"].items()]
        batch.tags |= {name: str(value)[:MAX_TAG] for name, value in request["tags"].items()}

    def _attach(self, request: Request) -> None:
        """Log a file, a text or a model."""
        trial = request["trial"]
        if trial and not self._shown(trial):
            return
        run = self._run_of(trial) if trial else self._runs[""]
        if request["do"] == "text":
            self._client.log_text(run, request["text"], request["name"])
            return
        path = self._copied(self.folder / request["path"])
        if not path.exists():
            raise Gone(f"there is no {request['path']} any more")
        if request["do"] == "model":
            from dgm_ray.tune.tracking.model import log_model

            log_model(self._client, run, path)
            return
        self._client.log_artifact(run, str(path), request["folder"])

    def _replay(self, end: int, request: Request) -> None:
        """Send all that was said before of trials that have no run, or one that has not got all."""
        self._full |= set(request["trials"])
        list(self._children())
        left = set(request["trials"]) - self._ended
        for before, one in requests_of(self.folder):
            if before >= end:
                return
            if "trial" in one and one["trial"] in left:
                self._do(end, one)

    def _run_of(self, trial: str) -> str:
        """Return a trial's run. Raises Gone if it was refused."""
        if trial not in self._runs:
            raise Gone(f"trial {trial} has no run")
        return self._runs[trial]

    def _children(self) -> Iterator[Any]:
        """Learn and yield the runs of all trials that MLflow has."""
        token, where = None, f"tags.`mlflow.parentRunId` = '{self._runs['']}'"
        while token != "":
            page = self._client.search_runs([self._experiment], where, page_token=token)
            for run in page:
                trial = run.data.tags["trial_id"]
                self._runs[trial] = run.info.run_id
                if "status" in run.data.tags and run.data.tags["status"] != UNFINISHED:
                    self._ended.add(trial)
                if not run.data.params:
                    self._bare.add(trial)
                yield run
            token = page.token or ""
        self._unsure = False

    def _flush(self, run: str) -> None:
        """Make the calls that wait about a run."""
        from mlflow.entities import Metric, Param, RunTag

        if run not in self._waiting:
            return
        batch = self._waiting.pop(run)
        metrics, params, tags = batch.metrics, list(batch.params.items()), list(batch.tags.items())
        while metrics or params or tags:
            now = params[:ENTITIES], tags[:ENTITIES]
            room = METRICS - sum(map(len, now))
            self._client.log_batch(
                run,
                metrics=[Metric(*row) for row in metrics[:room]],
                params=[Param(*one) for one in now[0]],
                tags=[RunTag(*one) for one in now[1]],
            )
            metrics, params, tags = metrics[room:], params[ENTITIES:], tags[ENTITIES:]


def passing(error: Exception) -> bool:
    """Tell whether it may go well later: MLflow cannot be reached, has too much to do, or fails."""
    if hasattr(error, "get_http_status_code"):  # MLflow's own
        if "Response body: " in str(error):  # it is no JSON: what answered was not MLflow, but a proxy before it
            return True
        return error.get_http_status_code() in (408, 429) or error.get_http_status_code() >= 500
    answer = getattr(error, "response", None)
    if answer is not None:  # of requests, which sends files to a server
        return answer.status_code in (408, 429) or answer.status_code >= 500
    return isinstance(error, Busy | OSError) or type(error).__module__.startswith("sqlalchemy.exc")


def one_line(error: Exception) -> str:
    """Return what an error says, short."""
    return whole(error)[:200]
