"""A client of `afferent serve` that shares nothing with it but the field numbers.

Its schema is built at run time from the table below, without protoc. One request a line on standard
input, as JSON; one answer a line on standard output:

    {"get_report": {"last_known_generation": 3, "known_epoch": 7}}      a request, by its fields
    {"raw": "00000002ffff"}                                            bytes as they are
    {"length": 2097152}                                                a frame of that many zeros
    {"push_file": "/path"}                                             a push of what is in a file

The answer is the response's fields, and "unknown_fields" when it has any that the table lacks. With
the argument "second" it is a client of the second generation of the protocol.
"""

import json
import socket
import struct
import sys
import time

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

SCHEMA = """
VMServiceRequest  { RequestMeta meta=1; GetReport get_report=2; SyncRepoCPEMapping sync_repo_cpe_mapping=3; WaitReport wait_report=1000 }
SyncRepoCPEMapping { bytes mapping=1 }
SyncRepoCPEMappingResponse { bool updated=1 }
RequestMeta       { string request_id=1; repeated string capabilities=2; map facts=3 }
GetReport         { uint32 last_known_generation=1; uint32 known_epoch=2; bytes known_digest=1000 }
WaitReport        { uint32 last_known_generation=1; uint32 known_epoch=2; bytes known_digest=3; uint32 timeout_ms=4 }
VMServiceResponse { ResponseMeta meta=1; GetReportResponse get_report=2; Error error=3; SyncRepoCPEMappingResponse sync_repo_cpe_mapping=4 }
ResponseMeta      { string agent_version=1; Timestamp report_generated_at=2; uint32 report_generation=3; repeated string supported_methods=4; map facts=5; uint32 epoch=6; string mapping_hash=7; uint32 update_path=8; repeated string capabilities=1000 }
Timestamp         { int64 seconds=1; int32 nanos=2 }
GetReportResponse { IndexReport index_report=1; bool unchanged=2 }
Error             { Code code=1; string message=2; map details=3 }
IndexReport       { string hash_id=1; string state=2; bool success=3; string err=4; Contents contents=5 }
Contents          { map:Package packages=5; map:Distribution distributions=6; map:Repository repositories=7; map:EnvironmentList environments=8; map:Repository unmapped=1000 }
Package           { string id=1; string name=2; string version=3; string kind=6; Package source=7; string package_db=8; string repository_hint=9; string module=10; string arch=11; string cpe=12; string vendor=1000; string license=1001; bytes raw_name=1002 }
Distribution      { string id=1; string did=2; string name=3; string version=4; string version_code_name=5; string version_id=6; string arch=7; string cpe=8; string pretty_name=9; string version_verbatim=1000; string version_id_verbatim=1001; string cpe_verbatim=1002 }
Repository        { string id=1; string name=2; string key=3; string uri=4; string cpe=5 }
EnvironmentList   { repeated Environment environments=1 }
Environment       { string package_db=1; string introduced_in=2; string distribution_id=3; repeated string repository_ids=4; uint32 origin=1000 }
"""
# The second generation names a report by a token, under numbers that the first one uses otherwise.
SECOND_GENERATION = """
GetReport         { string last_known_token=1 }
ResponseMeta      { string agent_version=1; Timestamp report_generated_at=2; string token=3; repeated string supported_methods=4; map facts=5; string mapping_hash=6; uint32 update_path=7 }
"""
CODES = "UNSPECIFIED UNKNOWN_METHOD NOT_READY INTERNAL MALFORMED_REQUEST REQUEST_TOO_LARGE BUSY MAPPING_REQUIRED MAPPING_NOT_SENSOR_MANAGED".split()

FIELD = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "string": FIELD.TYPE_STRING,
    "bytes": FIELD.TYPE_BYTES,
    "bool": FIELD.TYPE_BOOL,
    "uint32": FIELD.TYPE_UINT32,
    "int32": FIELD.TYPE_INT32,
    "int64": FIELD.TYPE_INT64,
}


def set_type(field, name):
    if name in SCALARS:
        field.type = SCALARS[name]
    elif name == "Code":
        field.type, field.type_name = FIELD.TYPE_ENUM, ".t.Code"
    else:
        field.type, field.type_name = FIELD.TYPE_MESSAGE, ".t." + name


def add_map(message, field, value_type):
    entry = message.nested_type.add(name=field.name.title().replace("_", "") + "Entry")
    entry.options.map_entry = True
    for number, name, kind in ((1, "key", "string"), (2, "value", value_type)):
        set_type(entry.field.add(name=name, number=number, label=FIELD.LABEL_OPTIONAL), kind)
    field.label, field.type = FIELD.LABEL_REPEATED, FIELD.TYPE_MESSAGE
    field.type_name = f".t.{message.name}.{entry.name}"


def messages(generation):
    lines = {line.split()[0]: line for line in SCHEMA.strip().splitlines()}
    if generation == "second":
        lines |= {line.split()[0]: line for line in SECOND_GENERATION.strip().splitlines()}
    return lines.values()


def build_schema(generation):
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    codes = file.enum_type.add(name="Code")
    for number, name in enumerate(CODES):
        codes.value.add(name=name, number=number)
    for line in messages(generation):
        name, fields = line.split("{")
        message = file.message_type.add(name=name.strip())
        for text in fields.strip(" }").split(";"):
            kinds, number = text.strip().split("=")
            *repeated, kind, field_name = kinds.split()
            field = message.field.add(name=field_name, number=int(number), label=FIELD.LABEL_OPTIONAL)
            if kind.startswith("map"):
                add_map(message, field, kind[4:] or "string")
                continue
            set_type(field, kind)
            if repeated:
                field.label = FIELD.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)

    def message_class(name):
        descriptor = pool.FindMessageTypeByName("t." + name)
        if hasattr(message_factory, "GetMessageClass"):
            return message_factory.GetMessageClass(descriptor)
        return message_factory.MessageFactory(pool).GetPrototype(descriptor)

    return message_class("VMServiceRequest"), message_class("VMServiceResponse")


REQUEST, RESPONSE = build_schema(sys.argv[2] if len(sys.argv) > 2 else "first")


def request_bytes(wanted):
    if "raw" in wanted:
        return bytes.fromhex(wanted["raw"])
    if "length" in wanted:
        return struct.pack(">I", wanted["length"]) + bytes(wanted["length"])
    if "push_file" in wanted:
        request = REQUEST()
        request.meta.request_id = "push"
        with open(wanted["push_file"], "rb") as mapping:
            request.sync_repo_cpe_mapping.mapping = mapping.read()
        body = request.SerializeToString()
        return struct.pack(">I", len(body)) + body
    body = json_format.ParseDict(wanted, REQUEST()).SerializeToString()
    return struct.pack(">I", len(body)) + body


def exactly(connection, length):
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise EOFError(f"closed after {len(data)} of {length} bytes")
        data += part
    return data


def exchange(path, data):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(path)
        connection.sendall(data)
        (length,) = struct.unpack(">I", exactly(connection, 4))
        body = exactly(connection, length)
        rest = connection.recv(1)
        assert rest == b"", "bytes after the frame"
    return body


def decode(body):
    response = RESPONSE()
    response.ParseFromString(body)
    answer = json_format.MessageToDict(response, preserving_proto_field_name=True)
    known = RESPONSE()
    known.CopyFrom(response)
    known.DiscardUnknownFields()
    if known.ByteSize() != response.ByteSize():
        answer["unknown_fields"] = response.ByteSize() - known.ByteSize()
    return answer


def main():
    for line in sys.stdin:
        start = time.monotonic()
        try:
            answer = decode(exchange(sys.argv[1], request_bytes(json.loads(line))))
        except (OSError, EOFError, AssertionError) as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answer["seconds"] = time.monotonic() - start
        print(json.dumps(answer), flush=True)


main()
