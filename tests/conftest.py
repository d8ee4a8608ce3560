"""Rules for every test: its tier is its folder, it never sees real AWS or the user's own state."""

from __future__ import annotations

import functools
import gc
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import httpcore2
import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from tests.patience import PATIENCE_S

# In the order they run: the quickest first.
TIERS = ("unit", "contract", "infra", "integration", "e2e")
DEPLOYED = "deployed"
ON_ONE_MACHINE = "e2e/openai_sdk on one machine"
WITH_ONE_TRITON = (
    "integration/triton/",
    "integration/worker/test_embedding.py",
    "integration/worker/test_generation.py",
)
"""Those of a folder that talk to the Triton that they share, and would each start one elsewhere."""

WITH_ONE_TRANSLATION = tuple(
    f"infra/test_{name}.py"
    for name in ("api", "guards", "pools", "rights", "state_machines", "streaming", "template")
)
"""Those that read the translated template, which takes each process that translates it seconds."""

WITHOUT_THE_STACK = ("e2e/one_machine/", "e2e/test_power_cut.py")
# With several processes the longest groups come early: at the end nothing can be run beside them.
# What shares a deployed stack takes one process most of the time that all the others need; the many
# short files of unit tests are shared out last, so that all processes end together.
IN_PARALLEL = (DEPLOYED, "e2e", "integration", "infra", "contract", "unit")
TESTS = Path(__file__).parent

FAKE_AWS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


# Where the environments are, for whoever keeps them elsewhere; a certificate bundle is no state.
KEPT = frozenset(
    {
        "AWS_CA_BUNDLE",
        "SYNAPSE_CLIENTS_VENV",
        "SYNAPSE_MINISTACK_VENV",
        "SYNAPSE_PYTHON",
        "SYNAPSE_SAM_VENV",
        "SYNAPSE_WORKER_VENV",
    }
)

# How long an example takes is the machine's doing: only what it finds decides.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")

# While tests are loaded, which all stay: Python's own figures have them looked through again and
# again. Not while they run: what they leave behind would fill the memory.
COLLECT_EVERY = (50_000, 20, 20)
USUAL = gc.get_threshold()


def pytest_configure() -> None:
    """Before any import of boto3: a profile or endpoint of the user's never takes part."""
    for key in [key for key in os.environ if key.startswith(("AWS_", "SYNAPSE_", "POWERTOOLS_"))]:
        if key not in KEPT:
            del os.environ[key]
    os.environ.update(FAKE_AWS)
    gc.set_threshold(*COLLECT_EVERY)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        tier = _tier(item)
        item.add_marker(tier)
        if tier == "unit":
            item.add_marker("disable_socket")
    in_order = IN_PARALLEL if "PYTEST_XDIST_WORKER" in os.environ else TIERS
    items.sort(key=lambda item: in_order.index(_place(item, in_order)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What is loaded by now stays until the end: the garbage collector leaves it alone."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*USUAL)


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]  # it ships no types
    """Gives each process whole groups of tests.

    The plugin's own grouping by marks writes them into the tests' ids, which pytest 9 ignores.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)

    def _reschedule(self, node: WorkerController) -> None:
        """The next group for who begins its last test, and not its last but one.

        It would wait there behind both, also where others have nothing left to do.
        """
        if not self.workqueue or self._pending_of(self.assigned_work[node]) <= 1:
            super()._reschedule(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByGroup:
    return ByGroup(config, log)


def _group(nodeid: str) -> str:
    """What runs in one process, one after the other: a file, or all that share something dear.

    Deploying a stack takes longer than most files do. OpenAI's SDK talks to it too, and to a server
    of one machine, which may be in the other process.
    """
    name, _, test = nodeid.partition("::")
    path = Path(name)
    parts = path.parts[path.parts.index("tests") + 1 :]
    file = "/".join(parts)
    if file.startswith(WITH_ONE_TRITON):
        return f"{parts[0]}/{parts[1]} with one Triton"
    if file in WITH_ONE_TRANSLATION:
        return "infra with one translation"
    if parts[0] != "e2e" or file.startswith(WITHOUT_THE_STACK):
        return file
    return ON_ONE_MACHINE if parts[1] == "openai_sdk" and "[deployed" not in test else DEPLOYED


def _place(item: pytest.Item, in_order: tuple[str, ...]) -> str:
    nodeid = f"tests/{item.path.relative_to(TESTS)}::{item.name}"
    return DEPLOYED if DEPLOYED in in_order and _group(nodeid) == DEPLOYED else _tier(item)


def _tier(item: pytest.Item) -> str:
    folder = item.path.relative_to(TESTS).parts[0]
    if folder not in TIERS:
        raise pytest.UsageError(f"{item.path}: tests live in one of tests/{{{','.join(TIERS)}}}/")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A server that is told no folder leaves its state here, not in the checkout."""
    os.environ["SYNAPSE_DATA_DIR"] = str(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True, scope="session")
def _clients_are_patient() -> None:
    """By itself httpx gives a server five seconds, and a busy machine stands still for as long.

    What functions and clients are given by default is this one object.
    """
    for what in ("connect", "read", "write", "pool"):
        setattr(DEFAULT_TIMEOUT_CONFIG, what, PATIENCE_S)


@pytest.fixture(autouse=True, scope="session")
def _certificates_read_once() -> Iterator[None]:
    """Each HTTP client would read all that the world trusts, 50 ms of work, to ask this machine."""
    bundle = os.environ.get("SSL_CERT_FILE") or certifi.where()
    make = ssl.create_default_context
    shared = functools.cache(lambda: make(cafile=bundle))

    def create(*purpose: Any, **options: Any) -> ssl.SSLContext:
        is_the_worlds = not purpose and options == {"cafile": bundle}
        return shared() if is_the_worlds else make(*purpose, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", create)
        patch.setattr(
            httpcore2, "default_ssl_context", functools.cache(httpcore2.default_ssl_context)
        )
        yield
