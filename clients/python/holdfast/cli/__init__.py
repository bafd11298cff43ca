"""The command ``holdfast``, for a person at a desk with ten agents running.

Each command fetches a reply through the client and prints it with a module of ``show``; with
``--json`` it prints the reply as the service gave it.
"""
