"""The rehearsal: a simulated AWS region and simulated Windows hosts, spoken to over the real protocols.

It never imports the product; it runs it as programs.  What each part models, from which source, and what it
cannot show is written in ``docs/rehearsal.md``.
"""
