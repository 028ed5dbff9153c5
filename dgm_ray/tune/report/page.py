"""A page of text, tables and figures: printed in a terminal, as Markdown, and as one HTML file that needs no other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Self
from urllib.parse import quote

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

_STYLE = """
:root { color-scheme: light dark; --text: #1c1c1e; --back: #ffffff; --faint: #6c6c72; --line: #d8d8dc;
  --accent: #0b62c4; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ececee; --back: #16171a; --faint: #93939b; --line: #3a3b40; --accent: #7db4ff; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; }
h1, h2, p { overflow-wrap: anywhere; } h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p { max-width: 48rem; } .note { color: var(--faint); font-size: .9rem; margin: .3rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.long { white-space: normal; text-align: left; min-width: 16rem; overflow-wrap: anywhere; }
.texts th, .texts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.texts td:first-child { white-space: nowrap; overflow-wrap: normal; } .wide { margin: .8rem 0; }
mark { color: inherit; background: color-mix(in srgb, var(--accent) 22%, transparent); padding: 0 .2rem; }
a { color: var(--accent); } figure { margin: 1rem 0; overflow-x: auto; }
figure svg { max-width: max(100%, 34rem); height: auto; color: var(--text); }
"""
_LONG = 40  # characters of a cell that is broken into lines


@dataclass(frozen=True)
class Heading:
    """Begins a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Text. note: less important than what it stands below."""

    text: str
    note: bool = False


@dataclass(frozen=True)
class Table:
    """A table of texts, which the first column names the rows of. texts: to be read, so they begin at the left."""

    cells: pd.DataFrame
    texts: bool = False


@dataclass(frozen=True)
class Figure:
    """An inline SVG, as ``figures`` draws them; a terminal and Markdown leave it out."""

    svg: str


@dataclass(frozen=True)
class Links:
    """Pages in folders below this one: paths, by what is shown."""

    paths: Mapping[str, str]


@dataclass(frozen=True)
class Marked:
    """A cell of a table that stands out. No text itself: pandas would turn it into its own."""

    text: str

    def __str__(self) -> str:
        return self.text


Block = Heading | Paragraph | Table | Figure | Links


@dataclass
class Page:
    """Blocks below a title."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block) -> Self:
        """Add blocks at the end."""
        self.blocks.extend(blocks)
        return self

    def notes(self, texts: Sequence[str]) -> Self:
        """Add a paragraph for each text, as notes."""
        return self.add(*(Paragraph(text, note=True) for text in texts))

    def markdown(self) -> str:
        """Return the page as Markdown, without its figures."""
        blocks = [f"# {_plain(self.title)}", *(_markdown(block) for block in self.blocks if not _drawn(block))]
        return "\n\n".join(blocks) + "\n"

    def html(self) -> str:
        """Return the page as one HTML document, readable in light and dark, that loads nothing."""
        body = "\n".join([f"<h1>{escape(self.title)}</h1>", *map(_html, self.blocks)])
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        head += f"<title>{escape(self.title)}</title><style>{_STYLE}</style>"
        return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'

    def print(self, console: Console) -> None:
        """Print the page, without its figures."""
        _say(console, self.title, "bold")
        for block in self.blocks:
            if isinstance(block, Heading):
                _say(console, block.text, "bold")
            elif isinstance(block, Paragraph):
                _say(console, block.text, "dim" if block.note else "")
            elif isinstance(block, Table):
                console.print(_rich(block.cells))
            elif isinstance(block, Links):
                for path in block.paths.values():
                    _say(console, path, "")


def _say(console: Console, text: str, style: str) -> None:
    console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)


def _drawn(block: Block) -> bool:
    return isinstance(block, Figure)


def _markdown(block: Block) -> str:
    if isinstance(block, Table):
        rows = [block.cells.columns, ["---", *["---:"] * (block.cells.shape[1] - 1)], *block.cells.to_numpy()]
        return "\n".join("| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)
    if isinstance(block, Links):
        return "\n".join(f"- [{_plain(text)}](<{path}>)" for text, path in block.paths.items())
    assert not isinstance(block, Figure)
    return f"## {_plain(block.text)}" if isinstance(block, Heading) else _plain(block.text)


def _plain(cell: object) -> str:
    """Return text that Markdown takes as it is: no line ends, no tags."""
    return " ".join(str(cell).split()).replace("<", "&lt;")


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h2>{escape(block.text)}</h2>"
    if isinstance(block, Paragraph):
        kind = ' class="note"' if block.note else ""
        return f"<p{kind}>{escape(block.text)}</p>"
    if isinstance(block, Figure):
        return f"<figure>{block.svg}</figure>"
    if isinstance(block, Links):
        links = "".join(f'<li><a href="{quote(path)}">{escape(text)}</a></li>' for text, path in block.paths.items())
        return f"<ul>{links}</ul>"
    head = "".join(f"<th>{escape(str(column))}</th>" for column in block.cells.columns)
    rows = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in block.cells.to_numpy())
    kind = ' class="texts"' if block.texts else ""
    return f'<div class="wide"><table{kind}><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'


def _cell(value: object) -> str:
    text = escape(str(value))
    if isinstance(value, Marked):
        return f"<td><mark>{text}</mark></td>"
    return f'<td class="long">{text}</td>' if len(str(value)) > _LONG else f"<td>{text}</td>"


def _rich(cells: pd.DataFrame) -> RichTable:
    table = RichTable(box=box.SIMPLE_HEAD)
    for position, column in enumerate(cells.columns):
        table.add_column(Text(str(column)), justify="right" if position else "left", no_wrap=True)
    for row in cells.to_numpy():
        table.add_row(*(Text(str(cell)) for cell in row))
    return table
