"""The methods of Triton's gRPC service that are used here."""

from __future__ import annotations

from typing import Any

from grpc.aio import Channel

from synapse.adapters.triton.generated import messages

PREFIX = "/inference.GRPCInferenceService/"


class Service:
    """Triton at the other end of a channel."""

    def __init__(self, channel: Channel) -> None:
        self.server_live: Any = channel.unary_unary(
            f"{PREFIX}ServerLive",
            request_serializer=messages.ServerLiveRequest.SerializeToString,
            response_deserializer=messages.ServerLiveResponse.FromString,
        )
        self.model_ready: Any = channel.unary_unary(
            f"{PREFIX}ModelReady",
            request_serializer=messages.ModelReadyRequest.SerializeToString,
            response_deserializer=messages.ModelReadyResponse.FromString,
        )
        self.infer: Any = channel.unary_unary(
            f"{PREFIX}ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        # The method takes a stream of requests, of which we always send one. That is the same
        # bytes as from a method that takes one, and less work: all is sent in one operation.
        self.stream_infer: Any = channel.unary_stream(
            f"{PREFIX}ModelStreamInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelStreamInferResponse.FromString,
        )
