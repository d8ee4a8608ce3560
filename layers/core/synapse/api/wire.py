"""What every body on the wire is, as a pydantic model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class WireModel(BaseModel):
    """Base of requests and responses. One is made ready for use when it is first used.

    To make all of them ready takes as long as a worker takes to start, and the schemas of answers
    are never used but by who asks for the OpenAPI document.
    """

    model_config = ConfigDict(defer_build=True)
