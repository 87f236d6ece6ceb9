"""Messages of CosyVoice's gRPC protocol from its field numbers alone, as foreign clients know it.

In a descriptor pool of their own, so that they are not those of `deployments.ingress.official_grpc`.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

METHOD = "/cosyvoice.CosyVoice/Inference"
# Of each message: name, number and type of its fields.
_STRING, _BYTES = 9, 12
_MESSAGES: dict[str, list[tuple[str, int, int]]] = {
    "sftRequest": [("spk_id", 1, _STRING), ("tts_text", 2, _STRING)],
    "zeroshotRequest": [("tts_text", 1, _STRING), ("prompt_text", 2, _STRING), ("prompt_audio", 3, _BYTES)],
    "crosslingualRequest": [("tts_text", 1, _STRING), ("prompt_audio", 2, _BYTES)],
    "instructRequest": [("tts_text", 1, _STRING), ("spk_id", 2, _STRING), ("instruct_text", 3, _STRING)],
    "Response": [("tts_audio", 1, _BYTES)],
}
_REQUEST = (
    ("sft_request", "sftRequest"),
    ("zero_shot_request", "zeroshotRequest"),
    ("cross_lingual_request", "crosslingualRequest"),
    ("instruct_request", "instructRequest"),
)


class OfficialMessages:
    """Classes `Request` and `Response`."""

    def __init__(self) -> None:
        file = descriptor_pb2.FileDescriptorProto(name="client.proto", package="cosyvoice", syntax="proto3")
        for name, fields in _MESSAGES.items():
            message = file.message_type.add(name=name)
            for field, number, kind in fields:
                message.field.add(name=field, number=number, type=kind, label=1)
        request = file.message_type.add(name="Request")
        request.oneof_decl.add(name="payload")
        for number, (field, kind_name) in enumerate(_REQUEST, 1):
            request.field.add(
                name=field, number=number, type=11, label=1, type_name=f".cosyvoice.{kind_name}", oneof_index=0
            )
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        self.Request: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("cosyvoice.Request"))
        self.Response: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("cosyvoice.Response"))

    def inference(self, channel: Any) -> Any:
        """The rpc of a `grpc.Channel` or `grpc.aio.Channel`."""
        return channel.unary_stream(
            METHOD, request_serializer=self.Request.SerializeToString, response_deserializer=self.Response.FromString
        )
