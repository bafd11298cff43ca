"""The command ``holdfast``, for a person at a desk with ten agents running.

Each command fetches through the client and hands what it got to a module of ``show``, which makes
it readable; with ``--json`` it is printed as the service gave it.
"""
