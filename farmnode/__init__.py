"""What runs on every Windows machine of the farm.

The package needs nothing but Python's standard library and acts on Windows only through Windows' own programs, so the
code that is tested is the code that runs.  It is started as ``python.exe -I -m farmnode COMMAND``.
"""
