"""Tables that fit the terminal: wide columns are cut, the least important are left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Literal, NamedTuple

from rich.table import Table
from rich.text import Text

GAP = 2


class Column(NamedTuple):
    """A column: its rank (the lowest is left out first) and how narrow it may become.

    ``cut`` is where it loses what does not fit: an id's last part tells most.
    """

    header: str
    weight: int = 9
    least: int = 6
    justify: Literal["left", "right"] = "left"
    cut: Literal["end", "middle"] = "end"


def table(columns: Sequence[Column], rows: Iterable[Sequence[Text]], width: int) -> Table:
    """A table of at most this width, without its empty columns."""
    cells = [[*row] for row in rows]
    there = [any(row[n].plain for row in cells) for n in range(len(columns))]
    shown = [*compress(columns, there)]
    cells = [[*compress(row, there)] for row in cells]
    while (widths := _fitting(shown, cells, width)) is None:
        least = min(range(len(shown)), key=lambda n: (shown[n].weight, n))
        shown = shown[:least] + shown[least + 1 :]
        cells = [row[:least] + row[least + 1 :] for row in cells]
    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column, size in zip(shown, widths, strict=True):
        made.add_column(
            column.header,
            width=size,
            justify=column.justify,
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in cells:
        made.add_row(
            *(
                without_middle(cell, size) if column.cut == "middle" else cell
                for column, cell, size in zip(shown, row, widths, strict=True)
            )
        )
    return made


def without_middle(text: Text, width: int) -> Text:
    """The beginning and end of a text, as much as fits."""
    if text.cell_len <= width:
        return text
    front = (width - 1) // 2
    return Text.assemble(text[:front], "…", text[front + 1 - width :])


def _fitting(
    columns: Sequence[Column], cells: Sequence[Sequence[Text]], width: int
) -> list[int] | None:
    """The columns' widths, the widest cut first; ``None`` if a column must be left out."""
    widths = [
        max(len(column.header), *(row[n].cell_len for row in cells))
        for n, column in enumerate(columns)
    ]
    least = [min(size, column.least) for size, column in zip(widths, columns, strict=True)]
    over = sum(widths) + GAP * (len(widths) - 1) - width
    if over > sum(widths) - sum(least):
        return None if len(widths) > 1 else widths
    for _ in range(over):
        widest = max(range(len(widths)), key=lambda n: widths[n] - least[n])
        widths[widest] -= 1
    return widths
