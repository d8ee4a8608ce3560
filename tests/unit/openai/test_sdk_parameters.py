"""What OpenAI's own package can send is known here, if only to be refused by its name."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import EmbeddingCreateParams
from openai.types.chat import ChatCompletionContentPartTextParam
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsBase as ChatCreateParams,
)
from openai.types.completion_create_params import CompletionCreateParamsBase
from openai.types.responses import ResponseInputTextParam
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from pydantic import BaseModel

from synapse.api.openai.embeddings import EmbeddingsRequest
from synapse.api.openai.responses.items import TextPart
from synapse.api.openai.responses.schemas import ResponsesRequest
from synapse.api.openai.schemas import ChatRequest, CompletionRequest, ContentPart


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (ChatCreateParams, ChatRequest),
        (ChatCompletionContentPartTextParam, ContentPart),
        (CompletionCreateParamsBase, CompletionRequest),
        (ResponseCreateParamsBase, ResponsesRequest),
        (ResponseInputTextParam, TextPart),
        (EmbeddingCreateParams, EmbeddingsRequest),
    ],
)
def test_no_parameter_of_the_sdk_is_unknown(sent: Any, read: type[BaseModel]) -> None:
    known = {field.alias or name for name, field in read.model_fields.items()}

    assert set(sent.__annotations__) - known == set()
