"""The models as JSON Schema: what pydantic puts into its own words is put into the standard's."""

from __future__ import annotations

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema

# Of a limit on a field that has a validator before it, pydantic gives its own name.
_KEYWORDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}
_INTEGER_OR_NUMBER = [{"type": "integer"}, {"type": "number"}]


class JsonSchema(GenerateJsonSchema):
    """Pydantic's generator for the documents that clients read."""

    def generate_inner(self, schema: CoreSchema) -> JsonSchemaValue:
        """The schema of one part of a model."""
        made = super().generate_inner(schema)
        if made.get("anyOf") == _INTEGER_OR_NUMBER:
            made = {"type": "number", **{k: v for k, v in made.items() if k != "anyOf"}}
        return {_KEYWORDS.get(name, name): value for name, value in made.items()}
