"""The wires of the rehearsal: network namespaces, links, routes, address translation, security groups.

What the rules and routes are is decided by pure functions (``plan``, ``filters``) that turn a ``CloudView`` into text;
``topology`` applies that text with ``ip`` and ``nft``; ``netns`` is the one place that touches namespaces.
"""
