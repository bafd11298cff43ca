"""The model of every reply: what the service answers, field by field.

The operations table names one for each operation, OpenAPI publishes them, and tests hold both the
service and the Python client's types against them. The service itself never validates its replies.
"""
