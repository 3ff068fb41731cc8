"""Errors as Windows numbers and words them."""

from __future__ import annotations

# System error codes, English text (reference: Windows documentation, "System Error Codes").
MESSAGES: dict[int, str] = {
    2: "The system cannot find the file specified.",
    3: "The system cannot find the path specified.",
    5: "Access is denied.",
    53: "The network path was not found.",
    64: "The specified network name is no longer available.",
    67: "The network name cannot be found.",
    85: "The local device name is already in use.",
    87: "The parameter is incorrect.",
    112: "There is not enough space on the disk.",
    123: "The filename, directory name, or volume label syntax is incorrect.",
    183: "Cannot create a file when that file already exists.",
    267: "The directory name is invalid.",
    1051: "A stop control has been sent to a service that other running services are dependent on.",
    1052: "The requested control is not valid for this service.",
    1053: "The service did not respond to the start or control request in a timely fashion.",
    1056: "An instance of the service is already running.",
    1057: "The account name is invalid or does not exist, or the password is invalid for the account name specified.",
    1058: "The service cannot be started, either because it is disabled or because it has no enabled devices "
    "associated with it.",
    1060: "The specified service does not exist as an installed service.",
    1062: "The service has not been started.",
    1067: "The process terminated unexpectedly.",
    1068: "The dependency service or group failed to start.",
    1069: "The service did not start due to a logon failure.",
    1073: "The specified service already exists.",
    1075: "The dependency service does not exist or has been marked for deletion.",
    1077: "No attempts to start the service have been made since the last boot.",
    1078: "The name is already in use as either a service name or a service display name.",
    1115: "A system shutdown is in progress.",
    1116: "Unable to abort the system shutdown because no shutdown was in progress.",
    1190: "A system shutdown has already been scheduled.",
    1326: "The user name or password is incorrect.",
    1332: "No mapping between account names and security IDs was done.",
    1603: "Fatal error during installation.",
    1605: "This action is only valid for products that are currently installed.",
    1619: "This installation package could not be opened. Verify that the package exists and that you can access it, "
    "or contact the application vendor to verify that this is a valid Windows Installer package.",
    1620: "This installation package could not be opened. Contact the application vendor to verify that this is a "
    "valid Windows Installer package.",
    1639: "Invalid command line argument. Consult the Windows Installer SDK for detailed command line help.",
}


class WindowsError(Exception):
    """A system call failed: ``code`` is the system error code, ``text`` the message that Windows gives for it."""

    def __init__(self, code: int, text: str | None = None) -> None:
        self.code = code
        self.text = MESSAGES[code] if text is None else text
        super().__init__(self.text)


class NoStandIn(Exception):
    """The rehearsal has nothing that stands in for what was asked.  The text says what and what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"rehearsal: no stand-in for {what}; {remedy}")
