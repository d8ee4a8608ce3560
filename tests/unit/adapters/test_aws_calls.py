"""What of AWS's failures may pass."""

from __future__ import annotations

import pytest
from botocore.exceptions import IncompleteReadError

from synapse.adapters.aws.calls import call
from synapse.domain.errors import Unavailable


async def test_a_body_that_breaks_off_may_be_read_again() -> None:
    def read() -> bytes:
        raise IncompleteReadError(actual_bytes=1, expected_bytes=2)

    with pytest.raises(Unavailable):
        await call(read)
