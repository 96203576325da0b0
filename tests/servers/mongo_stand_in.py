"""mongoeco, made to answer today's drivers, and to refuse what it would silently do otherwise than MongoDB.

Called with the port; the users are in MONGO_USERS, name:password[:role] with commas between them.
"""

import asyncio
import os
import signal
import sys

import mongoeco.core.aggregation.runtime as runtime
import mongoeco.wire.proxy as proxy
from bson.int64 import Int64
from mongoeco.errors import OperationFailure
from mongoeco.wire.auth import WireAuthUser

NAMES = {2: "BadValue", 13: "Unauthorized", 18: "AuthenticationFailed", 43: "CursorNotFound", 48: "NamespaceExists",
         59: "CommandNotFound", 238: "NotImplemented", 40324: "Location40324"}
CODES = (("unsupported wire command", 59), ("Unsupported aggregation stage", 40324), ("already exists", 48),
         ("uthentication failed", 18), ("uthentication required", 13))
WRITES = {"insert", "update", "delete", "findAndModify", "create", "drop", "dropDatabase", "createIndexes", "dropIndexes",
          "renameCollection"}
DOCUMENTS = {"filter", "query", "documents", "updates", "deletes", "pipeline", "lsid", "txnNumber"}

encode_original, decode_original = proxy.encode_op_msg_response, proxy.decode_op_msg
execute_original = proxy.WireCommandExecutor.execute_prepared
size_original = runtime._bson_value_size


def user(text):
    name, password, role = (text.split(":") + ["root"])[:3]
    return WireAuthUser(name, password, roles=({"role": role, "db": "admin"},))


def value_size(value):
    """listDatabases and dbStats fail on Decimal128, Timestamp, MinKey otherwise."""
    try:
        return size_original(value)
    except OperationFailure:
        return 16


def plain(value):
    """The server wants Python's integers where drivers send those of BSON."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.value if type(value).__name__ in ("BsonInt64", "BsonInt32", "BsonDouble") else value


def encode(reply, **options):
    if isinstance(reply.get("cursor"), dict):
        reply["cursor"]["id"] = Int64(int(reply["cursor"].get("id", 0)))
    if "maxWireVersion" in reply:
        reply["saslSupportedMechs"] = ["SCRAM-SHA-256"]
    if not reply.get("ok"):
        # Drivers cannot read an error without a code.
        code = next((code for text, code in CODES if text in str(reply.get("errmsg"))), 2)
        if reply.get("code") in (None, 2):
            reply["code"], reply["codeName"] = code, NAMES[code]
        if not reply.get("codeName"):
            reply["codeName"] = NAMES.get(reply["code"], f"Location{reply['code']}")
    return encode_original(reply, **options)


def decode(header, payload):
    message = decode_original(header, payload)
    body = message.body
    command = next(iter(body))
    for key in body:
        if key not in DOCUMENTS:
            body[key] = plain(body[key])
    if command == "find" and isinstance(body.get("limit"), int) and body["limit"] < 0:
        body["limit"], body["singleBatch"] = -body["limit"], True
    return message


def refused(what):
    return OperationFailure(what + " is not supported by this stand-in", code=238)


async def execute(self, context):
    body, command = context.raw_body, context.command_name
    for key in ("viewOn", "tailable", "capped"):
        if body.get(key):
            raise refused(key)
    if command in ("find", "count", "distinct") and "'$near" in str(body.get("filter") or body.get("query") or ""):
        raise refused("$near")
    if command == "getMore" and body["getMore"] not in self._cursor_store._state:
        raise OperationFailure(f"cursor id {body['getMore']} not found", code=43)
    if {role.get("role") for role in context.connection.authenticated_roles} == {"read"} and (
            command in WRITES
            or command == "aggregate" and any(key in ("$out", "$merge") for stage in body["pipeline"] for key in stage)):
        raise OperationFailure(f"not authorized on {context.db_name} to execute command {command}", code=13)
    return await execute_original(self, context)


async def main():
    runtime._bson_value_size = value_size
    proxy.encode_op_msg_response, proxy.decode_op_msg = encode, decode
    proxy.WireCommandExecutor.execute_prepared = execute
    users = tuple(user(text) for text in os.environ["MONGO_USERS"].split(","))
    server = proxy.AsyncMongoEcoProxyServer(port=int(sys.argv[1]), mongodb_dialect="8.0", auth_users=users)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    print("ready", flush=True)
    await stop.wait()
    await server.close()


asyncio.run(main())
