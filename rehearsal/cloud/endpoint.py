"""The endpoint: one WSGI application for EC2 and the services beside it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from http import HTTPStatus

from moto.core.exceptions import ServiceException
from moto.core.request import Request
from moto.core.responses import ActionResult
from moto.core.utils import camelcase_to_underscores

from rehearsal.cloud import (  # noqa: F401  (they register their actions)
    addresses,
    console,
    disks,
    eni,
    fast_launch,
    fleet,
    images,
    instances,
    launch,
    network,
    s3,
    spot_prices,
    tags,
    templates,
)
from rehearsal.cloud.actions import MOTO, OWN, check_parameters
from rehearsal.cloud.calls import REQUEST_KEY, StartResponse
from rehearsal.cloud.errors import ApiError, not_modelled
from rehearsal.cloud.filters import documented, refuse_filter
from rehearsal.cloud.moto_network import NetworkResponse
from rehearsal.cloud.protocol import (
    ApiRequest,
    Environ,
    parse_parameters,
    render,
    render_error,
    service_model,
)
from rehearsal.cloud.records import Params
from rehearsal.cloud.region import Region
from rehearsal.cloud.services import handle_json, handle_query
from rehearsal.cloud.states import advance

log = logging.getLogger(__name__)
XML = "text/xml;charset=UTF-8"
JSON = "application/x-amz-json-1.1"


class BackendRequest(Request):  # type: ignore[misc]
    """moto's request, which tells that a server adds the Date header."""

    from_wsgi_server = True


class Endpoint:
    """Answers every request, with an AWS-shaped error for what it does not know."""

    def __init__(self, region: Region) -> None:
        self.region = region

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request: ApiRequest = environ[REQUEST_KEY]
        as_json = bool(environ.get("HTTP_X_AMZ_TARGET"))
        extra: list[tuple[str, str]] = []
        try:
            if request.service == "s3":
                body, kind, status, extra = s3.answer(self.region, environ)
            else:
                body, kind, status = self._answer(request, environ, as_json)
        except ApiError as error:
            (body, kind), status = render_error(error, as_json=as_json), error.status
            if request.service == "s3":
                body = s3.error_body(error)
        except ServiceException as error:
            status = 412 if error.code == "DryRunOperation" else 400
            body, kind = render_error(ApiError(error.code, error.message), as_json=as_json)
        except Exception as error:
            log.exception("%s:%s failed inside the rehearsal", request.service, request.action)
            failure = not_modelled(f"{request.service}:{request.action} with these parameters ({error!r})")
            (body, kind), status = render_error(failure, as_json=as_json), failure.status
        reason = HTTPStatus(status).phrase
        start_response(f"{status} {reason}", [("Content-Type", kind), ("Content-Length", str(len(body))), *extra])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    def _answer(self, request: ApiRequest, environ: Environ, as_json: bool) -> tuple[bytes, str, int]:
        home = self.region.settings.region
        if request.region != home and request.service not in ("sts", "iam", "pricing"):
            raise not_modelled(f"the region {request.region}: it rehearses {home} only")
        if as_json:
            return json.dumps(handle_json(self.region, request)).encode(), JSON, 200
        if request.service != "ec2":
            return handle_query(self.region, request).encode(), XML, 200
        return self._ec2(request, environ), XML, 200

    def _ec2(self, request: ApiRequest, environ: Environ) -> bytes:
        name = request.action
        if name not in service_model().operation_names:
            raise ApiError("InvalidAction", f"The action {name} is not valid for this web service.")
        if name not in OWN and name not in MOTO:
            raise not_modelled(f"ec2:{name}")
        params = parse_parameters(name, request.form)
        with self.region.lock:
            advance(self.region)
            check_parameters(name, params)
            _refuse_dry_run(params)
            if name in MOTO:
                return self._moto(name, params, environ)
            result = OWN[name].handler(self.region, params)
        return render(name, result)

    def _moto(self, name: str, params: Params, environ: Environ) -> bytes:
        """Let moto perform the action, after the checks that it lacks. The caller holds the lock."""
        check = MOTO[name].check
        if check is not None:
            check(self.region, params)
        response = NetworkResponse(self.region.network)
        response.setup_class(BackendRequest(environ))
        try:
            result = getattr(response, camelcase_to_underscores(name))()
        except (NotImplementedError, KeyError):
            _blame_filter(name, params)
            raise
        assert isinstance(result, ActionResult)
        _, _, body = response.serialized(result)
        return body if isinstance(body, bytes) else body.encode()


def _refuse_dry_run(params: Params) -> None:
    """EC2 answers a dry run with an error, whether or not the request would succeed for other reasons than rights."""
    if params.get("DryRun"):
        raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)


def _blame_filter(name: str, params: Params) -> None:
    """moto fails on a filter it does not have: say which of them EC2 does not have either."""
    names = [entry.get("Name", "") for entry in params.get("Filters", [])]
    strange = [item for item in names if item not in documented(name) and not item.startswith("tag")]
    if strange:
        raise refuse_filter(name, strange[0])
