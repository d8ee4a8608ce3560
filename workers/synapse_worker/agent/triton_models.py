"""Triton's API for loading and unloading models, and its metrics page, over HTTP."""

import asyncio
import json
import re
from http import HTTPStatus

from synapse_worker.agent.errors import NoAnswer, NotNow
from synapse_worker.agent.readings import Readings, read_page
from synapse_worker.diagnosis import TRACEBACK
from synapse_worker.errors import WorkerError
from synapse_worker.health import http_call, model_states
from synapse_worker.supervisor import Supervisor, WorkerState

CALL_TIMEOUT_S = 5.0
UNLOADING_POLL_S = 0.05
LOADING_POLL_S = 0.5
REASON = re.compile(r"(?:UNAVAILABLE state: |^failed to load '[^']+', )(?:\w+: )?(.+)", re.S)


class TritonModels:
    """The models of one running Triton."""

    def __init__(self, supervisor: Supervisor, load_timeout_s: float) -> None:
        """Of the Triton that this supervisor keeps alive."""
        self._supervisor = supervisor
        self._load_timeout_s = load_timeout_s

    @property
    def is_up(self) -> bool:
        """Whether Triton is there to be asked."""
        return self._supervisor.status.state is WorkerState.READY

    async def load(self, model: str) -> None:
        """Return once it answers.

        Raises:
            NoAnswer: it still loads, for all that is known.
            WorkerError: it does not load, with Triton's own words.
        """
        path = f"/v2/repository/models/{model}/load"
        status, answer = await self._post(path, self._load_timeout_s, f"loaded {model}")
        if status != HTTPStatus.OK:
            raise WorkerError(f"Triton could not load {model}: {_reason(answer)}")

    async def unload(self, model: str) -> None:
        """Take nothing new for it; Triton lets go of it once all it was asked is answered.

        Raises:
            NoAnswer: Triton may yet do it.
            WorkerError: Triton does not do it.
        """
        path = f"/v2/repository/models/{model}/unload"
        status, answer = await self._post(path, CALL_TIMEOUT_S, f"unloaded {model}")
        if status != HTTPStatus.OK:
            raise WorkerError(f"Triton could not unload {model}: {_reason(answer)}")

    async def wait_unloaded(self, model: str) -> None:
        """Return once Triton has let go of it, or is gone itself.

        Loading it before that kills Triton 2.51, as soon as the old one goes. One that is still
        being loaded is asked to go once it is up: asked before, the call would wait for that, and
        keep one of Triton's few threads.
        """
        while self.is_up:
            pause_s = LOADING_POLL_S
            try:
                address = self._supervisor.http_address
                states = (await model_states(address, CALL_TIMEOUT_S)).get(model, set())
                if not states & {"LOADING", "READY", "UNLOADING"}:
                    return
                if "UNLOADING" in states:
                    pause_s = UNLOADING_POLL_S
                elif "LOADING" not in states:
                    await self.unload(model)
                    pause_s = UNLOADING_POLL_S
            except (OSError, TimeoutError, WorkerError):  # the supervisor sees to it
                pass
            await asyncio.sleep(pause_s)

    async def readings(self) -> Readings | None:
        """What the metrics page tells; None without an answer."""
        try:
            address = self._supervisor.metrics_address
            status, page = await http_call(address, "/metrics", CALL_TIMEOUT_S)
        except (OSError, TimeoutError):
            return None
        return read_page(page.decode(errors="replace")) if status == HTTPStatus.OK else None

    async def _post(self, path: str, timeout_s: float, what: str) -> tuple[int, bytes]:
        if not self.is_up:
            status = self._supervisor.status
            raise NotNow(f"Triton is {status.state}", status.cause or "Try again later")
        try:
            return await http_call(self._supervisor.http_address, path, timeout_s, b"{}")
        except TimeoutError as error:
            raise NoAnswer(f"Triton has not {what} within {timeout_s:g} s") from error
        except OSError as error:
            raise NoAnswer(f"Triton went down before it had {what}", "See its log") from error


def _reason(answer: bytes) -> str:
    """What is said about the cause, without what leads up to it."""
    try:
        text = str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        text = answer.decode(errors="replace")
    text = TRACEBACK.sub("", text)
    match = REASON.search(text)
    return " ".join((match[1] if match else text).split()).rstrip("; ")
