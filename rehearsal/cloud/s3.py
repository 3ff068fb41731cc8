"""S3 as far as installers go through it: one object is put, looked at, got and deleted, and a bucket is listed.

Source: Amazon S3 API Reference, PutObject, HeadObject, GetObject, DeleteObject, ListObjectsV2, CreateMultipartUpload,
ListMultipartUploads, AbortMultipartUpload; User Guide, "Authenticating requests: using query parameters". Every bucket
exists and belongs to the account. Signatures are checked for pre-signed URLs alone, which machines without credentials
use; versions, rights of buckets and the parts of uploads are not modelled, and a list comes at once.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from rehearsal.cloud.errors import ApiError, not_modelled
from rehearsal.cloud.protocol import ApiRequest, Environ, request_id
from rehearsal.cloud.region import Region

# By method, and the parameter of the query that tells actions with one method apart.
ACTIONS = {
    ("PUT", ""): "PutObject",
    ("HEAD", ""): "HeadObject",
    ("GET", ""): "GetObject",
    ("DELETE", ""): "DeleteObject",
    ("GET", "list-type"): "ListObjectsV2",
    ("POST", "uploads"): "CreateMultipartUpload",
    ("GET", "uploads"): "ListMultipartUploads",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
}
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
KEY, SECRET = "rehearsal", "rehearsal"  # what `rehearsal exec` puts into the environment


def is_request(environ: Environ) -> bool:
    """Whether S3 is meant: by the credential scope, in the header or in a pre-signed URL."""
    return b"/s3/" in f"{environ.get('HTTP_AUTHORIZATION', '')}{unquote(environ.get('QUERY_STRING', ''))}".encode()


def read_request(environ: Environ) -> ApiRequest:
    """The request without its body, for the log of calls. ValueError: a method that is not modelled."""
    action = _action(environ)
    scope = environ.get("HTTP_AUTHORIZATION", "") or unquote(environ.get("QUERY_STRING", ""))
    region = scope.partition("/s3/")[0].rpartition("/")[2]
    return ApiRequest("s3", region, action, {}, {}, environ.get("HTTP_USER_AGENT", ""))


def _query(environ: Environ) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"], keep_blank_values=True).items()}


def _action(environ: Environ) -> str:
    """The action that is meant. ValueError: one that is not modelled."""
    method, query = environ["REQUEST_METHOD"], _query(environ)
    for (verb, parameter), action in ACTIONS.items():
        if verb == method and parameter and parameter in query:
            return action
    if (method, "") not in ACTIONS or {"partNumber", "uploadId"} & set(query):
        raise ValueError(f"S3 with {method} and {', '.join(query) or 'no query'} is not modelled")
    return ACTIONS[method, ""]


def error_body(error: ApiError) -> bytes:
    """S3's own form of an error (Amazon S3 API Reference, "REST error responses")."""
    fault = f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{fault}</Error>'.encode()


def answer(region: Region, environ: Environ) -> tuple[bytes, str, int, list[tuple[str, str]]]:
    """Body, content type, status and further headers. ApiError: no such object, or a URL that is not valid."""
    bucket, _, key = unquote(environ["PATH_INFO"]).lstrip("/").partition("/")
    action, query = _action(environ), _query(environ)
    if action in ("ListObjectsV2", "ListMultipartUploads"):
        return _list(region, action, bucket, query.get("prefix", "")), "application/xml", 200, []
    if not bucket or not key:
        raise not_modelled("S3 without a bucket and a key")
    if "X-Amz-Signature" in environ.get("QUERY_STRING", ""):
        _check_url(region, environ)
    if action == "CreateMultipartUpload":
        name = f"{region.random.getrandbits(64):016x}"
        region.uploads[bucket, key, name] = datetime.now(UTC)
        return _document("InitiateMultipartUploadResult", _element("UploadId", name)), "application/xml", 200, []
    if action == "AbortMultipartUpload":
        if region.uploads.pop((bucket, key, query["uploadId"]), None) is None:
            raise ApiError("NoSuchUpload", "The specified upload does not exist.", 404)
        return b"", "", 204, []
    if action == "DeleteObject":
        region.objects.pop((bucket, key), None)  # what is not there is no error (DeleteObject)
        return b"", "", 204, []
    if action == "PutObject":
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        region.objects[bucket, key] = body
        return b"", "", 200, [("ETag", _etag(body))]
    found = region.objects.get((bucket, key))
    if found is None:
        raise ApiError("NoSuchKey", f"The specified key does not exist: {key}", 404)
    moment = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = [("ETag", _etag(found)), ("Last-Modified", moment), ("x-amz-request-id", request_id())]
    return found, "binary/octet-stream", 200, headers


def _list(region: Region, action: str, bucket: str, prefix: str) -> bytes:
    """What begins with ``prefix``. Without any, the list is left out."""
    if action == "ListObjectsV2":
        objects = [(key, body) for (place, key), body in sorted(region.objects.items()) if place == bucket]
        found = [
            _element("Contents", _element("Key", escape(key)) + _element("Size", str(len(body))))
            for key, body in objects
            if key.startswith(prefix)
        ]
        return _document("ListBucketResult", _element("KeyCount", str(len(found))) + "".join(found))
    uploads = [
        _element("Key", escape(key))
        + _element("UploadId", name)
        + _element("Initiated", f"{begun:%Y-%m-%dT%H:%M:%S.000Z}")
        for (place, key, name), begun in sorted(region.uploads.items())
        if place == bucket and key.startswith(prefix)
    ]
    return _document("ListMultipartUploadsResult", "".join(_element("Upload", each) for each in uploads))


def _element(name: str, content: str) -> str:
    return f"<{name}>{content}</{name}>"


def _document(name: str, content: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{NAMESPACE}">{content}</{name}>'.encode()


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _check_url(region: Region, environ: Environ) -> None:
    fields = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    signed = datetime.strptime(fields["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if datetime.now(UTC) > signed + timedelta(seconds=int(fields["X-Amz-Expires"])):
        raise ApiError("AccessDenied", "Request has expired", 403)
    if fields["X-Amz-Signature"] != _signature(region, environ, fields):
        raise ApiError("SignatureDoesNotMatch", "The request signature we calculated does not match", 403)


def _signature(region: Region, environ: Environ, fields: dict[str, str]) -> str:
    """The signature that botocore would make for this URL at that time (AWS Signature Version 4)."""
    auth: Any = S3SigV4QueryAuth(Credentials(KEY, SECRET), "s3", region.settings.region)
    query = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in sorted(fields.items())
        if name != "X-Amz-Signature"
    )
    url = f"http://{environ['HTTP_HOST']}{quote(unquote(environ['PATH_INFO']), safe='/-_.~')}?{query}"
    request = AWSRequest(method=environ["REQUEST_METHOD"], url=url, headers={"host": environ["HTTP_HOST"]})
    request.context["timestamp"] = fields["X-Amz-Date"]
    request.context["signing"] = {}
    text = auth.string_to_sign(request, auth.canonical_request(request))
    signature: str = auth.signature(text, request)
    return signature
