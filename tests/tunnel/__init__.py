"""A studio, an internet and a cloud in network namespaces, joined by the real OpenVPN: for tests and measurements."""
