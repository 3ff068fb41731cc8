"""The wire: what a request asks for, and EC2's XML for answers and errors."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from moto.core.parse import EC2QueryParser
from moto.core.utils import get_service_model

from rehearsal.cloud.errors import ApiError

Environ = dict[str, Any]
NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
# Bodies are small: the largest is user data of 16 KiB in base64.
LARGEST_BODY = 4 * 1024 * 1024


@cache
def service_model() -> Any:
    """The EC2 API as botocore describes it."""
    return get_service_model("ec2")


@dataclass(frozen=True)
class ApiRequest:
    """A signed AWS request: ``form`` has the fields of a query protocol, ``document`` the body of a JSON protocol."""

    service: str
    region: str
    action: str
    form: Mapping[str, str]
    document: Mapping[str, Any]
    agent: str


def read_request(environ: Environ) -> ApiRequest:
    """Read the request and leave its body readable for whoever comes next.

    ValueError: unsigned, too large, or not a request of an AWS query or JSON protocol.
    """
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > LARGEST_BODY:
        raise ValueError(f"a body of {length} bytes is too large")
    body = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = io.BytesIO(body)
    region, service = credential_scope(environ.get("HTTP_AUTHORIZATION", ""))
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    form: dict[str, str] = {}
    document: Mapping[str, Any] = {}
    if target:
        action = target.rpartition(".")[2]
        document = json.loads(body or b"{}")
    else:
        fields = [*parse_qsl(environ.get("QUERY_STRING", ""), True), *parse_qsl(body.decode(), True)]
        form = dict(fields)
        action = form.get("Action", "")
    if not action:
        raise ValueError("it names no action")
    return ApiRequest(service, region, action, form, document, environ.get("HTTP_USER_AGENT", ""))


def credential_scope(authorization: str) -> tuple[str, str]:
    """Region and service of an Authorization header (AWS Signature Version 4, "Credential scope")."""
    _, found, credential = authorization.partition("Credential=")
    parts = credential.split(",")[0].split("/")
    if not found or len(parts) != 5:
        raise ValueError("it is not signed with AWS Signature Version 4")
    return parts[2], parts[3]


def parse_parameters(action: str, form: Mapping[str, str]) -> dict[str, Any]:
    """The form of an EC2 request as botocore's parameters of ``action``."""
    operation = service_model().operation_model(action)
    try:
        parsed = EC2QueryParser(operation, map_type=dict).parse({"values": form})
    except ValueError as error:
        raise ApiError("InvalidParameterValue", f"{action}: {error}") from error
    return dict(parsed)


def render(action: str, result: Mapping[str, Any]) -> bytes:
    """The XML answer of an EC2 action, by the service model of botocore.

    AssertionError: ``result`` has a field that the API does not have.
    """
    shape = service_model().operation_model(action).output_shape
    parts = [f'<?xml version="1.0" encoding="UTF-8"?>\n<{action}Response xmlns="{NAMESPACE}">']
    parts.append(f"<requestId>{request_id()}</requestId>")
    if shape is None:
        parts.append("<return>true</return>")
    else:
        _structure(shape, result, parts)
    parts.append(f"</{action}Response>")
    return "".join(parts).encode()


def _structure(shape: Any, value: Mapping[str, Any], parts: list[str]) -> None:
    members = shape.members
    for name, item in value.items():
        assert name in members, f"{shape.name} has no field {name}"
        if item is not None:
            member = members[name]
            _element(member.serialization.get("name", name), member, item, parts)


def _element(name: str, shape: Any, value: Any, parts: list[str]) -> None:
    parts.append(f"<{name}>")
    kind = shape.type_name
    if kind == "structure":
        _structure(shape, value, parts)
    elif kind == "list":
        item_name = shape.member.serialization.get("name", "item")
        for item in value:
            _element(item_name, shape.member, item, parts)
    elif kind == "boolean":
        parts.append("true" if value else "false")
    elif kind == "timestamp":
        parts.append(timestamp(value))
    else:
        parts.append(escape(str(value)))
    parts.append(f"</{name}>")


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def request_id() -> str:
    text = secrets.token_hex(16)
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def render_error(error: ApiError, *, as_json: bool) -> tuple[bytes, str]:
    """Body and content type of an error answer. botocore reads EC2's XML form for the query services too."""
    if as_json:
        return json.dumps({"__type": error.code, "message": error.message}).encode(), "application/x-amz-json-1.1"
    number = request_id()
    fault = f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error>{fault}</Error></Errors>'
        f"<RequestID>{number}</RequestID></Response>"
    )
    return body.encode(), "text/xml;charset=UTF-8"
