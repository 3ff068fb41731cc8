"""Errors as the EC2 API reports them."""

from __future__ import annotations

from typing import NoReturn


class ApiError(Exception):
    """A refusal with the code and HTTP status that the real service uses."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


NOT_IMPLEMENTED = "RehearsalNotImplemented"


def not_modelled(what: str) -> ApiError:
    """The rehearsal does not know ``what``; HTTP 501, which botocore does not repeat."""
    return ApiError(
        NOT_IMPLEMENTED,
        f"The rehearsal does not model {what}. Real AWS may accept it: model it in rehearsal/cloud or do without it "
        "(docs/rehearsal/cloud.md lists what is modelled).",
        501,
    )


def invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterValue", message)


def combination(message: str) -> ApiError:
    return ApiError("InvalidParameterCombination", message)


def missing(parameter: str) -> ApiError:
    return ApiError("MissingParameter", f"The request must contain the parameter {parameter}")


def dependency(message: str) -> ApiError:
    return ApiError("DependencyViolation", message)


def refuse(error: ApiError) -> NoReturn:
    """Raise ``error``; for use inside expressions."""
    raise error


# Prefix of an identifier -> (error code when no such thing exists, error code when malformed, noun of the message).
# Source: EC2 API Reference, "Error codes for the Amazon EC2 API".
_UNKNOWN = {
    "i": ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed", "instance ID"),
    "ami": ("InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "image id"),
    "eni": ("InvalidNetworkInterfaceID.NotFound", "InvalidNetworkInterfaceId.Malformed", "networkInterface ID"),
    "vol": ("InvalidVolume.NotFound", "InvalidParameterValue", "volume"),
    "snap": ("InvalidSnapshot.NotFound", "InvalidParameterValue", "snapshot"),
    "eipalloc": ("InvalidAllocationID.NotFound", "InvalidParameterValue", "allocation ID"),
    "sir": ("InvalidSpotInstanceRequestID.NotFound", "InvalidSpotInstanceRequestID.Malformed", "spot request ID"),
    "fleet": ("InvalidFleetId.NotFound", "InvalidFleetId.Malformed", "fleet ID"),
    "lt": ("InvalidLaunchTemplateId.NotFound", "InvalidLaunchTemplateId.Malformed", "launch template ID"),
}


def unknown(prefix: str, *identifiers: str) -> ApiError:
    """The error for identifiers that name nothing (``prefix`` is that of the kind asked for)."""
    absent, malformed, noun = _UNKNOWN[prefix]
    wrong = [name for name in identifiers if not name.startswith(f"{prefix}-")]
    if wrong:
        return ApiError(malformed, f'Invalid id: "{wrong[0]}" (expecting "{prefix}-...")')
    if prefix == "ami":
        return ApiError(absent, f"The image id '[{', '.join(identifiers)}]' does not exist")
    if len(identifiers) > 1:
        return ApiError(absent, f"The {noun}s '{', '.join(identifiers)}' do not exist")
    return ApiError(absent, f"The {noun} '{identifiers[0]}' does not exist")
